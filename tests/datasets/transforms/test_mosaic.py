"""Boxes follow their pictures: every object is a square of its own colour, so its pixels say where its box must be."""

import numpy as np
import pytest

from pathzoo.datasets.transforms import Albumentations, CenterCropOrPad, LetterBox, Mosaic, ResizeShortSide, ResizeToMpp
from pathzoo.datasets.transforms.mosaic import mix_seed
from pathzoo.errors import ConfigError

GROUND, PAD = 250, 114


def tile(seed, size=(120, 90), squares=5):
    """Squares on a grid that do not touch, each with a colour of its own: red is its number + 1, green the tile's."""
    rng = np.random.default_rng(seed)
    image = np.full((size[1], size[0], 3), GROUND, np.uint8)
    boxes, labels, ignore = [], [], []
    cells = rng.permutation([(x, y) for x in range(3) for y in range(2)])[:squares]
    for number, (column, row) in enumerate(cells):
        cell = size[0] // 3, size[1] // 2
        side = int(rng.integers(12, min(cell) - 6))
        x, y = column * cell[0] + int(rng.integers(0, 5)), row * cell[1] + int(rng.integers(0, 5))
        image[y : y + side, x : x + side] = (20 * number + 20, 60 * (seed % 4) + 3, 0)
        boxes.append((x, y, x + side, y + side))
        labels.append(number)
        ignore.append(number % 2 == 1)
    results = {"img": image, "img_shape": image.shape[:2], "ori_shape": image.shape[:2], "mpp": 0.5, "x": 8, "y": 9}
    results |= {"gt_bboxes": np.array(boxes, np.float32).reshape(-1, 4), "gt_bboxes_labels": np.array(labels, np.int64)}
    return results | {"gt_ignore_flags": np.array(ignore, bool), "downsample": 2.0, "item": str(seed)}


def pixels_of(image, label, green=None):
    """Pixel columns and rows that have the colour of a square, up to what interpolation mixes at its edges."""
    near = np.abs(image[..., 0].astype(int) - (20 * label + 20)) <= 4
    near &= image[..., 2] <= 4
    if green is not None:
        near &= np.abs(image[..., 1].astype(int) - green) <= 4
    rows, columns = np.nonzero(near)
    return columns, rows


def check_boxes(results, slack, green=None):
    """Every box bounds exactly the pixels of its square, to `slack` pixels; what is beside img_shape is filling."""
    height, width = results["img_shape"]
    assert height <= results["img"].shape[0] and width <= results["img"].shape[1]
    assert (results["img"][height:] == PAD).all() and (results["img"][:, width:] == PAD).all()
    assert len(results["gt_bboxes"]) == len(results["gt_bboxes_labels"]) == len(results["gt_ignore_flags"])
    for box, label, ignored in zip(
        results["gt_bboxes"], results["gt_bboxes_labels"], results["gt_ignore_flags"], strict=True
    ):
        assert ignored == (label % 2 == 1)
        assert (box >= 0).all() and (box <= [width, height, width, height]).all()
        columns, rows = pixels_of(results["img"], label, green)
        if min(box[2:] - box[:2]) > 2 * slack + 2:
            found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            np.testing.assert_allclose(found, box, atol=slack)


FLIPS = [{"type": "HorizontalFlip", "p": 0.5}, {"type": "VerticalFlip", "p": 0.5}, {"type": "RandomRotate90", "p": 0.5}]
COLOUR = [{"type": "RandomBrightnessContrast", "p": 0.0}]


@pytest.mark.parametrize(
    ("transform", "slack"),
    [
        (lambda: LetterBox((200, 160)), 1.6),
        (lambda: LetterBox((64, 64)), 1.6),
        (lambda: LetterBox((200, 160), enlarge=False), 0.01),
        (lambda: ResizeShortSide(180), 1.6),
        (lambda: ResizeToMpp(1.0), 1.6),
        (lambda: CenterCropOrPad((100, 100)), 0.01),
        (lambda: Albumentations([*FLIPS, *COLOUR]), 0.01),
        (lambda: Albumentations([{"type": "RandomScale", "scale_limit": (-0.3, 0.5), "p": 1.0}, *FLIPS]), 2.1),
        (lambda: Albumentations([{"type": "RandomCrop", "height": 60, "width": 70}], min_visibility=0.2), 0.01),
        (lambda: Mosaic((160, 120), scale=(1, 1), translate=0.2, p=0), 2.1),
    ],
)
def test_boxes_follow_one_picture(transform, slack):
    build = transform()
    seen = 0
    for seed in range(12):
        results = build({**tile(seed), "sample_seed": seed})
        seen += len(results["gt_bboxes"])
        check_boxes(results, slack)
    assert seen > 12


@pytest.mark.parametrize("p", [0, 1])
def test_boxes_are_not_half_a_pixel_off(p):
    """The centre of gravity of a square's darkness is the middle of its box, and its mass the box's area."""
    image = np.full((90, 120, 3), PAD, np.uint8)
    image[30:61, 40:75] = 0
    box = {"gt_bboxes": np.float32([[40, 30, 75, 61]]), "gt_bboxes_labels": np.zeros(1, int)}
    blank = tile(0, squares=0) | {"img": np.full((90, 120, 3), PAD, np.uint8)}
    seen = 0
    for seed in range(60):
        results = tile(0, squares=0) | {"img": image.copy(), **box, "gt_ignore_flags": np.zeros(1, bool)}
        results |= {"sample_seed": seed, "tile_pool": lambda seed: dict(blank)}
        out = Mosaic((150, 130), scale=(0.8, 1.3), p=p, min_visibility=1)(results)
        if len(out["gt_bboxes"]):
            x0, y0, x1, y1 = out["gt_bboxes"][0]
            dark = (PAD - out["img"][..., 0].astype(float)) / PAD
            rows, columns = np.mgrid[0:130, 0:150] + 0.5
            centre = [(columns * dark).sum() / dark.sum(), (rows * dark).sum() / dark.sum()]
            np.testing.assert_allclose(centre, [(x0 + x1) / 2, (y0 + y1) / 2], atol=0.15)
            assert dark.sum() == pytest.approx((x1 - x0) * (y1 - y0), rel=0.02)
            seen += 1
    assert seen > 4


def pool(number, squares=5, size=(120, 90)):
    """What a data set offers: three tiles told apart by their green."""
    order = iter((number * 4 + 1, number * 4 + 2, number * 4 + 3))
    return lambda seed: tile(next(order), size, squares)


@pytest.mark.parametrize("scale", [(1, 1), (0.6, 1.6)])
@pytest.mark.parametrize("size", [(120, 90), (200, 200)])
def test_boxes_follow_a_mosaic(scale, size):
    mosaic = Mosaic(size, scale=scale, min_visibility=0)
    kept = 0
    for number in range(15):
        results = mosaic({**tile(4 * number), "sample_seed": 31 * number, "tile_pool": pool(number)})
        assert results["img"].shape == (size[1], size[0], 3) and "tile_pool" not in results
        assert [results[name] for name in ("x", "y", "downsample", "mpp")] == [None] * 4
        height, width = results["img"].shape[:2]
        found = set()
        for box, label, ignored in zip(
            results["gt_bboxes"], results["gt_bboxes_labels"], results["gt_ignore_flags"], strict=True
        ):
            assert ignored == (label % 2 == 1) and (box[2:] <= [width, height]).all() and (box >= 0).all()
            if min(box[2:] - box[:2]) < 8:
                continue
            x, y = (box[:2] + box[2:]) / 2
            green = int(results["img"][int(y), int(x), 1])  # tells the tile
            columns, rows = pixels_of(results["img"], label, green)
            np.testing.assert_allclose([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], box, atol=2.6)
            found.add((green // 50, label))
            kept += 1
        # And the other way: what shows in the picture has a box.
        for place in range(4):
            for label in range(5):
                columns, rows = pixels_of(results["img"], label, 60 * place + 3)
                if len(columns) > 150 and min(np.ptp(columns), np.ptp(rows)) > 10:
                    assert (60 * place + 3) // 50 in {g for g, known in found if known == label}
    assert kept > 60


def test_a_mosaic_is_made_of_four_tiles_around_a_point():
    mosaic = Mosaic((120, 90), scale=(1, 1), translate=0, min_visibility=0)
    greens = []
    for number in range(30):
        results = mosaic({**tile(4 * number), "sample_seed": number, "tile_pool": pool(number)})
        values = results["img"][results["img"][..., 2] <= 4][:, 1]
        greens.append(len({int(value) // 50 for value in values}))
    assert max(greens) == 4 and np.mean(greens) > 2


def test_small_remains_are_dropped_with_what_belongs_to_them():
    counts = []
    for least in (0.0, 0.5, 1.0):
        mosaic = Mosaic((120, 90), min_visibility=least)
        results = [mosaic({**tile(4 * n), "sample_seed": n, "tile_pool": pool(n)}) for n in range(10)]
        counts.append(sum(len(one["gt_bboxes"]) for one in results))
        assert all(
            len(one["gt_bboxes"]) == len(one["gt_bboxes_labels"]) == len(one["gt_ignore_flags"]) for one in results
        )
        for one in results:
            if least == 1:  # whole squares only: they are as wide as high
                sides = one["gt_bboxes"][:, 2:] - one["gt_bboxes"][:, :2]
                np.testing.assert_allclose(sides[:, 0], sides[:, 1], rtol=0.06)
    assert counts[0] > counts[1] > counts[2] > 0


def test_the_seed_alone_says_what_is_drawn():
    mosaic = Mosaic((120, 90))
    first, again, other = (mosaic({**tile(0), "sample_seed": seed, "tile_pool": pool(0)}) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first["img"], again["img"])
    assert not np.array_equal(first["img"], other["img"]) and first["item"] == "0"
    asked = []
    mosaic({**tile(0), "sample_seed": 5, "tile_pool": lambda seed: asked.append(seed) or tile(1)})
    assert len(set(asked)) == 3 and all(0 <= seed < 2**32 for seed in asked) and mix_seed(1) == mix_seed(1)
    mosaic(tile(0) | {"tile_pool": pool(0)})  # without a seed the process draws


def test_pictures_without_boxes_pass():
    empty = [tile(0, squares=0) | {"sample_seed": 1, "tile_pool": pool(0, 0)}, tile(0, squares=0) | {"sample_seed": 1}]
    assert Mosaic((120, 90))(empty[0])["gt_bboxes"].shape == (0, 4)
    assert LetterBox(64)(empty[1])["gt_bboxes"].shape == (0, 4)


def test_a_letter_box_fills_right_and_below_and_keeps_the_resolution_in_step():
    results = LetterBox((240, 240))(tile(0))
    assert results["scale_factor"] == (2.0, 2.0) and results["mpp"] == 0.25
    assert (results["img"][180:] == PAD).all() and not (results["img"][:180] == PAD).all(axis=2).any()
    assert results["ori_shape"] == (90, 120) and results["img_shape"] == (180, 240)


def test_what_cannot_be_done_is_said():
    with pytest.raises(ConfigError, match="Mosaic finds no other tiles"):
        Mosaic((120, 90))(tile(0))
    with pytest.raises(ConfigError, match="'gt_seg_map'"):
        LetterBox(64)(tile(0) | {"gt_seg_map": np.zeros((90, 120), np.uint8)})
    for wrong in (
        {"size": 0},
        {"scale": (0, 1)},
        {"translate": 0.7},
        {"p": 2},
        {"pad_value": 300},
        {"min_visibility": -1},
    ):
        with pytest.raises(ConfigError, match=f"Mosaic\\({next(iter(wrong))}="):
            Mosaic(**{"size": 64, **wrong})
