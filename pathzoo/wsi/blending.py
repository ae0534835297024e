"""Overlapping tiles of pixel-wise answers joined to one picture, with memory for the overlap only."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pathzoo.wsi.tiling import TileGrid
from pathzoo.wsi.types import Float32, Int64, Mask


@dataclass(frozen=True)
class Canvas:
    """Where the tiles of a grid lie on the picture that they make, in its pixels.

    The picture covers the grid's region at the tiles' resolution; its size is the region's to the nearest whole pixel
    (at least 1). A tile has its corner at the nearest pixel to `(corner - region corner) / downsample`: pixels of the
    picture are off by at most half of one (or where `canvas` is told). Where tiles without overlap at a fractional
    downsample would leave a line of one pixel open, the tile before it is moved up to it; that adds at most one level-0
    pixel.
    """

    width: int
    height: int
    #: Width and height of a tile.
    tile_size: tuple[int, int]
    #: (columns,) left edges and (rows,) upper edges of the whole grid's tiles.
    lefts: Int64
    tops: Int64

    @property
    def overlapping(self) -> bool:
        """Whether any two tiles of the grid share a pixel."""
        return any(
            bool((np.diff(starts) < side).any())
            for starts, side in zip((self.lefts, self.tops), self.tile_size, strict=True)
        )


@dataclass(frozen=True)
class PlacedTile:
    """The answer for one tile: where it stands in the grid, and (C, H, W) float32 values."""

    row: int
    column: int
    values: Float32
    #: (H, W) bool, True where the values are worth nothing; None: all are good.
    damage: Mask | None = None


@dataclass(frozen=True)
class Block:
    """A finished rectangle of the picture. The arrays belong to the blender: use them before the next block."""

    x: int
    y: int
    width: int
    height: int
    #: (C, height, width) values times weights, summed over the tiles; None where no tile lies.
    sums: Float32 | None
    #: (height, width) summed weights, 0 where nothing is known; None where no tile lies.
    weights: Float32 | None


def canvas(grid: TileGrid, places: Callable[[TileGrid], npt.NDArray[Any]] | None = None) -> Canvas:
    """The picture that the tiles of `grid` make.

    Args:
        grid: The tiles.
        places: Gives the (n, 2) x and y of tiles' corners in pixels that tiles share, where these are not read at
            `(corner - region corner) / downsample`: at the resolution of a level they are read from its whole pixels.
    """
    rows, columns = grid.shape
    down = grid.downsample
    across = replace(grid, cells=np.stack([np.zeros(columns, np.int64), np.arange(columns)], axis=1))
    below = replace(grid, cells=np.stack([np.arange(rows), np.zeros(rows, np.int64)], axis=1))
    if places is None:
        lefts, tops = (
            (lattice.corners[:, axis] - grid.region[axis]) / down for axis, lattice in enumerate((across, below))
        )
    else:
        lefts, tops = (at[:, axis] - float(at[0, axis]) for axis, at in enumerate(map(places, (across, below))))
    width, height = (max(1, round(length / down)) for length in grid.region[2:])
    return Canvas(
        width,
        height,
        grid.tile_size,
        _starts(lefts, grid.tile_size[0], width),
        _starts(tops, grid.tile_size[1], height),
    )


def window(size: int) -> Float32:
    """Weights of a tile's pixels along one axis: sin² over the tile, sampled at pixel centres.

    It falls smoothly to almost nothing at the edges, where a network lacks context, and is above 0 everywhere, so that
    a pixel of one tile alone keeps its value. At half overlap the weights of neighbours sum to 1.

    Returns:
        (size,) float32 in 0..1.
    """
    return np.asarray(np.sin(np.pi * (np.arange(size) + 0.5) / size) ** 2, np.float32)


class Blender:
    """Weighted means over the tiles that cover each pixel.

    Tiles come in the grid's order. What later tiles cannot reach any more comes out at once: row of tiles by row of
    tiles, each from left to right. Only the rows that the next row of tiles covers too are kept, for the whole width:
    (C + 1) * 4 bytes for each pixel of them, nothing where tiles do not overlap.

    Args:
        canvas: Where tiles lie.
        channels: C.
    """

    def __init__(self, canvas: Canvas, channels: int) -> None:
        width, height = canvas.tile_size
        self.canvas, self._channels, self._overlapping = canvas, channels, canvas.overlapping
        #: The tops of the rows of tiles, and where the last one ends.
        self._edges = np.append(canvas.tops, canvas.height)
        self._shared = int(max([0, *(height - np.diff(canvas.tops))]))
        across, down = window(width), window(height)
        self._window = down[:, None] * across[None, :]
        # Channel C is the weight. Of the rows from the current top on, what earlier rows of tiles gave.
        self._carry = np.zeros((channels + 1, self._shared, canvas.width), np.float32)
        # What the current row of tiles gives, for the columns from `_left` on; before them, up to `_done`, all is out.
        self._strip = np.zeros((channels + 1, height, width), np.float32)
        self._left = self._done = 0

    def blocks(self, tiles: Iterable[PlacedTile]) -> Iterator[Block]:
        """The finished rectangles, row of tiles by row of tiles, left to right; together they cover the whole picture.

        Raises:
            ValueError: A tile out of order, outside the grid or of another shape.
        """
        last = (0, -1)
        for tile in tiles:
            self._check(tile, last)
            for row in range(last[0], tile.row):
                yield from self._end_row(row)
            last = (tile.row, tile.column)
            left, width = int(self.canvas.lefts[tile.column]), self._visible(tile.column)
            if width > 0:
                yield from self._flush(tile.row, left)
                if self._overlapping:
                    self._add(tile, width)
                else:
                    yield from self._pass_on(tile, left, width)
        for row in range(last[0], len(self.canvas.tops)):
            yield from self._end_row(row)

    def _check(self, tile: PlacedTile, last: tuple[int, int]) -> None:
        expected = (self._channels, *self.canvas.tile_size[::-1])
        if tile.values.shape != expected:
            raise ValueError(f"tile ({tile.row}, {tile.column}) has shape {tile.values.shape}, expected {expected}")
        if (tile.row, tile.column) <= last:
            raise ValueError(f"tile ({tile.row}, {tile.column}) comes after {last}; tiles must come in grid order")
        if tile.row >= len(self.canvas.tops) or tile.column >= len(self.canvas.lefts):
            raise ValueError(f"tile ({tile.row}, {tile.column}) lies outside the grid")

    def _visible(self, column: int) -> int:
        """Columns of a tile that lie on the picture."""
        return min(self.canvas.tile_size[0], self.canvas.width - int(self.canvas.lefts[column]))

    def _add(self, tile: PlacedTile, width: int) -> None:
        """Adds a tile to the strip, which begins at its left edge by now."""
        weight = self._window if tile.damage is None else np.where(tile.damage, np.float32(0), self._window)
        part = self._strip[..., :width]
        part[:-1] += tile.values[..., :width] * weight[:, :width]
        part[-1] += weight[:, :width]

    def _pass_on(self, tile: PlacedTile, left: int, width: int) -> Iterator[Block]:
        """A tile that shares no pixel with another: there is nothing to blend."""
        top, bottom = self._span(tile.row)
        if bottom > top:
            good = np.ones((bottom - top, width), np.float32)
            if tile.damage is not None:
                good[tile.damage[: bottom - top, :width]] = 0
            yield Block(left, top, width, bottom - top, tile.values[:, : bottom - top, :width], good)
        self._done = left + width

    def _span(self, row: int) -> tuple[int, int]:
        """First and last + 1 row of pixels that a row of tiles finishes."""
        return int(self._edges[row]), int(self._edges[row + 1])

    def _end_row(self, row: int) -> Iterator[Block]:
        yield from self._flush(row, self.canvas.width)
        self._left = self._done = 0
        self._strip[:] = 0

    def _flush(self, row: int, stop: int) -> Iterator[Block]:
        """Puts out the columns before `stop` and makes the strip begin there."""
        if not self._overlapping:
            yield from self._gap(row, stop)
            return
        end = min(stop, self._left + self._strip.shape[2])
        if end > self._done:
            yield from self._finish(row, self._done, end, self._strip[..., : end - self._left])
        yield from self._gap(row, stop)
        moved = stop - self._left
        if moved:
            kept = max(0, self._strip.shape[2] - moved)
            self._strip[..., :kept] = self._strip[..., self._strip.shape[2] - kept :]
            self._strip[..., kept:] = 0
        self._left = stop

    def _finish(self, row: int, x0: int, x1: int, strip: Float32) -> Iterator[Block]:
        """The columns x0..x1 of a row of tiles: joined with what the rows above gave, parted from what goes on."""
        top, bottom = self._span(row)
        step = bottom - top
        strip[:, : self._shared] += self._carry[..., x0:x1]
        kept = strip[:, step : step + self._shared]
        self._carry[:, : kept.shape[1], x0:x1] = kept
        self._carry[:, kept.shape[1] :, x0:x1] = 0
        self._done = x1
        if step:
            yield Block(x0, top, x1 - x0, step, strip[:-1, :step], strip[-1, :step])

    def _gap(self, row: int, stop: int) -> Iterator[Block]:
        """The columns up to `stop`, on which no tile of this row lies."""
        x0, step = self._done, self._span(row)[1] - self._span(row)[0]
        if stop <= x0:
            return
        if self._carry[-1, :, x0:stop].any():
            tile_width = self._strip.shape[2]
            for x in range(x0, stop, tile_width):
                size = min(tile_width, stop - x)
                empty = np.zeros((self._channels + 1, self._strip.shape[1], size), np.float32)
                yield from self._finish(row, x, x + size, empty)
        elif step:
            yield Block(x0, int(self._edges[row]), stop - x0, step, None, None)
        self._done = stop


def _starts(places: npt.NDArray[np.float64], side: int, length: int) -> Int64:
    """Whole-pixel corners of tiles along one axis: the nearest, without a gap between tiles or at the end."""
    starts = np.rint(places).astype(np.int64)
    need = length
    for i in range(len(starts) - 1, -1, -1):
        starts[i] = max(starts[i], need - side)
        need = int(starts[i])
    return starts
