"""Which pixels of the file each tile of a grid is made of: coordinates only, by the rules of `Slide.read`."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pathzoo.wsi import slide as slides
from pathzoo.wsi.resample import nearest_pixel
from pathzoo.wsi.slide import Slide
from pathzoo.wsi.tiling import TileGrid
from pathzoo.wsi.types import Int64

#: x0, y0, x1, y1; what the pixels are is said where it is used.
Box = tuple[int, int, int, int]
#: A step this near to 1 is 1: the tile shows the level's own pixels.
_UNIT_STEP = 1e-6


@dataclass(frozen=True)
class Window:
    """Some rows of a tile and the rectangle of the level that they are made of."""

    #: First and last + 1 row of the tile.
    first: int
    last: int
    #: In pixels of the level; may stand out of it.
    source: Box
    #: What of `source` (in its own pixels) is averaged; None where source and tile have the same pixels.
    box: tuple[float, float, float, float] | None


@dataclass(frozen=True)
class TileSources:
    """Where the tiles of a grid lie in one level of the file."""

    level: int
    #: Width and height of the level in its own pixels.
    level_size: tuple[int, int]
    #: Level-0 pixels per pixel of a tile.
    scale: float
    #: Pixels of the level per pixel of a tile.
    step: float
    tile_size: tuple[int, int]
    #: (n, 2) x and y of each tile's corner in pixels of the level.
    corners: npt.NDArray[np.float64]

    @property
    def exact(self) -> bool:
        """Whether tiles are the level's own pixels, without resampling."""
        return abs(self.step - 1) < _UNIT_STEP

    @property
    def rectangles(self) -> Int64:
        """(n, 4) x0, y0, x1, y1 of the pixels of the level that each tile needs, cut at the level's edges."""
        ends = self.corners + np.array(self.tile_size) * self.step
        if self.exact:
            first = np.floor(self.corners + 0.5)  # as `nearest_pixel`
            last = first + np.array(self.tile_size)
        else:
            first, last = np.floor(self.corners + 1e-9), np.ceil(ends - 1e-9)
        size = np.array(self.level_size)
        cut = np.hstack([first.clip(0, size), last.clip(0, size)])
        return np.asarray(cut.astype(np.int64))

    def windows(self, number: int) -> Iterator[Window]:
        """The parts that a tile is made of, from top to bottom: one, or several where the source is very large."""
        left, top = self.corners[number].tolist()
        width, height = self.tile_size
        rows = max(1, int(slides._BAND_PIXELS / max(1.0, width * self.step * self.step)))
        for first in range(0, height, rows):
            last = min(first + rows, height)
            x0, y0, x1, y1 = left, top + first * self.step, left + width * self.step, top + last * self.step
            if self.exact:
                x, y = nearest_pixel(x0), nearest_pixel(y0)
                yield Window(first, last, (x, y, x + width, y + last - first), None)
            else:
                x, y = math.floor(x0 + 1e-9), math.floor(y0 + 1e-9)
                source = (x, y, math.ceil(x1 - 1e-9), math.ceil(y1 - 1e-9))
                yield Window(first, last, source, (x0 - x, y0 - y, x1 - x, y1 - y))

    def inside(self, number: int) -> Box:
        """The part of a tile that lies in the slide, in pixels of the tile, rounded outwards; the rest is padding."""
        left, top = self.corners[number].tolist()
        if self.exact:
            left, top = nearest_pixel(left), nearest_pixel(top)
        (width, height), (columns, rows) = self.tile_size, self.level_size
        x0, y0 = math.floor(-left / self.step + 1e-9), math.floor(-top / self.step + 1e-9)
        x1, y1 = math.ceil((columns - left) / self.step - 1e-9), math.ceil((rows - top) / self.step - 1e-9)
        return min(max(x0, 0), width), min(max(y0, 0), height), min(max(x1, 0), width), min(max(y1, 0), height)


def tile_sources(slide: Slide, grid: TileGrid, mpp: float) -> TileSources:
    """Finds the level and the place in it of every tile, as `slide.read(x, y, width, height, mpp)` does.

    Raises:
        SlideError: As `Slide.resolve_mpp`.
    """
    resolved = slide.resolve_mpp(mpp)
    assert slide.mpp is not None
    scale = resolved / slide.mpp
    index = slide._level_for(scale)
    level = slide.levels[index]
    size = (level.width, level.height)
    return TileSources(
        index, size, scale, scale / level.downsample, grid.tile_size, grid.corners.reshape(-1, 2) / level.downsample
    )
