"""Tiles blended to one picture: a model that returns its input gives the picture back."""

import numpy as np
import pytest

from pathzoo.wsi.blending import Blender, PlacedTile, canvas, window
from pathzoo.wsi.tiling import TileGrid, tile_grid

OVERLAPS = (0.0, 1 / 3, 0.5, 0.75)


def crop(image: np.ndarray, x: int, y: int, width: int, height: int, fill: int = 255) -> np.ndarray:
    """A rectangle of a picture; what stands out of it is filled."""
    out = np.full((height, width, *image.shape[2:]), fill, image.dtype)
    part = image[y : y + height, x : x + width]
    out[: part.shape[0], : part.shape[1]] = part
    return out


def tiles_of(grid: TileGrid, image: np.ndarray, damage: np.ndarray | None = None):
    """What a segmenter that returns its input answers: channels are pixels / 255, rubbish where damaged."""
    for (row, column), (x, y) in zip(grid.cells.tolist(), grid.corners.tolist(), strict=True):
        values = crop(image, x - grid.region[0], y - grid.region[1], *grid.tile_size).astype(np.float32) / 255
        bad = None
        if damage is not None:
            bad = crop(damage, x - grid.region[0], y - grid.region[1], *grid.tile_size, fill=0)
            values[bad] = 0.3
        yield PlacedTile(row, column, values.transpose(2, 0, 1), bad)


def stitched(grid: TileGrid, tiles, channels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Values and weights of the whole picture; each pixel must come exactly once, rows from top to bottom."""
    place = canvas(grid)
    values = np.full((place.height, place.width, channels), np.nan)
    weights = np.zeros((place.height, place.width))
    times = np.zeros((place.height, place.width), int)
    top = 0
    for block in Blender(place, channels).blocks(tiles):
        assert block.y >= top
        top = block.y
        at = slice(block.y, block.y + block.height), slice(block.x, block.x + block.width)
        times[at] += 1
        if block.sums is not None:
            weights[at] = block.weights
            with np.errstate(invalid="ignore", divide="ignore"):
                values[at] = (block.sums / block.weights).transpose(1, 2, 0)
    assert (times == 1).all()
    return values, weights


def covered(grid: TileGrid) -> np.ndarray:
    place, width, height = canvas(grid), *grid.tile_size
    out = np.zeros((place.height, place.width), bool)
    for row, column in grid.cells:
        x, y = place.lefts[column], place.tops[row]
        out[y : y + height, x : x + width] = True
    return out


@pytest.mark.parametrize("seed", range(40))
def test_a_model_that_returns_its_input_gives_the_slide_back(seed):
    rng = np.random.default_rng(seed)
    width, height = rng.integers(1, 90, 2).tolist()
    size = tuple(rng.integers(1, 50, 2).tolist())
    overlap = float(rng.choice([*OVERLAPS, rng.random() * 0.9]))
    mask = rng.random(rng.integers(1, 6, 2)) < 0.5 if seed % 2 else None
    grid = tile_grid((*rng.integers(0, 50, 2).tolist(), width, height), size, 1.0, overlap, mask)
    image = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    damage = rng.random((height, width)) < 0.2 if seed % 3 == 0 else np.zeros((height, width), bool)
    values, weights = stitched(grid, tiles_of(grid, image, damage))
    known = covered(grid) & ~damage
    np.testing.assert_array_equal(weights > 0, known)
    np.testing.assert_array_equal(np.rint(values[known] * 255), image[known])


@pytest.mark.parametrize("overlap", OVERLAPS)
def test_equals_the_definition(overlap):
    """Weighted mean over all tiles at once, in float64."""
    rng = np.random.default_rng(3)
    grid = tile_grid((0, 0, 61, 47), (20, 14), 1.0, overlap, rng.random((4, 5)) < 0.7)
    tiles = [
        PlacedTile(row, column, rng.random((5, 14, 20), np.float32), rng.random((14, 20)) < 0.1 * (column % 2))
        for row, column in grid.cells.tolist()
    ]
    sums, total = np.zeros((47 + 14, 61 + 20, 5)), np.zeros((47 + 14, 61 + 20))
    for tile, (x, y) in zip(tiles, grid.corners, strict=True):
        weight = np.outer(window(14), window(20)) * ~tile.damage
        sums[y : y + 14, x : x + 20] += tile.values.transpose(1, 2, 0) * weight[..., None]
        total[y : y + 14, x : x + 20] += weight
    values, weights = stitched(grid, tiles, 5)
    known = total[:47, :61] > 0
    np.testing.assert_array_equal(weights > 0, known)
    expected = sums[:47, :61][known] / total[:47, :61][known][:, None]
    np.testing.assert_allclose(values[known], expected, rtol=1e-4)


def test_window_is_smooth_above_zero_and_sums_to_one_at_half_overlap():
    weights = window(64).astype(np.float64)
    assert weights.min() > 0
    assert np.abs(np.diff(weights)).max() < np.pi / 64
    np.testing.assert_allclose(weights[:32] + weights[32:], 1, atol=1e-6)
    assert window(1) == pytest.approx(1)


def test_no_tiles_give_an_empty_picture():
    grid = tile_grid((0, 0, 100, 70), (32, 32), 1.0, 0.5, np.zeros((3, 3), bool))
    values, weights = stitched(grid, [])
    assert values.shape == (70, 100, 3)
    assert not weights.any()


def test_tiles_without_overlap_are_passed_on_uncopied():
    grid = tile_grid((0, 0, 64, 64), (32, 32), 1.0)
    tiles = list(tiles_of(grid, np.zeros((64, 64, 3), np.uint8)))
    blocks = list(Blender(canvas(grid), 3).blocks(tiles))
    assert [np.shares_memory(block.sums, tile.values) for block, tile in zip(blocks, tiles, strict=True)] == [True] * 4


@pytest.mark.parametrize("seed", range(60))
def test_fractional_downsample_leaves_no_gap_and_moves_tiles_by_less_than_told(seed):
    rng = np.random.default_rng(seed)
    down, overlap = 1 + 3 * rng.random(), float(rng.choice([0, 0.001, 0.01, 1 / 3]))
    region = (7, 11, *rng.integers(1, 3000, 2).tolist())
    grid = tile_grid(region, tuple(rng.integers(20, 300, 2).tolist()), down, overlap)
    place = canvas(grid)
    assert (place.width, place.height) == tuple(max(1, round(side / down)) for side in region[2:])
    for axis, (starts, length) in enumerate(((place.lefts, place.width), (place.tops, place.height))):
        side = grid.tile_size[axis]
        wanted = (np.unique(grid.corners[:, axis]) - region[axis]) / down
        assert starts[0] == 0
        assert (np.diff(starts) <= side).all()
        assert starts[-1] + side >= length
        error = starts - wanted
        assert error.min() >= -0.5 - 1e-9
        assert error.max() <= 0.5 + 1 / down + 1e-9
        if overlap > 0.1:
            assert np.abs(error[:-1]).max(initial=0) <= 0.5 + 1e-9


def test_wrong_order_place_or_shape_is_refused():
    grid = tile_grid((0, 0, 64, 64), (32, 32), 1.0, 0.5)
    place, good = canvas(grid), np.zeros((2, 32, 32), np.float32)
    for tiles, message in (
        ([PlacedTile(0, 1, good), PlacedTile(0, 0, good)], "grid order"),
        ([PlacedTile(1, 0, good), PlacedTile(1, 0, good)], "grid order"),
        ([PlacedTile(0, 3, good)], "outside the grid"),
        ([PlacedTile(3, 0, good)], "outside the grid"),
        ([PlacedTile(0, 0, good[:, 1:])], "expected"),
    ):
        with pytest.raises(ValueError, match=message):
            list(Blender(place, 2).blocks(tiles))
