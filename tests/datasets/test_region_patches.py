"""Where patches are: every pixel once on the grid, places by (seed, epoch, index) alone, classes in balance."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pathzoo.datasets.region_patches import PatchGrid, Place, PlaceDrawer, class_rows, cut, jittered, uniforms


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(1, 70), st.integers(1, 70)), min_size=1, max_size=4),
    st.integers(1, 40),
)
def test_the_grid_has_every_pixel_of_every_region_once(sizes, patch):
    grid = PatchGrid(sizes, patch)
    seen = [np.zeros((height, width), int) for width, height in sizes]
    for index in range(len(grid)):
        region, x, y = grid.place(index)
        assert x % patch == 0 and y % patch == 0
        part = seen[region][y : y + patch, x : x + patch]
        assert part.size
        part += 1
    assert all((counts == 1).all() for counts in seen)


def test_uniforms_are_even_and_depend_on_every_part_and_their_order():
    draws = np.array([uniforms(4, 7, 0, index) for index in range(4000)])
    assert draws.min() >= 0 and draws.max() < 1
    counts = [np.histogram(column, 10, (0, 1))[0] for column in draws.T]
    assert np.abs(np.array(counts) - 400).max() < 90  # 4.7 standard deviations
    assert np.abs(np.corrcoef(draws.T) - np.eye(4)).max() < 0.06
    assert len({uniforms(1, *parts) for parts in ((1, 2, 3), (3, 2, 1), (1, 2, 4), (1, 3, 3), (12, 3), (1, 23))}) == 6


def test_places_lie_inside_and_fall_by_area():
    sizes = [(100, 100), (200, 150), (20, 90)]
    drawer = PlaceDrawer(sizes, 32)
    places = [drawer.place(3, 1, index, None) for index in range(4500)]
    for region, x, y in places:
        width, height = sizes[region]
        assert 0 <= x <= max(0, width - 32) and 0 <= y <= max(0, height - 32)
    shares = np.bincount([place.region for place in places], minlength=3) / len(places)
    assert np.allclose(shares, np.array([10000, 30000, 1800]) / 41800, atol=0.03)
    assert {place.x for place in places if place.region == 2} == {0}  # narrower than a patch
    assert {place.x for place in places if place.region == 0} == set(range(69))
    assert drawer.place(3, 1, 5, None) == places[5] != drawer.place(3, 2, 5, None)


def test_balanced_places_are_centred_on_each_class_equally_often():
    maps = [np.zeros((120, 90), np.uint8), np.zeros((64, 200), np.uint8)]
    maps[0][10:13, 50:53] = 2  # 9 pixels of 23600
    maps[1][40:, 100:140] = 1
    maps[1][:5] = 255
    sizes = [(array.shape[1], array.shape[0]) for array in maps]
    drawer = PlaceDrawer(sizes, 16, 1.0, [class_rows(array, 4) for array in maps])  # class 3 occurs nowhere
    centres = [[], [], []]
    for index in range(3000):
        region, x, y = drawer.place(0, 0, index, maps.__getitem__)
        width, height = sizes[region]
        assert 0 <= x <= width - 16 and 0 <= y <= height - 16
        if 0 < x < width - 16 and 0 < y < height - 16:  # not moved inwards
            centres[maps[region][y + 8, x + 8]].append((region, x + 8, y + 8))
    assert np.abs(np.array([len(set(c)) > 5 for c in centres])).all()
    # Class 2 lies within and is never moved: a third of all draws, over all of its pixels.
    assert abs(len(centres[2]) - 1000) < 110
    assert set(centres[2]) == {(0, x, y) for x in range(50, 53) for y in range(10, 13)}


def test_half_balanced_is_half_and_half():
    labels = np.zeros((300, 300), np.uint8)
    labels[200, 200] = 1
    drawer = PlaceDrawer([(300, 300)], 10, 0.5, [class_rows(labels, 2)])
    exactly = sum(drawer.place(0, 0, n, lambda _: labels) == Place(0, 195, 195) for n in range(2000))
    assert abs(exactly - 500) < 90  # half are balanced, half of these on class 1


def test_class_rows_count_upwards():
    labels = np.array([[0, 1, 1], [255, 1, 0], [2, 2, 2]], np.uint8)
    assert class_rows(labels, 3).tolist() == [[1, 2, 2], [2, 3, 3], [0, 0, 3]]


def test_jitter_moves_by_half_a_patch_at_most_and_stays_inside():
    moved = [jittered(Place(0, 64, 64), (200, 150), 32, 0, 0, index) for index in range(400)]
    assert {abs(place.x - 64) <= 16 and abs(place.y - 64) <= 16 for place in moved} == {True}
    assert len(set(moved)) > 250
    assert jittered(Place(0, 192, 0), (200, 150), 32, 0, 0, 0).x <= 168
    assert jittered(Place(1, 0, 0), (20, 20), 32, 0, 0, 3) == Place(1, 0, 0)


@pytest.mark.parametrize("shape", [(50, 40), (50, 40, 3)])
def test_cut_copies_and_fills(shape):
    array = np.arange(np.prod(shape), dtype=np.int64).astype(np.uint8).reshape(shape)
    inside = cut(array, 5, 7, 16, 255)
    assert np.array_equal(inside, array[7:23, 5:21]) and not np.shares_memory(inside, array)
    edge = cut(array, 32, 48, 16, 9)
    assert np.array_equal(edge[:2, :8], array[48:, 32:])
    edge[:2, :8] = 9
    assert (edge == 9).all() and edge.shape[:2] == (16, 16)
