"""Pixels under areas, against shapely's own answer for every pixel centre."""

from collections import Counter

import cv2
import numpy as np
import pytest
import shapely

from pathzoo.wsi import rasterising as module
from pathzoo.wsi.outlines import Outliner
from pathzoo.wsi.rasterising import rasterise


def drawn(areas, width: int, height: int, **more) -> np.ndarray:
    return np.concatenate(list(rasterise(areas, width, height, **more)))


def random_area(rng: np.random.Generator, size: float = 60.0) -> shapely.Geometry:
    """A star with a hole or two, or two stars in one."""
    parts = []
    for _ in range(rng.integers(1, 3)):
        angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(5, 40)))
        reach = rng.uniform(0.2, 0.5, len(angles)) * size
        points = rng.uniform(0, size, 2) + np.stack([np.cos(angles), np.sin(angles)], axis=1) * reach[:, None]
        hole = shapely.Point(points.mean(axis=0)).buffer(rng.uniform(1, 8))
        parts.append(shapely.make_valid(shapely.Polygon(points)) - hole)
    return shapely.union_all(parts)


@pytest.mark.parametrize("seed", range(40))
def test_random_areas_cover_the_centres_that_shapely_says(seed, monkeypatch):
    rng = np.random.default_rng(seed)
    areas = [(random_area(rng), value) for value in (3, 1, 2)]
    width, height = rng.integers(20, 90, 2).tolist()
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    expected = np.full((height, width), 9, np.uint8)
    for area, value in areas:
        expected[shapely.contains_xy(area, x, y)] = value
    found = drawn(areas, width, height, background=9)
    np.testing.assert_array_equal(found, expected)
    monkeypatch.setattr(module, "_BAND_PIXELS", 7 * width)
    monkeypatch.setattr(module, "_PART_CROSSINGS", 5)
    bands = list(rasterise(areas, width, height, background=9))
    assert len(bands) > 2
    np.testing.assert_array_equal(np.concatenate(bands), expected)


@pytest.mark.parametrize("seed", range(5))
def test_the_count_of_pixels_is_near_the_area(seed):
    rng = np.random.default_rng(seed)
    angles = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    reach = 300 + 100 * np.sin(angles * rng.integers(2, 6)) + rng.uniform(0, 10)
    disc = shapely.Polygon(np.stack([500 + reach * np.cos(angles), 500 + reach * np.sin(angles)], axis=1))
    area = disc - shapely.Point(500, 500).buffer(60)
    covered = int((drawn([(area, 1)], 1000, 1000) == 1).sum())
    # A pixel that the outline passes is right by chance: the errors' sum grows as the root of their number.
    assert abs(covered - area.area) < 3 * np.sqrt(area.length)


def test_areas_that_share_an_edge_share_no_pixel_and_leave_none():
    """Triangles whose common edges run through pixel centres."""
    corners = [(0, 0), (40, 0), (40, 40), (0, 40)]
    middles = [(20, 20), (20.5, 20.5), (7, 13), (13.5, 31.5)]
    for middle in middles:
        parts = [shapely.Polygon([corners[i], corners[(i + 1) % 4], middle]) for i in range(4)]
        times = sum((drawn([(part, 1)], 40, 40) == 1).astype(int) for part in parts)
        assert (times == 1).all()
    halves = [shapely.box(0, 0, 10.5, 40), shapely.box(10.5, 0, 40, 20.5), shapely.box(10.5, 20.5, 40, 40)]
    times = sum((drawn([(part, 1)], 40, 40) == 1).astype(int) for part in halves)
    assert (times == 1).all()


def test_holes_later_areas_and_what_they_took():
    ring = shapely.box(0, 0, 10, 10) - shapely.box(2, 2, 8, 8)
    overlaps: Counter = Counter()
    areas = [(shapely.box(0, 0, 6, 10), 0), (ring, 1), (shapely.box(1, 1, 2, 2), 1), (shapely.box(0, 0, 1, 1), 255)]
    mask = drawn(areas, 12, 11, overlaps=overlaps)
    x, y = np.meshgrid(np.arange(12), np.arange(11))
    in_ring = (x < 10) & (y < 10) & ~((x >= 2) & (x < 8) & (y >= 2) & (y < 8))
    expected = np.where(in_ring, 1, np.where((x < 6) & (y < 10), 0, 255))
    expected[0, 0] = 255
    np.testing.assert_array_equal(mask, expected)
    assert overlaps == {(0, 1): int((in_ring & (x < 6)).sum()), (1, 255): 1}


def test_areas_beyond_the_picture_and_smaller_than_a_pixel():
    assert (drawn([(shapely.box(-5, -5, 50, 50), 4)], 8, 9) == 4).all()
    assert (drawn([(shapely.box(20, -5, 50, 50), 4), (shapely.box(0, 9, 8, 30), 3)], 8, 9) == 255).all()
    assert (drawn([(shapely.box(2.6, 2.6, 3.4, 3.4), 4)], 8, 9) == 255).all()
    assert (drawn([(shapely.box(2.4, 2.4, 2.6, 2.6), 4)], 8, 9) == 4).sum() == 1
    left = drawn([(shapely.box(-5, 2, 3, 4), 4)], 8, 9)
    assert (left[2:4, :3] == 4).all() and (left == 4).sum() == 6


@pytest.mark.parametrize("seed", range(6))
def test_outlines_of_a_mask_draw_that_mask(seed):
    rng = np.random.default_rng(seed)
    scores = [cv2.GaussianBlur(rng.normal(size=(140, 170)), (0, 0), 2 + seed) for _ in range(4)]
    mask = np.argmax(scores, axis=0).astype(np.uint8)
    mask[mask == 3] = 255
    outliner = Outliner(170, [0, 1, 2], tolerance=0, min_pixels=1)
    outliner.add(mask)
    areas = [(outline.polygon, outline.label) for outline in outliner.finish()]
    np.testing.assert_array_equal(drawn(areas, 170, 140), mask)
