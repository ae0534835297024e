"""OpenSlide: the reference for every format it knows."""

import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import openslide

from pathzoo.errors import SlideError
from pathzoo.pixel_depth import depth_problem
from pathzoo.wsi.readers.base import DeclinedError, Level, mpp_from_tiff
from pathzoo.wsi.readers.tiff_layout import TiffLayout, read_layout
from pathzoo.wsi.types import RGB, Region


class OpenSlideReader:
    """A slide through OpenSlide (https://openslide.org/api/python); see `Reader` for the contract.

    After one tile that it cannot decode an OpenSlide handle answers every later call with the same error. So a failed
    region is read once more from a fresh handle (another thread's tile may have killed this one), and where it fails
    again the next region starts from a fresh handle too.

    Args:
        path: The file.
        layout: Its directories if it is a TIFF and they were read already: OpenSlide believes their sizes, so they are
            checked first.
    """

    name = "openslide"

    def __init__(self, path: Path, layout: TiffLayout | None = None) -> None:
        self.path = path
        if layout is None:
            with suppress(DeclinedError):
                layout = read_layout(path)
        # OpenSlide keeps the upper byte of deeper pixels: of an instrument's 12 bits in 16 a nearly black picture.
        problem = None if layout is None else depth_problem("TIFF", layout.pages[0].bits)
        if problem:
            raise SlideError(f"{path}: {problem}")
        #: What is wrong with the file though it can be read, a line each.
        self.notes = () if layout is None else layout.notes
        if openslide.OpenSlide.detect_format(path) is None:
            if self.notes:  # a tiled TIFF: no plain image either
                raise SlideError(f"{path}: {self.notes[0]}; copy it again")
            raise DeclinedError("OpenSlide knows no format like it")
        self._lock = threading.Lock()
        self._handle = self._open()
        properties = dict(self._handle.properties)
        self.properties: Mapping[str, str] = properties
        sizes, downsamples = self._handle.level_dimensions, self._handle.level_downsamples
        self.levels = tuple(Level(w, h, float(d)) for (w, h), d in zip(sizes, downsamples, strict=True))
        self.mpp = _mpp(properties)
        self.bounds = _bounds(properties, sizes[0])

    def read_region(self, level: int, x: int, y: int, width: int, height: int) -> RGB:
        """Pixels of one level, (height, width, 3), white where there are none; see `Reader.read_region`."""
        downsample = self.levels[level].downsample
        corner = (round(x * downsample), round(y * downsample))
        handle = self._handle
        try:
            return self._pixels(handle, corner, level, (width, height))
        except openslide.OpenSlideError:
            self._replace(handle)
        # Again, on a handle of its own: the shared one may be killed at any time by another thread's damaged tile.
        own = self._open()
        try:
            return self._pixels(own, corner, level, (width, height))
        except openslide.OpenSlideError as error:
            raise SlideError(
                f"{self.path}: cannot decode {width} x {height} px of level {level} at x {corner[0]}, y {corner[1]}: "
                f"{_one_line(error)}; copy the slide again"
            ) from error
        finally:
            own.close()

    @staticmethod
    def _pixels(handle: openslide.OpenSlide, corner: tuple[int, int], level: int, size: tuple[int, int]) -> RGB:
        return over_white(np.asarray(handle.read_region(corner, level, size)))  # straight alpha, exact where it is 255

    def close(self) -> None:
        """Closes the file."""
        self._handle.close()

    def _open(self) -> openslide.OpenSlide:
        try:
            return openslide.OpenSlide(self.path)
        except (openslide.OpenSlideError, OSError) as error:
            reason = "; ".join([*self.notes, f"OpenSlide cannot open it: {_one_line(error)}"])
            raise SlideError(f"{self.path}: {reason}; copy it again") from error

    def _replace(self, dead: openslide.OpenSlide) -> None:
        # The dead handle is let go, not closed: another thread may be inside it, and its last user frees it.
        with self._lock:
            if self._handle is dead:
                self._handle = self._open()


def over_white(rgba: RGB) -> RGB:
    """(H, W, 4) uint8 with straight alpha laid over white: (H, W, 3) uint8, unchanged where alpha is 255."""
    alpha = rgba[..., 3]
    rgb = np.ascontiguousarray(rgba[..., :3])
    clear = alpha != 255
    if clear.any():
        a = alpha[clear][:, None].astype(np.uint16)
        rgb[clear] = ((rgb[clear] * a + 255 * (255 - a) + 127) // 255).astype(np.uint8)
    return rgb


def _one_line(error: Exception) -> str:
    """What it says; libtiff's messages come in several lines."""
    return " ".join(str(error).split())


def _number(properties: Mapping[str, str], key: str) -> float | None:
    try:
        value = float(properties[key])
    except (KeyError, ValueError):
        return None
    return value if np.isfinite(value) else None


def _mpp(properties: Mapping[str, str]) -> tuple[float, float] | None:
    x, y = _number(properties, openslide.PROPERTY_NAME_MPP_X), _number(properties, openslide.PROPERTY_NAME_MPP_Y)
    # For a generic TIFF these two are its resolution tags, which an image editor may have filled: judged below.
    if x and y and x > 0 and y > 0 and properties.get(openslide.PROPERTY_NAME_VENDOR) != "generic-tiff":
        return x, y
    x, y = _number(properties, "tiff.XResolution"), _number(properties, "tiff.YResolution")
    return mpp_from_tiff(x, y, properties.get("tiff.ResolutionUnit", "")) if x and y else None


def _bounds(properties: Mapping[str, str], size: tuple[int, int]) -> Region:
    keys = (
        openslide.PROPERTY_NAME_BOUNDS_X,
        openslide.PROPERTY_NAME_BOUNDS_Y,
        openslide.PROPERTY_NAME_BOUNDS_WIDTH,
        openslide.PROPERTY_NAME_BOUNDS_HEIGHT,
    )
    try:
        x, y, width, height = (int(properties[key]) for key in keys)
    except (KeyError, ValueError):
        return (0, 0, *size)
    return (x, y, width, height) if width > 0 and height > 0 else (0, 0, *size)
