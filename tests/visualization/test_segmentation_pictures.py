"""Panels show the right pixels in the right colours, at any size of region."""

import numpy as np
import pytest
from PIL import Image

from pathzoo.errors import DataError
from pathzoo.visualization.segmentation import FALSE, MISSED, OTHER, UNLABELLED, panels, save_page

CLASSES = ["normal", "benign", "malignant"]
COLORS = [(0, 158, 115), (230, 159, 0), (213, 94, 0)]
MARGIN, GAP, HEAD, SIDE = 28, 24, 54, 520


def quarters(height=400, width=400):
    """A region in four columns: normal, benign, malignant, not labelled; a prediction wrong in its lower half."""
    image = np.full((height, width, 3), 200, np.uint8)
    truth = np.repeat(np.repeat([0, 1, 2, 255], width // 4)[None], height, axis=0).astype(np.uint8)
    wrong = np.repeat(np.repeat([1, 0, 1, 0], width // 4)[None], height, axis=0).astype(np.uint8)
    guess = np.where(truth == 255, 0, truth).astype(np.uint8)
    guess[height // 2 :] = wrong[height // 2 :]
    return image, truth, guess


def cell(page, row, column, size=(SIDE, SIDE)):
    """A panel's pixels, of a page without a title."""
    y = MARGIN + row * (HEAD + size[0] + GAP) + HEAD
    x = MARGIN + column * (max(size[1], 300) + GAP)
    return page[y : y + size[0], x : x + size[1]]


def test_classes_and_mistakes_lie_where_they_are():
    image, truth, guess = quarters()
    page = panels(image, truth, {"model": guess}, CLASSES, COLORS)
    middle = [65, 195, 325, 455]  # of the four columns in a panel of 520 pixels
    np.testing.assert_array_equal(cell(page, 0, 0), np.full((SIDE, SIDE, 3), 200))
    tinted = [tuple((np.array(color) + 128 + 100) // 2) for color in COLORS]  # over the grey of 200, made pale
    for y, expected in ((130, [*tinted, UNLABELLED]), (390, [*tinted, UNLABELLED])):
        assert [tuple(cell(page, 0, 1)[y, x]) for x in middle] == expected
    assert [tuple(cell(page, 0, 2)[390, x]) for x in middle] == [tinted[1], tinted[0], tinted[1], tinted[0]]
    upper, lower = ([tuple(cell(page, 0, 3)[y, x]) for x in middle] for y in (130, 390))
    right = tuple(np.array([round((5 * 255 + 200) / 6)] * 3))
    assert upper == [right, right, right, UNLABELLED]
    assert lower == [FALSE, MISSED, OTHER, UNLABELLED]
    several = panels(image, truth, {"model": guess, "other": truth * (truth < 3)}, CLASSES, COLORS)
    np.testing.assert_array_equal(cell(several, 1, 2), cell(page, 0, 3))  # below, where there are several
    assert MISSED not in {tuple(pixel) for pixel in cell(several, 1, 3).reshape(-1, 3)}


@pytest.mark.parametrize(("height", "width"), [(256, 256), (1920, 2560), (2560, 200), (64, 640)])
def test_every_size_gives_a_page_that_is_read_at_one_size(height, width):
    image, truth, guess = quarters(height, width)
    page = panels(image, truth, {"supervised": guess, "self-training": truth * (truth < 3)}, CLASSES)
    assert page.dtype == np.uint8
    assert page.shape[1] == 2 * MARGIN + 4 * max(round(width * SIDE / max(height, width)), 300) + 3 * GAP
    assert 350 < page.shape[0] < 1400
    assert not (page[-20:] != 255).any()  # nothing is cut off at the lower margin, nor at the right one
    assert not (page[:, -20:] != 255).any()
    assert (page != 255).any(axis=2).mean() > 0.05


def test_thin_structures_do_not_vanish_when_scaled_down():
    image, truth, guess = quarters(2560, 2560)
    guess = np.where(truth == 255, 0, truth).astype(np.uint8)
    guess[:, 100:103] = 2  # three pixels of 2560, under one of 520
    shown = cell(panels(image, truth, {"model": guess}, CLASSES, COLORS), 0, 3)
    assert np.abs(shown[260].astype(int) - shown[260, 60]).sum(axis=1).max() > 60


def test_maps_that_do_not_fit_are_named():
    image, truth, guess = quarters()
    with pytest.raises(DataError, match=r"model of \(200, 400\) for an image of \(400, 400, 3\)"):
        panels(image, truth, {"model": guess[:200]}, CLASSES)
    truth[7, 9] = 4
    with pytest.raises(DataError, match=r"truth holds the value 4 at x 9, y 7: give 0\.\.2"):
        panels(image, truth, {"model": guess}, CLASSES)


def test_arguments_are_left_alone_and_no_prediction_is_allowed():
    image, truth, guess = quarters()
    before = image.copy(), truth.copy(), guess.copy()
    panels(image, truth, {"model": guess}, CLASSES, title="a" * 500)
    for array, copy in zip((image, truth, guess), before, strict=True):
        np.testing.assert_array_equal(array, copy)
    assert panels(image, truth, {}, CLASSES).shape[1] == 2 * MARGIN + 2 * SIDE + GAP


def test_page_is_saved_whole(tmp_path):
    image, truth, guess = quarters()
    page = panels(image, truth, {"model": guess}, CLASSES)
    save_page(page, tmp_path / "plots" / "a.png")
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "plots" / "a.png")), page)
    assert [path.name for path in (tmp_path / "plots").iterdir()] == ["a.png"]
