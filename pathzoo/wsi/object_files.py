"""What files say of single objects on a slide: areas of GeoJSON and XML, parts of label masks, boxes of COCO."""

import functools
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import shapely
from PIL import Image
from shapely.geometry.base import BaseGeometry

from pathzoo.errors import DataError
from pathzoo.wsi.annotations import read_areas
from pathzoo.wsi.names import slide_name
from pathzoo.wsi.outlines import Outliner
from pathzoo.wsi.slide import Slide
from pathzoo.wsi.types import Int64

#: Width to height of a mask and its slide may differ by so much (relative): a reduced mask has rounded sides.
_MASK_ROUNDING = 0.01


@dataclass(frozen=True)
class FoundObject:
    """What a file says: an outline (None: it has no area), a class and, for messages, where that stands."""

    outline: BaseGeometry | None
    name: str | None
    where: str
    note: str = ""


def find_objects(
    path: Path, slide_path: Path, slide: Slide, classes: Sequence[str], min_pixels: int
) -> list[FoundObject]:
    """The objects that a file names on one slide, nothing checked but the file itself.

    Raises:
        DataError: An unreadable file, or one that was made for a picture of another size.
    """
    if path.suffix.lower() == ".png":
        return _of_mask(path, slide, classes, min_pixels)
    if _is_coco(path):
        return _of_coco(path, slide_path, slide)
    areas = read_areas(path, slide.bounds[:2])
    return [FoundObject(area, name, f"{path}: object {number}") for number, (area, name) in enumerate(areas, 1)]


def _of_mask(path: Path, slide: Slide, classes: Sequence[str], min_pixels: int) -> list[FoundObject]:
    values = _read_mask(path)
    height, width = values.shape
    scale = slide.dimensions[0] / width, slide.dimensions[1] / height
    if abs(scale[0] / scale[1] - 1) > _MASK_ROUNDING:
        raise DataError(
            f"{path}: a mask of {width} x {height} px does not fit {slide.path.name} of {slide.dimensions[0]} x "
            f"{slide.dimensions[1]} px; make it for the whole slide, at its size or evenly reduced"
        )
    if len(classes) == 1:
        values = (values > 0).astype(np.uint8)
    highest = int(values.max(initial=0))
    if highest > len(classes):
        raise DataError(
            f"{path}: holds the value {highest}, but there are {len(classes)} classes ({', '.join(classes)}): value k "
            "is the k-th of them and 0 none"
        )
    outliner = Outliner(width, range(1, len(classes) + 1), tolerance=0, min_pixels=1)
    outliner.add(values)
    parts: dict[tuple[int, int], list[BaseGeometry]] = {}
    pixels: dict[tuple[int, int], int] = {}
    labels = {value: _components(values == value) for value in range(1, len(classes) + 1)}
    for outline in outliner.finish():
        ring = np.array(outline.polygon.exterior.coords, np.int64)
        x, y = ring[np.lexsort((ring[:, 0], ring[:, 1]))[0]]  # the uppermost, then leftmost corner is a pixel's own
        key = outline.label, int(labels[outline.label][y, x])
        parts.setdefault(key, []).append(outline.polygon)
        pixels[key] = pixels.get(key, 0) + outline.pixels
    found = []
    for number, (key, polygons) in enumerate(sorted(parts.items(), key=lambda item: item[0]), 1):
        if pixels[key] >= min_pixels:
            figure = shapely.transform(shapely.union_all(polygons), lambda points: points * scale)
            found.append(FoundObject(figure, classes[key[0] - 1], f"{path}: part {number}"))
    return found


def _components(mask: np.ndarray) -> Int64:
    return np.asarray(cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[1], np.int64)


def _read_mask(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as picture:
            if picture.mode not in ("L", "P", "1"):
                raise DataError(f"{path}: pixels of mode {picture.mode}; a mask has one 8-bit channel of values")
            return np.asarray(picture).astype(np.uint8)
    except DataError:
        raise
    except Exception as error:  # the decoders raise OSError, SyntaxError, ValueError, zlib.error, ...
        raise DataError(f"{path}: cannot be read as a mask ({error}); export it again as PNG") from error


def _is_coco(path: Path) -> bool:
    if path.suffix.lower() != ".json":
        return False
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False  # the reader of GeoJSON says what is wrong
    return isinstance(document, dict) and "images" in document and "annotations" in document


def _of_coco(path: Path, slide_path: Path, slide: Slide) -> list[FoundObject]:
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
    return list(image["found"])


def read_coco(path: Path) -> Mapping[str, Mapping[str, Any]]:
    """The images of a COCO file by name, each with its fields and `found`; a file is parsed once for all slides."""
    try:
        status = path.stat()
    except OSError:
        raise DataError(f"{path}: no such file or folder of annotations") from None
    return _parse_coco(path, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=4)
def _parse_coco(path: Path, changed: int, size: int) -> Mapping[str, Mapping[str, Any]]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        categories = {category["id"]: str(category["name"]) for category in document["categories"]}
        by_id = {image["id"]: {**image, "found": []} for image in document["images"]}
        for annotation in document["annotations"]:
            where = f"{path}: annotation {annotation.get('id')}"
            name = categories.get(annotation["category_id"], f"category {annotation['category_id']}")
            if annotation["image_id"] not in by_id:
                raise DataError(f"{where}: no image has the id {annotation['image_id']}; remove it or add the image")
            by_id[annotation["image_id"]]["found"].append(_coco_box(annotation, name, where))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"the field {error} is missing" if isinstance(error, KeyError) else str(error)
        raise DataError(f"{path}: not a COCO file with images, annotations and categories: {what}") from error
    names = [slide_name(Path(image["file_name"])) for image in by_id.values()]
    twice = [name for name, n in Counter(names).items() if n > 1]
    if twice:
        raise DataError(f"{path}: two images are called {twice[0]!r}; a slide's name must tell it from the others")
    return dict(zip(names, by_id.values(), strict=True))


def _coco_box(annotation: Mapping[str, Any], name: str, where: str) -> FoundObject:
    x, y, width, height = (float(value) for value in annotation["bbox"])
    if not all(math.isfinite(value) for value in (x, y, width, height)):
        return FoundObject(None, name, where, "its box is not of finite numbers")
    if annotation.get("iscrowd"):
        return FoundObject(None, name, where, "stands for several objects at once (iscrowd)")
    if width <= 0 or height <= 0:
        return FoundObject(None, name, where, f"has no area (box of {width:g} x {height:g} px)")
    return FoundObject(shapely.box(x, y, x + width, y + height), name, where)
