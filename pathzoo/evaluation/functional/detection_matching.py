"""Which detection found which object: greedy by falling score, each object once, as COCO's evaluation does it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pathzoo.errors import DataError
from pathzoo.evaluation.functional.classification import BoolArray, FloatArray, IntArray

#: What became of a detection: it found an object, found none, or lies in an ignored one and counts nowhere.
FOUND, FALSE, LEFT_OUT = 1, 0, -1

#: Pairs of a detection and an object that are compared at once; it bounds memory, not the result.
_BLOCK = 1_000_000


class Picture(NamedTuple):
    """Detections and objects of one tile or slide, boxes as x0, y0, x1, y1 in one system of coordinates."""

    #: float (n, 4), x0 < x1 and y0 < y1.
    boxes: FloatArray
    #: float (n,), higher means surer.
    scores: FloatArray
    #: Class indices (n,).
    labels: IntArray
    #: float (m, 4).
    objects: FloatArray
    #: Class indices (m,).
    object_labels: IntArray
    #: bool (m,): objects that need not be found, and in which a detection is not false.
    ignored: BoolArray


class Matching(NamedTuple):
    """Of n detections in the order given, at each of T least overlaps."""

    #: int8 (T, n): FOUND, FALSE or LEFT_OUT.
    outcome: NDArray[np.int8]
    #: int64 (T, n): the object that was found; of a false detection the one that another had found before; else -1.
    object: IntArray


class ClassMatches(NamedTuple):
    """All detections of one class over U pictures, in the order of the pictures, by falling score within each."""

    #: float (n,).
    scores: FloatArray
    #: int64 (n,): index of the picture.
    unit: IntArray
    #: int8 (T, n), see `Matching`.
    outcome: NDArray[np.int8]
    #: int64 (T, n): index into the picture's objects, see `Matching`.
    object: IntArray
    #: int64 (n,): place in the picture's `boxes`.
    place: IntArray
    #: int64 (U,): objects of the class that are to be found, ignored ones not among them.
    n_objects: IntArray


def match_boxes(
    boxes: ArrayLike,
    scores: ArrayLike,
    objects: ArrayLike,
    ignored: ArrayLike | None = None,
    thresholds: Sequence[float] = (0.5,),
) -> Matching:
    """Gives each detection of one picture and class the object that it found.

    In the order of falling score (equal ones as given) a detection takes, of the objects that no other has taken, the
    one of highest intersection over union (the last of equal ones), if that is at least the threshold. One that takes
    none is left out if at least that part of its own area lies inside an ignored object (Lin et al., 2014, call these
    crowds): any number of detections may. All others are false.

    Args:
        boxes: (n, 4) x0, y0, x1, y1.
        scores: (n,).
        objects: (m, 4).
        ignored: (m,) bool; None for none.
        thresholds: T least overlaps, 0 < t <= 1.
    """
    rate = np.asarray(scores, dtype=np.float64)
    found, targets = _boxes(boxes, len(rate)), _boxes(objects, None)
    skip = np.zeros(len(targets), bool) if ignored is None else np.asarray(ignored, dtype=bool)
    outcome = np.full((len(thresholds), len(rate)), FALSE, np.int8)
    taken_by = np.full((len(thresholds), len(rate)), -1, np.int64)
    pairs = _overlaps(found, targets)
    overlap = _shares(found, targets, skip, *pairs)
    order = np.argsort(-rate, kind="stable")
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    sequence = np.lexsort((pairs[1], rank[pairs[0]]))
    first, second, overlap = pairs[0][sequence], pairs[1][sequence], overlap[sequence]
    for number, threshold in enumerate(thresholds):
        enough = overlap >= min(threshold, 1 - 1e-10)
        _take(first[enough], second[enough], overlap[enough], skip, outcome[number], taken_by[number])
    return Matching(outcome, taken_by)


def match_pictures(
    pictures: Sequence[Picture],
    n_classes: int,
    thresholds: Sequence[float] = (0.5,),
    max_detections: int | None = None,
) -> list[ClassMatches]:
    """`match_boxes` over the pictures of a set, class by class.

    Args:
        pictures: U of them.
        n_classes: C.
        thresholds: T least overlaps.
        max_detections: of a picture and class only so many of the highest scores count; None for all.

    Returns:
        C matches.

    Raises:
        DataError: a box without area, numbers that are not finite or a class out of range; the picture is named by its
            index.
    """
    for index, picture in enumerate(pictures):
        check_picture(picture, n_classes, f"picture {index}")
    return [_match_class(pictures, index, thresholds, max_detections) for index in range(n_classes)]


def check_picture(picture: Picture, n_classes: int, name: str) -> None:
    """Raises DataError, which begins with `name`, where a picture cannot be evaluated."""
    for kind, boxes, labels in (
        ("detection", picture.boxes, picture.labels),
        ("object", picture.objects, picture.object_labels),
    ):
        faults = {
            "coordinates that are not finite": ~np.isfinite(boxes).all(axis=1),
            "no area (x0 < x1 and y0 < y1 are needed)": ~(boxes[:, :2] < boxes[:, 2:]).all(axis=1),
            f"a class that is none of 0..{n_classes - 1}": (labels < 0) | (labels >= n_classes),
        }
        if kind == "detection":
            faults["a score that is no number"] = np.isnan(picture.scores)
        for fault, wrong in faults.items():
            if wrong.any():
                first = int(wrong.argmax())
                values = ", ".join(f"{value:g}" for value in boxes[first])
                raise DataError(f"{name}: {kind} {first} ({values}; class {labels[first]}) has {fault}; correct it")


def box_iou(boxes: ArrayLike, objects: ArrayLike) -> FloatArray:
    """Intersection over union (n, m) of boxes (n, 4) and (m, 4)."""
    first, second = _boxes(boxes, None), _boxes(objects, None)
    shared = _intersections(first, second)
    union = _areas(first)[:, None] + _areas(second)[None] - shared
    return np.asarray(shared / np.maximum(union, np.finfo(np.float64).tiny))


def _match_class(
    pictures: Sequence[Picture], label: int, thresholds: Sequence[float], max_detections: int | None
) -> ClassMatches:
    none, T = np.zeros(0, np.int64), len(thresholds)
    parts = [(np.zeros(0), none, np.zeros((T, 0), np.int8), np.zeros((T, 0), np.int64), none)]
    n_objects = np.zeros(len(pictures), np.int64)
    for unit, picture in enumerate(pictures):
        of_class = np.flatnonzero(picture.labels == label)
        order = np.argsort(-picture.scores[of_class], kind="stable")[:max_detections]
        place = of_class[order]
        which = np.flatnonzero(picture.object_labels == label)
        ignored = picture.ignored[which]
        n_objects[unit] = (~ignored).sum()
        scores = picture.scores[place].astype(np.float64)
        matching = match_boxes(picture.boxes[place], scores, picture.objects[which], ignored, thresholds)
        number = np.append(which, -1)[matching.object]
        parts.append((scores, np.full(len(place), unit, np.int64), matching.outcome, number, place))
    return ClassMatches(
        np.concatenate([part[0] for part in parts]),
        np.concatenate([part[1] for part in parts]),
        np.concatenate([part[2] for part in parts], axis=1),
        np.concatenate([part[3] for part in parts], axis=1),
        np.concatenate([part[4] for part in parts]),
        n_objects,
    )


def _take(
    first: IntArray,
    second: IntArray,
    overlap: FloatArray,
    ignored: BoolArray,
    outcome: NDArray[np.int8],
    taken_by: IntArray,
) -> None:
    """Fills `outcome` and `taken_by` (n,) from the pairs that overlap enough, by the detections' falling score."""
    taken = np.zeros(len(ignored), bool)
    starts = np.flatnonzero(np.diff(first, prepend=-1))
    for start, end in zip(starts, np.append(starts, len(first))[1:], strict=True):
        detection, candidates = first[start], second[start:end]
        real = ~ignored[candidates]
        free = real & ~taken[candidates]
        if free.any():
            value = np.where(free, overlap[start:end], -1.0)
            chosen = candidates[len(value) - 1 - int(value[::-1].argmax())]
            taken[chosen] = True
            outcome[detection], taken_by[detection] = FOUND, chosen
        elif not real.all():
            outcome[detection] = LEFT_OUT
        else:
            taken_by[detection] = candidates[int(overlap[start:end].argmax())]


def _shares(
    boxes: FloatArray, objects: FloatArray, ignored: BoolArray, first: IntArray, second: IntArray, shared: FloatArray
) -> FloatArray:
    """Of pairs that meet: intersection over union, or over the box's own area where the object is ignored."""
    own, other = _areas(boxes)[first], _areas(objects)[second]
    return np.asarray(shared / np.where(ignored[second], own, own + other - shared))


def _overlaps(boxes: FloatArray, objects: FloatArray) -> tuple[IntArray, IntArray, FloatArray]:
    """The pairs whose intersection has an area, as indices of box and object, and that area."""
    first, second, shared = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0)]
    order = np.argsort(boxes[:, 1], kind="stable")
    step = max(1, _BLOCK // max(1, len(objects)))
    for start in range(0, len(boxes) if len(objects) else 0, step):
        rows = order[start : start + step]
        part = boxes[rows]
        near = np.flatnonzero((objects[:, 1] < part[:, 3].max()) & (objects[:, 3] > part[0, 1]))
        area = _intersections(part, objects[near])
        i, j = np.nonzero(area)
        first.append(rows[i])
        second.append(near[j])
        shared.append(area[i, j])
    return np.concatenate(first), np.concatenate(second), np.concatenate(shared)


def _intersections(boxes: FloatArray, objects: FloatArray) -> FloatArray:
    low = np.maximum(boxes[:, None, :2], objects[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], objects[None, :, 2:])
    return np.asarray((high - low).clip(min=0).prod(axis=2))


def _areas(boxes: FloatArray) -> FloatArray:
    return np.asarray((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))


def _boxes(values: ArrayLike, n: int | None) -> FloatArray:
    boxes = np.asarray(values, dtype=np.float64).reshape(-1, 4)
    if n is not None and len(boxes) != n:
        raise ValueError(f"{len(boxes)} boxes for {n} scores")
    return boxes
