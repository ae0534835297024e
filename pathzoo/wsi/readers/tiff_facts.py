"""Levels and resolution of a damaged slide, from its TIFF directories alone.

OpenSlide computes a checksum of the smallest level at open, and refuses the whole file where tiles of it are cut off.
The others can be read all the same.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from pathzoo.wsi.readers.base import Level, mpp_from_tiff
from pathzoo.wsi.readers.tiff_layout import TiffLayout
from pathzoo.wsi.types import Region


@dataclass(frozen=True)
class TiffFacts:
    """As those attributes of `Reader`."""

    levels: tuple[Level, ...]
    mpp: tuple[float, float] | None
    bounds: Region
    properties: Mapping[str, str]
    notes: tuple[str, ...]


def read_facts(layout: TiffLayout, vendor: str, reason: str) -> TiffFacts:
    """What OpenSlide would say of an "aperio" or "generic-tiff" file that it refuses for `reason`.

    Source: OpenSlide 4.0.1 (openslide-vendor-aperio.c, openslide-vendor-generic-tiff.c): Aperio's levels are its tiled
    directories; those of other files the first, and the tiled ones that call themselves reduced, by width.
    """
    first, *others = layout.pages
    if vendor == "aperio":
        pages = [first, *others]
        mpp = _aperio_mpp(layout.description)
    else:
        pages = sorted([first, *(page for page in others if page.reduced)], key=lambda page: -page.width)
        mpp = mpp_from_tiff(*layout.resolution)
    width, height = pages[0].width, pages[0].height
    levels = [Level(page.width, page.height, (width / page.width + height / page.height) / 2) for page in pages]
    properties = {"openslide.vendor": vendor, "tiff.ImageDescription": layout.description}
    return TiffFacts(tuple(levels), mpp, (0, 0, width, height), properties, (*layout.notes, reason))


def _aperio_mpp(description: str) -> tuple[float, float] | None:
    """From "...|MPP = 0.25|..."."""
    for part in description.split("|")[1:]:
        name, _, value = part.partition("=")
        if name.strip() == "MPP":
            try:
                mpp = float(value)
            except ValueError:
                return None
            return (mpp, mpp) if math.isfinite(mpp) and mpp > 0 else None
    return None
