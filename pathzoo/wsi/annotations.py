"""Annotated areas of a slide from whichever file holds them: QuPath's GeoJSON or ImageScope's XML."""

import os
from pathlib import Path

from shapely.geometry.base import BaseGeometry

from pathzoo.errors import DataError
from pathzoo.wsi.geojson import Drawn, read_annotations, read_drawn
from pathzoo.wsi.imagescope import read_drawn_regions, read_imagescope

#: Endings of files with annotations, in the order in which they are looked for.
ANNOTATION_SUFFIXES = (".geojson", ".json", ".xml")

#: Polygon or MultiPolygon in level-0 pixels, and class or None.
Area = tuple[BaseGeometry, str | None]


def read_areas(path: str | os.PathLike[str], origin: tuple[int, int] = (0, 0)) -> list[Area]:
    """Reads annotated areas and their classes, whatever the format.

    Args:
        path: A file that ends in .geojson or .json (see `read_annotations`) or in .xml (see `read_imagescope`).
        origin: Corner of the slide's bounds (`Slide.bounds[:2]`): what QuPath counts from. ImageScope counts from the
            slide's own corner, so nothing is added to its coordinates.

    Returns:
        Geometry in level-0 pixels of the slide, and class or None.

    Raises:
        DataError: No such file, another ending, or what the format's reader refuses.
    """
    return read_imagescope(path) if _is_xml(path) else read_annotations(path, origin)


def read_everything_drawn(path: str | os.PathLike[str], origin: tuple[int, int] = (0, 0)) -> list[Drawn]:
    """As `read_areas`: what has no area too, each with the place where it stands in the file."""
    return read_drawn_regions(path) if _is_xml(path) else read_drawn(path, origin)


def _is_xml(path: str | os.PathLike[str]) -> bool:
    suffix = Path(path).suffix.lower()
    if suffix not in ANNOTATION_SUFFIXES:
        raise DataError(f"{path}: annotations end in {', '.join(ANNOTATION_SUFFIXES)}, not in {suffix!r}")
    return suffix == ".xml"
