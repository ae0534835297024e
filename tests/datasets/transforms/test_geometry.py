import numpy as np
import pytest
from PIL import Image

from pathzoo.datasets.transforms import CenterCropOrPad, ResizeShortSide, ResizeToMpp
from pathzoo.errors import ConfigError, DataError


def _results(image, **more):
    return {"img": image.copy(), "img_shape": image.shape[:2], "item": "a/b.png", **more}


def test_shrinking_takes_area_means(tissue):
    out = ResizeToMpp(1.0)(_results(tissue, mpp=0.25))
    means = tissue.reshape(48, 4, 64, 4, 3).astype(float).mean((1, 3))
    assert out["img"].shape == (48, 64, 3) and out["img_shape"] == (48, 64)
    assert np.abs(out["img"] - means).max() <= 0.51
    assert out["mpp"] == 1.0 and out["scale_factor"] == (0.25, 0.25)


def test_shrinking_by_a_fraction_agrees_with_pillows_box_filter(tissue):
    out = ResizeToMpp(0.98)(_results(tissue, mpp=0.49 * 700 / 500))["img"]
    scale = 0.49 * 700 / 500 / 0.98
    size = (round(256 * scale), round(192 * scale))
    other = np.asarray(Image.fromarray(tissue).resize(size, Image.Resampling.BOX))
    assert out.shape == other.shape
    assert np.abs(out.astype(float) - other).mean() < 6, "the two weigh border pixels differently, no more"
    assert np.abs(out.mean((0, 1)) - tissue.mean((0, 1))).max() < 0.6


def test_mpp_within_tolerance_is_left_alone(tissue):
    out = ResizeToMpp(0.5, tolerance=0.02)(_results(tissue, mpp=0.507))
    assert (out["img"] == tissue).all() and out["mpp"] == 0.507


def test_enlarging_stops_at_the_limit(tissue):
    assert ResizeToMpp(0.5)(_results(tissue, mpp=0.55))["img"].shape == (211, 282, 3)
    with pytest.raises(DataError, match=r"a/b\.png: 0\.56 um/px is coarser than the 0\.5 um/px.*1\.12 times"):
        ResizeToMpp(0.5)(_results(tissue, mpp=0.56))


@pytest.mark.parametrize("mpp", [None, 0.0, -1.0, float("nan")])
def test_unknown_mpp_is_refused_with_a_remedy(tissue, mpp):
    with pytest.raises(DataError, match=r"a/b\.png: (microns per pixel not known.*ResizeShortSide|mpp .* above 0)"):
        ResizeToMpp(0.5)(_results(tissue, mpp=mpp))


def test_short_side(tissue):
    out = ResizeShortSide(96)(_results(tissue, mpp=0.5))
    assert out["img"].shape == (96, 128, 3) and out["mpp"] == 1.0
    assert ResizeShortSide(96)(_results(tissue, mpp=None))["mpp"] is None


def test_mask_and_boxes_follow_the_image():
    image, mask = np.full((80, 120, 3), 255, np.uint8), np.zeros((80, 120), np.uint8)
    image[20:60, 40:100], mask[20:60, 40:100] = (200, 0, 0), 7
    boxes = np.array([[40, 20, 100, 60]], np.float32)
    out = _results(image, gt_seg_map=mask, gt_bboxes=boxes, gt_bboxes_labels=np.array([3]), mpp=0.25)
    out = CenterCropOrPad((50, 60))(ResizeToMpp(0.5)(out))
    red = (out["img"] == [200, 0, 0]).all(-1)
    assert out["img"].shape == (60, 50, 3) and out["img_shape"] == (60, 50)
    assert (red == (out["gt_seg_map"] == 7)).all()
    rows, columns = np.nonzero(red)
    found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    np.testing.assert_allclose(out["gt_bboxes"], [found])
    assert out["gt_seg_map"][0, 0] == 255, "padding is not a class"


@pytest.mark.parametrize(("width", "height"), [(7, 9), (8, 8), (5, 20), (20, 5), (30, 31)])
def test_crop_or_pad_keeps_the_centre(width, height):
    image = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)  # 255 is only in the padding
    out = CenterCropOrPad(10)(_results(image))["img"]
    assert out.shape == (10, 10, 3)
    kept_y, kept_x = ((out != 255).any(-1)).any(1), ((out != 255).any(-1)).any(0)
    assert kept_y.sum() == min(height, 10) and kept_x.sum() == min(width, 10)
    for have, kept in ((width, kept_x), (height, kept_y)):
        first = np.flatnonzero(kept)[0]
        if have >= 10:
            assert first == 0
        else:
            assert abs(first - (10 - have - first)) <= 1, "padding is even on both sides"
    x, y = max((width - 10) // 2, 0), max((height - 10) // 2, 0)
    expected = image[y : y + 10, x : x + 10]
    assert (out[kept_y][:, kept_x] == expected).all()


def test_boxes_outside_are_dropped_with_their_labels():
    boxes = np.array([[0, 0, 5, 5], [45, 45, 60, 55], [10, 40, 90, 60]], np.float32)
    out = CenterCropOrPad(20)(
        _results(
            np.zeros((100, 100, 3), np.uint8),
            gt_bboxes=boxes,
            gt_bboxes_labels=np.array([1, 2, 3]),
            gt_ignore_flags=np.array([False, True, False]),
        )
    )
    np.testing.assert_allclose(out["gt_bboxes"], [[5, 5, 20, 15], [0, 0, 20, 20]])
    assert out["gt_bboxes_labels"].tolist() == [2, 3] and out["gt_ignore_flags"].tolist() == [True, False]


def test_bad_arguments_and_unmovable_annotations():
    with pytest.raises(ConfigError, match="mpp=0"):
        ResizeToMpp(0)
    with pytest.raises(ConfigError, match=r"max_upsample=0\.5"):
        ResizeToMpp(1, max_upsample=0.5)
    with pytest.raises(ConfigError, match="size=0"):
        ResizeShortSide(0)
    with pytest.raises(ConfigError, match="pad_value=300"):
        CenterCropOrPad(10, pad_value=300)
    with pytest.raises(ConfigError, match="gt_masks"):
        CenterCropOrPad(10)(_results(np.zeros((9, 9, 3), np.uint8), gt_masks=[1]))
