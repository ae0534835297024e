"""Where patches are cut from regions, and how: pure functions of (seed, epoch, index), numpy only."""

import hashlib
import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np


class Place(NamedTuple):
    """The upper left pixel of a patch."""

    region: int
    x: int
    y: int


def uniforms(count: int, *parts: int) -> tuple[float, ...]:
    """`count` (at most 8) numbers in [0, 1) that depend on every part and on their order.

    A hash (BLAKE2b) and not a generator: making a numpy generator takes as long as cutting a patch.
    """
    text = ",".join(str(int(part)) for part in parts)
    digest = hashlib.blake2b(text.encode(), digest_size=8 * count, person=b"pathzoo places").digest()
    return tuple((bits >> 11) * 2.0**-53 for bits in struct.unpack(f"<{count}Q", digest))


class PatchGrid:
    """The patches that cover regions once: at (column * size, row * size), region by region, row by row.

    The last of a row or column reaches beyond the region where its side is no multiple of the patch's.

    Args:
        sizes: (width, height) of each region in pixels.
        patch: side of a patch in pixels.
    """

    def __init__(self, sizes: Sequence[tuple[int, int]], patch: int) -> None:
        self._patch = patch
        self._columns = [-(-width // patch) for width, _ in sizes]
        counts = [c * -(-height // patch) for c, (_, height) in zip(self._columns, sizes, strict=True)]
        self._ends = np.cumsum(counts, dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def place(self, index: int) -> Place:
        """Where patch `index` is cut."""
        region = int(np.searchsorted(self._ends, index, side="right"))
        first = int(self._ends[region - 1]) if region else 0
        row, column = divmod(index - first, self._columns[region])
        return Place(region, column * self._patch, row * self._patch)


class PlaceDrawer:
    """Draws places of patches: a region by its area and a place in it, or a place centred on a pixel of a drawn class.

    A patch lies within its region; a region smaller than a patch has one place, (0, 0), or 0 along the short axis.

    Args:
        sizes: (width, height) of each region.
        patch: side of a patch.
        balance: probability that the place is centred on a pixel of a class, which is drawn evenly among those that
            occur; near a border the patch is moved inwards.
        rows: `class_rows` of each region's labels; needed where `balance` is above 0.
    """

    def __init__(
        self,
        sizes: Sequence[tuple[int, int]],
        patch: int,
        balance: float = 0.0,
        rows: Sequence[np.ndarray] = (),
    ) -> None:
        self._sizes, self._patch, self._balance, self._rows = list(sizes), patch, balance, list(rows)
        self._areas = np.cumsum([width * height for width, height in sizes], dtype=np.int64)
        if balance:
            totals = np.stack([counts[:, -1] for counts in rows], axis=1)  # (C, R)
            self._pixels = np.cumsum(totals, axis=1)
            self._present = np.flatnonzero(self._pixels[:, -1]).tolist()

    def place(self, seed: int, epoch: int, index: int, labels: Callable[[int], np.ndarray]) -> Place:
        """The place of sample `index` in `epoch`; `labels(region)` is asked for a region's labels where needed."""
        coin, first, second, third = uniforms(4, seed, epoch, index)
        if coin < self._balance and self._present:
            kind = self._present[int(first * len(self._present))]
            return self._centred(kind, int(second * int(self._pixels[kind, -1])), labels)
        region = int(np.searchsorted(self._areas, int(first * int(self._areas[-1])), side="right"))
        width, height = self._sizes[region]
        room_x, room_y = max(0, width - self._patch), max(0, height - self._patch)
        return Place(region, int(second * (room_x + 1)), int(third * (room_y + 1)))

    def _centred(self, kind: int, number: int, labels: Callable[[int], np.ndarray]) -> Place:
        """The patch about the pixel `number` of a class, counted through all regions row by row."""
        region = int(np.searchsorted(self._pixels[kind], number, side="right"))
        number -= int(self._pixels[kind, region - 1]) if region else 0
        ends = self._rows[region][kind]
        row = int(np.searchsorted(ends, number, side="right"))
        number -= int(ends[row - 1]) if row else 0
        column = int(np.flatnonzero(labels(region)[row] == kind)[number])
        width, height = self._sizes[region]
        x, y = (
            min(max(0, centre - self._patch // 2), max(0, length - self._patch))
            for centre, length in ((column, width), (row, height))
        )
        return Place(region, x, y)


def class_rows(labels: np.ndarray, n_classes: int) -> np.ndarray:
    """Pixels of each class in the rows 0..r of a label map: int64 (C, H) from uint8 (H, W)."""
    return np.cumsum([np.count_nonzero(labels == kind, axis=1) for kind in range(n_classes)], axis=1, dtype=np.int64)


def jittered(place: Place, size: tuple[int, int], patch: int, seed: int, epoch: int, index: int) -> Place:
    """A place moved by up to half a patch each way, and kept inside the region of `size` (width, height)."""
    shifts = uniforms(2, seed, epoch, index)
    x, y = (
        min(max(0, start + round((shift - 0.5) * patch)), max(0, length - patch))
        for start, shift, length in zip(place[1:], shifts, size, strict=True)
    )
    return Place(place.region, x, y)


def cut(array: np.ndarray, x: int, y: int, patch: int, fill: int) -> np.ndarray:
    """A copy of the square patch at (x, y) of (H, W) or (H, W, C); what lies beyond the array is `fill`."""
    part = array[y : y + patch, x : x + patch]
    if part.shape[:2] == (patch, patch):
        return part.copy()
    whole = np.full((patch, patch, *array.shape[2:]), fill, array.dtype)
    whole[: part.shape[0], : part.shape[1]] = part
    return whole
