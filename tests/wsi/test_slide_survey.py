"""Thumbnails: what they show, what cannot be decoded in them, what they cost."""

import subprocess
import sys

import cv2
import numpy as np
import openslide
import pytest
import tifffile
from wsi.slide_files import break_tile

from pathzoo.errors import SlideError
from pathzoo.wsi.slide import Slide


def test_thumbnail_of_a_region_is_its_area_average(tmp_path, make_slide, tissue_image):
    with Slide(make_slide(levels=1)) as slide:
        thumbnail = slide.thumbnail(100)
        part = slide.thumbnail(64, (300, 200, 320, 160))
        assert slide.thumbnail(5000).shape == (800, 1000, 3)
    assert np.array_equal(thumbnail, cv2.resize(tissue_image, (100, 80), interpolation=cv2.INTER_AREA))
    expected = cv2.resize(tissue_image[200:360, 300:620], (64, 32), interpolation=cv2.INTER_AREA)
    assert np.array_equal(part, expected)


def test_large_sources_are_read_in_bands_and_surveys_in_blocks(make_slide, monkeypatch):
    with Slide(make_slide()) as slide:
        part, whole = slide.read(3, 5, 70, 60, mpp=4.3), slide.thumbnail(73)
        monkeypatch.setattr("pathzoo.wsi.slide._BAND_PIXELS", 1 << 15)
        monkeypatch.setattr("pathzoo.wsi.slide._BLOCK_SIDE", 150)
        assert np.abs(slide.read(3, 5, 70, 60, mpp=4.3).astype(int) - part).max() <= 1
        assert np.abs(slide.thumbnail(73).astype(int) - whole).max() <= 1


@pytest.mark.parametrize("reader", ["tiled-tiff", "openslide"])
def test_what_a_survey_costs_is_known_before(make_slide, reader):
    with Slide(make_slide(), reader=reader) as one, Slide(make_slide(name="b.tif", levels=3), reader=reader) as three:
        assert one.survey_pixels(100) == 800_000  # all of it, though the result has 100 x 80
        assert three.survey_pixels(100) == 250 * 200  # its smallest level
        assert three.survey_pixels(600) == 800_000
        assert three.survey_pixels(50, (0, 0, 400, 200)) == 100 * 50
        assert (one.native is not None) == (reader == "tiled-tiff") and one.notes == ()


_GIANT = """
import resource, sys
from pathzoo.wsi.slide import Slide

with Slide(sys.argv[1]) as slide:
    slide.read(0, 0, 16, 16)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    thumbnail = slide.thumbnail(500)
    assert thumbnail.shape == (375, 500, 3) and slide.survey_pixels(500) == 8000 * 6000
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 250_000, grown  # KB; the slide has 144 MB, and sums of it eight times that
"""


def test_a_survey_of_a_slide_of_one_level_needs_little_memory(tmp_path):
    """48 million pixels in one level, most of them one blank tile; memory is that of a block, not of the slide."""
    rows, columns = -(-6000 // 512), -(-8000 // 512)
    blank = np.full((512, 512, 3), 240, np.uint8)
    tifffile.imwrite(
        tmp_path / "giant.tif",
        (blank for _ in range(rows * columns)),
        shape=(6000, 8000, 3),
        dtype=np.uint8,
        tile=(512, 512),
        compression="jpeg",
        photometric="rgb",
        metadata=None,
    )
    (tmp_path / "giant.py").write_text(_GIANT)
    command = [sys.executable, str(tmp_path / "giant.py"), str(tmp_path / "giant.tif")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("reader", ["tiled-tiff", "openslide"])
def test_a_damaged_tile_is_an_error_and_the_next_read_works(damaged_slide, reader):
    path, (x, y) = damaged_slide
    with Slide(path, reader=reader) as slide:
        good = slide.read(0, 0, 100, 100)
        for _ in range(2):
            with pytest.raises(SlideError, match="cannot decode"):
                slide.read(x + 10, y + 10, 50, 50)
            assert np.array_equal(slide.read(0, 0, 100, 100), good)


def test_what_openslide_says_in_several_lines_becomes_one(damaged_slide, monkeypatch):
    def fail(*arguments):
        raise openslide.OpenSlideError("TIFFRGBAImageGet failed: Improper JPEG sampling factors 2,2\nApparently so.\n")

    with Slide(damaged_slide[0], reader="openslide") as slide:
        monkeypatch.setattr(openslide.OpenSlide, "read_region", fail)
        with pytest.raises(
            SlideError, match=r"damaged\.tif: cannot decode .* factors 2,2 Apparently so\.; copy"
        ) as caught:
            slide.read(0, 0, 9, 9)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("reader", ["tiled-tiff", "openslide"])
def test_survey_marks_what_cannot_be_decoded(damaged_slide, reader):
    path, (x, y) = damaged_slide
    with Slide(path, reader=reader) as slide:
        thumbnail, damaged = slide.survey(250)
    inside = np.zeros((800, 1000), bool)
    inside[y : y + 128, x : x + 128] = True
    inside = inside[::4, ::4]
    assert damaged[inside].all()
    assert (thumbnail[damaged] == 255).all()
    assert damaged[~cv2.dilate(inside.astype(np.uint8), np.ones((65, 65))).astype(bool)].sum() == 0


@pytest.fixture
def damaged_slide(make_slide):
    """A slide with one tile (128 x 128, at the corner given) that is no JPEG any more."""
    path = make_slide(compression="jpeg", name="damaged.tif")
    return break_tile(path, 3 * 8 + 3), (3 * 128, 3 * 128)  # 8 tiles a row
