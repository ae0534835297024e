"""Precision, recall and their kin over the confidence of detections, and the thresholds that they recommend.

Letters: n detections, U pictures (tiles or slides), K distinct scores, R rows of weights. Weights (R, U) say how often
a picture counts; given them a function answers for every row. NaN where what is asked for does not exist.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from pathzoo.evaluation.functional.classification import BoolArray, FloatArray, IntArray, divide
from pathzoo.evaluation.functional.detection_matching import FOUND, LEFT_OUT, ClassMatches

#: The recalls at which COCO's average precision is taken (Lin et al., 2014).
COCO_RECALLS = np.linspace(0.0, 1.0, 101)

#: Recalls at which a curve is told in few points; closer together where a threshold is chosen for recall.
TOLD_RECALLS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99, 1.0)

#: Numbers of one kind that are held at once; it bounds memory, not the result.
_BLOCK = 4_000_000


class Outcomes(NamedTuple):
    """The detections of U pictures that are right or wrong at one least overlap, by falling score; none left out."""

    #: float (n,).
    scores: FloatArray
    #: bool (n,): the detection found an object.
    found: BoolArray
    #: int64 (n,): its picture.
    unit: IntArray
    #: int64 (U,): objects to be found in each picture.
    n_objects: IntArray
    #: float (U,): what false detections are counted by, such as each slide's area; None counts 1 for each picture.
    exposure: FloatArray | None = None


class ConfidenceCurve(NamedTuple):
    """What counts as detected from each distinct score up; thresholds falling, so that recall rises.

    Every value is exact at its threshold: detections of score >= threshold count. Shape (K,).
    """

    thresholds: FloatArray
    precision: FloatArray
    recall: FloatArray
    f1: FloatArray
    #: Detections that found an object.
    found: IntArray
    #: Detections that found none.
    false: IntArray


class Operation(NamedTuple):
    """What a threshold gives; arrays (R,), or () without weights."""

    precision: FloatArray
    recall: FloatArray
    f1: FloatArray
    #: False detections for each picture, or unit of the exposure.
    false_positives: FloatArray


def outcomes_at(matches: Sequence[ClassMatches], index: int = 0) -> Outcomes:
    """The detections of all given classes together, at the least overlap of number `index`.

    A detection counts as right only if it found an object of its own class. Equal scores keep the order of classes,
    then of `ClassMatches`.
    """
    kept = [match.outcome[index] != LEFT_OUT for match in matches]
    scores = np.concatenate([match.scores[keep] for match, keep in zip(matches, kept, strict=True)])
    found = np.concatenate([match.outcome[index][keep] == FOUND for match, keep in zip(matches, kept, strict=True)])
    unit = np.concatenate([match.unit[keep] for match, keep in zip(matches, kept, strict=True)])
    order = np.argsort(-scores, kind="stable")
    n_objects = np.sum([match.n_objects for match in matches], axis=0)
    return Outcomes(scores[order], found[order], unit[order], np.asarray(n_objects, dtype=np.int64))


def pooled(outcomes: Outcomes, clusters: IntArray) -> Outcomes:
    """The same with all pictures of a cluster as one: what is drawn together has one weight.

    Args:
        outcomes: of U pictures.
        clusters: number of each picture's cluster (U,), from 0.
    """
    n_objects = np.rint(np.bincount(clusters, outcomes.n_objects)).astype(np.int64)
    exposure = np.bincount(clusters, exposure_of(outcomes)).astype(np.float64)
    return outcomes._replace(unit=clusters[outcomes.unit], n_objects=n_objects, exposure=exposure)


def exposure_of(outcomes: Outcomes) -> FloatArray:
    """(U,), 1 for each picture unless the outcomes say otherwise."""
    n_units = len(outcomes.n_objects)
    return np.ones(n_units) if outcomes.exposure is None else np.asarray(outcomes.exposure, dtype=np.float64)


def confidence_curve(outcomes: Outcomes) -> ConfidenceCurve:
    """Precision, recall and F1 at every distinct score. Recall and F1 are NaN where there is no object."""
    last = score_ends(outcomes.scores)
    found = outcomes.found.cumsum()[last]
    false = last + 1 - found
    total = outcomes.n_objects.sum()
    f1 = divide(2 * found, found + false + total) if total else np.full(len(found), np.nan)
    return ConfidenceCurve(
        outcomes.scores[last], divide(found, found + false), divide(found, total), f1, found, np.asarray(false)
    )


def best_f1(curve: ConfidenceCurve) -> int | None:
    """The point of highest F1, of equal ones that of highest recall; None without detections or objects."""
    if not len(curve.f1) or np.isnan(curve.f1).all():
        return None
    return int(np.flatnonzero(curve.f1 == np.nanmax(curve.f1))[-1])


def at_recall(curve: ConfidenceCurve, target: float) -> int | None:
    """The point of the highest threshold whose recall is at least `target`; None where no threshold reaches it."""
    reached = np.flatnonzero(curve.recall >= target - 1e-12)
    return int(reached[0]) if len(reached) else None


def told_points(curve: ConfidenceCurve, recalls: Sequence[float] = TOLD_RECALLS) -> IntArray:
    """(k,) rising places of the points that tell a curve: best F1, the highest threshold for each recall, and the last.

    A recall that no threshold reaches has no point; none at all without detections or objects.
    """
    if best_f1(curve) is None:
        return np.zeros(0, np.int64)
    places = [best_f1(curve), len(curve.recall) - 1, *(at_recall(curve, recall) for recall in recalls)]
    return np.unique([place for place in places if place is not None]).astype(np.int64)


def operate(outcomes: Outcomes, threshold: float, weights: FloatArray | None = None) -> Operation:
    """What detections of score >= `threshold` give.

    Args:
        outcomes: of U pictures.
        threshold: least score.
        weights: how often each picture counts (R, U).
    """
    n_units = len(outcomes.n_objects)
    kept = outcomes.scores >= threshold
    counts = np.zeros((n_units, 3))
    counts[:, 0] = np.bincount(outcomes.unit[kept & outcomes.found], minlength=n_units)
    counts[:, 1] = np.bincount(outcomes.unit[kept & ~outcomes.found], minlength=n_units)
    counts[:, 2] = outcomes.n_objects
    rows = np.ones(n_units) if weights is None else weights
    found, false, total = np.moveaxis(rows @ counts, -1, 0)
    f1 = np.where(total > 0, divide(2 * found, found + false + total), np.nan)
    return Operation(
        divide(found, found + false), divide(found, total), f1, divide(false, rows @ exposure_of(outcomes))
    )


def average_precision_area(outcomes: Outcomes, weights: FloatArray | None = None) -> FloatArray:
    """Area under precision over recall, precision being the highest at that recall or beyond (PASCAL VOC 2010 on).

    Detections of equal score count together, so their order does not matter. (R,), or () without weights; NaN where
    there is no object, 0 where there is no detection.
    """
    last = score_ends(outcomes.scores)
    before = np.append(0, outcomes.found.cumsum()[last])
    return _by_row(outcomes, weights, last[np.diff(before) > 0], _areas_under)


def average_precision_101(outcomes: Outcomes, weights: FloatArray | None = None) -> FloatArray:
    """COCO's average precision: the mean, over the recalls 0, 0.01 .. 1, of the highest precision there or beyond.

    Detections of equal score count one by one in their order, as in COCO's own evaluation. Shape and NaN as
    `average_precision_area`.
    """
    return _by_row(outcomes, weights, np.flatnonzero(outcomes.found), _means_of_101)


def highest_recall(outcomes: Outcomes, weights: FloatArray | None = None) -> FloatArray:
    """Part of the objects that some detection found, whatever its score; shape as `average_precision_area`."""
    rows = np.ones((1, len(outcomes.n_objects))) if weights is None else np.atleast_2d(weights)
    found = np.bincount(outcomes.unit[outcomes.found], minlength=len(outcomes.n_objects))
    recall = divide(rows @ found, rows @ outcomes.n_objects)
    return recall[0] if weights is None else recall


def score_ends(scores: ArrayLike) -> IntArray:
    """(K,) the place of the last of each run of equal scores, which fall."""
    values = np.asarray(scores)
    if not len(values):
        return np.zeros(0, np.int64)
    return np.append(np.flatnonzero(values[1:] != values[:-1]), len(values) - 1)


def _by_row(
    outcomes: Outcomes,
    weights: FloatArray | None,
    ends: IntArray,
    statistic: Callable[[FloatArray, FloatArray, FloatArray], FloatArray],
) -> FloatArray:
    """`statistic` of what is found and what is false up to each of `ends` (B, m), and of the objects (B,).

    The highest precision at or behind a place is always that of a place where something is found, so the ends need not
    be all places.
    """
    if weights is None:
        outcomes = pooled(outcomes, np.zeros(len(outcomes.n_objects), np.int64))
    rows = np.ones((1, 1)) if weights is None else np.atleast_2d(weights)
    step = max(1, _BLOCK // max(1, len(ends)))
    values: list[FloatArray] = []
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        values.append(statistic(*_sums_up_to(outcomes, part, ends), part @ outcomes.n_objects))
    result = np.concatenate(values)
    return np.asarray(result[0] if weights is None else result)


def _sums_up_to(outcomes: Outcomes, rows: FloatArray, ends: IntArray) -> tuple[FloatArray, FloatArray]:
    """Weight of found and of false detections up to each of m ends, (B, m) both, from rows (B, U)."""
    n_units, counts = rows.shape[1], np.zeros((2, len(rows), len(ends)))
    segment = np.searchsorted(ends, np.arange(len(outcomes.scores)), side="left")
    step = max(1, _BLOCK // max(1, n_units))
    for start in range(0, len(ends), step):
        width = min(step, len(ends) - start)
        inside = slice(*np.searchsorted(segment, (start, start + width)))
        place = outcomes.unit[inside] * width + segment[inside] - start
        for kind in (0, 1):
            which = place[outcomes.found[inside] != bool(kind)]
            each = np.bincount(which, minlength=n_units * width).reshape(n_units, width)
            counts[kind, :, start : start + width] = rows @ each
    found, false = counts.cumsum(axis=2)
    return found, false


def _areas_under(found: FloatArray, false: FloatArray, total: FloatArray) -> FloatArray:
    gain = np.diff(found, prepend=0.0, axis=1)
    return divide((_envelope(found, false) * gain).sum(axis=1), total)


def _means_of_101(found: FloatArray, false: FloatArray, total: FloatArray) -> FloatArray:
    highest, recall = _envelope(found, false), divide(found, total[:, None])
    values = np.full(len(found), np.nan)
    for row in np.flatnonzero(total > 0):
        place = np.searchsorted(recall[row], COCO_RECALLS, side="left")
        values[row] = highest[row, place[place < recall.shape[1]]].sum() / len(COCO_RECALLS)
    return values


def _envelope(found: FloatArray, false: FloatArray) -> FloatArray:
    """The highest precision at each place (B, m) or behind it; 0 where nothing counts yet."""
    precision = np.nan_to_num(divide(found, found + false))
    return np.asarray(np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1])
