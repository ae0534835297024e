"""HUWindow against its formula, and the study's geometric augmentation of a slice and its label."""

import numpy as np
import pytest
from albumentations import Affine
from mmseg.datasets.transforms import PackSegInputs
from scipy.ndimage import maximum_filter, minimum_filter

from pathzoo.datasets.transforms import Albumentations, HUWindow
from pathzoo.errors import ConfigError, DataError
from pathzoo.registry import TRANSFORMS

_MOVE = {"rotate": (-15, 15), "translate_percent": (-0.06, 0.06), "scale": (0.9, 1.1), "keep_ratio": True}
_FILL = {"mask_interpolation": 0, "border_mode": 0, "fill": 0, "fill_mask": 0}


def _slice(image, **more):
    return {"img": np.asarray(image, np.int16), "item": "case_00000/0001", "hu_known_range": None} | more


@pytest.mark.parametrize(("centre", "width"), [(0, 400), (40, 350), (127.5, 255), (-600, 1500)])
def test_a_window_maps_its_ends_to_0_and_255_and_is_straight_between(centre, width):
    hu = np.arange(-2000, 3000, dtype=np.int16).reshape(50, 100)
    results = HUWindow(centre, width)(_slice(hu))
    low, high = centre - width / 2, centre + width / 2
    assert results["hu_window"] == (low, high)
    assert (results["img"].dtype, results["img"].shape) == (np.float32, (50, 100, 1))
    assert results["img_shape"] == (50, 100)
    wanted = np.interp(hu.astype(float), [low, high], [0, 255])[..., None]  # a second derivation: cuts off by itself
    np.testing.assert_allclose(results["img"], wanted, atol=1e-3)
    assert (results["img"].min(), results["img"].max()) == (0, 255)


def test_it_is_registered_and_prints_its_window():
    assert repr(TRANSFORMS.build({"type": "HUWindow", "centre": 40.0, "width": 350.0})) == (
        "HUWindow(centre=40, width=350)"
    )
    assert HUWindow().bounds == (-200, 200)


@pytest.mark.parametrize(
    ("known", "bad"), [((-100, 200), True), ((-200, 100), True), ((-200, 200), False), (None, False)]
)
def test_a_window_beyond_the_known_range_is_refused_with_the_one_that_fits(known, bad):
    results = _slice(np.zeros((4, 4)), hu_known_range=known)
    if not bad:
        assert HUWindow(0, 400)(results)["hu_window"] == (-200, 200)
        return
    with pytest.raises(ConfigError, match="shows -200 to 200") as caught:
        HUWindow(0, 400)(results)
    text = str(caught.value)
    centre, width = sum(known) / 2, known[1] - known[0]
    assert f"case_00000/0001: its HU are known from {known[0]} to {known[1]} alone" in text
    assert f"the widest that fits has centre {centre:g} and width {width:g}" in text
    HUWindow(centre, width)(_slice(np.zeros((4, 4)), hu_known_range=known))


@pytest.mark.parametrize("wrong", [{"width": 0}, {"width": -5}, {"width": float("nan")}, {"centre": float("inf")}])
def test_what_is_no_window_is_refused(wrong):
    with pytest.raises(ConfigError, match="give HU, the width above 0"):
        HUWindow(**wrong)


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8), np.zeros((4, 4, 1), "f4")]
)
def test_what_is_not_in_hu_is_refused(image):
    with pytest.raises(DataError, match="case_00000/0001: HUWindow takes signed whole HU"):
        HUWindow()(_slice(np.zeros((4, 4))) | {"img": image})
    with pytest.raises(DataError, match="stands first in a pipeline, and once"):
        HUWindow()(HUWindow()(_slice(np.zeros((4, 4)))))


def _blobs(seed, size=96):
    """A label map of two nested discs somewhere inside."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    cx, cy, radius = *rng.uniform(size * 0.35, size * 0.65, 2), rng.uniform(size * 0.15, size * 0.25)
    label = (np.hypot(x - cx, y - cy) < radius).astype(np.uint8)
    label[np.hypot(x - cx, y - cy - radius / 2) < radius / 2.5] = 2
    return label


@pytest.mark.parametrize("sample_seed", range(20))
def test_image_and_label_move_together(sample_seed):
    """An image painted from its label is still painted from it: exactly by nearest neighbour, off borders by linear."""
    label = _blobs(sample_seed)
    move = Albumentations([{"type": Affine, **_MOVE, **_FILL, "interpolation": 0, "p": 1.0}])
    results = {"img": (100.0 * label).astype(np.float32)[..., None], "gt_seg_map": label, "sample_seed": sample_seed}
    moved = move(dict(results))
    np.testing.assert_array_equal(moved["img"][..., 0], 100.0 * moved["gt_seg_map"])
    assert not np.array_equal(moved["gt_seg_map"], label)
    smooth = Albumentations([{"type": Affine, **_MOVE, **_FILL, "p": 1.0}])(dict(results))
    painted = 100.0 * smooth["gt_seg_map"]
    inside = maximum_filter(painted, 5) == minimum_filter(painted, 5)  # borders are two pixels away
    np.testing.assert_allclose(smooth["img"][..., 0][inside], painted[inside], atol=1e-3)
    assert inside.mean() > 0.7
    assert set(np.unique(smooth["gt_seg_map"])) <= {0, 1, 2}
    assert smooth["gt_seg_map"].dtype == np.uint8


def test_a_windowed_slice_passes_the_augmentation_unharmed():
    """float32 in 0..255 with one channel: neither clipped to 0..1 nor robbed of its channel, whether applied or not."""
    rng = np.random.default_rng(0)
    hu = rng.normal(0, 100, (64, 48)).round().astype(np.int16)
    for p in (0.0, 1.0):
        results = HUWindow()(_slice(hu, gt_seg_map=np.ones((64, 48), np.uint8), sample_seed=3))
        before = results["img"].copy()
        results = Albumentations([{"type": Affine, **_MOVE, **_FILL, "p": p}])(results)
        assert (results["img"].dtype, results["img"].shape) == (np.float32, (64, 48, 1))
        if p:
            assert 200 < results["img"].max() <= 255
            assert results["img"].min() == 0
            outside = results["gt_seg_map"] == 0  # what came in from beyond the slice is air and background
            assert outside.any()
            assert np.median(results["img"][outside]) == 0
        else:
            np.testing.assert_array_equal(results["img"], before)
        packed = PackSegInputs(meta_keys=("hu_window",))(results)
        assert packed["inputs"].shape == (1, 64, 48)
        assert packed["data_samples"].hu_window == (-200, 200)
