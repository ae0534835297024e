"""What files say of single objects on a slide: areas of GeoJSON and XML, parts of label masks, COCO."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import shapely
from PIL.PngImagePlugin import PngImageFile
from shapely.geometry.base import BaseGeometry

from pathzoo.errors import DataError
from pathzoo.wsi.annotations import read_everything_drawn
from pathzoo.wsi.coco_objects import coco_objects, is_coco
from pathzoo.wsi.found_object import FoundObject
from pathzoo.wsi.outlines import Outliner
from pathzoo.wsi.slide import Slide

#: Width to height of a mask and its slide may differ by so much (relative): a reduced mask has rounded sides.
_MASK_ROUNDING = 0.01


def find_objects(
    path: Path, slide_path: Path, slide: Slide, classes: Sequence[str], min_pixels: int
) -> list[FoundObject]:
    """The objects that a file names on one slide, nothing checked but the file itself.

    Raises:
        DataError: An unreadable file, or one that was made for a picture of another size.
    """
    if path.suffix.lower() == ".png":
        return _of_mask(path, slide, classes, min_pixels)
    if is_coco(path):
        return coco_objects(path, slide_path, slide)
    drawn = read_everything_drawn(path, slide.bounds[:2])
    # A point or a line may be a ruler or a count: it is missed only where it is called as an object.
    meant = [one for one in drawn if one.is_area or one.name in classes]
    return [FoundObject(one.outline, one.name, one.where) for one in meant]


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


def _components(mask: np.ndarray) -> np.ndarray:
    return cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[1]


def _read_mask(path: Path) -> np.ndarray:
    """uint8 (h, w), of any size: Pillow's limit for pictures, which slides pass, is kept by Image.open alone."""
    try:
        with PngImageFile(path) as picture:
            if picture.mode not in ("L", "P", "1"):
                raise DataError(f"{path}: pixels of mode {picture.mode}; a mask has one 8-bit channel of values")
            return np.asarray(picture).astype(np.uint8)
    except DataError:
        raise
    except Exception as error:  # the decoders raise OSError, SyntaxError, ValueError, zlib.error, ...
        raise DataError(f"{path}: cannot be read as a mask ({error}); export it again as PNG") from error
