import io

import cv2
import numpy as np
import pytest
from PIL import Image

import pathzoo.datasets.transforms  # noqa: F401 - registers
from pathzoo.datasets.transforms.loading import LoadTile, read_rgb
from pathzoo.errors import DataError
from pathzoo.registry import TRANSFORMS


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
def test_red_patch_comes_out_red(tmp_path, suffix):
    red_bgr = np.zeros((5, 7, 3), np.uint8)
    red_bgr[..., 2] = 255  # written by OpenCV, whose order is B, G, R
    cv2.imwrite(str(tmp_path / f"red.{suffix}"), red_bgr)
    results = TRANSFORMS.build({"type": "pathzoo.LoadTile"})({"img_path": str(tmp_path / f"red.{suffix}")})
    assert results["img"].dtype == np.uint8
    assert (results["img"] == [255, 0, 0]).all()
    assert results["img_shape"] == results["ori_shape"] == (5, 7)


def test_red_jpeg(tmp_path):
    Image.new("RGB", (16, 16), (255, 0, 0)).save(tmp_path / "red.jpg", quality=95)
    assert np.abs(read_rgb(tmp_path / "red.jpg").astype(int) - [255, 0, 0]).max() <= 3


def test_grey_palette_and_alpha_become_rgb(tmp_path):
    Image.new("L", (4, 3), 100).save(tmp_path / "grey.png")
    assert (read_rgb(tmp_path / "grey.png") == 100).all()
    Image.new("RGB", (4, 3), (10, 200, 30)).quantize(4).save(tmp_path / "palette.png")
    assert (read_rgb(tmp_path / "palette.png") == [10, 200, 30]).all()
    Image.new("RGBA", (4, 3), (200, 0, 0, 0)).save(tmp_path / "glass.png")
    assert (read_rgb(tmp_path / "glass.png") == 255).all(), "what is transparent is glass"
    Image.new("RGBA", (4, 3), (200, 0, 0, 255)).save(tmp_path / "opaque.png")
    assert (read_rgb(tmp_path / "opaque.png") == [200, 0, 0]).all()


def test_exif_orientation_is_ignored(tmp_path):
    picture = Image.new("RGB", (6, 4), (1, 2, 3))
    exif = picture.getexif()
    exif[0x0112] = 6  # "turn by 90 degrees"
    picture.save(tmp_path / "turned.png", exif=exif)
    assert read_rgb(tmp_path / "turned.png").shape == (4, 6, 3)


def _png() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def _jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("empty.png", b"", "empty file"),
        ("text.png", b"not a picture", "not a picture"),
        ("short.png", _png()[:2000], "cannot be decoded"),
        ("short.jpg", _jpeg()[: len(_jpeg()) // 2], "cannot be decoded"),
    ],
)
def test_damaged_files_are_named(tmp_path, name, data, reason):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=reason) as error:
        LoadTile()({"img_path": str(tmp_path / name)})
    assert str(tmp_path / name) in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.png: no such file"):
        read_rgb(tmp_path / "gone.png")


def test_16_bit_and_cmyk_are_refused(tmp_path):
    cv2.imwrite(str(tmp_path / "deep.png"), np.full((4, 4), 40000, np.uint16))
    with pytest.raises(DataError, match=r"deep\.png.*8-bit RGB"):
        read_rgb(tmp_path / "deep.png")
    Image.new("CMYK", (4, 4)).save(tmp_path / "print.jpg")
    with pytest.raises(DataError, match=r"print\.jpg: pixels of mode CMYK"):
        read_rgb(tmp_path / "print.jpg")


def test_too_large_pictures_are_named(tmp_path, monkeypatch):
    Image.new("RGB", (40, 40)).save(tmp_path / "huge.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DataError, match=r"huge\.png: too large"):
        read_rgb(tmp_path / "huge.png")


@pytest.mark.real
def test_real_images_agree_with_opencv(real_data):
    for path in sorted((real_data / "breakhis" / "40X").rglob("*.png"))[:4]:
        assert (read_rgb(path) == cv2.imread(str(path))[..., ::-1]).all()
