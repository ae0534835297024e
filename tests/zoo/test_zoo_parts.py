"""The small parts: version order, safetensors headers, golden inputs, the search for identifiers."""

import itertools
import struct

import numpy as np
import pytest
from packaging.version import Version

from pathzoo.errors import ZooError
from pathzoo.zoo import semver
from pathzoo.zoo.golden import noise_tiles
from pathzoo.zoo.identifiers import Identifier, from_machine, from_split, scan_json, scan_text
from pathzoo.zoo.weights import read_header

# the order given in semver.org 2.0.0, 11, with numbers of several digits
ORDERED = ["0.9.0", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11"]
ORDERED += ["1.0.0-rc.1", "1.0.0", "1.2.0", "1.10.0", "10.0.0"]


def test_semver_order():
    backwards = ORDERED[::-1]
    backwards.sort(key=semver.sort_key)
    assert backwards == ORDERED
    releases = [text for text in ORDERED if "-" not in text]
    for a, b in itertools.combinations(releases, 2):
        assert (semver.sort_key(a) < semver.sort_key(b)) == (Version(a) < Version(b))


def test_semver_compatibility():
    assert semver.satisfies("1.4.0", "1.2.0")
    assert not semver.satisfies("1.1.9", "1.2.0")
    assert not semver.satisfies("2.0.0", "1.2.0")
    assert semver.satisfies("0.3.4", "0.3.1")
    assert not semver.satisfies("0.4.0", "0.3.1")
    assert semver.satisfies("2024.1b", "2024.1b")
    assert not semver.is_version("01.0.0")


def test_header_agrees_with_the_library(tmp_path):
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    tensors = {
        "a": torch.zeros(3, 4),
        "b": torch.zeros(2, dtype=torch.int64),
        "c": torch.zeros((), dtype=torch.float16),
    }
    path = tmp_path / "x.safetensors"
    save_file(tensors, path, metadata={"format": "pt"})
    header = read_header(path)
    with safe_open(path, "pt") as reference:
        assert set(reference.keys()) == set(header.tensors)
        assert {name: tuple(reference.get_slice(name).get_shape()) for name in reference.keys()} == {  # noqa: SIM118
            name: shape for name, (_, shape) in header.tensors.items()
        }
    assert (header.n_elements, header.float_types, header.metadata) == (13, {"F32", "F16"}, {"format": "pt"})


def safetensors(header: bytes, body: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + body


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"short",
        struct.pack("<Q", 1 << 60) + b"{}",
        safetensors(b"{]"),
        safetensors(b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}', b"1234"),
        safetensors(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}', b"12345678"),
        safetensors(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', b"12345678"),
        safetensors(b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,-4]}}'),
        safetensors(b'{"a":{"dtype":"X9","shape":[1],"data_offsets":[0,4]}}', b"1234"),
        safetensors(b"{" + b",".join([b'"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}'] * 2) + b"}", b"1"),
        safetensors(b'{"__metadata__":[1]}'),
        safetensors(b"[]"),
        safetensors(b"[" * 100_000),
    ],
)
def test_malformed_safetensors(tmp_path, data):
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    with pytest.raises(ZooError, match=r"model\.safetensors: is no safetensors"):
        read_header(path)


def test_golden_tiles_never_change():
    tiles = noise_tiles(0, 2, (40, 24))
    assert (tiles.shape, tiles.dtype) == ((2, 24, 40, 3), np.uint8)
    assert [int(value) for value in tiles[0, 0, :3, 0]] == FIRST_PIXELS
    assert int(tiles.astype(np.int64).sum()) == SUM
    assert tiles.std() > 20
    assert not np.array_equal(tiles, noise_tiles(1, 2, (40, 24)))


# What the function gave when the first model was published with it.
FIRST_PIXELS = [202, 204, 205]
SUM = 797110


def kinds(leaks):
    return {leak.kind for leak in leaks}


@pytest.mark.parametrize(
    "text",
    [
        "benign/malignant at 40X/100X/200X, 24 km/h, n/a, and/or",
        "IEEE TBME 63(7):1455-1462, 2016",
        "created 2026-11-21, version 1.0.0-rc.1, torch 2.15.0",
        "model@1.0.0 of pathzoo",
        "0.5 µm/px; x/y coordinates; TCGA data",
        "https://example.org/a/b/c",
        "CC-BY-NC-SA-4.0",
    ],
)
def test_ordinary_texts_are_no_leaks(text):
    assert scan_text(text) == []
    assert scan_json({"limits": text}) == []


def test_json_escapes_hide_nothing():
    import json

    assert kinds(scan_json(json.loads('{"limits": "\\u002fhome\\u002fjane"}'))) == {"an absolute path"}
    assert kinds(scan_json(json.loads('{"14-22549AB": 1}'))) == {"a slide id"}


def test_ids_of_digits_and_machine_made_fields():
    known = [Identifier("a patient id", "2026")]
    assert scan_json({"created": "2026-11-21", "training": {"versions": {"x": "2026.1"}}}, known) == []
    assert kinds(scan_json({"limits": "of 2026"}, known)) == {"a patient id"}
    assert scan_text("n 2026", known, numbers=False) == []
    assert kinds(scan_text("n 2026", known)) == {"a patient id"}


def test_what_a_split_gives_away():
    split = {
        "classes": ["benign", "malignant"],
        "subsets": {"train": {"groups": ["unknown", "patient", "0042"], "items": {"benign/case7/tile.png": "f" * 64}}},
    }
    values = {item.value for item in from_split(split)}
    assert {"0042", "benign/case7/tile.png", "tile.png", "case7", "f" * 64} <= values
    assert not values & {"unknown", "patient", "tile", "benign"}


def test_folders_named_after_a_person():
    items = {
        "train/40X/Ductal_Carcinoma/Annette Miller/t1.png": "a" * 64,
        "BreaKHis_v1/histology_slides/breast/benign/SOB/adenosis/jo/t2.png": "b" * 64,
        "clear cell/x.png": "c" * 64,
    }
    split = {"classes": ["clear_cell"], "slides": ["scan-alpha"], "subsets": {"val": {"groups": [], "items": items}}}
    found = {(item.kind, item.value) for item in from_split(split)}
    assert {value for kind, value in found if kind == "an id in a folder's name"} == {"Annette Miller"}
    assert ("a slide id", "scan-alpha") in found
    assert kinds(scan_text("as annette miller wrote", from_split(split))) == {"an id in a folder's name"}


def test_slide_ids_in_breakhis_file_names():
    items = {"40X/benign/SOB_B_A-14-22549AB-40-001.png": "f" * 64}
    known = from_split({"classes": [], "subsets": {"train": {"groups": ["22549"], "items": items}}})
    for text in ("22549AB", "14-22549AB", "A-14-22549AB", "SOB_B_A-14-22549AB-40-001", "patient_22549"):
        assert scan_json({"limits": f"see {text} there"}, known), text
    assert scan_json({"limits": "magnification 40X, 14 patients, 225490 tiles"}, known) == []


def test_many_ids_cost_little():
    import time

    known = {Identifier("a file name", f"SLIDE_{number:06d}_tile") for number in range(200_000)}
    content = {"texts": ["word " * 50] * 200, "limits": "see slide_000123_TILE"}
    started = time.perf_counter()
    leaks = scan_json(content, known)
    assert [leak.value for leak in leaks] == ["SLIDE_000123_tile"]
    assert time.perf_counter() - started < 20


def test_this_machine_is_known(tmp_path, monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "scanner3.lab")
    found = {(item.kind, item.value) for item in from_machine([tmp_path])}
    assert ("the host's name", "scanner3") in found
    assert ("an absolute path", str(tmp_path.resolve())) in found
