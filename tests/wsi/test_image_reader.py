"""Plain images as slides of one level: what they show, and what damaged ones say."""

import struct

import cv2
import numpy as np
import pytest
from PIL import Image

from pathzoo.errors import DataError, SlideError
from pathzoo.wsi.readers import image_reader
from pathzoo.wsi.slide import Slide


def test_plain_images_are_slides_of_one_level(tmp_path, tissue_image):
    for name in ("a.png", "a.tiff", "a.bmp"):
        Image.fromarray(tissue_image).save(tmp_path / name)
        with Slide(tmp_path / name, mpp=0.5) as slide:
            assert slide.reader_name == "image" and len(slide.levels) == 1
            assert np.array_equal(slide.read(10, 20, 30, 40), tissue_image[20:60, 10:40])
    Image.fromarray(tissue_image).save(tmp_path / "a.jpg", dpi=(72, 72))
    assert Slide(tmp_path / "a.jpg").mpp is None
    Image.fromarray(tissue_image).save(tmp_path / "b.tiff", dpi=(50800, 50800))
    assert Slide(tmp_path / "b.tiff").mpp == pytest.approx(0.5)


def test_transparent_pixels_of_images_are_white(tmp_path):
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[:2] = (9, 8, 7, 255)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    pixels = Slide(tmp_path / "a.png").read(0, 0, 4, 4)
    assert pixels[0, 0].tolist() == [9, 8, 7] and pixels[3, 3].tolist() == [255, 255, 255]


def test_a_damaged_image_is_decoded_once_however_often_it_is_asked_for(tmp_path, tissue_image, monkeypatch):
    """A survey asks for ever smaller parts of what fails: of a large photograph that took hours."""
    Image.fromarray(tissue_image).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:-3000])
    decoded, real = [], image_reader.read_image
    monkeypatch.setattr(image_reader, "read_image", lambda path: (decoded.append(path), real(path))[1])
    with Slide(tmp_path / "cut.png", mpp=0.5) as slide:
        assert slide.survey(500)[1].all()
        for _ in range(2):
            with pytest.raises(SlideError, match=r"cut\.png: damaged"):
                slide.read(0, 0, 8, 8)
    assert len(decoded) == 1


def test_damaged_headers_of_images_give_one_line_and_no_warning(tmp_path, tissue_image, recwarn):
    Image.fromarray(tissue_image[:40, :60]).save(tmp_path / "whole.png")
    data = bytearray((tmp_path / "whole.png").read_bytes())
    data[11] = 4  # the length of IHDR
    (tmp_path / "short.png").write_bytes(data)
    for name, tag, kind, value in (("flat.tif", 256, 4, 0), ("text.tif", 282, 2, 0x5A5A5A)):
        Image.fromarray(tissue_image[:40, :60]).save(tmp_path / name, dpi=(50800, 50800))
        data = bytearray((tmp_path / name).read_bytes())
        at = data.index(struct.pack("<H", tag), int.from_bytes(data[4:8], "little"))
        data[at + 2 : at + 12] = struct.pack("<HII", kind, 1, value)
        (tmp_path / name).write_bytes(data)
    for name in ("short.png", "flat.tif"):
        with pytest.raises(SlideError, match=rf"{name}: damaged") as caught:
            Slide(tmp_path / name)
        assert "\n" not in str(caught.value)
    assert Slide(tmp_path / "text.tif").mpp is None
    assert not recwarn.list


def test_images_are_read_as_training_reads_them(tmp_path, tissue_image):
    from pathzoo.datasets.transforms.loading import read_rgb
    from pathzoo.wsi.readers.image_reader import read_image

    picture = Image.fromarray(tissue_image[:90, :70])
    alpha = picture.copy()
    alpha.putalpha(picture.convert("L"))
    turned = picture.getexif()
    turned[274] = 6  # a quarter turn
    picture.save(tmp_path / "a.jpg", quality=70, exif=turned)
    for name, kind in [
        ("b.png", picture),
        ("c.png", alpha),
        ("d.png", picture.convert("P")),
        ("e.png", picture.convert("L")),
    ]:
        kind.save(tmp_path / name)
    for path in sorted(tmp_path.iterdir()):
        assert np.array_equal(read_image(path), read_rgb(path))
    for name in ("deep.png", "deep.tif"):
        cv2.imwrite(str(tmp_path / name), np.full((6, 8, 3), 3000, np.uint16))
        with pytest.raises(DataError) as refused:
            read_rgb(tmp_path / name)
        with pytest.raises(SlideError, match=rf"{name}: pixels of mode RGB .*16 bits") as error:
            read_image(tmp_path / name)
        assert str(error.value) == str(refused.value)
    picture.convert("CMYK").save(tmp_path / "cmyk.jpg")
    with pytest.raises(SlideError, match="mode CMYK"):
        read_image(tmp_path / "cmyk.jpg")
