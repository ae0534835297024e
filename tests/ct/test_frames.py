"""Windows, resampling, cropping and padding, against direct formulas."""

import numpy as np
import pytest

from pathzoo.ct.geometry import Frame, centred, resample_hu, scaled_size
from pathzoo.ct.window import window, window_range
from pathzoo.errors import ConfigError


@pytest.mark.parametrize(("centre", "width"), [(0, 400), (40, 350), (127.5, 255), (-600, 1500), (50.5, 1)])
def test_a_window_is_its_formula(centre, width):
    hu = np.random.default_rng(0).integers(-1024, 3000, (7, 9)).astype(np.int16)
    shown = window(hu, centre, width)
    low, high = centre - width / 2, centre + width / 2
    for value, got in zip(hu.ravel().tolist(), shown.ravel().tolist(), strict=True):
        wanted = 0 if value <= low else 255 if value >= high else 255 * (value - low) / (high - low)
        assert abs(got - wanted) < 1e-3
    assert shown.dtype == np.float32 and shown.shape == hu.shape and shown.min() >= 0 and shown.max() <= 255
    assert window_range(centre, width) == (low, high)


def test_a_window_does_not_round_and_leaves_its_input():
    hu = np.array([-200, -199, 0, 199, 200], np.int16)
    assert np.allclose(window(hu, 0, 400), [0, 0.6375, 127.5, 254.3625, 255])
    assert hu.tolist() == [-200, -199, 0, 199, 200]
    already = hu.astype(np.float32)
    window(already, 0, 400)
    assert already.tolist() == [-200, -199, 0, 199, 200]


@pytest.mark.parametrize(("centre", "width"), [(0, 0), (0, -5), (np.nan, 400), (0, np.inf)])
def test_bad_windows(centre, width):
    with pytest.raises(ConfigError, match="window centre"):
        window(np.zeros(3), centre, width)


@pytest.mark.parametrize("have", [(5, 6), (6, 5), (3, 9), (8, 2), (1, 1)])
def test_cropping_and_padding_keep_the_centre(have):
    """By coordinates: the middle of the result lies at the middle of the source, to half a pixel."""
    size = (6, 5)
    plane = np.arange(1, have[0] * have[1] + 1, dtype=np.int16).reshape(have)
    framed = centred(plane, size, -1024)
    assert framed.shape == (5, 6) and framed.dtype == np.int16
    for axis in (0, 1):
        places = [
            (np.argwhere(framed == value)[0][axis], np.argwhere(plane == value)[0][axis]) for value in kept(framed)
        ]
        shifts = {new - old for new, old in places}
        assert len(shifts) == 1 and abs(shifts.pop() - (framed.shape[axis] - have[axis]) / 2) <= 0.5
    assert len(kept(framed)) == min(5, have[0]) * min(6, have[1])


def kept(framed):
    return [value for value in framed.ravel() if value != -1024]


def test_shrinking_takes_the_mean_of_areas():
    plane = np.random.default_rng(0).integers(-1024, 3000, (12, 20)).astype(np.int16)
    means = plane.reshape(4, 3, 5, 4).mean(axis=(1, 3))
    assert np.abs(resample_hu(plane, (5, 4)) - means).max() <= 0.51


def test_growing_is_linear_between_pixel_centres():
    ramp = np.tile(np.arange(0, 800, 100, dtype=np.int16), (4, 1))
    grown = resample_hu(ramp, (16, 8))
    centres = (np.arange(16) + 0.5) / 2 - 0.5
    wanted = np.interp(centres, np.arange(8), ramp[0])
    assert np.abs(grown - wanted).max() <= 0.51 and grown.dtype == np.int16


@pytest.mark.parametrize("size", [(3, 4), (13, 11), (12, 18), (5, 30)])
def test_labels_go_to_the_nearest_and_stay_on_their_image(size):
    label = np.random.default_rng(1).integers(0, 3, (9, 6)).astype(np.uint8)
    grown = Frame(size, resize=True).label(label, None)
    rows = [int((y + 0.5) * 9 / size[1]) for y in range(size[1])]
    columns = [int((x + 0.5) * 6 / size[0]) for x in range(size[0])]
    assert (grown == label[np.ix_(rows, columns)]).all() and grown.dtype == np.uint8


def test_pixel_spacing_scales_and_the_stored_spacing_is_what_came_out():
    frame = Frame((10, 10), pixel_spacing=1.5)
    spacing = (0.75, 0.7)
    plane = np.full((16, 20), 40, np.int16)
    assert scaled_size(plane.shape, spacing, 1.5) == (9, 8)
    stored = frame.stored_spacing(plane.shape, spacing)
    assert stored == (0.75 * 16 / 8, 0.7 * 20 / 9)
    framed = frame.hu(plane, spacing)
    assert framed.shape == (10, 10) and (framed == 40).sum() == 9 * 8 and (framed == -1024).sum() == 100 - 72
    assert Frame((10, 10)).stored_spacing(plane.shape, spacing) == spacing
    assert Frame((10, 8), resize=True).stored_spacing(plane.shape, spacing) == (1.5, 1.4)
    assert Frame((10, 8), resize=True).stored_spacing(plane.shape, None) is None
    with pytest.raises(ConfigError, match="a source states no spacing"):
        frame.hu(plane, None)


def test_a_clipped_source_is_padded_with_its_lowest_value():
    framed = Frame((4, 4), fill=0).hu(np.full((2, 2), 9, np.int16), None)
    assert sorted(set(framed.ravel().tolist())) == [0, 9]
