"""The native tiles of one level, each decoded once and kept for as long as tiles of the grid still need it."""

import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future

import numpy as np
import numpy.typing as npt

from pathzoo.errors import SlideError
from pathzoo.wsi.readers.base import NativeGrid
from pathzoo.wsi.resample import area_resample
from pathzoo.wsi.tile_sources import Box, TileSources, Window
from pathzoo.wsi.types import RGB

#: What is kept for later rows of the grid is held below this many bytes; beyond, tiles are decoded again when needed.
BAND_BYTES = 512 << 20
#: Native tiles per task of a thread: fewer leave threads waiting less, more cost less book-keeping.
_CHUNK = 4

#: A part of a tile that could not be decoded (x0, y0, x1, y1 in pixels of the tile), and why.
Damage = tuple[Box, str]


class _Native:
    """One native tile: to be decoded, decoded (`pixels`) or undecodable (`reason`)."""

    __slots__ = ("column", "decoding", "pixels", "reason", "row", "users")

    def __init__(self, column: int, row: int) -> None:
        self.column, self.row = column, row
        self.pixels: RGB | None = None
        self.reason = ""
        #: Tiles of the grid that were asked for and are not assembled yet.
        self.users = 0
        self.decoding: Future[None] | None = None


class NativeBand:
    """Assembles the tiles of a grid from native tiles, by the threads of a pool.

    `prefetch` the tiles in the grid's order, then `assemble` each, in any thread and order. With tiles row by row what
    is held is a band as wide as the grid and as high as two of its rows overlap, and what the threads are at. Nothing
    is decoded that no tile touches.

    Args:
        sources: Where the tiles lie.
        grid: The native tiles of `sources.level`.
        decode: (column, row) -> (tile_height, tile_width, 3); raises SlideError. Called by several threads.
        pool: Does the decoding.
        limit: Bytes of decoded tiles above which a tile is not kept for later rows.
    """

    def __init__(
        self,
        sources: TileSources,
        grid: NativeGrid,
        decode: Callable[[int, int], RGB],
        pool: Executor,
        limit: int = BAND_BYTES,
    ) -> None:
        self._sources, self._grid, self._decode, self._pool = sources, grid, decode, pool
        self._limit = max(1, limit // (grid.tile_width * grid.tile_height * 3))
        self._spans, self._last = native_use(sources, grid)
        self._held: dict[tuple[int, int], _Native] = {}
        self._needed: dict[int, list[_Native]] = {}
        self._decoded, self._asked = 0, -1
        self._lock = threading.Lock()

    def prefetch(self, number: int) -> None:
        """Has the native tiles of a tile decoded, unless they are. Not to be called by two threads at once."""
        if number in self._needed:
            return
        needed, new = [], []
        x0, y0, x1, y1 = self._spans[number].tolist()
        with self._lock:
            for key in [(column, row) for row in range(y0, y1) for column in range(x0, x1)]:
                native = self._held.get(key)
                if native is None:
                    native = self._held[key] = _Native(*key)
                    new.append(native)
                native.users += 1
                needed.append(native)
            self._needed[number], self._asked = needed, number
        for first in range(0, len(new), _CHUNK):
            chunk = new[first : first + _CHUNK]
            future = self._pool.submit(self._decode_all, chunk)
            for native in chunk:
                native.decoding = future

    def assemble(self, number: int, out: RGB) -> list[Damage]:
        """Fills `out` (H, W, 3) with a tile that was prefetched; returns what is white for not being decodable."""
        needed = self._needed.pop(number)
        for native in needed:
            if native.pixels is None and native.decoding is not None:
                native.decoding.result()
        damage: list[Damage] = []
        for window in self._sources.windows(number):
            rows = out[window.first : window.last]
            if window.box is None:
                self._paste(window.source, needed, rows, damage, window.first)
            else:
                self._resample(window, needed, rows, damage)
        self._release(needed)
        return damage

    def _decode_all(self, natives: Sequence[_Native]) -> None:
        for native in natives:
            try:
                native.pixels = self._decode(native.column, native.row)
            except SlideError as error:
                native.reason = str(error)
        with self._lock:
            self._decoded += len(natives)

    def _release(self, needed: Sequence[_Native]) -> None:
        with self._lock:
            for native in needed:
                native.users -= 1
                if native.users:
                    continue
                # Every tile that was asked for is done with it. What a later one needs is kept up to the limit; what
                # is kept already stays, since its row of the grid comes first.
                if self._last[native.row, native.column] <= self._asked or self._decoded > self._limit:
                    del self._held[native.column, native.row]
                    self._decoded -= 1

    def _paste(self, source: Box, needed: Sequence[_Native], out: RGB, damage: list[Damage], top: int) -> None:
        """Copies a rectangle of the level into `out`; `top` is added to the rows of `damage`."""
        x, y, x1, y1 = source
        columns, rows = self._sources.level_size
        wide, high = self._grid.tile_width, self._grid.tile_height
        fill_outside(out, (-x, -y, columns - x, rows - y))
        right, bottom = min(x1, columns), min(y1, rows)
        for native in needed:
            left, upper = native.column * wide, native.row * high
            a0, b0 = max(x, left, 0), max(y, upper, 0)
            a1, b1 = min(right, left + wide), min(bottom, upper + high)
            if a0 >= a1 or b0 >= b1:
                continue
            if native.pixels is None:
                out[b0 - y : b1 - y, a0 - x : a1 - x] = 255
                damage.append(((a0 - x, b0 - y + top, a1 - x, b1 - y + top), native.reason))
            else:
                out[b0 - y : b1 - y, a0 - x : a1 - x] = native.pixels[b0 - upper : b1 - upper, a0 - left : a1 - left]

    def _resample(self, window: Window, needed: Sequence[_Native], out: RGB, damage: list[Damage]) -> None:
        assert window.box is not None
        x0, y0, x1, y1 = window.source
        pixels, parts = np.empty((y1 - y0, x1 - x0, 3), np.uint8), list[Damage]()
        self._paste(window.source, needed, pixels, parts, 0)
        out[...] = area_resample(pixels, window.box, out.shape[1], out.shape[0])
        for box, reason in parts:
            a0, b0, a1, b1 = _cells(box, window.box, out.shape[1], out.shape[0])
            out[b0:b1, a0:a1] = 255
            damage.append(((a0, b0 + window.first, a1, b1 + window.first), reason))


def native_use(sources: TileSources, grid: NativeGrid) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """The native tiles that each tile needs, and the last tile that needs each native tile.

    Returns:
        (n, 4) first column, first row, last + 1 column, last + 1 row; and (rows, columns) number of the last tile that
        touches a native tile, -1 where none does.
    """
    size = np.array([grid.tile_width, grid.tile_height] * 2)
    rectangles = sources.rectangles
    spans = rectangles // size
    spans[:, 2:] = -(-rectangles[:, 2:] // size[2:])
    spans = np.minimum(spans, [grid.columns, grid.rows] * 2)
    spans[(rectangles[:, 2:] <= rectangles[:, :2]).any(1)] = 0
    last = np.full((grid.rows, grid.columns), -1, np.int32)
    for number, (x0, y0, x1, y1) in enumerate(spans.tolist()):
        last[y0:y1, x0:x1] = number
    return spans, last


def fill_outside(pixels: npt.NDArray[np.uint8], inside: Box) -> None:
    """Makes (H, W, ...) white outside of a rectangle, in place; the rectangle may stand out of it."""
    height, width = pixels.shape[:2]
    x0, y0, x1, y1 = inside
    if x0 > 0:
        pixels[:, :x0] = 255
    if y0 > 0:
        pixels[:y0] = 255
    if x1 < width:
        pixels[:, max(x1, 0) :] = 255
    if y1 < height:
        pixels[max(y1, 0) :] = 255


def _cells(part: Box, box: tuple[float, float, float, float], width: int, height: int) -> Box:
    """The cells of a width x height grid over `box` that touch `part`."""
    step_x, step_y = (box[2] - box[0]) / width, (box[3] - box[1]) / height
    x0, y0 = math.floor((part[0] - box[0]) / step_x + 1e-6), math.floor((part[1] - box[1]) / step_y + 1e-6)
    x1, y1 = math.ceil((part[2] - box[0]) / step_x - 1e-6), math.ceil((part[3] - box[1]) / step_y - 1e-6)
    return max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
