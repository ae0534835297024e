"""Stores of tiles: what is written comes back, other tools read it, and damage is named."""

import hashlib
import json
import pickle
import struct
import time

import numpy as np
import pytest
from safetensors import safe_open

from pathzoo.datasets.packed_tiles import FORMAT, Layout, PackedTiles
from pathzoo.datasets.packed_writer import packed_writer
from pathzoo.errors import ConfigError, DataError, OutputError
from pathzoo.fileio import sha256_bytes

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
    digests = [hashlib.sha256(picture.tobytes()).digest() for picture in pictures]
    assert found.digest == hashlib.sha256(b"".join(digests)).hexdigest()
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
        (lambda data: data.replace(b'"version": "1"', b'"version": "9"'), "a store of version '9'"),
        (lambda data: data.replace(b'"n": "7"', b'"n": "8"'), "its header is not that of a store"),
        (lambda data: data.replace(b'"x": {"dtype": "I64"', b'"x": {"dtype": "I32"'), "its header is not that of"),
        (lambda data: data.replace(b'{"items":["a/0', b'{"itemx":["a/0'), "its names are damaged"),
    ],
)
def test_a_file_that_is_no_sound_store(store, damage, message):
    store.write_bytes(damage(store.read_bytes()))
    with pytest.raises(DataError, match=rf"s\.safetensors: {message}") as error:
        _ = PackedTiles(store).items
    assert "\n" not in str(error.value)


def test_digests_that_were_changed(store):
    found = PackedTiles(store)
    data = store.read_bytes().replace(found.sha256[0].tobytes(), bytes(32))
    store.write_bytes(data)
    with pytest.raises(DataError, match="its digests are not those"):
        PackedTiles(store)


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
    metadata = {"format": FORMAT, "version": "1", "n": str(n), "classes": "[]", "phantom": "false"}
    header = json.dumps(layout.header({**metadata, "digest": sha256_bytes(bytes(32 * n))})).encode()
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
