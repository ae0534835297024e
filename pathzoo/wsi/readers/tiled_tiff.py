"""Tiled TIFF and SVS read tile by tile as the file stores them."""

import itertools
import os
import threading
import weakref
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import openslide

from pathzoo.errors import SlideError
from pathzoo.wsi.readers.base import DeclinedError, NativeGrid
from pathzoo.wsi.readers.openslide_reader import OpenSlideReader
from pathzoo.wsi.readers.tiff_facts import TiffFacts, read_facts
from pathzoo.wsi.readers.tiff_layout import TiffLayout, TiledPage, read_layout
from pathzoo.wsi.readers.tile_cache import TileCache
from pathzoo.wsi.readers.tile_codec import DamagedTileError, DataEndEarlyError, DataLeftOverError, decode
from pathzoo.wsi.types import RGB

#: OpenSlide's names of the formats whose tiles are those of the TIFF, at the places of the TIFF.
_VENDORS = ("aperio", "generic-tiff")
_CACHE_BYTES = 64 << 20
#: A region of more native tiles is decoded by several threads; of them only those at its border are kept, for the
#: regions beside it.
_MANY_TILES = 16
#: More would start for every large patch of every worker of a loader.
_MOST_THREADS = 4
#: Where data are left over, so many other tiles are asked whether the writer always leaves some.
_TILES_ASKED = 8


class TiledTiffReader:
    """A tiled TIFF or SVS by the tiles that it stores; see `TiledReader` for the contract.

    It takes what OpenSlide calls aperio or generic-tiff and stores as 8-bit RGB, YCbCr or grey in JPEG, Aperio's JPEG
    2000, LZW, Deflate, or uncompressed; anything else is left to OpenSlide. Sizes, levels, resolution and bounds are
    OpenSlide's own.

    Pixels equal OpenSlide's: exactly for JPEG (RGB and grey; also YCbCr with or without subsampling, where the
    libjpeg-turbo of imagecodecs and that of OpenSlide agree, as those of the tests do), lossless compressions and JPEG
    2000 of RGB; within 1 grey level for JPEG 2000 of YCbCr, which is converted in another way. (In a level whose
    downsample is no whole number OpenSlide itself interpolates between its pixels, unless read from its corner.)

    JPEG whose data do not fill its picture is an error: see `jpeg_tile` for what is noticed. Two things are taken more
    strictly than OpenSlide does. A tile of no length is an error, where OpenSlide leaves it transparent or fills
    it from another level, unless the file says that it was never written (TIFF with offset and length 0), which is
    white. And data that go on after the picture are an error unless the file's other tiles have that too.

    The descriptor is read at given places (`os.pread`), so that threads need no lock.
    """

    name = "tiled-tiff"

    def __init__(self, path: Path) -> None:
        self.path = path
        layout = read_layout(path)
        facts = _facts(path, layout)
        self.levels, self.mpp, self.bounds = facts.levels, facts.mpp, facts.bounds
        self.properties: Mapping[str, str] = facts.properties
        #: What is wrong with the file though it can be read, a line each.
        self.notes = facts.notes
        self._size = layout.size
        self._pages = _match(layout, facts)
        self._sparse = self.properties.get("openslide.vendor") != "aperio"
        self._unsure = set() if self._sparse else set(_beside_missing(self._pages))
        self._leaves_data: dict[int, bool] = {}
        self._cache = TileCache(_CACHE_BYTES)
        self._lock = threading.Lock()
        self._reference: OpenSlideReader | None = None
        self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        self._closer = weakref.finalize(self, os.close, self._descriptor)

    def native_grid(self, level: int) -> NativeGrid:
        """The tiles of a level; see `TiledReader.native_grid`."""
        return self._pages[level].grid

    def decode_tile(self, level: int, column: int, row: int) -> RGB:
        """One native tile, (tile_height, tile_width, 3); see `TiledReader.decode_tile`."""
        page = self._pages[level]
        try:
            pixels = self._decode(level, column, row)
        except DamagedTileError as error:
            raise SlideError(
                f"{self.path}: cannot decode tile {column}, {row} of level {level}: {error}; copy the slide again"
            ) from error
        right, bottom = page.width - column * page.grid.tile_width, page.height - row * page.grid.tile_height
        if right < page.grid.tile_width:
            pixels[:, right:] = 255
        if bottom < page.grid.tile_height:
            pixels[bottom:] = 255
        return pixels

    def read_region(self, level: int, x: int, y: int, width: int, height: int) -> RGB:
        """Pixels of one level, (height, width, 3), white where there are none; see `Reader.read_region`."""
        page, grid = self._pages[level], self._pages[level].grid
        out = np.full((height, width, 3), 255, np.uint8)
        x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + width, page.width), min(y + height, page.height)
        if x0 >= x1 or y0 >= y1:
            return out
        places = [
            (column, row)
            for row in range(y0 // grid.tile_height, -(-y1 // grid.tile_height))
            for column in range(x0 // grid.tile_width, -(-x1 // grid.tile_width))
        ]
        many = len(places) > _MANY_TILES

        def paste(place: tuple[int, int]) -> None:
            left, top = place[0] * grid.tile_width, place[1] * grid.tile_height
            right, bottom = min(left + grid.tile_width, page.width), min(top + grid.tile_height, page.height)
            a0, b0, a1, b1 = max(x0, left), max(y0, top), min(x1, right), min(y1, bottom)
            tile = self._tile(level, *place, keep=not many or (a0, b0, a1, b1) != (left, top, right, bottom))
            out[b0 - y : b1 - y, a0 - x : a1 - x] = tile[b0 - top : b1 - top, a0 - left : a1 - left]

        if not many:
            for place in places:
                paste(place)
            return out
        with ThreadPoolExecutor(_threads(), thread_name_prefix="pathzoo-decode") as pool:
            try:
                for _ in pool.map(paste, places):
                    pass
            except SlideError:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        return out

    def close(self) -> None:
        """Closes the file."""
        self._descriptor = -1
        self._closer()
        self._cache.clear()
        with self._lock:
            if self._reference is not None:
                self._reference.close()
                self._reference = None

    def _tile(self, level: int, column: int, row: int, keep: bool) -> RGB:
        key = (level, column, row)
        if keep:
            return self._cache.get(key, lambda: self.decode_tile(*key))
        tile = self._cache.peek(key)
        return self.decode_tile(*key) if tile is None else tile

    def _decode(self, level: int, column: int, row: int) -> RGB:
        page = self._pages[level]
        grid = page.grid
        if not (0 <= column < grid.columns and 0 <= row < grid.rows):
            raise ValueError(f"tile {column}, {row} of level {level}: it has {grid.columns} x {grid.rows}")
        index = row * grid.columns + column
        if self._sparse and page.counts[index] == 0 and page.offsets[index] == 0:
            return np.full((grid.tile_height, grid.tile_width, 3), 255, np.uint8)
        if (level, index) in self._unsure:
            raise DamagedTileError("it was made from a tile of no length")
        try:
            try:
                return decode(page, self._bytes(page, index), strict=not self._leaves_data.get(level, False))
            except DataLeftOverError:
                if not self._leaves(level):
                    raise
                return decode(page, self._bytes(page, index), strict=False)
        except DataEndEarlyError as error:
            if page.color == "grey":  # OpenSlide's way to those (libtiff) passes over what is missing
                raise
            try:
                return self._by_reference(level, column, row, error.pixels)
            except SlideError:
                raise error from None

    def _bytes(self, page: TiledPage, index: int) -> bytearray:
        offset, count = int(page.offsets[index]), int(page.counts[index])
        if count <= 0:
            raise DamagedTileError("it has no length")
        if offset <= 0 or offset + count > self._size:
            raise DamagedTileError(f"its {count} bytes at {offset} lie outside of the file of {self._size}")
        if self._descriptor < 0:
            raise SlideError(f"{self.path}: read after it was closed")
        try:
            data = os.pread(self._descriptor, count, offset)
        except OSError as error:  # of the disk, or closed meanwhile
            raise DamagedTileError(f"its bytes cannot be read ({error.strerror})") from error
        if len(data) < count:
            raise DamagedTileError(f"only {len(data)} of its {count} bytes can be read")
        return bytearray(data)

    def _by_reference(self, level: int, column: int, row: int, pixels: RGB | None) -> RGB:
        """The tile if OpenSlide decodes it, whose libjpeg stops at the first warning: as it is here, or else as there.

        OpenSlide is asked for one pixel in its middle: it decodes the whole tile for that, and none beside it. (Of a
        level of odd size it would give interpolated pixels, with some of the neighbours'.)
        """
        with self._lock:
            if self._reference is None:
                self._reference = OpenSlideReader(self.path)
            reference = self._reference
        page, grid = self._pages[level], self._pages[level].grid
        x, y = column * grid.tile_width, row * grid.tile_height
        if pixels is None:
            return reference.read_region(level, x, y, grid.tile_width, grid.tile_height)
        middle = (min(grid.tile_width, page.width - x) // 2, min(grid.tile_height, page.height - y) // 2)
        reference.read_region(level, x + middle[0], y + middle[1], 1, 1)
        return pixels

    def _leaves(self, level: int) -> bool:
        """Whether most tiles of a level, of some asked, have data after the picture: then it is the writer's habit."""
        if level not in self._leaves_data:
            page = self._pages[level]
            written = np.flatnonzero(page.counts > 0)
            asked = written[np.linspace(0, len(written) - 1, min(_TILES_ASKED, len(written))).astype(np.int64)]
            self._leaves_data[level] = sum(self._has_leftover(page, int(i)) for i in asked) * 2 > len(asked) > 1
        return self._leaves_data[level]

    def _has_leftover(self, page: TiledPage, index: int) -> bool:
        try:
            decode(page, self._bytes(page, index))
        except DamagedTileError as error:
            return isinstance(error, DataLeftOverError)
        return False


def _facts(path: Path, layout: TiffLayout) -> OpenSlideReader | TiffFacts:
    """What OpenSlide says of the file; where it refuses it for tiles that are cut off, what its directories say."""
    try:
        reference = OpenSlideReader(path, layout)
    except DeclinedError:
        raise
    except SlideError as error:
        vendor = openslide.OpenSlide.detect_format(path)
        if vendor not in _VENDORS or not any(page.lies_outside(layout.size) for page in layout.pages):
            raise
        return read_facts(layout, vendor, str(error).removeprefix(f"{path}: "))
    reference.close()
    return reference


def _match(layout: TiffLayout, reference: OpenSlideReader | TiffFacts) -> tuple[TiledPage, ...]:
    """The TIFF directory of each of OpenSlide's levels.

    Raises:
        DeclinedError: Another vendor's layout, a directory that cannot be read here, or levels without one directory
            of their size.
    """
    vendor = reference.properties.get("openslide.vendor")
    if vendor not in _VENDORS:
        raise DeclinedError(f"a TIFF of {vendor}, whose tiles do not lie on the plain grid of the TIFF")
    pages = []
    for number, level in enumerate(reference.levels):
        fitting = [page for page in layout.pages if (page.width, page.height) == (level.width, level.height)]
        if len(fitting) != 1:
            raise DeclinedError(f"{len(fitting)} directories of the TIFF have the size of level {number}")
        if fitting[0].unsupported is not None:
            raise DeclinedError(f"level {number}: {fitting[0].unsupported}")
        pages.append(fitting[0])
    return tuple(pages)


def _beside_missing(pages: tuple[TiledPage, ...]) -> Iterable[tuple[int, int]]:
    """(level, tile) of those that an Aperio scanner made from a tile of no length: their pixels cannot be trusted.

    Source: OpenSlide marks the same ones (openslide-vendor-aperio.c: such tiles "are sometimes corrupt").
    """
    for level, (page, next_page) in enumerate(itertools.pairwise(pages), 1):
        grid, below = page.grid, next_page.grid
        joined = (max(1, round(grid.columns / below.columns)), max(1, round(grid.rows / below.rows)))
        for index in np.flatnonzero(page.counts[: grid.columns * grid.rows] == 0).tolist():
            row, column = divmod(index, grid.columns)
            place = (min(column // joined[0], below.columns - 1), min(row // joined[1], below.rows - 1))
            yield level, place[1] * below.columns + place[0]


def _threads() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _MOST_THREADS)
