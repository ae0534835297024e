"""Corners of the outlines of a mask in a band of rows, and which corner comes after which.

A lattice vertex has four pixels around it: a upper left, b upper right, c lower left, d lower right. It is a corner of
the outline of a class where one or three of them are of the class, or two across. An edge is walked with the class on
its right (y downwards), so that shells have positive area and holes negative. At a corner one edge comes in and one
goes out, one of them horizontal, one vertical; within a lattice row, and within a lattice column, corners belong
together in pairs. Where two pixels across are of the class, the vertex counts as two corners, each of which stays with
its pixel.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from pathzoo.wsi.types import Int64, Mask

UInt8: TypeAlias = npt.NDArray[np.uint8]
#: (n, 3) x and y of corners, and 1 where two corners share the vertex.
Loop: TypeAlias = npt.NDArray[np.int32]

_A, _B, _C, _D = 1, 2, 4, 8
#: By code (sum of the values of the pixels that are of the class).
IS_CORNER = np.zeros(16, np.bool_)
IS_CORNER[[1, 2, 4, 8, 7, 11, 13, 14, _A + _D, _B + _C]] = True
#: By code: whether the edge that goes out is horizontal, and the incoming one vertical.
_OUT_HORIZONTAL = np.zeros(16, np.bool_)
_OUT_HORIZONTAL[[_A, _D, _A + _B + _D, _A + _C + _D]] = True
#: By code: row and column, relative to d, of one pixel of the class that the corner stays with.
_PIXEL = np.zeros((16, 2), np.int64)
_PIXEL[[_A, _B, _C, _A + _B + _C, _B + _C + _D]] = [(-1, -1), (-1, 0), (0, -1), (0, -1), (0, -1)]


@dataclass(frozen=True)
class Corners:
    """Vertices that may be corners for some class, row by row: x, y in the band, and the four pixels a, b, c, d."""

    x: Int64
    y: Int64
    around: tuple[UInt8, UInt8, UInt8, UInt8]


class Path(NamedTuple):
    """Corners of a band from one cut edge to another: the cuts' columns, and whether they lie above or below."""

    from_above: bool
    first: int
    nodes: list[int]
    to_above: bool
    last: int


def find_corners(padded: UInt8) -> Corners:
    """Candidates among the vertices between the rows of `padded`, (n + 1, width + 2), framed at left and right."""
    across = padded[:, 1:] != padded[:, :-1]
    along = padded[1:] != padded[:-1]
    found = np.flatnonzero((across[1:] | across[:-1]) & (along[:, 1:] | along[:, :-1]))
    y, x = np.divmod(found, padded.shape[1] - 1)
    return Corners(x, y, (padded[y, x], padded[y, x + 1], padded[y + 1, x], padded[y + 1, x + 1]))


class Band:
    """The corners of one class in a band of rows, in reading order, and which comes after which.

    Behind the corners are counted the cuts: vertical edges that come in from the row above, then those that leave the
    last row downwards.
    """

    def __init__(self, x: Int64, y: Int64, code: UInt8, above: Mask, below: Mask, top: int, rows: int) -> None:
        double = (code == _A + _D) | (code == _B + _C)
        at = np.repeat(np.arange(len(code)), np.where(double, 2, 1))
        second = np.append(False, at[1:] == at[:-1])
        # At a double corner the one with the edge to the left comes first in its row.
        left, right = np.where(code == _A + _D, _A, _C), np.where(code == _A + _D, _D, _B)
        self._code = np.where(double[at], np.where(second, right[at], left[at]), code[at])
        self._x, self._y, self._top, self.is_across = x[at], y[at], top, double[at]
        self._entering, self._leaving = (np.flatnonzero(row[1:] != row[:-1]) for row in (above, below))
        # Downwards is an edge with the class on its west side.
        self._next = self._successors(above[self._entering], below[self._leaving], rows)
        self._seen = bytearray(len(self._x))

    def _successors(self, entering_down: Mask, leaving_down: Mask, rows: int) -> Int64:
        n, cuts = len(self._x), (len(self._entering), len(self._leaving))
        x = np.concatenate([self._x, self._entering, self._leaving])
        y = np.concatenate([self._y, np.full(cuts[0], -1), np.full(cuts[1], rows)])
        # At a double corner the one with the edge upwards comes first in its column.
        down = np.append((self._code == _C) | (self._code == _D), np.zeros(sum(cuts), np.bool_))
        pairs = np.lexsort((down, y, x)).reshape(-1, 2)
        following = np.empty(len(x), np.int64)
        following[pairs[:, 0]], following[pairs[:, 1]] = pairs[:, 1], pairs[:, 0]
        following[:n] = np.where(_OUT_HORIZONTAL[self._code], np.arange(n) ^ 1, following[:n])
        following[n:][~np.append(entering_down, ~leaving_down)] = -1
        return following

    def paths(self) -> Iterator[Path]:
        """From every cut at which the ring comes into the band to the one at which it leaves."""
        n, following, seen = len(self._x), self._next.tolist(), self._seen
        columns = [*self._entering.tolist(), *self._leaving.tolist()]
        for start in range(n, len(following)):
            if (i := following[start]) < 0:
                continue
            nodes = []
            while i < n:
                nodes.append(i)
                seen[i] = 1
                i = following[i]
            above = n + len(self._entering)
            yield Path(start < above, columns[start - n], nodes, i < above, columns[i - n])

    def cycles(self) -> tuple[Int64, Int64]:
        """Corners of the rings within the band, ring after ring, and where each ring begins. Call it after `paths`."""
        following, seen = self._next.tolist(), self._seen
        order: list[int] = []
        starts: list[int] = []
        i = seen.find(0)
        while i >= 0:
            starts.append(len(order))
            start = i
            while not seen[i]:
                seen[i] = 1
                order.append(i)
                i = following[i]
            i = seen.find(0, start)
        return np.array(order, np.int64), np.array(starts, np.int64)

    def crosses(self) -> Int64:
        """Of every corner, what it adds to twice the area of its ring; meaningless where the next one is a cut."""
        x, y = self._x, self._y
        following = np.minimum(self._next[: len(x)], len(x) - 1)
        return x * y[following] - x[following] * y

    def points(self, nodes: list[int] | Int64) -> Loop:
        """Corners in the mask."""
        return np.stack([self._x[nodes], self._y[nodes] + self._top, self.is_across[nodes]], axis=1, dtype=np.int32)

    def pixels(self, nodes: list[int] | Int64) -> tuple[Int64, Int64]:
        """Row in the band (-1: the one above) and column of a pixel of the class at each corner."""
        rows, columns = _PIXEL[self._code[nodes]].T
        return self._y[nodes] + rows, self._x[nodes] + columns
