"""One class over all slide formats: pixels by place, size and resolution."""

import math
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from pathzoo.errors import SlideError
from pathzoo.wsi.readers import Level, Reader, TiledReader, open_reader
from pathzoo.wsi.resample import area_resample, nearest_pixel
from pathzoo.wsi.types import RGB, Mask, Region

#: A resolution this near (relative) to one that the file holds is read from it as it is, without resampling.
NATIVE_TOLERANCE = 0.02
#: Pixel sizes along x and y that differ by more (relative) are no single mpp.
_SQUARE_TOLERANCE = 0.02
#: Larger sources are read in bands of rows, so that memory does not grow with what is asked for.
_BAND_PIXELS = 1 << 24
#: A survey reads blocks of about this many pixels a side: bands of a giant slide would be thinner than its tiles.
_BLOCK_SIDE = 2048
#: Around a place that cannot be decoded a survey goes down to blocks of at most this many pixels a side.
_DAMAGE_PIXELS = 128


class Slide:
    """A slide, open for reading. A context manager; may be pickled and forked (a new process reopens the file by path).

    Coordinates are level-0 pixels (x, y) as OpenSlide numbers them, sizes are (width, height), resolution is microns
    per pixel (mpp). Reading is safe from several threads.

    Args:
        path: The file; any format of OpenSlide, or a PNG, JPEG or untiled TIFF, which is a slide of one level.
        mpp: Microns per level-0 pixel; takes the place of whatever the file states.
        reader: "tiled-tiff" (native tiles of TIFF and SVS), "openslide" or "image"; by default the first of them that
            takes the file.

    Raises:
        SlideError: The file is missing, unreadable or damaged, or not for the `reader` asked for; `mpp` is not
            positive, or the file's pixels are not square (over 2 %) and no `mpp` is given.
    """

    def __init__(self, path: str | os.PathLike[str], mpp: float | None = None, reader: str | None = None) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self._arguments = (mpp, reader)
        self._reader: Reader = open_reader(self.path, reader)
        self._process = os.getpid()
        self.levels: tuple[Level, ...] = self._reader.levels
        self.bounds: Region = self._reader.bounds
        self.reader_name: str = self._reader.name
        #: What is wrong with the file though it can be read (a level that is lost), a line each.
        self.notes: tuple[str, ...] = tuple(getattr(self._reader, "notes", ()))
        #: "argument", "file" or None: where `mpp` comes from.
        self.mpp_source: str | None = None
        #: Microns per level-0 pixel, or None where nobody states it.
        self.mpp: float | None = None
        try:
            self.mpp = self._find_mpp(mpp)
        except SlideError:
            self.close()
            raise

    @property
    def dimensions(self) -> tuple[int, int]:
        """Level-0 width and height."""
        return self.levels[0].width, self.levels[0].height

    @property
    def native(self) -> TiledReader | None:
        """The reader where it gives the file's own tiles; of this process, so not to be kept over a fork."""
        reader = self._open_reader()
        return reader if isinstance(reader, TiledReader) else None

    def resolve_mpp(self, mpp: float, tolerance: float = NATIVE_TOLERANCE) -> float:
        """The resolution at which pixels asked for at `mpp` are read.

        It is that of a level of the file where one lies within 2 % of `mpp`, that of level 0 where `mpp` is finer by
        at most `tolerance`, else `mpp` itself.

        Args:
            mpp: Wanted microns per pixel.
            tolerance: How much finer than level 0 (relative) may be asked for.

        Raises:
            SlideError: The slide's resolution is unknown, or it is too coarse for `mpp`: pixels are never invented.
        """
        if self.mpp is None:
            raise SlideError(f"{self.path}: states no resolution (microns per pixel); give it with --mpp")
        if not (math.isfinite(mpp) and mpp > 0):
            raise SlideError(f"{self.path}: asked for {mpp} microns per pixel; it must be above 0")
        native = [self.mpp * level.downsample for level in self.levels]
        nearest = min(native, key=lambda value: abs(value - mpp))
        if abs(nearest - mpp) <= NATIVE_TOLERANCE * mpp:
            return nearest
        if mpp >= self.mpp:
            return mpp
        if self.mpp - mpp <= tolerance * mpp * (1 + 1e-9):
            return self.mpp
        raise SlideError(
            f"{self.path}: has {self.mpp:g} microns per pixel, coarser than the {mpp:g} asked for (tolerance "
            f"{tolerance:.0%}); it is not upsampled: use a finer scan or a model for coarser slides"
        )

    def read(self, x: int, y: int, width: int, height: int, mpp: float | None = None) -> RGB:
        """A rectangle of the slide at a resolution.

        It starts at the level-0 corner (x, y) and extends over `width * resolve_mpp(mpp) / self.mpp` level-0 pixels
        to the right, likewise downwards. Pixels come from the nearest level that is at least as fine, through one
        area-averaging resampling; at the resolution of a level they are that level's own.

        Args:
            x: Left edge in level-0 pixels; may lie outside the slide.
            y: Upper edge in level-0 pixels.
            width: Columns of the result.
            height: Rows of the result.
            mpp: Microns per pixel of the result; None reads level 0 as it is, also where its resolution is unknown.

        Returns:
            RGB uint8 (height, width, 3); what is transparent or outside the slide is white.

        Raises:
            SlideError: As in `resolve_mpp`, or the region cannot be decoded.
        """
        scale = self._checked_scale(width, height, mpp)
        return self._read_box(x, y, scale, scale, width, height)

    def bands(
        self, x: int, y: int, width: int, height: int, mpp: float | None = None, rows: int = 1024
    ) -> Iterator[RGB]:
        """What `read` gives for the same arguments, from top to bottom in parts of at most `rows` rows."""
        scale = self._checked_scale(width, height, mpp)
        for top in range(0, height, rows):
            yield self._read_box(x, y + top * scale, scale, scale, width, min(rows, height - top))

    def thumbnail(self, max_size: int, region: Region | None = None) -> RGB:
        """The slide, or a level-0 `region` of it, with its longer side at most `max_size` pixels; never enlarged.

        Parts that cannot be decoded are white; `survey` says which.
        """
        return self.survey(max_size, region)[0]

    def survey(self, max_size: int, region: Region | None = None) -> tuple[RGB, Mask]:
        """A thumbnail (see there) and, of the same size, a mask of what could not be decoded and is white for it."""
        x, y, width, height = region or (0, 0, *self.dimensions)
        scale = max(1.0, max(width, height) / max_size)
        columns, rows = max(1, round(width / scale)), max(1, round(height / scale))
        damaged = np.zeros((rows, columns), np.bool_)
        return self._read_box(x, y, width / columns, height / rows, columns, rows, damaged), damaged

    def survey_pixels(self, max_size: int, region: Region | None = None) -> int:
        """Pixels that `survey` decodes for this: few where the file has a small level, else all of the region.

        Some 10 to 20 million take a second.
        """
        _, _, width, height = region or (0, 0, *self.dimensions)
        down = self.levels[self._level_for(max(1.0, max(width, height) / max_size))].downsample
        return round(width / down) * round(height / down)

    def close(self) -> None:
        """Closes the file."""
        if self._process == os.getpid():
            self._reader.close()

    def _checked_scale(self, width: int, height: int, mpp: float | None) -> float:
        """Level-0 pixels per pixel read at `mpp`."""
        if width <= 0 or height <= 0:
            raise ValueError(f"asked for {width} x {height} pixels; both must be above 0")
        if mpp is None:
            return 1.0
        resolved = self.resolve_mpp(mpp)
        assert self.mpp is not None
        return resolved / self.mpp

    def _read_box(
        self,
        x: int,
        y: float,
        scale_x: float,
        scale_y: float,
        width: int,
        height: int,
        damaged: Mask | None = None,
    ) -> RGB:
        """`width` x `height` cells of scale_x by scale_y level-0 pixels each, in bands of rows.

        With `damaged` what cannot be decoded is white and marked there, and it is read in blocks; without, it is an
        error.
        """
        index = self._level_for(min(scale_x, scale_y))
        down = self.levels[index].downsample
        left, top, step_x, step_y = x / down, y / down, scale_x / down, scale_y / down  # in pixels of the level
        columns, rows = width, max(1, int(_BAND_PIXELS / max(1.0, width * step_x * step_y)))
        if damaged is None and rows >= height:
            return self._read_band(index, (left, top, left + width * step_x, top + height * step_y), width, height)
        if damaged is not None:
            columns, rows = max(1, int(_BLOCK_SIDE / step_x)), max(1, int(_BLOCK_SIDE / step_y))
        out = np.full((height, width, 3), 255, np.uint8)
        starts = [(x0, y0) for y0 in range(0, height, rows) for x0 in range(0, width, columns)]
        todo = [(x0, y0, min(x0 + columns, width), min(y0 + rows, height)) for x0, y0 in reversed(starts)]
        while todo:
            x0, y0, x1, y1 = todo.pop()
            box = (left + x0 * step_x, top + y0 * step_y, left + x1 * step_x, top + y1 * step_y)
            try:
                out[y0:y1, x0:x1] = self._read_band(index, box, x1 - x0, y1 - y0)
            except SlideError:
                if damaged is None:
                    raise
                parts = _halves(x0, y0, x1, y1) if max(box[2] - box[0], box[3] - box[1]) > _DAMAGE_PIXELS else []
                if not parts:
                    damaged[y0:y1, x0:x1] = True
                todo += parts
        return out

    def _read_band(self, level: int, box: tuple[float, float, float, float], width: int, height: int) -> RGB:
        x0, y0, x1, y1 = box
        if abs(x1 - x0 - width) < 1e-3 and abs(y1 - y0 - height) < 1e-3:
            # The level's own pixels: its corner goes to the nearest one.
            return self._open_reader().read_region(level, nearest_pixel(x0), nearest_pixel(y0), width, height)
        column, row = math.floor(x0 + 1e-9), math.floor(y0 + 1e-9)
        columns, rows = math.ceil(x1 - 1e-9) - column, math.ceil(y1 - 1e-9) - row
        pixels = self._open_reader().read_region(level, column, row, columns, rows)
        return area_resample(pixels, (x0 - column, y0 - row, x1 - column, y1 - row), width, height)

    def _level_for(self, scale: float) -> int:
        """The coarsest level that is at least as fine as `scale` level-0 pixels per pixel."""
        fine = [i for i, level in enumerate(self.levels) if level.downsample <= scale * (1 + 1e-3)]
        return max(fine, key=lambda i: self.levels[i].downsample, default=0)

    def _find_mpp(self, given: float | None) -> float | None:
        if given is not None:
            if not (math.isfinite(given) and given > 0):
                raise SlideError(f"{self.path}: mpp {given} was given; it must be above 0")
            self.mpp_source = "argument"
            return float(given)
        if self._reader.mpp is None:
            return None
        x, y = self._reader.mpp
        if abs(x - y) > _SQUARE_TOLERANCE * min(x, y):
            raise SlideError(f"{self.path}: pixels are not square ({x:g} x {y:g} microns); give one value with --mpp")
        self.mpp_source = "file"
        return (x + y) / 2

    def _open_reader(self) -> Reader:
        # After a fork, parent and child would share one file position and one set of locks.
        if self._process != os.getpid():
            with self._lock:
                if self._process != os.getpid():
                    self._inherited = self._reader  # kept: freeing it here could touch the parent's state
                    self._reader = open_reader(self.path, self._arguments[1])
                    self._process = os.getpid()
        return self._reader

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, *self._arguments)

    def __enter__(self) -> "Slide":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        width, height = self.dimensions
        return f"Slide({self.path.name!r}, {width} x {height}, mpp={self.mpp}, levels={len(self.levels)})"


def _halves(x0: int, y0: int, x1: int, y1: int) -> list[tuple[int, int, int, int]]:
    """A rectangle of pixels cut in two across its longer side; empty for a single pixel."""
    if max(x1 - x0, y1 - y0) < 2:
        return []
    if x1 - x0 >= y1 - y0:
        middle = (x0 + x1) // 2
        return [(x0, y0, middle, y1), (middle, y0, x1, y1)]
    middle = (y0 + y1) // 2
    return [(x0, y0, x1, middle), (x0, middle, x1, y1)]
