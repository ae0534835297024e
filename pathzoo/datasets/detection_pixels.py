"""Pixels of tiles with boxes: of files of their own, or windows of slides."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pathzoo.datasets.inventory import ImageRecord, inspect_all, scan_images
from pathzoo.datasets.slide_places import slide_fingerprint
from pathzoo.datasets.transforms.loading import read_rgb
from pathzoo.errors import DataError, PathzooError
from pathzoo.fileio import canonical_json, sha256_bytes
from pathzoo.wsi.slide import Slide

#: Slides that a process keeps open at once.
_OPEN_SLIDES = 32


def read_tile(info: Mapping[str, Any]) -> np.ndarray:
    """The pixels of a tile of `pathzoo.datasets.coco_tiles`: RGB uint8 (height, width, 3), white beyond its slide.

    Raises:
        DataError, SlideError: the file or that part of the slide cannot be read.
    """
    if info["source"] == "file":
        return read_rgb(info["img_path"])
    slide = _open_slide(info["img_path"], _slide_mpp(info))
    mpp = None if info["downsample"] == 1 else info["mpp"]
    return slide.read(info["x"], info["y"], info["width"], info["height"], mpp)


@functools.lru_cache(maxsize=_OPEN_SLIDES)
def _open_slide(path: str, mpp: float | None) -> Slide:
    """A slide; in a worker that inherits it, it opens its file anew."""
    return Slide(path, mpp)


def _slide_mpp(tile: Mapping[str, Any]) -> float | None:
    """Microns per level-0 pixel, as when the tiles were made; None where not known."""
    return None if tile["mpp"] is None else tile["mpp"] / tile["downsample"]


def inspect_tiles(tiles: Sequence[Mapping[str, Any]]) -> list[ImageRecord]:
    """A record of each tile's pixels: its file, decoded to the end, or its place on a slide that opens.

    The SHA-256 is that of the file's bytes, or of the slide's fingerprint and the place on it.

    Raises:
        DataError: a picture of another size than its tile, or a corner outside of the slide.
    """
    files = [tile["img_path"] for tile in tiles if tile["source"] == "file"]
    own = {tile["img_path"]: _slide_mpp(tile) for tile in tiles if tile["source"] == "slide"}
    scanned = dict(zip(files, scan_images(files), strict=True))
    records = inspect_all(list(own), lambda path: _inspect_slide(path, own[path]), None, True, "opening slides")
    opened = dict(zip(own, records, strict=True))
    return [
        _of_size(tile, scanned[tile["img_path"]])
        if tile["source"] == "file"
        else _on_slide(tile, opened[tile["img_path"]])
        for tile in tiles
    ]


def _inspect_slide(path: str, mpp: float | None) -> ImageRecord:
    try:
        with Slide(path, mpp) as slide:
            return ImageRecord(path, slide_fingerprint(path), *slide.dimensions, None)
    except PathzooError as error:
        reason = str(error).removeprefix(f"{path}: ")
        return ImageRecord(path, None, None, None, reason, missing=not Path(path).is_file())


def _of_size(tile: Mapping[str, Any], record: ImageRecord) -> ImageRecord:
    if record.error is None and (record.width, record.height) != (tile["width"], tile["height"]):
        raise DataError(
            f"{tile['where']}: {record.path} has {record.width} x {record.height} px, the file says {tile['width']} x "
            f"{tile['height']}: its boxes are for another picture"
        )
    return record


def _on_slide(tile: Mapping[str, Any], record: ImageRecord) -> ImageRecord:
    if record.error is not None or record.width is None or record.height is None:
        return record
    if not (0 <= tile["x"] < record.width and 0 <= tile["y"] < record.height):
        raise DataError(
            f"{tile['where']}: its corner ({tile['x']}, {tile['y']}) lies outside of {record.path} of {record.width} x "
            f"{record.height} px: is it the slide that the tiles were made of?"
        )
    window = [record.sha256, tile["x"], tile["y"], tile["width"], tile["height"], tile["downsample"]]
    return ImageRecord(record.path, sha256_bytes(canonical_json(window)), tile["width"], tile["height"], None)
