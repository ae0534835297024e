import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pathzoo.wsi.tiling import tile_grid


def test_exact_grid_without_overlap():
    grid = tile_grid((0, 0, 300, 200), (100, 100), 1.0)
    assert grid.shape == (2, 3) and len(grid) == 6
    assert grid.corners.tolist() == [[0, 0], [100, 0], [200, 0], [0, 100], [100, 100], [200, 100]]


def test_partial_edge_tiles_are_kept():
    assert tile_grid((0, 0, 301, 200), (100, 100), 1.0).shape == (2, 4)
    assert tile_grid((0, 0, 30, 20), (100, 100), 1.0).shape == (1, 1)


def test_places_are_rounded_not_strides():
    grid = tile_grid((7, 5, 9000, 1200), (1600, 1200), 1.0, overlap=1 / 3)
    assert grid.corners[:5].tolist() == [[7, 5], [1073, 5], [2140, 5], [3207, 5], [4273, 5]]


@settings(max_examples=150, deadline=None)
@given(
    size=st.tuples(st.integers(1, 400), st.integers(1, 400)),
    tile=st.tuples(st.integers(3, 90), st.integers(3, 90)),
    downsample=st.floats(1, 5),
    overlap=st.floats(0, 0.8),
    seed=st.integers(0, 1000),
)
def test_every_masked_pixel_is_covered_and_no_tile_is_idle(size, tile, downsample, overlap, seed):
    rng = np.random.default_rng(seed)
    width, height = size
    mask = rng.random((max(1, height // 7), max(1, width // 5))) < 0.1
    region = (13, 21, width, height)
    grid = tile_grid(region, tile, downsample, overlap, mask)
    # The mask drawn at level 0: a level-0 pixel counts if any of it lies in a True mask pixel.
    tissue = np.zeros((height, width), bool)
    for row, column in np.argwhere(mask):
        x0, x1 = column * width / mask.shape[1], (column + 1) * width / mask.shape[1]
        y0, y1 = row * height / mask.shape[0], (row + 1) * height / mask.shape[0]
        tissue[
            int(np.floor(y0 + 1e-9)) : int(np.ceil(y1 - 1e-9)), int(np.floor(x0 + 1e-9)) : int(np.ceil(x1 - 1e-9))
        ] = True
    covered = np.zeros_like(tissue)
    for x, y in grid.corners - region[:2]:
        x1, y1 = int(np.ceil(x + grid.extent[0] - 1e-6)), int(np.ceil(y + grid.extent[1] - 1e-6))
        assert tissue[y:y1, x:x1].any()
        covered[y:y1, x:x1] = True
    assert covered[tissue].all()
    assert len(np.unique(grid.cells, axis=0)) == len(grid)


@given(length=st.integers(1, 3000), tile=st.integers(1, 500), downsample=st.floats(1, 7), overlap=st.floats(0, 0.9))
def test_grid_reaches_the_end_with_the_fewest_tiles(length, tile, downsample, overlap):
    grid = tile_grid((0, 0, length, 1), (tile, 1), downsample, overlap)
    starts = np.unique(grid.corners[:, 0])
    assert starts[-1] + grid.extent[0] > length - 1
    assert len(starts) == 1 or starts[-2] + grid.extent[0] < length + 1e-3
    assert starts[-1] < length


def test_a_stride_stands_in_place_of_an_overlap():
    grid = tile_grid((3, 4, 1000, 500), (100, 80), 2.0, stride=(60, 80))
    assert grid.corners[:3].tolist() == [[3, 4], [123, 4], [243, 4]]
    assert grid.corners[-1].tolist() == [3 + 7 * 120, 4 + 3 * 160]
    same = tile_grid((3, 4, 1000, 500), (100, 100), 2.0, stride=(75, 75))
    assert (same.corners == tile_grid((3, 4, 1000, 500), (100, 100), 2.0, overlap=0.25).corners).all()
    for bad in ((101, 80), (100, 0.5), (0, 80)):
        with pytest.raises(ValueError, match="stride"):
            tile_grid((0, 0, 500, 500), (100, 80), 1.0, stride=bad)


def test_empty_mask_gives_an_empty_grid():
    grid = tile_grid((0, 0, 100, 100), (10, 10), 1.0, mask=np.zeros((5, 5), bool))
    assert len(grid) == 0 and grid.corners.shape == (0, 2) and grid.shape == (10, 10)


@pytest.mark.parametrize("bad", [{"overlap": 1.0}, {"overlap": -0.1}, {"downsample": 0.0}, {"tile_size": (0, 5)}])
def test_impossible_grids_are_refused(bad):
    arguments = {"region": (0, 0, 10, 10), "tile_size": (5, 5), "downsample": 1.0, **bad}
    with pytest.raises(ValueError):
        tile_grid(**arguments)
