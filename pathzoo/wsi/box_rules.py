"""Which tiles and boxes are made of annotated slides, and what of an object lies in a tile. No pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import shapely

from pathzoo.errors import DataError
from pathzoo.wsi.slide_objects import SlideObject, cut_outline
from pathzoo.wsi.tiling import TileGrid

CUTS = ("keep", "drop", "ignore")
BAD_BOXES = ("error", "clip", "drop")
#: A part of an object under so many tile pixels wide or high is not seen, and left out whatever the rule.
_LEAST = 1.0
#: Shares are areas of polygons: rounding must not make a whole object a cut one.
_WHOLE = 1 - 1e-6


@dataclass(frozen=True)
class BoxRules:
    """Which tiles and boxes are made of annotated slides.

    Attributes:
        classes: names of the objects, in the order of their category ids (from 1).
        tile: width and height in pixels.
        overlap: part of a tile that its neighbour covers too, along x and y.
        mpp: microns per pixel of the tiles; None takes level 0 as it is.
        cut: what becomes of an object less than `min_share` of which lies in a tile: "keep" its box, "drop" it, or
            "ignore", a box that neither counts nor punishes.
        min_share: part of an object's area, 0 to 1; from it on the part is a box like any other.
        background: share of the tiles over tissue without any object that are kept, 0 to 1, drawn by `seed`.
        leave_out: classes that may occur and are no objects; "" for areas without a class.
        on_bad_box: "error" refuses boxes outside of their slide, without area or of unknown class; "clip" cuts those
            that leave the slide and drops the others; "drop" drops them all. They are listed in the report.
        min_pixels: smaller parts of a mask are no objects.
        picture: "png" or "jpg" cuts tiles to files; None leaves them in their slides.
        seed: of the background.
    """

    classes: tuple[str, ...]
    tile: tuple[int, int] = (1600, 1200)
    overlap: float = 1 / 3
    mpp: float | None = None
    cut: str = "ignore"
    min_share: float = 0.4
    background: float = 1.0
    leave_out: tuple[str, ...] = ()
    on_bad_box: str = "error"
    min_pixels: int = 1
    picture: str | None = "png"
    seed: int = 0

    def check(self) -> None:
        """Raises DataError for a value out of its bounds."""
        rules = (
            (bool(self.classes) and len(set(self.classes)) == len(self.classes), "classes", "give each name once"),
            (min(self.tile) >= 32, "tile", "give at least 32 px each way"),
            (0 <= self.overlap <= 0.9, "overlap", "give 0 to 0.9"),
            (self.mpp is None or self.mpp > 0, "mpp", "give microns per pixel above 0"),
            (self.cut in CUTS, "cut", f"give {', '.join(CUTS)}"),
            (0 <= self.min_share <= 1, "min_share", "give 0 to 1"),
            (0 <= self.background <= 1, "background", "give 0 to 1"),
            (self.on_bad_box in BAD_BOXES, "on_bad_box", f"give {', '.join(BAD_BOXES)}"),
            (self.picture in (None, "png", "jpg"), "picture", "give png or jpg, or None to read from the slide"),
        )
        for good, name, want in rules:
            if not good:
                raise DataError(f"{name.replace('_', '-')}={getattr(self, name)!r}: {want}")


class TileBox(NamedTuple):
    """The part of an object that lies in a tile: both by number, x0, y0, x1, y1 in tile pixels, part of its area."""

    tile: int
    object: int
    box: tuple[float, float, float, float]
    share: float


def place_boxes(objects: Sequence[SlideObject], grid: TileGrid) -> list[TileBox]:
    """The parts of objects in the tiles of a grid, tile by tile, each box as tight as what can be seen there.

    Parts under one tile pixel wide or high are left out.
    """
    corners, (width, height) = grid.corners, grid.extent
    boxes = shapely.box(corners[:, 0], corners[:, 1], corners[:, 0] + width, corners[:, 1] + height)
    found = []
    for number, one in enumerate(objects):
        touched = np.flatnonzero(shapely.intersects(one.outline, boxes))
        parts = [cut_outline(one.outline, boxes[tile]) for tile in touched]
        shares = shapely.area(parts) / one.outline.area
        for tile, bounds, share in zip(touched.tolist(), shapely.bounds(parts), shares.tolist(), strict=True):
            box = (bounds - np.tile(corners[tile], 2)) / grid.downsample
            x0, y0, x1, y1 = np.clip(box, 0, (*grid.tile_size, *grid.tile_size)).tolist()
            if min(x1 - x0, y1 - y0) >= _LEAST:
                found.append(TileBox(tile, number, (x0, y0, x1, y1), 1.0 if share >= _WHOLE else share))
    return sorted(found, key=lambda part: (part.tile, part.object))
