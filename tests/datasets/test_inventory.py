"""What the scan says of sound and damaged files, and that its memory is never stale."""

import hashlib
import os

import cv2
import numpy as np
import pytest
from PIL import Image, ImageFile

from pathzoo.datasets import inventory
from pathzoo.datasets.inventory import inspect_image, scan_images
from pathzoo.datasets.transforms.loading import read_rgb
from pathzoo.errors import DataError


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("PATHZOO_CACHE", str(tmp_path_factory.mktemp("cache")))


def picture(path, width=70, height=46, seed=0):
    cv2.imwrite(str(path), np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))
    return path


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp"])
def test_sound_files_give_size_and_digest(tmp_path, suffix):
    path = picture(tmp_path / f"a.{suffix}")
    (record,) = scan_images([path])
    assert (record.width, record.height, record.error) == (70, 46, None)
    assert record.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert record.path == str(path)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("kept", [0.02, 0.3, 0.6, 0.9, 0.99])
def test_truncated_files_are_found_wherever_they_end(tmp_path, suffix, kept):
    path = picture(tmp_path / f"a.{suffix}", 300, 200)
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    (record,) = scan_images([path])
    assert record.error and record.width is None


def test_truncation_is_found_even_where_another_package_made_pillow_lenient(tmp_path, monkeypatch):
    path = picture(tmp_path / "a.jpg", 300, 200)
    path.write_bytes(path.read_bytes()[:-2000])
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with Image.open(path) as lenient:
        lenient.load()  # silently grey
    assert scan_images([path])[0].error.startswith("truncated or damaged")
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_flipped_bytes_inside_a_png_are_found(tmp_path):
    path = picture(tmp_path / "a.png", 100, 100)
    data = bytearray(path.read_bytes())
    for position in range(60, len(data) - 20, len(data) // 7):
        broken = data.copy()
        broken[position] ^= 1
        path.write_bytes(broken)
        assert inspect_image(path).error, position


def test_empty_foreign_missing_and_folder(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "folder.png").mkdir()
    names = ["empty.png", "text.png", "folder.png", "none.png"]
    records = scan_images([tmp_path / name for name in names])
    assert [r.error.split(" (")[0] for r in records] == [
        "empty file",
        "not an image in any format that Pillow reads",
        "cannot be read",
        "no such file",
    ]
    assert [r.missing for r in records] == [False, False, False, True]


def test_order_is_that_of_the_request_with_many_workers(tmp_path):
    paths = [picture(tmp_path / f"{n}.png", 20 + n, 10, n) for n in range(40)]
    records = scan_images(paths[::-1], workers=8)
    assert [r.width for r in records] == [20 + n for n in range(40)][::-1]


@pytest.fixture
def reads(monkeypatch):
    """Names of the files that were really read."""
    seen = []
    real = inspect_image
    monkeypatch.setattr(inventory, "inspect_image", lambda path: (seen.append(str(path)), real(path))[1])
    return seen


def test_second_scan_reads_nothing_until_a_file_changes(tmp_path, reads, monkeypatch):
    monkeypatch.setattr(inventory, "_SETTLED_SECONDS", -1)
    paths = [picture(tmp_path / f"{n}.png", seed=n) for n in range(3)]
    first = scan_images(paths)
    assert len(reads) == 3
    assert scan_images(paths) == first and len(reads) == 3
    times = paths[1].stat()
    other = picture(tmp_path / "other.bmp", seed=9).read_bytes()
    paths[1].write_bytes(other)
    os.utime(paths[1], ns=(times.st_atime_ns, times.st_mtime_ns))  # even with its old date
    assert scan_images(paths)[1].sha256 == hashlib.sha256(other).hexdigest()
    assert len(reads) == 4
    assert scan_images(paths, cache=False)[0] == first[0] and len(reads) == 7


def test_fresh_files_and_damaged_files_are_never_remembered(tmp_path, reads, monkeypatch):
    path = picture(tmp_path / "a.png")
    scan_images([path])
    scan_images([path])
    assert len(reads) == 2
    monkeypatch.setattr(inventory, "_SETTLED_SECONDS", -1)
    (tmp_path / "bad.png").write_bytes(path.read_bytes()[:-40])
    scan_images([tmp_path / "bad.png"])
    scan_images([tmp_path / "bad.png"])
    assert len(reads) == 4


def test_the_cache_holds_no_path_and_a_broken_one_costs_only_a_scan(tmp_path, monkeypatch):
    monkeypatch.setattr(inventory, "_SETTLED_SECONDS", -1)
    path = picture(tmp_path / "patient_meier.png")
    (record,) = scan_images([path])
    assert b"meier" not in inventory.cache_file().read_bytes()
    inventory.cache_file().write_bytes(b"this is no database" * 100)
    assert scan_images([path]) == [record]
    monkeypatch.setenv("PATHZOO_CACHE", str(path))  # a file where a folder should be
    assert scan_images([path]) == [record]


def test_an_interrupted_scan_keeps_what_it_read(tmp_path, reads, monkeypatch):
    monkeypatch.setattr(inventory, "_SETTLED_SECONDS", -1)
    paths = [picture(tmp_path / f"{n}.png", seed=n) for n in range(4)]
    whole = inventory.inspect_image

    def stops(path):
        if str(path).endswith("3.png"):
            raise KeyboardInterrupt
        return whole(path)

    with monkeypatch.context() as patch:
        patch.setattr(inventory, "inspect_image", stops)
        with pytest.raises(KeyboardInterrupt):
            scan_images(paths, workers=1)
    reads.clear()
    scan_images(paths)
    assert [name[-5:] for name in reads] == ["3.png"]


def test_a_long_scan_shows_a_bar_on_a_terminal_and_a_short_one_does_not(tmp_path, monkeypatch, capsys):
    paths = [picture(tmp_path / f"{n}.png", seed=n) for n in range(3)]
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    scan_images(paths, cache=False)
    assert "checking images" not in capsys.readouterr().err
    monkeypatch.setattr(inventory, "_PROGRESS_AFTER_SECONDS", -1)
    assert all(record.error is None for record in scan_images(paths, cache=False))
    assert "checking images" in capsys.readouterr().err


def write_modes(folder):
    """A file of every kind that this Pillow writes as PNG, TIFF, JPEG or GIF, plain and odd."""
    paths = []
    for mode in ("1", "L", "P", "LA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I", "F", "I;16"):
        for suffix in ("png", "tif", "jpg", "gif"):
            path = folder / f"{mode.replace(';', '_')}.{suffix}"
            try:
                Image.new(mode, (6, 4)).save(path)
            except (OSError, ValueError):
                path.unlink(missing_ok=True)
                continue
            paths.append(path)
    return paths


def test_what_the_loader_refuses_the_scan_refuses_and_nothing_else(tmp_path):
    paths = write_modes(tmp_path)
    loadable = []
    for path in paths:
        try:
            read_rgb(path)
            loadable.append(True)
        except DataError:
            loadable.append(False)
    records = scan_images(paths)
    assert [record.error is None for record in records] == loadable
    refused = {record.path.rsplit("/")[-1] for record in records if record.error}
    assert {"CMYK.jpg", "CMYK.tif", "F.tif", "I_16.png", "I_16.tif", "I.tif", "LAB.tif"} <= refused
    assert all("8-bit RGB" in record.error and record.width is None for record in records if record.error)
    assert {"RGB.png", "L.png", "P.png", "RGBA.png", "LA.png", "1.png"} <= {p.name for p in paths} - refused


def test_what_an_older_cache_holds_as_sound_is_not_trusted(tmp_path, monkeypatch):
    path = tmp_path / "deep.png"
    Image.new("I;16", (6, 4)).save(path)
    os.utime(path, ns=(1, 1))
    stamp = inventory._stamp(str(path))
    with monkeypatch.context() as older:
        older.setattr(inventory, "_CACHE_FORMAT", 1)
        inventory._remember({stamp: ("a" * 64, 6, 4)})
        assert inventory.cache_file().name == "images-v1.sqlite"
        assert scan_images([path])[0].error is None, "the old entry is found by the old format"
    assert scan_images([path])[0].error
