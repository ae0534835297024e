"""The mask file as OpenSlide, tifffile and Pillow read it, and what a full disk does."""

import errno
import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image

from pathzoo.errors import SlideError
from pathzoo.wsi import mask_tiff
from pathzoo.wsi.mask_tiff import full_disk_told, level_sizes, write_mask

COLORS = {"a": (200, 10, 20), "b": (30, 220, 40), "c": (50, 60, 240)}


def draw(width: int, height: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mask = np.full((height, width), 255, np.uint8)
    mask[height // 8 :, : width // 2] = 0
    mask[height // 3 : height // 2, width // 4 :] = 2
    mask[: height // 9 + 1] = rng.integers(0, 3, (height // 9 + 1, width))
    return mask


def cut(mask: np.ndarray, seed: int = 0):
    """Bands of random heights, empty ones too."""
    rng = np.random.default_rng(seed)
    return iter(np.split(mask, np.sort(rng.integers(0, len(mask) + 1, 9))))


def write(path: Path, mask: np.ndarray, mpp: float = 0.5, **options) -> np.ndarray:
    return write_mask(path, cut(mask, **options), mask.shape[::-1], mpp, list(COLORS), COLORS)


@pytest.mark.parametrize("size", [(2300, 1300), (1025, 4100), (700, 300), (1, 1), (512, 1), (1, 2049)])
def test_three_libraries_read_what_was_written(tmp_path, size):
    mask = draw(*size)
    coarse = write(tmp_path / "mask.tif", mask)
    levels = [mask]
    while max(levels[-1].shape) > 1024:
        levels.append(levels[-1][::2, ::2])
    assert [level.shape[::-1] for level in levels] == level_sizes(size)
    np.testing.assert_array_equal(coarse, levels[-1])
    with tifffile.TiffFile(tmp_path / "mask.tif") as file:
        assert len(file.pages) == len(levels)
        for page, level in zip(file.pages, levels, strict=True):
            np.testing.assert_array_equal(page.asarray(), level)
        assert not file.is_bigtiff
        said = json.loads(file.pages[0].description)
    assert said == {"classes": {"0": "a", "1": "b", "2": "c"}, "not_predicted": 255, "mpp": 0.5}
    with Image.open(tmp_path / "mask.tif") as image:
        np.testing.assert_array_equal(np.asarray(image), mask)
    shown = np.full((256, 3), 255)
    shown[:3] = list(COLORS.values())
    with openslide.OpenSlide(tmp_path / "mask.tif") as slide:
        assert slide.level_count == len(levels)
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.5)
        for number, level in enumerate(levels):
            pixels = np.asarray(slide.read_region((0, 0), number, slide.level_dimensions[number]))
            np.testing.assert_array_equal(pixels[..., :3], shown[level])


def test_height_of_the_bands_does_not_change_the_file(tmp_path):
    mask = draw(1500, 1400)
    for seed in (0, 1):
        write(tmp_path / f"{seed}.tif", mask, seed=seed)
    assert (tmp_path / "0.tif").read_bytes() == (tmp_path / "1.tif").read_bytes()


def test_resolution_follows_the_level(tmp_path):
    write(tmp_path / "mask.tif", draw(1500, 1400), mpp=0.4991)
    with tifffile.TiffFile(tmp_path / "mask.tif") as file:
        for number, page in enumerate(file.pages):
            assert page.tags["ResolutionUnit"].value == 3
            for tag in ("XResolution", "YResolution"):
                n, d = page.tags[tag].value
                assert 1e4 / (n / d) == pytest.approx(0.4991 * 2**number, rel=1e-6)


def test_bigtiff_where_offsets_may_not_fit(tmp_path, monkeypatch):
    monkeypatch.setattr(mask_tiff, "_BIG", 10_000)
    mask = draw(300, 200)
    write(tmp_path / "mask.tif", mask)
    with tifffile.TiffFile(tmp_path / "mask.tif") as file:
        assert file.is_bigtiff
        np.testing.assert_array_equal(file.asarray(), mask)


@pytest.mark.parametrize("bands", [[np.zeros((3, 5), np.uint8)], [np.zeros((5, 4), np.uint8)], [np.zeros((9, 5))], []])
def test_bands_must_make_up_the_size(tmp_path, bands):
    with pytest.raises(ValueError, match=r"rows came|a band of shape"):
        write_mask(tmp_path / "mask.tif", bands, (5, 5), 0.5, list(COLORS), COLORS)


def test_at_most_255_classes(tmp_path):
    names = [str(i) for i in range(256)]
    with pytest.raises(ValueError, match="256 classes"):
        write_mask(tmp_path / "mask.tif", [], (5, 5), 0.5, names, dict.fromkeys(names, (0, 0, 0)))


def noise(rows: int, width: int = 2048, failing_at: int | None = None):
    rng = np.random.default_rng(0)
    for i in range(rows // 64):
        if i == failing_at:
            raise OSError(errno.ENOSPC, "no shared memory left")
        yield rng.integers(0, 3, (64, width)).astype(np.uint8)


def test_a_full_disk_is_told_with_the_space_needed(tmp_path, monkeypatch):
    """A file that fails once 200 KiB are written; real ones are in the next test."""
    folder = tmp_path / "out" / ".slide"
    folder.mkdir(parents=True)
    real, written = tifffile.FileHandle.write, [0]

    def write(self, data, /):
        written[0] += len(data)
        if written[0] > 200 << 10:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(self, data)

    monkeypatch.setattr(tifffile.FileHandle, "write", write)
    with pytest.raises(SlideError, match=r"mask\.tif: the disk of .*out is full; .* another disk") as caught:
        write_mask(folder / "mask.tif", noise(2048), (2048, 2048), 0.5, list(COLORS), COLORS)
    needed = int(re.search(r"needs about (\d+) MiB", str(caught.value))[1])
    assert needed == pytest.approx(2048 * 2048 * 4 / 3 * 0.25 / 2**20, abs=1.1)  # noise of 3 values: 1.6 bits and more
    assert "\n" not in str(caught.value)


def test_a_disk_that_is_really_full(tmp_path):
    mount = Path(tempfile.mkdtemp(dir=tmp_path))
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(mount)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        folder = mount / "slide"
        folder.mkdir()
        with pytest.raises(SlideError, match=r"the disk of .* is full"):
            write_mask(folder / "mask.tif", noise(2048), (2048, 2048), 0.5, list(COLORS), COLORS)
        shutil.rmtree(folder)  # nothing holds the file open or left another
        assert list(mount.iterdir()) == []
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def test_errors_of_others_are_not_taken_for_a_full_disk(tmp_path):
    with pytest.raises(OSError, match="shared memory"):
        write_mask(tmp_path / "mask.tif", noise(256, failing_at=2), (2048, 256), 0.5, list(COLORS), COLORS)
    with pytest.raises(PermissionError), full_disk_told(tmp_path / "overlay.png"):
        raise PermissionError(errno.EACCES, "not allowed")
    with pytest.raises(SlideError, match=r"overlay\.png"), full_disk_told(tmp_path / "overlay.png"):
        raise OSError(errno.EDQUOT, "quota exceeded")
