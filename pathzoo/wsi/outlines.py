"""Outlines of the classes of a mask along its pixels' edges, found while its rows come in."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry import Polygon

from pathzoo.wsi.ring_corners import Loop, UInt8, find_corners
from pathzoo.wsi.ring_tracing import OUTSIDE, ClassTracer, Region
from pathzoo.wsi.types import Int64

#: In pixels of the mask.
TOLERANCE = 1.0
#: Edges that lie a pixel apart cannot meet when each moves by less than half of one.
_SAFE = 0.49
#: In pixels of the mask: smaller regions and holes are left out.
MIN_PIXELS = 16
#: Rows are worked on in parts of about this many pixels.
_PART_PIXELS = 1 << 23
#: And rings of a region in parts of about this many corners.
_PART_CORNERS = 1 << 18


@dataclass(frozen=True)
class Outline:
    """One 4-connected region of one class."""

    label: int
    #: Valid; in pixels of the mask: pixel (0, 0) reaches from 0 to 1. Corners are whole numbers.
    polygon: Polygon
    #: What the class has there before simplification; small holes do not count, though the polygon fills them.
    pixels: int


class Outliner:
    """Outlines of a mask that comes in bands of rows; the height of the bands does not change the result.

    Regions are 4-connected: pixels that only touch at a corner are different objects, unless joined elsewhere. A region
    is finished, simplified and freed of its corners once the rows have passed it, so that memory holds a few bytes for
    each pixel of some rows, what is known of regions that go on, and the finished polygons.

    Simplification is Douglas and Peucker's, of each ring by itself: no point of the outline moves by more than the
    tolerance, and corners that stay do not move. Where that makes a polygon invalid it is simplified by at most half a
    pixel, which is too little for edges to meet. Neighbours never become one object, but may overlap, or leave a gap,
    by up to twice the tolerance.

    Args:
        width: Of the mask.
        labels: The values to outline, each 0..254; 255 is never outlined.
        tolerance: In pixels of the mask; 0 gives the exact edges.
        min_pixels: Regions of fewer pixels are left out, holes of fewer are filled.
    """

    def __init__(
        self, width: int, labels: Iterable[int], tolerance: float = TOLERANCE, min_pixels: int = MIN_PIXELS
    ) -> None:
        self._width, self._tolerance = width, tolerance
        self._tracers = {label: ClassTracer(label, width, max(1, min_pixels)) for label in labels}
        if OUTSIDE in self._tracers:
            raise ValueError(f"label {OUTSIDE} stands for what is no class and has no outline")
        self._above, self._y = np.full((1, width), OUTSIDE, np.uint8), 0
        #: With the place of the first corner, for their order.
        self._found: list[tuple[tuple[int, int, int], Outline]] = []

    def add(self, rows: UInt8) -> None:
        """Takes the next (n, width) rows of labels."""
        if rows.ndim != 2 or rows.shape[1] != self._width:
            raise ValueError(f"rows of shape {rows.shape} for a mask of width {self._width}")
        step = max(1, _PART_PIXELS // self._width)
        for first in range(0, len(rows), step):
            self._add(rows[first : first + step])

    def finish(self) -> list[Outline]:
        """All outlines, by label, then by the place of their uppermost, then leftmost corner."""
        self._add(np.full((1, self._width), OUTSIDE, np.uint8))
        return [outline for _, outline in sorted(self._found, key=lambda found: found[0])]

    def _add(self, rows: UInt8) -> None:
        padded = np.pad(np.concatenate([self._above, rows]), ((0, 0), (1, 1)), constant_values=OUTSIDE)
        corners = find_corners(padded)
        for label, tracer in self._tracers.items():
            for region in tracer.add(padded, corners, self._y):
                assert region.shell is not None
                x, y = region.shell[0, :2].tolist()
                outline = Outline(label, _polygon(region, self._tolerance), region.pixels)
                self._found.append(((label, y, x), outline))
        self._above, self._y = rows[-1:].copy(), self._y + len(rows)


def _polygon(region: Region, tolerance: float) -> Polygon:
    """The region's polygon, simplified by the tolerance or, where that is not valid, by less."""
    assert region.shell is not None
    rings = [region.shell, *sorted(region.holes, key=lambda hole: (hole[0, 1], hole[0, 0]))]
    for attempt in sorted({tolerance, min(tolerance, _SAFE)}, reverse=True):
        if attempt > 0:
            shell, *holes = [part for some in _parts(rings) for part in _simplified(some, attempt)]
            simple = Polygon(shell, holes)
            if simple.is_valid:
                return simple
    shell, *holes = [ring[:, :2] for ring in rings]
    return Polygon(shell, holes)


def _parts(rings: Sequence[Loop]) -> Iterator[list[Loop]]:
    """The rings, some at a time: a region may have hundreds of thousands."""
    part: list[Loop] = []
    corners = 0
    for ring in rings:
        part.append(ring)
        corners += len(ring)
        if corners > _PART_CORNERS:
            yield part
            part, corners = [], 0
    if part:
        yield part


def _simplified(rings: Sequence[Loop], tolerance: float) -> list[npt.NDArray[np.int32]]:
    """Douglas and Peucker's simplification of every ring, (n, 2) each; extreme and shared corners stay."""
    points = np.concatenate(rings)
    ends = np.cumsum([len(ring) for ring in rings])
    fixed = points[:, 2] > 0
    for ring, end in zip(rings, ends.tolist(), strict=True):
        fixed[_extremes(ring) + (end - len(ring))] = True
    # Lines from one fixed corner to the next; each ring begins with one, and ends where it began.
    after = np.arange(1, len(points) + 1)
    after[ends - 1] = ends - [len(ring) for ring in rings]
    owner = np.cumsum(fixed) - 1
    closing = np.flatnonzero(fixed[after])  # the last corner of each line: the fixed one that follows belongs to it too
    where = np.insert(np.arange(len(points)), closing + 1, after[closing])
    lines = shapely.linestrings(points[where, :2], indices=np.insert(owner, closing + 1, owner[closing]))
    corners, line = shapely.get_coordinates(
        shapely.simplify(lines, tolerance, preserve_topology=False), return_index=True
    )
    last = np.append(line[1:] != line[:-1], True)
    corners, line = corners[~last].astype(np.int32), line[~last]
    return np.split(corners, np.searchsorted(line, owner[ends[:-1] - 1] + 1))


def _extremes(ring: Loop) -> Int64:
    """Where the extreme corners of a ring stand in it (of a rectangle all four); the first is among them."""
    x, y = ring[:, :2].T
    keys = ((y, x), (-x, y), (-y, -x), (x, -y))
    return np.array([np.lexsort((second, first))[0] for first, second in keys], np.int64)
