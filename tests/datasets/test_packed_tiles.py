"""Stores of tiles: what is written comes back, other tools read it, and damage is named."""

import hashlib
import json
import pickle
import struct
import time

import numpy as np
import pytest
from safetensors import safe_open

from pathzoo.datasets.packed_tiles import COLUMNS, FORMAT, Layout, PackedTiles, store_metadata
from pathzoo.datasets.packed_writer import packed_writer
from pathzoo.errors import ConfigError, DataError, OutputError

N, HEIGHT, WIDTH = 7, 5, 9  # odd on purpose: nothing is aligned by luck


def tiles(seed=0, n=N):
    return np.random.default_rng(seed).integers(0, 256, (n, HEIGHT, WIDTH, 3), np.uint8)


def pack(path, pictures, **more):
    with packed_writer(path, len(pictures), (WIDTH, HEIGHT), classes=("benign", "Ärger"), **more) as writer:
        for number, tile in enumerate(pictures):
            writer.add(
                tile,
                f"a/{number}.png",
                patient=None if number % 2 else f"P{number}",
                slide="S1" if number < 3 else None,
                label=number % 3 - 1,
                mpp=None if number == 1 else 0.5,
                x=number * 2**33 if number else None,
                y=number or None,
                source_sha256="ab" * 32 if number == 2 else None,
            )
    return path


@pytest.fixture
def store(tmp_path):
    return pack(tmp_path / "s.safetensors", tiles())


def test_what_is_packed_comes_back(store):
    found, pictures = PackedTiles(store), tiles()
    assert len(found) == N and found.shape == (N, HEIGHT, WIDTH, 3)
    for number in range(N):
        assert found[number].dtype == np.uint8 and (found[number] == pictures[number]).all()
    assert (found[-1] == pictures[-1]).all()
    assert found.classes == ("benign", "Ärger") and found.labels.tolist() == [-1, 0, 1, -1, 0, 1, -1]
    assert found.items[3] == "a/3.png" and found.patients == ("P0", None, "P2", None, "P4", None, "P6")
    assert found.slides == ("S1",) * 3 + (None,) * 4
    assert found.x.tolist() == [-1, *(n * 2**33 for n in range(1, N))] and found.y[0] == -1
    assert np.isnan(found.mpp[1]) and found.mpp[0] == 0.5 and not found.phantom
    assert [row.tobytes() for row in found.sha256] == [hashlib.sha256(tile.tobytes()).digest() for tile in pictures]
    assert found.source_sha256[2].tobytes().hex() == "ab" * 32 and not found.source_sha256[0].any()


def test_safetensors_reads_the_file(store):
    with safe_open(store, "np") as file:
        assert file.metadata()["format"] == FORMAT and file.metadata()["n"] == str(N)
        assert (file.get_tensor("tiles") == tiles()).all()
        assert file.get_tensor("x").dtype == np.int64 and file.get_tensor("label").tolist()[:3] == [-1, 0, 1]
        assert file.get_tensor("mpp").dtype == np.float32
        text = json.loads(file.get_tensor("text").tobytes().decode())
    assert text["items"] == [f"a/{number}.png" for number in range(N)]


def test_a_view_of_the_file_cannot_be_written_to(store):
    view = PackedTiles(store)[0]
    assert not view.flags.owndata and not view.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 0


def test_pickling_carries_the_path_alone(store):
    text = pickle.dumps(PackedTiles(store))
    assert len(text) < 300 and (pickle.loads(text)[2] == tiles()[2]).all()


def test_the_same_tiles_have_the_same_digest_and_bytes(tmp_path, store):
    assert pack(tmp_path / "again.safetensors", tiles()).read_bytes() == store.read_bytes()
    other = PackedTiles(pack(tmp_path / "other.safetensors", tiles(1)))
    assert other.digest != PackedTiles(store).digest


def test_the_digest_is_over_all_but_the_pixels_whose_digests_it_has(store):
    with safe_open(store, "np") as file:
        parts = {name: hashlib.sha256(file.get_tensor(name).tobytes()).hexdigest() for name in (*COLUMNS, "text")}
        assert json.loads(file.metadata()["tensors"]) == parts
    content = {
        "classes": ["benign", "Ärger"], "n": N, "phantom": False, "size": [WIDTH, HEIGHT], "tensors": parts
    }  # fmt: skip
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    assert PackedTiles(store).digest == hashlib.sha256(text.encode()).hexdigest()


_CHANGES = {
    "item": "b/0.png",
    "patient": "P9",
    "slide": "S9",
    "label": 1,
    "mpp": 0.25,
    "x": 7,
    "y": 8,
    "source_sha256": "cd" * 32,
}


@pytest.mark.parametrize("name", _CHANGES)
def test_whatever_is_known_of_a_tile_is_in_the_digest(tmp_path, name):
    usual = {"item": "a/0.png", "patient": "P0", "slide": "S0", "label": 0, "mpp": 0.5, "x": 1, "y": 2}
    changes = [{}, {name: _CHANGES[name]}, {name: -1 if name == "label" else None}]
    digests = set()
    for number, change in enumerate(changes[: 2 if name in ("item", "source_sha256") else 3]):
        values = usual | change
        with packed_writer(tmp_path / f"{number}.safetensors", 1, (WIDTH, HEIGHT), ("a", "b")) as writer:
            writer.add(tiles()[0], values.pop("item"), **values)
        digests.add(PackedTiles(tmp_path / f"{number}.safetensors").digest)
    assert len(digests) == number + 1


def test_classes_and_phantoms_are_in_the_digest(tmp_path):
    digests = set()
    for number, (classes, phantom) in enumerate(((("a", "b"), False), (("b", "a"), False), (("a", "b"), True))):
        with packed_writer(tmp_path / f"{number}.safetensors", 1, (WIDTH, HEIGHT), classes, phantom) as writer:
            writer.add(tiles()[0], "a/0.png", label=0)
        digests.add(PackedTiles(tmp_path / f"{number}.safetensors").digest)
    assert len(digests) == 3


@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_that_was_changed_is_named_when_it_is_opened(store, name):
    data, layout = bytearray(store.read_bytes()), Layout.of(N, HEIGHT, WIDTH, 0)
    data[8 + int.from_bytes(data[:8], "little") + layout.tensors[name][0]] ^= 1
    store.write_bytes(data)
    with pytest.raises(DataError, match=rf"s\.safetensors: its {name} was changed since it was packed") as error:
        PackedTiles(store)
    assert "\n" not in str(error.value)


def test_a_name_that_was_changed_is_found_when_names_are_used_and_by_verify(store):
    data = store.read_bytes()
    store.write_bytes(data.replace(b'"P0"', b'"P9"'))
    message = r"s\.safetensors: its names \(items, patients, slides\) were changed since it was packed"
    for use in (lambda found: found.patients, lambda found: found.verify()):
        with pytest.raises(DataError, match=message):
            use(PackedTiles(store))
    for before, after in ((b'"phantom": "false"', b'"phantom": "true" '), (b'\\"benign\\"', b'\\"malign\\"')):
        assert before in data
        store.write_bytes(data.replace(before, after))
        with pytest.raises(DataError, match=r"s\.safetensors: its header was changed since it was packed"):
            PackedTiles(store)


def test_a_store_of_the_first_version_is_to_be_packed_again(store):
    store.write_bytes(store.read_bytes().replace(b'"version": "2"', b'"version": "1"'))
    with pytest.raises(DataError, match=r"s\.safetensors: a store of version 1, .* reads 2: pack it again") as error:
        PackedTiles(store)
    assert "\n" not in str(error.value)


def test_verify_names_the_damaged_tile(store):
    seen = []
    PackedTiles(store).verify(lambda done, total: seen.append((done, total)))
    assert seen[-1] == (N, N)
    data = bytearray(store.read_bytes())
    place = data.find(tiles()[4].tobytes())
    data[place + 11] ^= 1
    store.write_bytes(data)
    with pytest.raises(DataError, match=r"s\.safetensors: tile 4 \(a/4\.png\) is damaged"):
        PackedTiles(store).verify()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-3], "truncated, .* bytes where its header says"),
        (lambda data: data + b"x", "damaged, .* bytes where its header says"),
        (lambda data: data[:40], "not a store of packed tiles"),
        (lambda data: b"", "not a store of packed tiles"),
        (lambda data: b"\x89PNG" + data, "not a store of packed tiles"),
        (lambda data: data.replace(b'"version": "2"', b'"version": "9"'), "a store of version 9, .*update pathzoo"),
        (lambda data: data.replace(b'"version": "2"', b'"version": "x"'), "a store of version x, .*pack it again"),
        (lambda data: data.replace(b'"tensors": "{', b'"tensors": "['), "its header is not that of a store"),
        (lambda data: data.replace(b'"n": "7"', b'"n": "8"'), "its header is not that of a store"),
        (lambda data: data.replace(b'"x": {"dtype": "I64"', b'"x": {"dtype": "I32"'), "its header is not that of"),
        (lambda data: data.replace(b'{"items":["a/0', b'{"itemx":["a/0'), r"its names \(items, .*were changed"),
    ],
)
def test_a_file_that_is_no_sound_store(store, damage, message):
    store.write_bytes(damage(store.read_bytes()))
    with pytest.raises(DataError, match=rf"s\.safetensors: {message}") as error:
        _ = PackedTiles(store).items
    assert "\n" not in str(error.value)


def test_model_weights_and_nothing_at_all(tmp_path):
    header = json.dumps({"w": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}).encode()
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"1")
    with pytest.raises(DataError, match="not a store of packed tiles"):
        PackedTiles(tmp_path / "w.safetensors")
    with pytest.raises(ConfigError, match=r"none\.safetensors: no such store"):
        PackedTiles(tmp_path / "none.safetensors")


def test_a_store_of_150000_tiles_opens_in_under_a_second(tmp_path):
    n, size = 150_000, 224
    text = json.dumps({name: ["tile"] * n for name in ("items", "patients", "slides")}).encode()
    layout = Layout.of(n, size, size, len(text))
    columns = {name: np.zeros((n, *rest), kind) for name, (_, kind, rest) in COLUMNS.items()}
    header = json.dumps(layout.header(store_metadata(n, (size, size), (), False, columns, text))).encode()
    path = tmp_path / "large.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.seek(8 + len(header) + layout.tensors["text"][0])
        try:
            file.write(text)
        except OSError as error:
            pytest.skip(f"no sparse files of {path.stat().st_size} bytes here ({error})")
    if path.stat().st_blocks * 512 > 1e9:
        pytest.skip("no sparse files here")
    started = time.process_time()
    store = PackedTiles(path)
    last = store[n - 1].sum()
    assert time.process_time() - started < 1
    assert last == 0 and len(store.items) == n


@pytest.mark.parametrize(
    ("tile", "more", "message"),
    [
        (np.zeros((HEIGHT, WIDTH + 1, 3), np.uint8), {}, r"uint8 \(5, 10, 3\); this store takes uint8 \(5, 9, 3\)"),
        (np.zeros((HEIGHT, WIDTH, 3), np.float32), {}, "float32"),
        (tiles()[0], {"label": 2}, "label 2 is no index of the 2 classes"),
        (tiles()[0], {"item": "twice"}, "twice: two tiles have this name"),
    ],
)
def test_tiles_that_do_not_fit_leave_nothing_behind(tmp_path, tile, more, message):
    with (
        pytest.raises(DataError, match=message),
        packed_writer(tmp_path / "s.safetensors", 3, (WIDTH, HEIGHT), ("a", "b")) as writer,
    ):
        writer.add(tiles()[1], "twice")
        writer.add(tile, **{"item": "one", **more})
    assert not list(tmp_path.iterdir())


def test_more_or_fewer_tiles_than_announced(tmp_path):
    path = tmp_path / "s.safetensors"
    with pytest.raises(DataError, match="announced for 2 tiles, given 1"), packed_writer(path, 2, (9, 5)) as writer:
        writer.add(tiles()[0], "a")
    with pytest.raises(DataError, match="b is one too many"), packed_writer(path, 1, (9, 5)) as writer:
        writer.add(tiles()[0], "a")
        writer.add(tiles()[1], "b")
    with pytest.raises(ConfigError, match="one at least"), packed_writer(path, 0, (9, 5)):
        pass
    with pytest.raises(ConfigError, match=r"s\.bin: a store of tiles ends in \.safetensors"):
        packed_writer(tmp_path / "s.bin", 1, (9, 5)).__enter__()
    assert not list(tmp_path.iterdir())


def test_a_disk_that_is_full(tmp_path):
    with (
        pytest.raises(OutputError, match=r"s\.safetensors: cannot be written"),
        packed_writer(tmp_path / "s.safetensors", 1, (9, 5)) as writer,
    ):
        writer.add(tiles()[0], "a")
        raise OSError(28, "No space left on device")
    assert not list(tmp_path.iterdir())
