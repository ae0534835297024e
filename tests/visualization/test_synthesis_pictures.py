"""Pages of drawn pictures: the right pixels in the right place, at any size, and what is refused."""

import numpy as np
import pytest

from pathzoo.errors import DataError
from pathzoo.visualization.segmentation import UNLABELLED
from pathzoo.visualization.synthesis import SIDE, Triptych, shown_labels, shown_picture, triptychs

CLASSES = ("background", "kidney", "tumour")
COLORS = [(228, 228, 228), (0, 158, 115), (213, 94, 0)]


def triptych(side=64, **changes):
    labels = np.zeros((side, side), np.uint8)
    labels[:, side // 2 :] = 1
    labels[side // 2 :, side // 2 :] = 2
    return Triptych(np.full((side, side), 40.0), labels, np.full((side, side, 1), 200.4))._replace(**changes)


def patches(page, color):
    """(top, left, height, width) of the box around all pixels of a colour."""
    rows, columns = np.nonzero((page == color).all(axis=2))
    return rows.min(), columns.min(), np.ptp(rows) + 1, np.ptp(columns) + 1


def test_real_label_map_and_drawn_stand_side_by_side():
    page = triptychs([triptych()], CLASSES, COLORS)
    assert page.dtype == np.uint8 and page.shape[2] == 3
    top, left, height, width = patches(page, (40, 40, 40))
    assert (height, width) == (SIDE, SIDE)
    drawn = patches(page, (200, 200, 200))
    assert drawn[0] == top and drawn[2:] == (SIDE, SIDE)
    step = (drawn[1] - left) // 2
    between = page[top : top + SIDE, left + step : left + step + SIDE]
    half = SIDE // 2
    assert (between[:, :half] == COLORS[0]).all()
    assert (between[:half, half:] == COLORS[1]).all() and (between[half:, half:] == COLORS[2]).all()


@pytest.mark.parametrize(("height", "width"), [(512, 512), (64, 128), (300, 90), (20, 20)])
def test_label_maps_keep_their_colours_at_any_size(height, width):
    labels = np.random.default_rng(0).integers(0, 3, (height, width)).astype(np.uint8)
    labels[0] = 255
    row = Triptych(None, labels, np.zeros((height, width, 3), np.uint8))
    shown = shown_labels(labels)
    assert max(shown.shape) == SIDE and set(np.unique(shown)) <= {0, 1, 2, 255}
    page = triptychs([row], CLASSES, COLORS)
    assert {*COLORS, UNLABELLED} <= {tuple(pixel) for pixel in page.reshape(-1, 3).tolist()}
    assert not (page[-15:] != 255).any() and not (page[:, -15:] != 255).any()  # nothing is cut off


def test_what_was_scaled_before_is_shown_as_it_is():
    rng = np.random.default_rng(1)
    for size in ((100, 80), (400, 512)):
        real, labels = rng.uniform(-20, 280, (*size, 3)), rng.integers(0, 3, size)
        whole = triptychs([Triptych(real, labels, real)], CLASSES, COLORS)
        before = Triptych(shown_picture(real), shown_labels(labels), shown_picture(real))
        assert np.array_equal(triptychs([before], CLASSES, COLORS), whole)


def test_rgb_stays_rgb_and_values_beyond_the_range_are_cut_off():
    red = np.zeros((30, 30, 3))
    red[..., 0] = 300
    red[..., 2] = -5
    assert (shown_picture(red) == (255, 0, 0)).all()


def test_groups_stand_in_the_order_of_reading():
    rows = [triptych(drawn=np.full((64, 64), 101 + k, np.uint8), caption=f"case {k}") for k in range(5)]
    page = triptychs(rows, CLASSES, COLORS, columns=2, title="A page")
    places = [patches(page, (101 + k,) * 3)[:2] for k in range(5)]
    assert places == sorted(places)
    assert places[0][1] == places[2][1] == places[4][1] < places[1][1] == places[3][1]
    narrow = triptychs(rows[:1], CLASSES, COLORS, columns=3)  # no room is left for groups that are not there
    assert narrow.shape[1] == triptychs(rows[:1], CLASSES, COLORS).shape[1]


def test_the_nearest_real_one_is_a_fourth_column():
    three, other = (
        triptych(),
        triptych(nearest=np.full((32, 48), 77, np.uint8), notes=("", "", "", "0.9 of the median")),
    )
    page = triptychs([three, other], CLASSES, COLORS)
    height, width = patches(page, (77, 77, 77))[2:]
    assert (height, width) == (round(SIDE * 32 / 48), SIDE)
    assert page.shape[1] - triptychs([three], CLASSES, COLORS).shape[1] == 256 + 8


def test_arguments_are_left_alone():
    row = triptych(real=np.full((64, 64), 400.0))
    before = row.real.copy(), row.labels.copy()
    triptychs([row], CLASSES, COLORS)
    assert np.array_equal(before[0], row.real) and np.array_equal(before[1], row.labels)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"real": np.zeros((64, 65))}, r"case 7: real picture \(64, 65\) for a label map \(64, 64\)"),
        ({"drawn": np.zeros((64, 64, 2))}, r"case 7: drawn picture \(64, 64, 2\)"),
        ({"labels": np.full((64, 64), 3, np.uint8)}, r"case 7: the label map holds 3; give 0\.\.2 or 255"),
        ({"labels": np.zeros((64, 64))}, r"case 7: a label map of float64"),
    ],
)
def test_pictures_that_do_not_fit_are_named(changes, match):
    with pytest.raises(DataError, match=match):
        triptychs([triptych(caption="case 7", **changes)], CLASSES, COLORS)


def test_pages_of_nothing_are_refused():
    with pytest.raises(DataError, match="0 drawn pictures"):
        triptychs([], CLASSES, COLORS)
    with pytest.raises(DataError, match="2 colours for 3 classes"):
        triptychs([triptych()], CLASSES, COLORS[:2])
