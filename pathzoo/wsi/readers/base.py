"""What `Slide` asks of a file format. A further reader (native tile grid, DICOM) implements `Reader`, no more."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pathzoo.wsi.types import RGB, Region


@dataclass(frozen=True)
class Level:
    """One resolution of a pyramid: its size in its own pixels, and level-0 pixels per pixel of it (>= 1)."""

    width: int
    height: int
    downsample: float


class Reader(Protocol):
    """One open file. Safe to read from several threads at once; not carried across processes (`Slide` reopens it)."""

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
