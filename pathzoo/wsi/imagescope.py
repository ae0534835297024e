"""Annotations as Aperio ImageScope writes them (XML): layers of regions, each with the vertices of an outline.

    Annotations > Annotation (a layer: Name, LineColor)
        > Regions > Region (Type, NegativeROA) > Vertices > Vertex (X, Y)

Vertices count level-0 pixels from the corner of the slide as OpenSlide does, whatever the slide's bounds.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry

from pathzoo.errors import DataError
from pathzoo.wsi.geojson import Drawn, valid_area

#: Of Region's attribute Type. Others (arrows, rulers, pins) have no area.
_OUTLINE, _RECTANGLE, _ELLIPSE = 0, 1, 2
#: Of the layer's Attribute elements: what may name its class where the layer has no name.
_NAMING = ("class", "description", "name")
#: An ellipse becomes a polygon that lies at most this many level-0 pixels inside it.
_ELLIPSE_ERROR = 0.1
#: Bytes that are parsed at a time as long as a document type could come, and where it no longer can.
_PIECE, _PROLOG = 64, 1 << 14


def read_imagescope(path: str | os.PathLike[str]) -> list[tuple[BaseGeometry, str | None]]:
    """Reads the areas of an ImageScope file with the class of their layer.

    The class is the layer's name; of a layer without one the value of its attribute Class, Description or Name; else
    its line colour as "#rrggbb". Regions marked negative are cut out of all others of their layer. Arrows, rulers and
    outlines of under three vertices have no area and are left out; a self-crossing outline is repaired as QuPath does.

    Args:
        path: The file.

    Returns:
        Polygon or MultiPolygon in level-0 pixels from the slide's corner, and the class (None where a layer has
        neither name nor colour).

    Raises:
        DataError: No such file, no XML, XML with a document type (which could define entities), not ImageScope's, or a
            region without usable numbers (named by layer and region).
    """
    return [(one.outline, one.name) for one in read_drawn_regions(path) if one.outline is not None]


def read_drawn_regions(path: str | os.PathLike[str]) -> list[Drawn]:
    """As `read_imagescope`: all outlines, rectangles and ellipses that are not negative, those without an area too."""
    path = Path(path)
    root = _parse(path)
    if root.tag != "Annotations":
        raise DataError(f"{path}: not ImageScope's XML: the outermost element is {root.tag!r}, expected 'Annotations'")
    found: list[Drawn] = []
    for number, layer in enumerate(root.findall("Annotation"), start=1):
        name = _class_of(layer, f"{path}: layer {number}")
        areas = list(_areas(layer, f"{path}: layer {number}"))
        holes = shapely.union_all([area for _, area, negative in areas if negative and area is not None])
        for where, area, negative in areas:
            if not negative:
                rest = area if area is None or holes.is_empty else valid_area(_polygons(area - holes))
                found.append(Drawn(where, rest, name))
    return found


class _DoctypeError(Exception):
    pass


class _Tree(ElementTree.TreeBuilder):
    """Takes elements, and no document type: entities cannot be defined without one."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise _DoctypeError


def _parse(path: Path) -> Element:
    parser = ElementTree.XMLParser(target=_Tree())
    try:
        content = path.read_bytes()
        # In small pieces first, so that a document type is refused before anything that it defines is read.
        for start in range(0, _PROLOG, _PIECE):
            parser.feed(content[start : min(start + _PIECE, _PROLOG)])
        parser.feed(content[_PROLOG:])
        return parser.close()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except _DoctypeError:
        raise DataError(
            f"{path}: has a document type (<!DOCTYPE ...>), which ImageScope never writes and which may expand "
            "without bounds; remove it"
        ) from None
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # LookupError: an unknown encoding
        raise DataError(f"{path}: not XML: {error}") from error


def _class_of(layer: Element, where: str) -> str | None:
    if name := (layer.get("Name") or "").strip():
        return name
    values = {
        (attribute.get("Name") or "").strip().lower(): (attribute.get("Value") or "").strip()
        for attribute in layer.iterfind("Attributes/Attribute")
    }
    for key in _NAMING:
        if values.get(key):
            return values[key]
    if not (text := layer.get("LineColor")):
        return None
    color = int(_number(text, f"{where}: LineColor")) & 0xFFFFFF  # blue, green, red from the highest byte down
    return f"#{color & 0xFF:02x}{color >> 8 & 0xFF:02x}{color >> 16:02x}"


def _areas(layer: Element, where: str) -> Iterator[tuple[str, BaseGeometry | None, bool]]:
    """Where each of the layer's outlines stands, its area (None: it has none), and whether it is negative."""
    for number, region in enumerate(layer.iterfind("Regions/Region"), start=1):
        here = f"{where}, region {number}"
        kind = int(_number(region.get("Type", "0"), f"{here}: Type"))
        if kind not in (_OUTLINE, _RECTANGLE, _ELLIPSE):
            continue
        figure = _figure(kind, _vertices(region, here))
        area = None if figure is None else valid_area(figure)
        yield here, area, _number(region.get("NegativeROA", "0"), f"{here}: NegativeROA") != 0


def _vertices(region: Element, where: str) -> npt.NDArray[np.float64]:
    """(n, 2) x and y."""
    vertices = [
        [_number(vertex.get(axis), f"{where}, vertex {number}: {axis}") for axis in "XY"]
        for number, vertex in enumerate(region.iterfind("Vertices/Vertex"), start=1)
    ]
    return np.array(vertices, np.float64).reshape(-1, 2)


def _figure(kind: int, points: npt.NDArray[np.float64]) -> BaseGeometry | None:
    if len(points) < 2:
        return None
    (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
    if kind == _ELLIPSE:  # its vertices are corners of the box around it
        return _ellipse(x0, y0, x1, y1)
    if kind == _RECTANGLE and len(points) == 2:
        return shapely.box(x0, y0, x1, y1)
    return Polygon(points) if len(points) > 2 else None


def _ellipse(x0: float, y0: float, x1: float, y1: float) -> Polygon:
    across, down = (x1 - x0) / 2, (y1 - y0) / 2
    longest = max(across, down, 1.0)
    corners = max(16, math.ceil(math.pi / math.acos(1 - _ELLIPSE_ERROR / longest)))
    angles = np.arange(corners) * (2 * math.pi / corners)
    middle = np.array([(x0 + x1) / 2, (y0 + y1) / 2])
    return Polygon(middle + np.stack([across * np.cos(angles), down * np.sin(angles)], axis=1))


def _polygons(figure: BaseGeometry) -> BaseGeometry:
    """What of a geometry has an area."""
    return shapely.union_all([part for part in shapely.get_parts(figure) if part.geom_type == "Polygon"])


def _number(text: str | None, where: str) -> float:
    try:
        value = float((text or "").strip())
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{where} is {text!r}, not a number")
    return value
