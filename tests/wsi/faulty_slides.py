"""Slides for the tests of the tile stream: native tiles cut out of OpenSlide's pixels, with faults on demand.

Importable by the reading process, which gets such a slide pickled.
"""

import ctypes
import os
import signal
import threading
import time
import weakref
from collections import Counter
from pathlib import Path

import numpy as np

from pathzoo.errors import SlideError
from pathzoo.wsi.readers.base import NativeGrid
from pathzoo.wsi.slide import Slide


class CutTiles:
    """Stands for a reader with native tiles; counts what it decodes and what of it is still held."""

    name = "cut"

    def __init__(self, reader, tile: tuple[int, int], faults: dict, record: Path | None) -> None:
        self.reader, self.tile, self.faults, self.record = reader, tile, faults, record
        self.decoded: Counter = Counter()
        self.held = self.most_held = 0
        self.lock = threading.Lock()
        self.path, self.levels, self.mpp = reader.path, reader.levels, reader.mpp
        self.bounds, self.properties = reader.bounds, reader.properties
        self.read_region, self.close = reader.read_region, reader.close

    def native_grid(self, level: int) -> NativeGrid:
        width, height = self.tile
        size = self.levels[level]
        return NativeGrid(width, height, -(-size.width // width), -(-size.height // height))

    def decode_tile(self, level: int, column: int, row: int) -> np.ndarray:
        if self.record is not None:
            with self.record.open("a") as file:
                file.write(f"{os.getpid()} {level} {column} {row}\n")
        if fault := self.faults.get((level, column, row)):
            misbehave(fault, self.path)
        width, height = self.tile
        pixels = self.reader.read_region(level, column * width, row * height, width, height)
        with self.lock:
            self.decoded[level, column, row] += 1
            self.held += 1
            self.most_held = max(self.most_held, self.held)
        weakref.finalize(pixels, self._gone)
        return pixels

    def _gone(self) -> None:
        self.held -= 1


def misbehave(fault: str, path: Path) -> None:
    if fault == "corrupt":
        raise SlideError(f"{path}: cannot decode this tile")
    if fault == "bad disk":
        raise OSError(5, "Input/output error")
    if fault == "hang":
        time.sleep(1000)
    if fault == "hang with Python's lock":
        ctypes.PyDLL(None).sleep(1000)
    if fault == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
        time.sleep(10)
    if fault == "out of memory":
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(10)
    if fault == "defect":
        raise ZeroDivisionError("a defect of the reader")


class TiledSlide(Slide):
    """A slide with native tiles; `faults` says which of them (level, column, row) do what."""

    def __init__(self, path, mpp=None, tile=(128, 128), faults=None, record=None) -> None:
        super().__init__(path, mpp, "openslide")
        self.given = (path, mpp, tile, faults or {}, record)
        self._reader = CutTiles(self._reader, tile, faults or {}, record)

    @property
    def cut(self) -> CutTiles:
        return self._reader

    def __reduce__(self):
        return TiledSlide, self.given


class FaultySlide(Slide):
    """A slide without native tiles, of which regions that contain a given level-0 point misbehave."""

    def __init__(self, path, mpp=None, point=(0, 0), fault="hang") -> None:
        super().__init__(path, mpp, "openslide")
        self.given = (path, mpp, point, fault)
        plain = self._reader.read_region

        def read_region(level, x, y, width, height):
            down = self.levels[level].downsample
            if x * down <= point[0] < (x + width) * down and y * down <= point[1] < (y + height) * down:
                misbehave(fault, self.path)
            return plain(level, x, y, width, height)

        self._reader.read_region = read_region

    def __reduce__(self):
        return FaultySlide, self.given


class SlowToOpen(Slide):
    """A slide that opens in the process that made it, and nowhere else."""

    def __init__(self, path, mpp=None, maker=None) -> None:
        if maker is not None and maker != os.getpid():
            time.sleep(1000)
        super().__init__(path, mpp, "openslide")
        self.given = (path, mpp, maker or os.getpid())

    def __reduce__(self):
        return SlowToOpen, self.given


class Darker:
    """A stain transform; white would not stay white."""

    def apply(self, rgb, /):
        return rgb // 2
