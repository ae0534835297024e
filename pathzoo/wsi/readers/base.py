"""What `Slide` asks of a file format. A further reader (DICOM) implements `Reader`, and `TiledReader` where it can."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from pathzoo.errors import SlideError
from pathzoo.wsi.types import RGB, Region


class DeclinedError(SlideError):
    """The file is nothing for this reader; the message is the bare reason. Another reader may take it.

    Args:
        reason: Why.
        damaged: Whether the file looks like one for this reader but for some damage.
    """

    def __init__(self, reason: str, damaged: bool = False) -> None:
        super().__init__(reason)
        self.damaged = damaged


@dataclass(frozen=True)
class Level:
    """One resolution of a pyramid: its size in its own pixels, and level-0 pixels per pixel of it (>= 1)."""

    width: int
    height: int
    downsample: float


@dataclass(frozen=True)
class NativeGrid:
    """The tiles in which the file stores one level: all of one size, the first at pixel (0, 0) of the level."""

    tile_width: int
    tile_height: int
    columns: int
    rows: int


class Reader(Protocol):
    """One open file. Safe to read from several threads at once; not carried across processes (`Slide` reopens it).

    Made of a path alone; raises `DeclinedError` for a file of another kind and `SlideError` for a damaged one.
    """

    #: Which reader this is, as recorded in outputs.
    name: str
    path: Path
    #: Finest first; the first is level 0.
    levels: tuple[Level, ...]
    #: Microns per level-0 pixel along x and y as the file states them, or None.
    mpp: tuple[float, float] | None
    #: The part of level 0 that was scanned; QuPath's coordinates start at its corner.
    bounds: Region
    #: Whatever the format states about itself, as text.
    properties: Mapping[str, str]

    def read_region(self, level: int, x: int, y: int, width: int, height: int) -> RGB:
        """Pixels of one level, (height, width, 3); x and y in pixels of that level, negative allowed.

        What lies outside the level, and what is transparent, is white.

        Raises:
            SlideError: The region cannot be decoded. Later reads of other regions still work.
        """
        ...

    def close(self) -> None:
        """Lets go of the file; reading afterwards is an error."""
        ...


@runtime_checkable
class TiledReader(Reader, Protocol):
    """A reader that also gives the tiles as the file stores them, so that each need be decoded only once."""

    def native_grid(self, level: int) -> NativeGrid:
        """The tiles of a level."""
        ...

    def decode_tile(self, level: int, column: int, row: int) -> RGB:
        """One whole native tile, (tile_height, tile_width, 3) uint8; pixels beyond the level's edge are white.

        Thread-safe; lets other threads run while it decodes; keeps no copy.

        Raises:
            SlideError: It cannot be decoded: corrupt, of no length, cut off, or not in the file.
        """
        ...


#: Editors write 72 or 96 dpi when they know nothing; no microscope has pixels this large (microns).
_LARGEST_CREDIBLE_MPP = 20.0
_MICRONS_PER_UNIT = {"inch": 25400.0, "centimeter": 10000.0}


def mpp_from_tiff(x_resolution: float, y_resolution: float, unit: str) -> tuple[float, float] | None:
    """Microns per pixel from TIFF 6.0's XResolution, YResolution (pixels per unit) and ResolutionUnit.

    None where the unit is neither "inch" nor "centimeter", or where the value is too coarse to come from a microscope.
    """
    microns = _MICRONS_PER_UNIT.get(unit)
    if microns is None or x_resolution <= 0 or y_resolution <= 0:
        return None
    mpp = (microns / x_resolution, microns / y_resolution)
    return mpp if max(mpp) < _LARGEST_CREDIBLE_MPP else None
