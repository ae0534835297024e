"""GeoJSON as QuPath (0.4 and later) writes and reads it.

QuPath looks for `objectType`, `classification` and `measurements` inside `properties` only, takes an `id` only if it is
a UUID, and counts pixels of level 0 from the corner of the slide's bounds (openslide.bounds-x, -y), not of the slide.
"""

import json
import math
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import shapely
import shapely.affinity
from shapely.geometry import Polygon, mapping, shape
from shapely.geometry.base import BaseGeometry
from shapely.geometry.polygon import orient

from pathzoo.errors import DataError
from pathzoo.wsi.colors import class_colors
from pathzoo.wsi.stitching import HeatMap
from pathzoo.wsi.types import Int64, Mask

Feature = dict[str, Any]

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "pathzoo/geojson")
_WITHOUT_AREA = {"Point", "MultiPoint", "LineString", "MultiLineString"}


def class_regions(
    heat: HeatMap,
    classes: Sequence[str],
    *,
    mpp: float,
    origin: tuple[int, int] = (0, 0),
    key: str = "",
    colors: Mapping[str, tuple[int, int, int]] | None = None,
) -> list[Feature]:
    """Joins neighbouring cells of one predicted class to regions, each a QuPath annotation.

    Cells that touch at a corner only stay apart. Each annotation carries its area, the diameter of the circle of that
    area, its number of cells and the mean probability of every class over them.

    Args:
        heat: Probabilities on cells, in level-0 pixels.
        classes: Names, in the order of the probabilities.
        mpp: Microns per level-0 pixel, for areas.
        origin: Corner of the slide's bounds, subtracted from every coordinate.
        key: What tells this slide and model from others; with the outline it makes the id, so that writing twice
            gives the same ids.
        colors: RGB 0..255 by class; by default pathzoo's palette.

    Returns:
        GeoJSON features, class by class.
    """
    colors = colors or class_colors(classes)
    predicted = heat.classes
    features = []
    for index, name in enumerate(classes):
        mask = (predicted == index).astype(np.uint8)
        n, labels, boxes, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
        for label in range(1, n):
            x, y, width, height = boxes[label, :4]
            part = slice(y, y + height), slice(x, x + width)
            member = labels[part] == label
            outline = _outline(member, heat.x_edges[x:] - origin[0], heat.y_edges[y:] - origin[1])
            means = heat.probs[part][member].mean(axis=0, dtype=np.float64)
            measurements = {
                **area_measurements(outline.area * mpp * mpp),
                "Tiles": int(member.sum()),
                **{f"Mean probability {c}": float(p) for c, p in zip(classes, means, strict=True)},
            }
            features.append(annotation(outline, name, colors[name], measurements, f"{key}|{name}"))
    return features


def area_measurements(square_microns: float) -> dict[str, float]:
    """ "Area µm^2" of a region, and "Diameter µm": that of the circle of the same area."""
    return {"Area µm^2": square_microns, "Diameter µm": 2 * math.sqrt(square_microns / math.pi)}


def annotation(
    outline: Polygon,
    name: str,
    color: tuple[int, int, int],
    measurements: Mapping[str, float],
    key: str = "",
) -> Feature:
    """One QuPath annotation; its id (uuid5) follows from `key` and the outline."""
    return {
        "type": "Feature",
        "id": str(uuid.uuid5(_NAMESPACE, f"{key}|{outline.wkt}")),
        "geometry": mapping(orient(outline)),  # outer ring counter-clockwise (RFC 7946)
        "properties": {
            "objectType": "annotation",
            "classification": {"name": name, "color": list(color)},
            "isLocked": False,
            "measurements": dict(measurements),
        },
    }


def detection(
    box: tuple[float, float, float, float],
    name: str,
    color: tuple[int, int, int],
    measurements: Mapping[str, float],
    key: str = "",
) -> Feature:
    """One QuPath detection, the rectangle `box` (x0, y0, x1, y1); its id (uuid5) follows from `key` and the box.

    QuPath takes two objects with one id for the same: `key` must tell apart those that share a box.
    """
    x0, y0, x1, y1 = box
    return {
        "type": "Feature",
        "id": str(uuid.uuid5(_NAMESPACE, f"{key}|{x0},{y0},{x1},{y1}")),
        "geometry": {"type": "Polygon", "coordinates": [[[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]]},
        "properties": {
            "objectType": "detection",
            "classification": {"name": name, "color": list(color)},
            "measurements": dict(measurements),
        },
    }


def write_features(path: str | os.PathLike[str], features: Iterable[Feature]) -> None:
    """Writes a FeatureCollection, one feature per line, each as it comes: memory does not grow with their number.

    (Not atomic: it belongs into a folder that is.)

    Raises:
        ValueError: A number is not finite.
    """
    encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
    with Path(path).open("w", encoding="utf-8", newline="\n") as file:
        file.write('{"type": "FeatureCollection", "features": [\n')
        for number, feature in enumerate(features):
            file.write((",\n" if number else "") + encode(feature))
        file.write("\n]}\n")


def read_annotations(
    path: str | os.PathLike[str], origin: tuple[int, int] = (0, 0)
) -> list[tuple[BaseGeometry, str | None]]:
    """Reads the areas that were drawn in QuPath, with their class.

    Takes a FeatureCollection, one Feature or a list of Features. Points and lines have no area and are left out; a
    self-crossing outline is repaired as QuPath does.

    Args:
        path: The file.
        origin: Corner of the slide's bounds (`Slide.bounds[:2]`), added to every coordinate.

    Returns:
        Polygon or MultiPolygon in level-0 pixels, and the class name or None for an unclassified area.

    Raises:
        DataError: No such file, not GeoJSON, or a feature without a usable geometry (named by its number).
    """
    drawn = read_drawn(path, origin)
    return [(one.outline, one.name) for one in drawn if one.outline is not None]


class Drawn(NamedTuple):
    """What somebody drew: where it stands in its file, its area (None: it has none) and class; whether it is a figure
    that should have an area, and no point or line."""

    where: str
    outline: BaseGeometry | None
    name: str | None
    is_area: bool = True


def read_drawn(path: str | os.PathLike[str], origin: tuple[int, int] = (0, 0)) -> list[Drawn]:
    """As `read_annotations`: all features, those without an area too, each by its place in the file (from 1)."""
    path = Path(path)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path}: not GeoJSON: {error}") from error
    found = []
    for number, feature in enumerate(_features(document, path)):
        area = _area(feature, f"{path}: feature {number}")
        outline = None if area is None else shapely.affinity.translate(area, *origin)
        is_area = feature["geometry"]["type"] not in _WITHOUT_AREA
        found.append(Drawn(f"{path}: object {number + 1}", outline, _class_name(feature), is_area))
    return found


def valid_area(figure: BaseGeometry) -> BaseGeometry | None:
    """A Polygon or MultiPolygon as it is, or repaired as QuPath does where it crosses itself; None without an area."""
    if not figure.is_valid:
        parts = shapely.get_parts(shapely.make_valid(figure))
        figure = shapely.union_all([p for p in parts if p.geom_type in ("Polygon", "MultiPolygon")])
    return figure if figure.area > 0 else None


def _features(document: Any, path: Path) -> Iterator[Feature]:
    if isinstance(document, dict) and document.get("type") == "Feature":
        document = [document]
    if isinstance(document, dict) and document.get("type") == "FeatureCollection":
        document = document.get("features")
    if not isinstance(document, list) or not all(isinstance(f, dict) for f in document):
        raise DataError(f"{path}: neither a FeatureCollection nor a Feature nor a list of them; export it from QuPath")
    yield from document


def _area(feature: Feature, where: str) -> BaseGeometry | None:
    geometry = feature.get("geometry")
    kind = geometry.get("type") if isinstance(geometry, dict) else None
    if kind in _WITHOUT_AREA:
        return None
    if kind not in ("Polygon", "MultiPolygon"):
        raise DataError(f"{where}: geometry is {kind!r}, expected a Polygon or MultiPolygon")
    try:
        figure = shape(geometry)
    except (ValueError, TypeError, IndexError, KeyError, AttributeError, shapely.errors.ShapelyError) as error:
        raise DataError(f"{where}: malformed {kind}: {error}") from error
    if not np.isfinite(shapely.get_coordinates(figure)).all():
        raise DataError(f"{where}: a coordinate is not a finite number")
    return valid_area(figure)


def _class_name(feature: Feature) -> str | None:
    properties = feature.get("properties")
    classification = properties.get("classification") if isinstance(properties, dict) else None
    if isinstance(classification, str):
        return classification or None
    if not isinstance(classification, dict):
        return None
    if names := classification.get("names"):  # a derived class: {"names": ["Tumor", "Positive"]}
        return ": ".join(str(name) for name in names)
    return str(classification["name"]) if classification.get("name") else None


def _outline(member: Mask, x: Int64, y: Int64) -> Polygon:
    """The union of the cells of one 4-connected component between the edges x and y, joined along rows first."""
    boxes = []
    for row, cells in enumerate(member):
        change = np.flatnonzero(np.diff(cells.astype(np.int8), prepend=0, append=0))
        boxes += [shapely.box(x[a], y[row], x[b], y[row + 1]) for a, b in change.reshape(-1, 2)]
    # Drops the corners that lie on a straight edge.
    return shapely.union_all(boxes).simplify(0)
