"""Tile answers back onto the slide."""

import math
from dataclasses import dataclass

import numpy as np

from pathzoo.wsi.tiling import TileGrid
from pathzoo.wsi.types import Float32, Int64


@dataclass(frozen=True)
class HeatMap:
    """Class probabilities on cells of one stride each.

    Without overlap a cell is a tile; with overlap it is the mean over the tiles that cover its centre.
    """

    #: (rows, columns, C) float32; NaN where no tile was predicted.
    probs: Float32
    #: columns + 1 and rows + 1 edges of the cells in level-0 pixels; the last ones end with the region.
    x_edges: Int64
    y_edges: Int64

    @property
    def classes(self) -> Int64:
        """(rows, columns) index of the most probable class, -1 where nothing was predicted."""
        empty = np.asarray(np.isnan(self.probs).any(axis=2))
        best = np.argmax(np.where(empty[..., None], 0, self.probs), axis=2)
        return np.where(empty, -1, best).astype(np.int64)


def heat_map(grid: TileGrid, probs: Float32) -> HeatMap:
    """Puts one row of probabilities per tile back onto the grid.

    Args:
        grid: n tiles.
        probs: (n, C); a row of NaN stands for a tile that could not be read and counts as absent.

    Returns:
        The heat map over the grid's whole region.
    """
    if len(probs) != len(grid):
        raise ValueError(f"{len(probs)} rows of probabilities for {len(grid)} tiles")
    # A tile covers the centres of this many cells, its own first: 1 without overlap.
    across, down = (max(1, math.ceil(e / s - 0.5 - 1e-9)) for e, s in zip(grid.extent, grid.stride, strict=True))
    rows, columns = grid.shape[0] + down - 1, grid.shape[1] + across - 1
    sums = np.zeros((rows, columns, probs.shape[1]), np.float64)
    counts = np.zeros((rows, columns), np.int64)
    good = ~np.isnan(probs).any(axis=1)
    row, column = grid.cells[good].T
    for i in range(down):
        for j in range(across):
            sums[row + i, column + j] += probs[good]  # within one (i, j) no cell occurs twice
            counts[row + i, column + j] += 1
    with np.errstate(invalid="ignore"):
        mean = (sums / counts[..., None]).astype(np.float32)
    x_edges = _edges(columns, grid.stride[0], grid.region[2]) + grid.region[0]
    y_edges = _edges(rows, grid.stride[1], grid.region[3]) + grid.region[1]
    return HeatMap(mean[: len(y_edges) - 1, : len(x_edges) - 1], x_edges, y_edges)


def _edges(n: int, stride: float, length: int) -> Int64:
    """Edges of up to n cells from 0: at the tiles' corners and at `length`; cells that begin beyond it are dropped."""
    starts = np.floor(np.arange(n) * stride + 1e-6).astype(np.int64)
    return np.append(starts[starts < length], length)
