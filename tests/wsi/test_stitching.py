import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pathzoo.wsi.stitching import heat_map
from pathzoo.wsi.tiling import tile_grid


def test_without_overlap_a_cell_is_a_tile():
    mask = np.array([[1, 0, 1], [0, 1, 1]], bool)
    grid = tile_grid((10, 20, 290, 150), (100, 100), 1.0, mask=np.kron(mask, np.ones((10, 10), bool))[:15, :29])
    probs = np.random.default_rng(0).random((len(grid), 3)).astype(np.float32)
    heat = heat_map(grid, probs)
    assert heat.probs.shape == (2, 3, 3)
    for (row, column), p in zip(grid.cells, probs, strict=True):
        assert np.array_equal(heat.probs[row, column], p)
    assert np.isnan(heat.probs[0, 1]).all()
    assert heat.x_edges.tolist() == [10, 110, 210, 300] and heat.y_edges.tolist() == [20, 120, 170]
    assert heat.classes[0, 1] == -1 and heat.classes[0, 0] == probs[0].argmax()


@given(
    overlap=st.floats(0, 0.85),
    size=st.tuples(st.integers(20, 300), st.integers(20, 300)),
    downsample=st.sampled_from([1.0, 1.7, 2.004]),
    seed=st.integers(0, 100),
)
def test_a_cell_is_the_mean_of_the_tiles_over_its_centre(overlap, size, downsample, seed):
    rng = np.random.default_rng(seed)
    grid = tile_grid((3, 4, *size), (30, 20), downsample, overlap, rng.random((9, 9)) < 0.5)
    probs = rng.random((len(grid), 2)).astype(np.float32)
    probs[rng.random(len(grid)) < 0.2] = np.nan
    heat = heat_map(grid, probs)
    assert heat.probs.shape[:2] == (len(heat.y_edges) - 1, len(heat.x_edges) - 1)
    assert heat.x_edges[0] == 3 and heat.x_edges[-1] == 3 + size[0] and (np.diff(heat.x_edges) > 0).all()
    for _ in range(20):
        row, column = rng.integers(heat.probs.shape[0]), rng.integers(heat.probs.shape[1])
        centre = (np.array([column, row]) + 0.5) * grid.stride
        start = grid.cells[:, ::-1] * np.array(grid.stride)
        reach = start + grid.extent - centre
        if (np.abs(reach) < 1e-6).any():
            continue  # a tile that ends at the centre: either answer is right
        over = (start <= centre).all(axis=1) & (reach > 0).all(axis=1)
        over &= ~np.isnan(probs).any(axis=1)
        if over.any():
            assert heat.probs[row, column] == pytest.approx(probs[over].mean(axis=0), abs=1e-5)
        else:
            assert np.isnan(heat.probs[row, column]).all()


def test_every_tile_needs_a_row():
    grid = tile_grid((0, 0, 10, 10), (5, 5), 1.0)
    with pytest.raises(ValueError, match="3 rows of probabilities for 4 tiles"):
        heat_map(grid, np.zeros((3, 2), np.float32))
