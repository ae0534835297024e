"""Label maps that nobody has drawn: one moved as a whole, its lesions made larger or smaller and put elsewhere.

For drawing new pictures from them (Pix2Pix): more shapes than there are labelled pictures. Label maps alone: a picture
that such a map was drawn for no longer fits it. No torch.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from scipy import ndimage

from pathzoo.errors import ConfigError, DataError

#: A pixel and the eight around it.
_EIGHT = np.ones((3, 3), bool)
#: Draws before a map is given back as it came.
_TRIES = 20
#: Part of its pixels that a class keeps at least: less is cut off by the border, or lies below a lesion.
_KEPT = 0.5


@dataclass(frozen=True)
class LabelAugmentation:
    """How far label maps are changed. Everything is drawn evenly within its range; by default nothing changes.

    Args:
        shift: Pixels, up to which a map moves along each axis, either way.
        scale: (lowest, highest) factor of its size.
        rotation: Degrees, up to which it turns either way.
        flip: Mirrors half of the maps left to right. In CT that exchanges the patient's kidneys, and puts the liver on
            the other side.
        tumour_scale: (lowest, highest) factor of the size of each lesion, beside that of the map.
        tumour_shift: Pixels, up to which each lesion moves along each axis, either way, beside the map's move.
        lesion: The class that `tumour_scale` and `tumour_shift` are for; None for maps that have none (H&E).
        organ: The class that a lesion lies in or at.
        outside: The value of what comes in over the border: background, or 255 where it is not labelled.

    Raises:
        ConfigError: A range that is none, a factor of 0 or below, lesions without a class for them.
    """

    shift: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    rotation: float = 0.0
    flip: bool = False
    tumour_scale: tuple[float, float] = (1.0, 1.0)
    tumour_shift: float = 0.0
    lesion: int | None = 2
    organ: int = 1
    outside: int = 0

    def __post_init__(self) -> None:
        for name in ("shift", "rotation", "tumour_shift"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"label augmentation: {name}={value}; give the largest change, 0 or above")
        for name in ("scale", "tumour_scale"):
            low, high = getattr(self, name)
            if not (0 < low <= high < math.inf):
                raise ConfigError(f"label augmentation: {name}={(low, high)}; give (lowest, highest), both above 0")
        if self.lesion is None and self.changes_lesions:
            raise ConfigError("label augmentation: tumour_scale and tumour_shift need lesion=, the class they are for")
        values = [self.organ, self.outside, *(() if self.lesion is None else (self.lesion,))]
        if any(not 0 <= value <= 255 for value in values) or self.lesion in (self.organ, self.outside):
            raise ConfigError(
                f"label augmentation: lesion={self.lesion}, organ={self.organ}, outside={self.outside}; give values of "
                "0..255, and the lesion one of its own"
            )

    @property
    def changes_lesions(self) -> bool:
        """Whether lesions change beside their map."""
        return tuple(self.tumour_scale) != (1.0, 1.0) or self.tumour_shift > 0


def augment_labels(labels: np.ndarray, rng: np.random.Generator, augmentation: LabelAugmentation) -> np.ndarray:
    """A label map turned, scaled and moved about the centre of what it labels, its lesions also by themselves.

    The map: nearest neighbour; what comes in over the border is `outside`; labelled is what is not `outside`. Each
    8-connected lesion: scaled about its own centre and moved. What it covers becomes lesion. What it leaves takes the
    label of the nearest pixel that is no lesion: organ where the organ is nearest, and never background that organ and
    lesions enclose. A lesion that touched the organ (8-connected) and moved off is drawn up to it again.

    A draw counts only where every class keeps at least half of its pixels (scaled with the map), and no more lesions
    lie off the organ than before. After 20 draws that do not, the map comes back as it was.

    Args:
        labels: uint8 (H, W).
        rng: Equal states give equal maps.
        augmentation: Ranges and classes.

    Returns:
        uint8 (H, W), a new array; its values are among those of `labels` and `outside`.

    Raises:
        DataError: No uint8 (H, W).
    """
    if labels.ndim != 2 or labels.dtype != np.uint8:
        raise DataError(f"a label map of {labels.dtype} {labels.shape}: give uint8 (H, W)")
    if not (labels != augmentation.outside).any():
        return labels.copy()
    for _ in range(_TRIES):
        moved = _map_moved(labels, rng, augmentation)
        if moved is not None and augmentation.lesion is not None and augmentation.changes_lesions:
            moved = _lesions_moved(moved, rng, augmentation)
        if moved is not None and _off_organ(moved, augmentation) <= _off_organ(labels, augmentation):
            return moved
    return labels.copy()


def _map_moved(labels: np.ndarray, rng: np.random.Generator, augmentation: LabelAugmentation) -> np.ndarray | None:
    """The whole map by one drawn affine; None where it lost a class."""
    factor = rng.uniform(*augmentation.scale)
    angle = math.radians(rng.uniform(-augmentation.rotation, augmentation.rotation))
    shift = rng.uniform(-augmentation.shift, augmentation.shift, 2)
    mirrored = rng.random() < 0.5  # always drawn: what follows does not hang on `flip`
    source = labels[:, ::-1] if augmentation.flip and mirrored else labels
    centre = np.argwhere(source != augmentation.outside).mean(axis=0)
    moved = _affine(source, centre, factor, angle, shift, augmentation.outside)
    before, after = (np.bincount(part.reshape(-1), minlength=256) for part in (labels, moved))
    there = before > 0
    there[augmentation.outside] = False
    wanted = np.maximum(1, _KEPT * min(1.0, factor**2) * before)
    return moved if (after >= wanted)[there].all() else None


def _lesions_moved(labels: np.ndarray, rng: np.random.Generator, augmentation: LabelAugmentation) -> np.ndarray | None:
    """Each lesion by a drawn scale and move; None where that lost most of one, or of the organ."""
    of_lesion = labels == augmentation.lesion
    numbered, count = ndimage.label(of_lesion, _EIGHT)
    if not count or of_lesion.all():
        return labels
    under = _without_lesions(labels, of_lesion)
    organ, was_organ = under == augmentation.organ, labels == augmentation.organ
    placed = np.zeros(labels.shape, bool)
    for number in range(1, count + 1):
        own = numbered == number
        factor = rng.uniform(*augmentation.tumour_scale)
        shift = rng.uniform(-augmentation.tumour_shift, augmentation.tumour_shift, 2)
        new = _affine(own, np.argwhere(own).mean(axis=0), factor, 0.0, shift, False)
        if new.any() and _touches(own, was_organ) and not _touches(new, organ):
            new = _drawn_up(new, organ)
        if not new.any() or new.sum() < _KEPT * factor**2 * own.sum():
            return None
        placed |= new
    result = np.where(placed, labels[of_lesion][0], under)
    result[_cut_off(result == augmentation.organ, placed) & of_lesion] = augmentation.organ
    n_organ = int(was_organ.sum())
    return result if (result == augmentation.organ).sum() >= max(min(1, n_organ), _KEPT * n_organ) else None


def _without_lesions(labels: np.ndarray, of_lesion: np.ndarray) -> np.ndarray:
    """The map below its lesions: each of their pixels with the label of the nearest one that is no lesion's."""
    # The border of a pixel around them all is no lesion, and nearer than what lies beyond it.
    box = _box(of_lesion, 1)
    rows, columns = ndimage.distance_transform_edt(of_lesion[box], return_distances=False, return_indices=True)
    under = labels.copy()
    under[box] = labels[box][rows, columns]
    return under


def _cut_off(organ: np.ndarray, lesions: np.ndarray) -> np.ndarray:
    """What organ and lesions enclose beside the organ: rounding, or a lesion's new place, cuts it off."""
    solid = organ | lesions
    box = _box(solid, 0)
    enclosed, _ = ndimage.label(ndimage.binary_fill_holes(solid[box]) & ~solid[box], _EIGHT)
    beside = np.unique(enclosed[_near(organ[box]) & (enclosed > 0)])
    found = np.zeros(organ.shape, bool)
    found[box] = np.isin(enclosed, beside)
    return found


def _drawn_up(lesion: np.ndarray, organ: np.ndarray) -> np.ndarray:
    """A lesion moved the shortest way on which it meets the organ."""
    distance, (rows, columns) = ndimage.distance_transform_edt(~organ, return_indices=True)
    pixels = np.argwhere(lesion)
    row, column = pixels[distance[lesion].argmin()]
    way = np.array([rows[row, column] - row, columns[row, column] - column], float)
    return _affine(lesion, np.zeros(2), 1.0, 0.0, way, False)


def _affine(
    values: np.ndarray, centre: np.ndarray, factor: float, angle: float, shift: np.ndarray, outside: int | bool
) -> np.ndarray:
    """Scaled and turned about `centre` (row, column), then moved by `shift` (rows, columns); nearest neighbour."""
    height, width = values.shape
    row = np.arange(height)[:, None] - centre[0] - shift[0]
    column = np.arange(width)[None] - centre[1] - shift[1]
    cos, sin = math.cos(angle) / factor, math.sin(angle) / factor
    from_row = np.rint(cos * row + sin * column + centre[0]).astype(np.int64)  # (H, W)
    from_column = np.rint(cos * column - sin * row + centre[1]).astype(np.int64)
    inside = (from_row >= 0) & (from_row < height) & (from_column >= 0) & (from_column < width)
    found = values[from_row.clip(0, height - 1), from_column.clip(0, width - 1)]
    return np.where(inside, found, values.dtype.type(outside))


def _box(mask: np.ndarray, margin: int) -> tuple[slice, slice]:
    """The smallest box around a mask that has pixels, and `margin` around it, within the map."""
    sides = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    rows, columns = (slice(max(int(side[0]) - margin, 0), int(side[-1]) + margin + 1) for side in sides)
    return rows, columns


def _near(mask: np.ndarray) -> np.ndarray:
    """The mask and the pixels around it (8-connected)."""
    return cv2.dilate(mask.astype(np.uint8), _EIGHT.astype(np.uint8), borderValue=0).astype(bool)


def _touches(one: np.ndarray, other: np.ndarray) -> bool:
    return bool((_near(one) & other).any())


def _off_organ(labels: np.ndarray, augmentation: LabelAugmentation) -> int:
    """Lesions that touch no organ."""
    if augmentation.lesion is None:
        return 0
    numbered, count = ndimage.label(labels == augmentation.lesion, _EIGHT)
    return count - len(np.unique(numbered[_near(labels == augmentation.organ) & (numbered > 0)]))
