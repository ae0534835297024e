"""Areas to masks, exactly: a pixel belongs to an area if its centre does."""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry.base import BaseGeometry

from pathzoo.wsi.types import Int64, Mask

#: (H, W) uint8: index of a class; 255 where none is known.
Labels = npt.NDArray[np.uint8]
#: What is no class.
IGNORE = 255
#: Places where an edge crosses a row of pixels are worked on in parts of about this many.
_PART_CROSSINGS = 1 << 21
#: Bands hold about this many pixels.
_BAND_PIXELS = 1 << 24


class AreaEdges:
    """The outline of a valid Polygon or MultiPolygon, holes and all, ready to be filled band by band.

    A pixel is inside if a ray from its centre to the left crosses the outline an odd number of times. An edge that goes
    through a centre has the pixel to its right (below it, where it is level): of two areas that share an edge, exactly
    one has the pixel.

    Args:
        area: In pixels of the mask: pixel (0, 0) reaches from 0 to 1.
    """

    def __init__(self, area: BaseGeometry) -> None:
        points, ring = shapely.get_coordinates(shapely.get_rings(shapely.get_parts(area)), return_index=True)
        same = ring[1:] == ring[:-1]
        first, last = points[:-1][same], points[1:][same]
        # From top to bottom, so that both neighbours of an edge compute the same crossings.
        down = first[:, 1] <= last[:, 1]
        upper, lower = np.where(down[:, None], first, last), np.where(down[:, None], last, first)
        rows = _first_centre(upper[:, 1]), _first_centre(lower[:, 1])
        kept = rows[0] < rows[1]  # the others lie between two rows of centres
        self._upper, self._lower = upper[kept], lower[kept]
        #: Rows from `_begin` to before `_end` are crossed.
        self._begin, self._end = rows[0][kept], rows[1][kept]

    def fill(self, top: int, height: int, width: int) -> tuple[slice, slice, Mask] | None:
        """The part of the rows `top` to `top + height` that may hold the area.

        Returns:
            Rows of the band, columns, and which of these pixels are inside; None where there are none.
        """
        crossing = np.flatnonzero((self._begin < top + height) & (self._end > top))
        if not len(crossing):
            return None
        begin, end = self._begin[crossing].clip(min=top), self._end[crossing].clip(max=top + height)
        ends_x = np.stack([self._upper[crossing, 0], self._lower[crossing, 0]])
        left = int(_first_centre(ends_x.min(keepdims=True).ravel())[0].clip(0, width))
        right = int((_first_centre(ends_x.max(keepdims=True).ravel())[0] + 1).clip(0, width))
        first, last = int(begin.min()), int(end.max())
        if left >= right:
            return None
        # One column more than are wanted takes the crossings to their right, which change nothing.
        toggles = np.zeros((last - first, right - left + 1), np.uint8)
        lengths = end - begin
        for part in _parts(lengths):
            number, row = _expanded(begin[part], lengths[part])
            column = self._columns(crossing[part][number], row).clip(left, right) - left
            # Sums of uint8 wrap at 256: odd stays odd.
            np.add.at(toggles.reshape(-1), (row - first) * toggles.shape[1] + column, np.uint8(1))
        inside = np.cumsum(toggles, axis=1, dtype=np.uint8)[:, :-1] & 1
        return slice(first - top, last - top), slice(left, right), inside.view(np.bool_)

    def _columns(self, edges: Int64, row: Int64) -> Int64:
        """The first pixel whose centre is not left of an edge, in the row's middle."""
        (x0, y0), (x1, y1) = self._upper[edges].T, self._lower[edges].T
        return _first_centre(x0 + (row + 0.5 - y0) * ((x1 - x0) / (y1 - y0)))


def rasterise(
    areas: Sequence[tuple[BaseGeometry, int]],
    width: int,
    height: int,
    background: int = IGNORE,
    overlaps: Counter[tuple[int, int]] | None = None,
) -> Iterator[Labels]:
    """A mask of areas, from top to bottom in bands of rows, so that memory does not grow with its height.

    Args:
        areas: Valid Polygon or MultiPolygon in pixels of the mask, and value 0..255. Later ones lie over earlier ones.
        width: Of the mask.
        height: Of the mask.
        background: What stands where no area is.
        overlaps: Is told how many pixels a value lost to another: (value below, value above) -> pixels.

    Yields:
        (n, width) uint8; a new array each time.
    """
    edges = [(AreaEdges(area), value) for area, value in areas]
    rows = max(1, _BAND_PIXELS // width)
    for top in range(0, height, rows):
        band = np.full((min(rows, height - top), width), background, np.uint8)
        taken = np.zeros(band.shape, np.bool_)
        for outline, value in edges:
            if (found := outline.fill(top, len(band), width)) is None:
                continue
            *place, inside = found
            part, part_taken = band[tuple(place)], taken[tuple(place)]  # views
            if overlaps is not None:
                below = np.bincount(part[inside & part_taken], minlength=256)
                overlaps.update(
                    {(lost, value): int(below[lost]) for lost in np.flatnonzero(below).tolist() if lost != value}
                )
            part[inside] = value
            part_taken |= inside
        yield band


def _first_centre(places: npt.NDArray[np.float64]) -> Int64:
    """The first pixel whose centre lies at or beyond a place."""
    return np.ceil(places - 0.5).astype(np.int64)


def _parts(lengths: Int64) -> Iterator[slice]:
    """Edges, some at a time, by how many rows they cross."""
    total = np.cumsum(lengths)
    start = 0
    while start < len(lengths):
        done = total[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(total, done + _PART_CROSSINGS, side="right")))
        yield slice(start, stop)
        start = stop


def _expanded(begin: Int64, lengths: Int64) -> tuple[Int64, Int64]:
    """Number of the edge and row of every crossing."""
    number = np.repeat(np.arange(len(begin)), lengths)
    within = np.arange(len(number)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return number, begin[number] + within
