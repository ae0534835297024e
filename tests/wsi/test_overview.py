"""The first look at a slide: one survey for tissue and picture, and what hangs there costs no more than the picture."""

import time

import numpy as np
import pytest
from wsi.faulty_slides import FaultySlide

from pathzoo.wsi.overview import take_overview
from pathzoo.wsi.slide import Slide
from pathzoo.wsi.tissue import tissue_mask


def test_thumbnail_and_tissue_are_those_of_the_slide(make_slide):
    with Slide(make_slide()) as slide:
        look = take_overview(slide)
        alone = take_overview(slide, isolate=False)
        assert (look.thumbnail == slide.thumbnail(1400, slide.bounds)).all()
        wanted = tissue_mask(slide.thumbnail(125, slide.bounds))  # 1000 px of 0.5 um at 4 um
    assert look.tissue.shape == wanted.shape == (100, 125)
    assert (look.tissue != wanted).mean() < 0.02
    assert (look.thumbnail == alone.thumbnail).all() and (look.tissue == alone.tissue).all()
    assert look.notes == ()


def test_without_tissue_there_is_a_picture_all_the_same(make_slide):
    with Slide(make_slide()) as slide:
        look = take_overview(slide, tissue=False)
    assert look.tissue is None and look.thumbnail.shape == (800, 1000, 3)


def test_what_cannot_be_decoded_counts_as_tissue(make_slide):
    with FaultySlide(make_slide(np.full((800, 1000, 3), 243, np.uint8)), point=(500, 400), fault="corrupt") as slide:
        look = take_overview(slide)
    assert look.tissue.any()
    rows, columns = np.nonzero(look.tissue)
    assert abs(rows.mean() * 8 - 400) < 130 and abs(columns.mean() * 8 - 500) < 130


@pytest.mark.parametrize("fault", ["hang", "segfault"])
def test_a_survey_that_hangs_or_crashes_leaves_every_tile_to_be_tried(make_slide, fault):
    with FaultySlide(make_slide(), point=(500, 400), fault=fault) as slide:
        started = time.monotonic()
        look = take_overview(slide, timeout=1.0)
        assert time.monotonic() - started < 20
    assert look.tissue is None
    assert (look.thumbnail == 255).all()
    assert len(look.notes) == 1 and "every tile was tried" in look.notes[0]
