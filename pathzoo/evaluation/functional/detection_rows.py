"""All numbers of a detector on one set, each with its n and its interval over patients."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from pathzoo.errors import DataError
from pathzoo.evaluation.functional.bootstrap import bootstrap_replicates, cluster_index
from pathzoo.evaluation.functional.classification import FloatArray
from pathzoo.evaluation.functional.detection import (
    ConfidenceCurve,
    Outcomes,
    at_recall,
    average_precision_101,
    average_precision_area,
    best_f1,
    highest_recall,
    operate,
    outcomes_at,
    pooled,
)
from pathzoo.evaluation.functional.detection_matching import Picture, match_pictures
from pathzoo.evaluation.functional.froc import CAMELYON_RATES, sensitivity_at
from pathzoo.evaluation.functional.rows import Row, make_row

#: COCO's ten least overlaps, and how many detections of a picture and class it takes.
COCO_OVERLAPS = tuple(np.linspace(0.5, 0.95, 10).tolist())
COCO_DETECTIONS = 100

_SHORTER = {"f1_at_best_f1": "best_f1", "threshold_at_given_threshold": "given_threshold"}

#: Outcomes of U pictures, or groups of them, and weights (R, U) -> (R, K); (K,) without weights.
_Statistic = Callable[[Sequence[Outcomes], FloatArray | None], FloatArray]


class Point(NamedTuple):
    """A threshold to work at. `name` is "best_f1", "target_recall" or "given_threshold"."""

    name: str
    #: None where there is none; `note` then says why.
    threshold: float | None
    note: str


class Resampling:
    """Which of U pictures are drawn together for intervals: those of a patient, where no patient is known of a slide.

    Args:
        patients: patient of each picture, None where unknown; None for all unknown.
        slides: slide of each picture, likewise.
        n_replicates: resamples; 0 for no intervals.
        seed: of the resampling.
    """

    def __init__(
        self,
        patients: Sequence[str | None] | None,
        slides: Sequence[str | None] | None,
        n_replicates: int = 1000,
        seed: int = 0,
    ):
        who, where = list(patients or []), list(slides or [])
        self.n_replicates, self.seed, self.note, self.by = n_replicates, seed, "", "patient"
        self.clusters = cluster_index(who) if n_replicates else None
        unknown = sum(patient is None for patient in who)
        if n_replicates and self.clusters is None and unknown == len(who):
            self.clusters, self.by = cluster_index(where), "slide"
            self.note = "no patient is known: the interval is over slides, and too narrow if some are of one patient"
        elif n_replicates and unknown:
            self.note = f"{unknown} pictures without a known patient are resampled as one group"
        if n_replicates and self.clusters is None:
            self.note = "no interval: fewer than two known patients, or slides where no patient is known"

    def rows(
        self,
        names: Sequence[str],
        level: str,
        outcomes: Sequence[Outcomes],
        statistic: _Statistic,
        notes: Sequence[str] = (),
    ) -> list[Row]:
        """A row for each of the K values of `statistic`, whose outcomes are all of the same U pictures."""
        n, values, replicates = len(outcomes[0].n_objects), statistic(outcomes, None), None
        if self.clusters is not None:
            groups = [pooled(each, self.clusters) for each in outcomes]
            which = np.arange(int(self.clusters.max()) + 1)
            replicates = bootstrap_replicates(partial(statistic, groups), which, self.n_replicates, self.seed)
        remarks = [*notes, self.note]
        return [
            make_row(name, level, n, float(values[k]), None if replicates is None else replicates[:, k], remarks)
            for k, name in enumerate(names)
        ]


def coco_report(pictures: Sequence[Picture], classes: Sequence[str], resampling: Resampling, level: str) -> list[Row]:
    """COCO's numbers (Lin et al., 2014): ap, ap50, ap75, ar100, and with several classes ap_CLASS of each.

    ap is the mean over COCO's ten least overlaps and the classes that have objects; ar100 that of the recall of a
    picture's 100 surest detections of each class.

    Args:
        pictures: U tiles or slides.
        classes: C names.
        resampling: what is drawn together.
        level: "tile" or "slide".
    """
    matches = match_pictures(pictures, len(classes), COCO_OVERLAPS, COCO_DETECTIONS)
    present = [k for k, match in enumerate(matches) if match.n_objects.sum()]
    names = ["ap", "ap50", "ap75", "ar100"]
    names += [f"ap_{classes[k]}" for k in present] if len(classes) > 1 else []
    absent = [name for k, name in enumerate(classes) if k not in present]
    notes = [f"no objects of class {', '.join(absent)}"] if absent else []

    outcomes = [outcomes_at([matches[k]], index) for k in present or [0] for index in range(len(COCO_OVERLAPS))]
    return resampling.rows(names, level, outcomes, _coco_values, notes)


def detection_report(
    outcomes: Outcomes,
    level: str,
    resampling: Resampling,
    points: Sequence[Point] = (),
    notes: Sequence[str] = (),
) -> list[Row]:
    """Numbers at one least overlap: average_precision, highest_recall, and what each of `points` gives.

    The rows of a point are threshold, precision, recall, f1 and false_positives_per_LEVEL, each followed by
    `_at_POINT`, but for best_f1 and given_threshold themselves. Intervals are those of the threshold as it stands.

    Args:
        outcomes: of U tiles or slides.
        level: "tile" or "slide".
        resampling: what is drawn together.
        points: see `choose_points`.
        notes: for every row.
    """
    rows = resampling.rows(("average_precision", "highest_recall"), level, [outcomes], _whole, notes)
    for point in points:
        rows += _point_rows(outcomes, level, resampling, point, notes)
    return rows


def froc_report(
    outcomes: Outcomes,
    resampling: Resampling,
    rates: Sequence[float] = CAMELYON_RATES,
    unit: str = "slide",
    notes: Sequence[str] = (),
) -> list[Row]:
    """Sensitivity at `rates` of false detections per `unit`, and `froc`, their mean.

    Args:
        outcomes: of U slides; `exposure` says by what false detections are counted.
        resampling: what is drawn together.
        rates: r false detections per unit.
        unit: the name of that.
        notes: for every row.
    """
    names = [f"sensitivity_at_{rate:g}_fp_per_{unit}" for rate in rates] + ["froc"]

    def statistic(each: Sequence[Outcomes], weights: FloatArray | None) -> FloatArray:
        values = sensitivity_at(each[0], rates, weights)
        return np.concatenate([values, values.mean(axis=-1, keepdims=True)], axis=-1)

    return resampling.rows(names, "slide", [outcomes], statistic, notes)


def choose_points(
    curve: ConfidenceCurve,
    target_recall: float | None = None,
    threshold: float | None = None,
    n_objects: int | None = None,
) -> list[Point]:
    """The thresholds to work at: that of the best F1, the highest that reaches the target recall, and a given one.

    `n_objects` tells a set without objects from one without detections.

    Raises:
        DataError: a target recall that is not in 0..1.
    """
    chosen = "optimistic: its threshold was chosen on this very set"
    nothing = "there is no object to find" if n_objects == 0 else ""
    found = [_point("best_f1", curve, best_f1(curve), chosen, nothing or "no detection, or no object")]
    if target_recall is not None:
        if not 0 < target_recall <= 1:
            raise DataError(f"target recall {target_recall}: give a number above 0 and at most 1")
        highest = f"{curve.recall[-1]:.3f}" if len(curve.recall) else "0"
        missed = nothing or f"no threshold reaches recall {target_recall:g}: all detections together reach {highest}"
        reached = at_recall(curve, target_recall)
        found.append(_point("target_recall", curve, reached, f"recall of at least {target_recall:g}; {chosen}", missed))
    if threshold is not None:
        found.append(Point("given_threshold", float(threshold), ""))
    return found


def _point(name: str, curve: ConfidenceCurve, index: int | None, note: str, missing: str) -> Point:
    return Point(name, None, missing) if index is None else Point(name, float(curve.thresholds[index]), note)


def _point_rows(
    outcomes: Outcomes, level: str, resampling: Resampling, point: Point, notes: Sequence[str]
) -> list[Row]:
    what = ("precision", "recall", "f1", f"false_positives_per_{level}")
    names = [f"{name}_at_{point.name}" for name in ("threshold", *what)]
    names = [_SHORTER.get(name, name) for name in names]
    remarks, n, threshold = [*notes, point.note], len(outcomes.n_objects), point.threshold
    if threshold is None:
        return [make_row(name, level, n, np.nan, notes=remarks) for name in names]

    def statistic(each: Sequence[Outcomes], weights: FloatArray | None) -> FloatArray:
        return np.stack(operate(each[0], threshold, weights), axis=-1)

    first = make_row(names[0], level, n, threshold, notes=remarks)
    return [first, *resampling.rows(names[1:], level, [outcomes], statistic, remarks)]


def _whole(outcomes: Sequence[Outcomes], weights: FloatArray | None) -> FloatArray:
    """(..., 2): average precision and the recall of all detections."""
    return np.stack([average_precision_area(outcomes[0], weights), highest_recall(outcomes[0], weights)], axis=-1)


def _coco_values(outcomes: Sequence[Outcomes], weights: FloatArray | None) -> FloatArray:
    """(..., 4 + classes): ap, ap50, ap75, ar100, and ap of each class, whose outcomes are at each least overlap."""
    precision = np.stack([average_precision_101(each, weights) for each in outcomes], axis=-1)
    recall = np.stack([highest_recall(each, weights) for each in outcomes], axis=-1)
    precision = precision.reshape(*precision.shape[:-1], -1, len(COCO_OVERLAPS))
    whole = [precision.mean(axis=(-2, -1)), precision[..., 0].mean(axis=-1), precision[..., 5].mean(axis=-1)]
    whole.append(recall.mean(axis=-1))
    return np.concatenate([np.stack(whole, axis=-1), precision.mean(axis=-1)], axis=-1)
