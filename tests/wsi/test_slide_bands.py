"""A slide read in bands is the slide read at once."""

import numpy as np
import pytest

from pathzoo.wsi.slide import Slide


@pytest.mark.parametrize("mpp", [None, 0.5, 1.0, 0.73, 2.31, 2.0])
@pytest.mark.parametrize(("x", "y", "rows"), [(0, 0, 100), (37, 11, 33), (-20, 700, 7)])
def test_bands_are_what_read_gives(make_slide, mpp, x, y, rows):
    with Slide(make_slide(levels=3)) as slide:
        whole = slide.read(x, y, 150, 170, mpp)
        bands = list(slide.bands(x, y, 150, 170, mpp, rows))
    assert [len(band) for band in bands[:-1]] == [rows] * (170 // rows)
    np.testing.assert_array_equal(np.concatenate(bands), whole)
