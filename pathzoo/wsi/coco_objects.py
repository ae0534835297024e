"""Objects of whole pictures from COCO files: outlines (polygons, run lengths), else boxes; and what is to be ignored.

Of a `segmentation` of polygons the parts are united, as COCO means them; run lengths go down the columns of the picture
and start with those outside of the object. An annotation with `iscrowd` (several objects at once) or `ignore` is an
ignored object. `area` is taken where there is only a box.
"""

import functools
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry

from pathzoo.errors import DataError
from pathzoo.wsi.found_object import FoundObject
from pathzoo.wsi.geojson import valid_area
from pathzoo.wsi.names import slide_name
from pathzoo.wsi.outlines import Outliner
from pathzoo.wsi.slide import Slide
from pathzoo.wsi.types import Int64


class _BadOutlineError(Exception):
    """Says what is wrong with one outline."""


def is_coco(path: Path) -> bool:
    """Whether a file holds what COCO's do. What cannot be read does not: the reader of GeoJSON says what is wrong."""
    if path.suffix.lower() != ".json":
        return False
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and "images" in document and "annotations" in document


def coco_objects(path: Path, slide_path: Path, slide: Slide) -> list[FoundObject]:
    """The objects of one slide.

    Raises:
        DataError: As `read_coco`, no image of that name, or one of another size.
    """
    images = read_coco(path)
    image = images.get(slide_name(slide_path)) or (next(iter(images.values())) if len(images) == 1 else None)
    if image is None:
        raise DataError(f"{path}: none of its {len(images)} images is called {slide_name(slide_path)}")
    stated = image.get("width"), image.get("height")
    if None not in stated and stated != slide.dimensions:
        raise DataError(
            f"{path}: image {image['file_name']} is stated as {stated[0]} x {stated[1]} px, {slide.path.name} has "
            f"{slide.dimensions[0]} x {slide.dimensions[1]}: its boxes are for another picture"
        )
    return [_object(annotation, name, where, slide.dimensions) for annotation, name, where in image["found"]]


def read_coco(path: Path) -> Mapping[str, Mapping[str, Any]]:
    """The images of a COCO file by name, each with its fields and `found`: annotation, class and where it stands.

    A file is parsed once for all slides.

    Raises:
        DataError: No such file, not COCO, or two images of one name.
    """
    try:
        status = path.stat()
    except OSError:
        raise DataError(f"{path}: no such file or folder of annotations") from None
    return _parse(path, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=4)
def _parse(path: Path, changed: int, size: int) -> Mapping[str, Mapping[str, Any]]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        categories = {category["id"]: str(category["name"]) for category in document["categories"]}
        by_id = {image["id"]: {**image, "found": []} for image in document["images"]}
        for annotation in document["annotations"]:
            where = f"{path}: annotation {annotation.get('id')}"
            name = categories.get(annotation["category_id"], f"category {annotation['category_id']}")
            if annotation["image_id"] not in by_id:
                raise DataError(f"{where}: no image has the id {annotation['image_id']}; remove it or add the image")
            _check_box(annotation.get("bbox"), where)
            by_id[annotation["image_id"]]["found"].append((annotation, name, where))
        names = [slide_name(Path(image["file_name"])) for image in by_id.values()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"the field {error} is missing" if isinstance(error, KeyError) else str(error)
        raise DataError(f"{path}: not a COCO file with images, annotations and categories: {what}") from error
    twice = [name for name, n in Counter(names).items() if n > 1]
    if twice:
        raise DataError(f"{path}: two images are called {twice[0]!r}; a slide's name must tell it from the others")
    return dict(zip(names, by_id.values(), strict=True))


def _check_box(box: Any, where: str) -> None:
    good = isinstance(box, list) and len(box) == 4 and all(isinstance(value, int | float) for value in box)
    if box and not good:
        raise DataError(f"{where}: bbox {box!r}; it is x, y, width and height")


def _object(annotation: Mapping[str, Any], name: str, where: str, size: tuple[int, int]) -> FoundObject:
    ignored = bool(annotation.get("iscrowd") or annotation.get("ignore"))
    outline = annotation.get("segmentation")
    try:
        if outline:
            figure = _of_runs(outline, size) if isinstance(outline, dict) else _of_polygons(outline)
            return FoundObject(figure, name, where, "" if figure else "its outline has no area", ignored)
        return FoundObject(_of_box(annotation.get("bbox")), name, where, "", ignored, _area(annotation.get("area")))
    except _BadOutlineError as error:
        return FoundObject(None, name, where, str(error), ignored)


def _of_box(values: Sequence[float] | None) -> BaseGeometry:
    if not values:
        raise _BadOutlineError("has neither box nor outline")
    x, y, width, height = (float(value) for value in values)
    if not all(math.isfinite(value) for value in (x, y, width, height)):
        raise _BadOutlineError("its box is not of finite numbers")
    if width <= 0 or height <= 0:
        raise _BadOutlineError(f"has no area (box of {width:g} x {height:g} px)")
    return shapely.box(x, y, x + width, y + height)


def _area(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) and value > 0 else None


def _of_polygons(parts: Any) -> BaseGeometry | None:
    """The union of polygons [x, y, x, y, ...]; None without an area."""
    figures = []
    for part in parts if isinstance(parts, list) else [parts]:
        try:
            values = np.array(part, np.float64)
        except (TypeError, ValueError):
            raise _BadOutlineError("its outline is not of numbers x, y, x, y, ...") from None
        if values.ndim != 1 or len(values) % 2:
            raise _BadOutlineError(f"its outline has an odd number of values ({values.size}) or is no list of them")
        if len(values) < 6:
            raise _BadOutlineError("its outline has a part of under three points")
        if not np.isfinite(values).all():
            raise _BadOutlineError("its outline is not of finite numbers")
        figures.append(valid_area(Polygon(values.reshape(-1, 2))))
    united = shapely.union_all([figure for figure in figures if figure is not None])
    return valid_area(united)


def _of_runs(code: Mapping[str, Any], size: tuple[int, int]) -> BaseGeometry | None:
    """The outline of a mask of run lengths, on the edges of its pixels; None where it is empty."""
    width, height = size
    if (stated := code.get("size")) != [height, width]:
        sides = " x ".join(str(value) for value in reversed(stated)) if isinstance(stated, list) else stated
        raise _BadOutlineError(f"its run lengths are of a picture of {sides} px")
    counts = _counts(code.get("counts"))
    if (counts < 0).any() or (counts > width * height).any() or counts.sum() > width * height:
        raise _BadOutlineError(f"its run lengths are below 0 or leave the picture of {width * height} pixels")
    ends = counts.cumsum()
    starts, lengths = (ends - counts)[1::2], counts[1::2]
    if not lengths.any():
        return None
    before = np.repeat(starts - (lengths.cumsum() - lengths), lengths)
    columns, rows = np.divmod(before + np.arange(lengths.sum()), height)
    left, top = int(columns[0]), int(rows.min())
    mask = np.zeros((int(rows.max()) - top + 1, int(columns[-1]) - left + 1), np.uint8)
    mask[rows - top, columns - left] = 1
    outliner = Outliner(mask.shape[1], [1], tolerance=0, min_pixels=1)
    outliner.add(mask)
    figure = shapely.union_all([outline.polygon for outline in outliner.finish()])
    return shapely.transform(figure, lambda points: points + np.array([left, top]))


def _counts(values: Any) -> Int64:
    """Run lengths, as they are or unpacked from COCO's string."""
    if isinstance(values, str) and all("0" <= letter <= "o" for letter in values):
        values = _unpacked(values)
    if not isinstance(values, list) or not all(isinstance(value, int) for value in values):
        raise _BadOutlineError("its run lengths are neither whole numbers nor COCO's string of them")
    if any(abs(value) >= 2**63 for value in values):
        raise _BadOutlineError("its run lengths are beyond any picture's")
    return np.array(values, np.int64)


def _unpacked(text: str) -> list[int]:
    """COCO's string of run lengths: five bits a character, lowest first; from the fourth number on it holds the
    difference to the last but one."""
    counts: list[int] = []
    value = shift = 0
    for letter in text:
        bits = ord(letter) - ord("0")
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:  # goes on in the next
            continue
        if bits & 0x10:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    return counts
