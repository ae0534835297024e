"""Rings around the regions of one class of a mask, joined from band to band of rows."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from pathzoo.wsi.ring_corners import IS_CORNER, Band, Corners, Loop, Path, UInt8
from pathzoo.wsi.types import Int64, Mask

#: The label around the mask and of what is no class; never traced.
OUTSIDE = 255


@dataclass
class Region:
    """A 4-connected region; its rings begin at their uppermost, then leftmost corner."""

    shell: Loop | None = None
    holes: list[Loop] = field(default_factory=list)
    #: Pixels of the class; those of holes that were left out for being small do not count.
    pixels: int = 0


def signed_area(loop: Loop) -> int:
    """Pixels inside a ring, negative for a hole (shoelace formula)."""
    x, y = loop[:, :2].T.astype(np.int64)
    return int((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()) // 2


class ClassTracer:
    """Traces one class. Bands of rows are handed over from top to bottom, each with the row above it.

    Args:
        label: The class, 0..254.
        width: Of the mask.
        min_pixels: Rings around fewer pixels are left out.
    """

    def __init__(self, label: int, width: int, min_pixels: int) -> None:
        self._label, self._min_pixels = label, min_pixels
        #: By column: chains that end (that begin) on the vertical edge which leaves the last row downwards there.
        self._ends: dict[int, _Chain] = {}
        self._begins: dict[int, _Chain] = {}
        self._connected = _Connected(width)
        #: By root of their keys.
        self._regions: dict[int, Region] = {}

    def add(self, padded: UInt8, corners: Corners, top: int) -> list[Region]:
        """Takes the next rows; returns the regions that ended above the last of them.

        Args:
            padded: (n + 1, width + 2) labels: the row before, n new rows, and a column of OUTSIDE at both sides.
            corners: `find_corners(padded)`.
            top: Number of the first new row in the mask.
        """
        a, b, c, d = ((pixels == self._label).view(np.uint8) for pixels in corners.around)
        code = a | b << 1 | c << 2 | d << 3
        at = np.flatnonzero(IS_CORNER[code])
        if not len(at):  # every row is like the one before
            return []
        for kept, gone in self._connected.add(padded[1:, 1:-1] == self._label):
            self._merge(kept, gone)
        first, last = padded[0] == self._label, padded[-1] == self._label
        band = Band(corners.x[at], corners.y[at], code[at], first, last, top, len(padded) - 1)
        ends, begins = {}, {}  # type: dict[int, _Chain], dict[int, _Chain]
        for path in band.paths():
            self._link(path, band, ends, begins)
        self._ends, self._begins = ends, begins
        self._take_cycles(band)
        alive = self._connected.alive()
        done = [self._regions.pop(key) for key in list(self._regions) if key not in alive]
        return [region for region in done if region.shell is not None and region.pixels >= self._min_pixels]

    def _link(self, path: Path, band: Band, ends: dict[int, "_Chain"], begins: dict[int, "_Chain"]) -> None:
        """Joins a path to the chains that its cuts belong to; a chain that meets itself is a ring."""
        piece = _Chain()
        if path.nodes:
            piece = _Chain([band.points(path.nodes)], self._key(band, path.nodes[0]))
        chain = self._ends.pop(path.first).final().join(piece) if path.from_above else piece
        if path.to_above:
            following = self._begins.pop(path.last).final()
            if chain is following:
                self._ring(np.concatenate(chain.pieces), chain.key)
                return
            chain = chain.join(following)
        else:
            ends[path.last] = chain
        if not path.from_above:
            begins[path.first] = chain

    def _take_cycles(self, band: Band) -> None:
        """The rings that lie within a band. There may be many specks among them: those never become objects."""
        order, starts = band.cycles()
        if not len(starts):
            return
        areas = np.add.reduceat(band.crosses()[order], starts) // 2
        ends = np.append(starts[1:], len(order))
        for i in np.flatnonzero(np.abs(areas) >= self._min_pixels).tolist():
            nodes = order[starts[i] : ends[i]]
            self._ring(band.points(nodes), self._key(band, int(nodes[0])))
        filled = np.flatnonzero((areas < 0) & (-areas < self._min_pixels))
        keys = self._connected.at(*band.pixels(order[starts[filled]]))
        for key, area in zip(keys.tolist(), areas[filled].tolist(), strict=True):
            self._region(key).pixels += area

    def _ring(self, points: Loop, key: int) -> None:
        region, area = self._region(key), signed_area(points)
        region.pixels += area
        if abs(area) < self._min_pixels:
            return
        for loop in _cut(points) if points[:, 2].any() else [points]:
            inside = signed_area(loop)
            if inside > 0:
                region.shell = _from_first(loop)
            elif -inside >= self._min_pixels:
                region.holes.append(_from_first(loop))

    def _key(self, band: Band, node: int) -> int:
        return int(self._connected.at(*band.pixels([node]))[0])

    def _region(self, key: int) -> Region:
        return self._regions.setdefault(self._connected.root(key), Region())

    def _merge(self, kept: int, gone: int) -> None:
        if (other := self._regions.pop(gone, None)) is not None:
            region = self._regions.setdefault(kept, Region())
            region.shell = other.shell if region.shell is None else region.shell
            region.holes += other.holes
            region.pixels += other.pixels


class _Chain:
    """Part of a ring: pieces in order. A chain that was joined to another points there."""

    def __init__(self, pieces: Sequence[Loop] = (), key: int = 0) -> None:
        self.pieces, self.key = deque(pieces), key
        self.into: _Chain | None = None

    def final(self) -> "_Chain":
        chain = self
        while chain.into is not None:
            chain = chain.into
        return chain

    def join(self, other: "_Chain") -> "_Chain":
        """Self, then other; the one of more pieces takes the other in."""
        kept, gone = (self, other) if len(self.pieces) >= len(other.pieces) else (other, self)
        if kept is self:
            kept.pieces.extend(gone.pieces)
        else:
            kept.pieces.extendleft(reversed(gone.pieces))
        kept.key = self.key or other.key
        gone.into, gone.pieces = kept, deque()
        return kept


class _Connected:
    """Keys of the 4-connected regions of the last band's pixels; keys of regions that turn out to be one are united."""

    def __init__(self, width: int) -> None:
        self._above = np.zeros(width, np.int64)
        self._labels = np.zeros((1, width), np.int32)
        self._base = self._next = 0
        self._parents: dict[int, int] = {}

    def add(self, member: Mask) -> Iterator[tuple[int, int]]:
        """Takes the next rows; yields pairs of roots that became one: the one that stays and the one that is gone."""
        self._above = self._row(-1)
        count, labels = cv2.connectedComponents(member.view(np.uint8), connectivity=4, ltype=cv2.CV_32S)
        self._labels, self._base = np.asarray(labels, np.int32), self._next
        self._next += count - 1
        both = np.flatnonzero((self._above > 0) & (labels[0] > 0))
        pairs = np.stack([self._above[both], labels[0, both] + self._base], axis=1)
        changes = np.flatnonzero((pairs[1:] != pairs[:-1]).any(axis=1)) + 1
        for above, below in pairs[np.append(0, changes)].tolist() if len(pairs) else []:
            kept, gone = self.root(above), self.root(below)
            if kept != gone:
                self._parents[gone] = kept
                yield kept, gone

    def at(self, y: Int64, x: Int64) -> Int64:
        """Keys at rows and columns of the band; row -1 is the one above it."""
        return np.where(y < 0, self._above[x], self._labels[y.clip(0), x] + self._base)

    def root(self, key: int) -> int:
        root = key
        while (parent := self._parents.get(root)) is not None:
            root = parent
        while key != root:
            self._parents[key], key = root, self._parents[key]
        return root

    def alive(self) -> set[int]:
        """Roots of the regions that reach the last row."""
        return {self.root(key) for key in np.unique(self._row(-1)).tolist() if key}

    def _row(self, y: int) -> Int64:
        row = self._labels[y].astype(np.int64)
        return np.where(row > 0, row + self._base, 0)


def _cut(points: Loop) -> list[Loop]:
    """Cuts a ring at every vertex that it comes through more than once."""
    loops: list[list[tuple[int, ...]]] = []
    stack: list[tuple[int, ...]] = []
    place: dict[tuple[int, ...], int] = {}
    for vertex in map(tuple, points.tolist()):
        if (start := place.get(vertex)) is not None:
            loops.append(stack[start:])
            for gone in stack[start + 1 :]:
                del place[gone]
            del stack[start + 1 :]
        else:
            place[vertex] = len(stack)
            stack.append(vertex)
    return [np.array(loop, np.int32) for loop in [*loops, stack]]


def _from_first(loop: Loop) -> Loop:
    """The same ring from its uppermost, then leftmost corner on."""
    return np.roll(loop, -int(np.lexsort(loop[:, :2].T)[0]), axis=0)
