import io

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

import pathzoo.datasets.transforms  # noqa: F401 - registers
from pathzoo.datasets.inventory import inspect_image
from pathzoo.datasets.transforms.loading import LoadTile, decode_rgb, read_rgb
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


_DEEP = np.full((6, 8, 4), 3000, np.uint16)  # 12 bits in 16: its upper byte is 11 of 255, nearly black
_DEEP_FILES = {
    "cv2.png": lambda path: cv2.imwrite(path, _DEEP[..., :3]),
    "alpha.png": lambda path: cv2.imwrite(path, _DEEP),
    "grey.png": lambda path: cv2.imwrite(path, _DEEP[..., 0]),
    "cv2.tif": lambda path: cv2.imwrite(path, _DEEP[..., :3]),
    "little.tif": lambda path: tifffile.imwrite(path, _DEEP[..., :3], photometric="rgb"),
    "big.tif": lambda path: tifffile.imwrite(path, _DEEP[..., :3], photometric="rgb", byteorder=">"),
    "zlib.tif": lambda path: tifffile.imwrite(path, _DEEP[..., :3], photometric="rgb", compression="zlib"),
    "apart.tif": lambda path: tifffile.imwrite(
        path, _DEEP[..., :3].transpose(2, 0, 1), photometric="rgb", planarconfig="separate"
    ),
    "alpha.tif": lambda path: tifffile.imwrite(path, _DEEP, photometric="rgb", extrasamples=["unassalpha"]),
    "grey.tif": lambda path: tifffile.imwrite(path, _DEEP[..., 0]),
}


@pytest.mark.parametrize("name", _DEEP_FILES)
def test_16_bits_are_refused_in_colour_too_where_pillow_drops_half_of_them(tmp_path, name):
    path = tmp_path / name
    _DEEP_FILES[name](str(path))
    with Image.open(path) as picture:
        assert picture.mode in ("RGB", "RGBA", "I;16"), "Pillow itself opens it"
    for read in (read_rgb, lambda path: decode_rgb(path.read_bytes(), path)):
        with pytest.raises(DataError, match=rf"{name}: pixels of mode \S+ .*16 bits.*8-bit RGB.*257") as error:
            read(path)
        assert "\n" not in str(error.value)
    record = inspect_image(path)
    assert record.error == str(error.value).removeprefix(f"{path}: ") and record.sha256 and record.width is None


def test_fewer_bits_than_8_are_no_reason(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8), np.uint8) > 127
    for name in ("a.png", "a.tif"):
        Image.fromarray(pixels).save(tmp_path / name)  # 1 bit
        assert (read_rgb(tmp_path / name)[..., 0] == pixels * 255).all()


def test_too_large_pictures_are_named(tmp_path, monkeypatch):
    Image.new("RGB", (40, 40)).save(tmp_path / "huge.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DataError, match=r"huge\.png: too large"):
        read_rgb(tmp_path / "huge.png")


@pytest.mark.real
def test_real_images_agree_with_opencv(real_data):
    for path in sorted((real_data / "breakhis" / "40X").rglob("*.png"))[:4]:
        assert (read_rgb(path) == cv2.imread(str(path))[..., ::-1]).all()
