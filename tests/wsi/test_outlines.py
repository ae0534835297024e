"""Outlines of masks: what is rasterised again is the mask, whatever the height of the bands."""

import itertools

import cv2
import numpy as np
import pytest
import shapely

from pathzoo.wsi import outlines as module
from pathzoo.wsi.outlines import Outline, Outliner
from pathzoo.wsi.ring_tracing import signed_area


def trace(mask: np.ndarray, cuts=(), tolerance: float = 0, min_pixels: int = 1, labels=None) -> list[Outline]:
    labels = sorted(set(np.unique(mask).tolist()) - {255}) if labels is None else labels
    outliner = Outliner(mask.shape[1], labels, tolerance, min_pixels)
    for band in np.split(mask, cuts):
        outliner.add(band)
    return outliner.finish()


def rasterised(outlines: list[Outline], shape: tuple[int, int]) -> np.ndarray:
    """Each pixel the label of the one polygon that its centre lies in, 255 where none."""
    mask, times = np.full(shape, 255, np.uint8), np.zeros(shape, int)
    x, y = np.meshgrid(np.arange(shape[1]) + 0.5, np.arange(shape[0]) + 0.5)
    for outline in outlines:
        inside = shapely.contains_xy(outline.polygon, x, y)
        mask[inside] = outline.label
        times += inside
    assert times.max(initial=0) <= 1
    return mask


def shown(outlines: list[Outline]) -> list[tuple]:
    return [(outline.label, outline.pixels, outline.polygon.wkt) for outline in outlines]


def random_mask(rng: np.random.Generator, height: int, width: int, classes: int, share: float = 0.6) -> np.ndarray:
    mask = rng.integers(0, classes, (height, width)).astype(np.uint8)
    mask[rng.random(mask.shape) > share] = 255
    return mask


def smooth_mask(seed: int, height: int = 150, width: int = 180, classes: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    scores = [cv2.GaussianBlur(rng.normal(size=(height, width)), (0, 0), 4) for _ in range(classes + 1)]
    best = np.argmax(scores, axis=0).astype(np.uint8)
    return np.where(best == classes, 255, best).astype(np.uint8)


def check_exact(mask: np.ndarray, found: list[Outline]) -> None:
    assert all(outline.polygon.is_valid for outline in found)
    assert all(outline.polygon.area == outline.pixels for outline in found)
    np.testing.assert_array_equal(rasterised(found, mask.shape), mask)
    for label in set(np.unique(mask).tolist()) - {255}:
        count, _ = cv2.connectedComponents((mask == label).astype(np.uint8), connectivity=4)
        assert sum(outline.label == label for outline in found) == count - 1


@pytest.mark.parametrize("seed", range(60))
def test_random_masks_come_back_whatever_the_bands(seed):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 16, 2).tolist()
    mask = random_mask(rng, height, width, int(rng.integers(1, 4)), float(rng.choice([0.3, 0.6, 1.0])))
    found = trace(mask)
    check_exact(mask, found)
    for cuts in (range(1, height), np.sort(rng.integers(0, height + 1, 4))):
        assert shown(trace(mask, cuts)) == shown(found)


def test_every_mask_of_three_by_four_pixels():
    for bits in itertools.islice(itertools.product((255, 0), repeat=12), 0, None, 3):
        mask = np.array(bits, np.uint8).reshape(3, 4)
        found = trace(mask, cuts=(1, 2))
        assert all(outline.polygon.is_valid for outline in found)
        np.testing.assert_array_equal(rasterised(found, mask.shape), mask)


@pytest.mark.parametrize("seed", range(4))
def test_smooth_masks_come_back_in_bands_and_parts(seed, monkeypatch):
    mask = smooth_mask(seed)
    found = trace(mask)
    check_exact(mask, found)
    assert any(len(outline.polygon.interiors) for outline in found)
    simple = trace(mask, tolerance=1, min_pixels=16)
    monkeypatch.setattr(module, "_PART_PIXELS", 7 * mask.shape[1])
    monkeypatch.setattr(module, "_PART_CORNERS", 50)
    for cuts in ((1, 2, 70), (64, 128), ()):
        assert shown(trace(mask, cuts)) == shown(found)
        assert shown(trace(mask, cuts, tolerance=1, min_pixels=16)) == shown(simple)


@pytest.mark.parametrize("tolerance", [0.49, 1.0, 2.0])
@pytest.mark.parametrize("seed", range(4))
def test_simplified_outlines_are_valid_near_and_as_many(seed, tolerance):
    mask = smooth_mask(seed)
    exact, simple = trace(mask), trace(mask, tolerance=tolerance)
    assert [outline.pixels for outline in simple] == [outline.pixels for outline in exact]
    for a, b in zip(exact, simple, strict=True):
        assert b.polygon.is_valid
        assert b.polygon.bounds == a.polygon.bounds
        assert len(b.polygon.interiors) == len(a.polygon.interiors)
        assert shapely.hausdorff_distance(a.polygon.boundary, b.polygon.boundary) <= tolerance + 1e-9
        corners = shapely.get_coordinates(b.polygon)
        assert (corners == np.rint(corners)).all()
    before, after = (sum(len(shapely.get_coordinates(o.polygon)) for o in found) for found in (exact, simple))
    assert after < before * (0.95 if tolerance < 1 else 0.5)


@pytest.mark.parametrize("share", [0.5, 0.7, 0.9])
def test_below_half_a_pixel_even_noise_stays_valid(share, monkeypatch):
    """What outlines fall back to where a larger tolerance makes edges meet."""
    tried, real = [], module._simplified

    def record(rings, tolerance):
        tried.append(real(rings, tolerance))
        return tried[-1]

    monkeypatch.setattr(module, "_simplified", record)
    for seed in range(4):
        mask = random_mask(np.random.default_rng(seed), 30, 30, 2, share)
        trace(mask, tolerance=module._SAFE)
        assert all(shapely.Polygon(shell, holes).is_valid for shell, *holes in tried)
        tried.clear()
        assert all(outline.polygon.is_valid for outline in trace(mask, tolerance=3, min_pixels=4))
        tried.clear()


def test_small_regions_are_left_out_and_small_holes_filled():
    mask = np.full((40, 40), 255, np.uint8)
    mask[5:25, 5:25] = 0
    mask[8:11, 8:13] = 255  # a hole of 15
    mask[14:18, 8:12] = 1  # a hole of 16, which holds a region of 16
    mask[30:35, 30:33] = 0  # a region of 15
    mask[30:34, 5:9] = 0
    mask[31, 6] = 255  # a region of 15 within 16
    found = trace(mask, min_pixels=16)
    assert [(outline.label, outline.pixels) for outline in found] == [(0, 400 - 15 - 16), (1, 16)]
    assert [ring.bounds for ring in found[0].polygon.interiors] == [(8, 14, 12, 18)]
    assert found[0].polygon.area == 400 - 16


def test_pixels_across_are_two_objects_unless_joined_elsewhere():
    apart = np.array([[0, 255], [255, 0]], np.uint8)
    assert len(trace(apart)) == 2
    ring = np.array([[0, 0, 0], [0, 255, 0], [255, 0, 0]], np.uint8)  # the hole touches the corner from inside
    (outline,) = trace(ring)
    assert outline.polygon.is_valid
    assert len(outline.polygon.interiors) == 1
    assert outline.pixels == 7


def test_regions_that_join_far_below_are_one():
    """Prongs of a comb, and spirals: pieces of one ring in many bands."""
    comb = np.full((50, 41), 255, np.uint8)
    comb[:, ::2] = 0
    comb[-1] = 0
    (outline,) = trace(comb, cuts=range(1, 50))
    assert outline.pixels == (comb == 0).sum()
    flipped = np.ascontiguousarray(comb[::-1])
    assert [outline.pixels for outline in trace(flipped, cuts=range(1, 50))] == [outline.pixels]
    spiral = np.full((41, 41), 255, np.uint8)
    for k in range(0, 20, 2):
        spiral[k : 41 - k, k : 41 - k] = 0
        spiral[k + 1 : 40 - k, k + 1 : 40 - k] = 255
        spiral[k + 1, k] = 255
        spiral[k + 2, k + 1] = 0 if k < 18 else 255
    check_exact(spiral, trace(spiral, cuts=range(1, 41)))


def test_whole_empty_and_single_masks():
    full = np.zeros((7, 9), np.uint8)
    (outline,) = trace(full, cuts=(3,))
    assert outline.polygon.equals(shapely.box(0, 0, 9, 7))
    assert len(shapely.get_coordinates(outline.polygon)) == 5
    assert trace(np.full((7, 9), 255, np.uint8), labels=[0, 1]) == []
    assert [o.pixels for o in trace(np.zeros((1, 1), np.uint8))] == [1]
    assert [o.pixels for o in trace(np.zeros((1, 30), np.uint8), tolerance=1)] == [30]
    assert Outliner(5, [0]).finish() == []


def test_only_the_labels_asked_for():
    mask = smooth_mask(0)
    assert {outline.label for outline in trace(mask, labels=[1])} == {1}
    with pytest.raises(ValueError, match="255"):
        Outliner(5, [255])
    with pytest.raises(ValueError, match="width 5"):
        Outliner(5, [0]).add(np.zeros((2, 4), np.uint8))


def test_area_has_a_sign():
    square = np.array([(0, 0), (3, 0), (3, 2), (0, 2)])
    assert (signed_area(square), signed_area(square[::-1])) == (6, -6)
