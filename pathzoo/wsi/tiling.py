"""Where the tiles lie: coordinates only, no pixels."""

import math
from dataclasses import dataclass

import numpy as np

from pathzoo.wsi.types import Int64, Mask, Region


@dataclass(frozen=True)
class TileGrid:
    """Tiles of one size on a regular grid over a region.

    Tile (row, column) has its corner at floor(column * stride), floor(row * stride) from the region's corner: places
    are rounded, not strides, so nothing drifts (1600-px tiles with 1/3 overlap start at 0, 1066, 2133, 3200, ...).
    """

    #: x, y, width, height in level-0 pixels.
    region: Region
    #: Width and height in pixels as the model sees them.
    tile_size: tuple[int, int]
    #: Level-0 pixels per tile pixel.
    downsample: float
    #: Level-0 pixels from one tile to the next, along x and y.
    stride: tuple[float, float]
    #: Rows and columns of the whole grid, tissue or not.
    shape: tuple[int, int]
    #: (n, 2) row and column of each tile that is kept, row by row.
    cells: Int64

    @property
    def extent(self) -> tuple[float, float]:
        """Width and height of a tile in level-0 pixels."""
        return self.tile_size[0] * self.downsample, self.tile_size[1] * self.downsample

    @property
    def corners(self) -> Int64:
        """(n, 2) level-0 x and y of each tile's upper left corner."""
        steps = np.array(self.stride) * self.cells[:, ::-1]
        corners: Int64 = np.floor(steps + 1e-6).astype(np.int64) + np.array(self.region[:2], np.int64)
        return corners

    def __len__(self) -> int:
        return len(self.cells)


def tile_grid(
    region: Region,
    tile_size: tuple[int, int],
    downsample: float,
    overlap: float = 0.0,
    mask: Mask | None = None,
    *,
    stride: tuple[float, float] | None = None,
) -> TileGrid:
    """Lays tiles over a region so that every pixel of it, or of the mask, lies in at least one.

    (A tile may end inside a pixel where `downsample` is no whole number; that pixel may then be covered in part only.)
    The last tile of a row or column may stand out of the region; it is kept, and padded with white when read.

    Args:
        region: x, y, width, height in level-0 pixels.
        tile_size: Width and height in pixels at the resolution of the model.
        downsample: Level-0 pixels per such pixel.
        overlap: Part of a tile that its neighbour covers too, 0 <= overlap < 1.
        stride: Pixels (as in `tile_size`) from one tile to the next along x and y, in place of `overlap`; at most a
            tile, or pixels would lie in none.
        mask: (h, w) bool over the region, of any size; only tiles that touch a True pixel are kept. None keeps all.

    Returns:
        The grid; its `cells` are empty where the mask is.

    Raises:
        ValueError: Empty region or tile, `overlap` outside 0..1, or `stride` outside 1..tile.
    """
    if min(region[2:]) <= 0 or min(tile_size) <= 0 or downsample <= 0:
        raise ValueError(f"region {region}, tile size {tile_size} and downsample {downsample} must be above 0")
    if not 0 <= overlap < 1:
        raise ValueError(f"overlap is {overlap}; it must be at least 0 and below 1")
    extent = (tile_size[0] * downsample, tile_size[1] * downsample)
    if stride is None:
        step = (extent[0] * (1 - overlap), extent[1] * (1 - overlap))
    elif all(1 <= part <= side for part, side in zip(stride, tile_size, strict=True)):
        step = (stride[0] * downsample, stride[1] * downsample)
    else:
        raise ValueError(f"stride is {stride} for tiles of {tile_size} px; it must be 1 at least, and a tile at most")
    columns, rows = (_count(n, e, s) for n, e, s in zip(region[2:], extent, step, strict=True))
    if mask is None:
        kept = np.ones((rows, columns), np.bool_)
    else:
        across = _mask_span(columns, extent[0], step[0], region[2], mask.shape[1])
        down = _mask_span(rows, extent[1], step[1], region[3], mask.shape[0])
        kept = _any_inside(mask, down, across)
    return TileGrid(region, tile_size, downsample, step, (rows, columns), np.argwhere(kept).astype(np.int64))


def _count(length: int, extent: float, stride: float) -> int:
    """Tiles along one axis: the fewest that reach the end."""
    return max(1, math.ceil((length - extent) / stride - 1e-9) + 1)


def _mask_span(n: int, extent: float, stride: float, length: int, pixels: int) -> tuple[Int64, Int64]:
    """First and last + 1 mask pixel that each of n tiles touches along one axis."""
    start = np.floor(np.arange(n) * stride + 1e-6)
    per_pixel = length / pixels
    first = np.floor(start / per_pixel + 1e-9).astype(np.int64)
    end = np.ceil(start + extent - 1e-6)  # the pixel that a tile ends in is its own as well: no gap between tiles
    last = np.ceil(np.minimum(end, length) / per_pixel - 1e-9).astype(np.int64)
    return first.clip(0, pixels), last.clip(0, pixels)


def _any_inside(mask: Mask, rows: tuple[Int64, Int64], columns: tuple[Int64, Int64]) -> Mask:
    """Whether any pixel is True in each rectangle of the product of spans, by a summed-area table."""
    table = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), np.int64)
    table[1:, 1:] = mask.cumsum(0).cumsum(1)
    (top, bottom), (left, right) = rows, columns
    inside = table[bottom][:, right] - table[top][:, right] - table[bottom][:, left] + table[top][:, left]
    return np.asarray(inside > 0, np.bool_)
