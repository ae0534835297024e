"""All numbers of a classifier on one set, each with its n and its interval over patients."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from pathzoo.errors import DataError
from pathzoo.evaluation.functional import calibration, classification, ranking
from pathzoo.evaluation.functional.bootstrap import bootstrap_replicates, cluster_index
from pathzoo.evaluation.functional.classification import FloatArray, IntArray
from pathzoo.evaluation.functional.rows import Row, make_row

_Statistic = Callable[[FloatArray], FloatArray]  # weights (R, N) -> (R, K)

_PATIENT_METRICS = ("accuracy", "balanced_accuracy", "roc_auc")


def classification_report(
    probs: ArrayLike,
    labels: ArrayLike,
    patients: Sequence[str | None] | None,
    slides: Sequence[str | None] | None,
    classes: Sequence[str],
    positive: int = 1,
    n_bootstrap: int = 1000,
    seed: int = 0,
    level: str = "image",
) -> list[Row]:
    """Every metric of a classifier, from its probabilities.

    At `level`: accuracy, balanced_accuracy, sensitivity, specificity, f1, roc_auc, average_precision (of the positive
    class with two classes; else means over the classes that have images, one against the rest), ece, nll, brier.
    At levels patient and slide: recognition_rate, over the known ones. At level patient, if each has one label:
    accuracy, balanced_accuracy, roc_auc of the mean of a patient's probabilities.

    Args:
        probs: class probabilities (N, C), C >= 2, rows summing to 1. The largest decides; the first one if tied.
        labels: class indices (N,) in 0..C-1.
        patients: patient of each image, None where unknown; None for all unknown, and then there is no interval.
        slides: slide of each image; slide rows are left out where no slide is known.
        classes: C names, for the notes.
        positive: index of the positive class; used with two classes only.
        n_bootstrap: resamples of patients for the intervals; 0 for none.
        seed: of the resampling.
        level: what one image is: "image" or "tile".

    Returns:
        Rows in the order above, ready for JSON: no NaN.

    Raises:
        DataError: nothing to evaluate, shapes that differ, labels or probabilities out of range.
    """
    matrix, truth = check_predictions(probs, labels, classes)
    who = [None] * len(truth) if patients is None else list(patients)
    where = [None] * len(truth) if slides is None else list(slides)
    for name, values in (("patients", who), ("slides", where)):
        if len(values) != len(truth):
            raise DataError(f"{len(values)} {name} for {len(truth)} predictions: give one for each, None where unknown")
    if len(classes) == 2 and positive not in (0, 1):
        raise DataError(f"positive class {positive} of two: give 0 or 1")
    doubt = {"n_bootstrap": n_bootstrap, "seed": seed}

    metrics = _Metrics(matrix, truth, classes, positive)
    rows = _rows(metrics.names, metrics, level, len(truth), who, metrics.notes, **doubt)
    correct = matrix.argmax(axis=1) == truth
    rows += _recognition_rows("patient", correct, who, who, **doubt)
    if any(slide is not None for slide in where):
        rows += _recognition_rows("slide", correct, where, who, **doubt)
    return rows + _patient_rows(matrix, truth, who, classes, positive, **doubt)


def check_predictions(
    probs: ArrayLike, labels: ArrayLike, classes: Sequence[str], items: Sequence[str] | None = None
) -> tuple[FloatArray, IntArray]:
    """The same as arrays, float64 (N, C) and int64 (N,), once they are known to be usable.

    Raises:
        DataError: it names the first bad image, by `items` where given.
    """
    matrix, truth = np.asarray(probs, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    if truth.size == 0:
        raise DataError("no predictions to evaluate: the test set is empty")
    if len(classes) < 2 or matrix.shape != (truth.size, len(classes)) or truth.ndim != 1:
        raise DataError(
            f"probabilities {matrix.shape} and labels {truth.shape} do not fit {len(classes)} classes: "
            "give (N, C) and (N,) with C >= 2"
        )
    bad_label = (truth < 0) | (truth >= len(classes))
    with np.errstate(invalid="ignore"):
        total = matrix.sum(axis=1)
        bad_probs = ~((np.abs(total - 1) < 1e-3) & (matrix >= -1e-6).all(axis=1))  # also true for NaN
    for bad, what, remedy in (
        (bad_label, "label {label}", f"labels must lie in 0..{len(classes) - 1}"),
        (bad_probs, "probabilities that sum to {total:.4g}", "give softmax output, without NaN"),
    ):
        if bad.any():
            first = int(bad.argmax())
            name = f"prediction {first}" if items is None else str(items[first])
            raise DataError(f"{name}: {what.format(label=truth[first], total=total[first])}; {remedy}")
    return matrix, truth


class _Metrics:
    """Weights (R, N) -> (R, K), K the metrics at image level in the order of `names`."""

    def __init__(self, probs: FloatArray, labels: IntArray, classes: Sequence[str], positive: int):
        self.probs, self.labels, self.positive = probs, labels, positive
        self.predicted = probs.argmax(axis=1)
        self.present = np.isin(np.arange(len(classes)), labels)
        self.names = tuple(self._values(np.ones((1, len(labels)))))
        self.notes = self._absence_notes(classes)

    def __call__(self, weights: FloatArray) -> FloatArray:
        return np.stack(list(self._values(weights).values()), axis=-1)

    def _values(self, weights: FloatArray) -> dict[str, FloatArray]:
        confusion = classification.confusion_matrix(self.labels, self.predicted, self.probs.shape[1], weights)
        correct = self.predicted == self.labels
        return {
            "accuracy": classification.accuracy(confusion),
            "balanced_accuracy": classification.balanced_accuracy(confusion, self.present),
            "sensitivity": classification.sensitivity(confusion, self.positive, self.present),
            "specificity": classification.specificity(confusion, self.positive, self.present),
            "f1": classification.f1(confusion, self.positive, self.present),
            "roc_auc": self._ranking(ranking.roc_auc, weights),
            "average_precision": self._ranking(ranking.average_precision, weights),
            "ece": calibration.expected_calibration_error(
                calibration.top_confidence(self.probs), correct, weights=weights
            ),
            "nll": calibration.negative_log_likelihood(self.probs, self.labels, weights),
            "brier": calibration.brier_score(self.probs, self.labels, weights),
        }

    def _ranking(
        self, metric: Callable[[ArrayLike, ArrayLike, FloatArray | None], FloatArray], weights: FloatArray
    ) -> FloatArray:
        if self.probs.shape[1] == 2:
            return metric(self.probs[:, self.positive], self.labels == self.positive, weights)
        return ranking.one_vs_rest(metric, self.probs, self.labels, weights, self.present)

    def _absence_notes(self, classes: Sequence[str]) -> dict[str, str]:
        absent = [name for name, there in zip(classes, self.present, strict=True) if not there]
        if not absent:
            return {}
        note = f"no image of class {', '.join(absent)}"
        if self.present.sum() >= 2:
            note += ": mean over the other classes"
        averaged = ("balanced_accuracy", "sensitivity", "specificity", "f1", "roc_auc", "average_precision")
        return dict.fromkeys(averaged, note)


def _recognition_rows(
    level: str,
    correct: FloatArray,
    groups: Sequence[str | None],
    patients: Sequence[str | None],
    n_bootstrap: int,
    seed: int,
) -> list[Row]:
    known = [index for index, group in enumerate(groups) if group is not None]
    if not known:
        return [make_row("recognition_rate", level, 0, np.nan, notes=[f"no known {level}"])]
    group, right = [groups[index] for index in known], correct[known]
    left_out = len(groups) - len(known)
    note = f"{left_out} images without a known {level} are left out" if left_out else ""
    return _rows(
        ("recognition_rate",),
        lambda weights: classification.recognition_rate(right, group, weights)[:, None],
        level,
        len(set(group)),
        [patients[index] for index in known],
        {"recognition_rate": note},
        n_bootstrap,
        seed,
    )


def _patient_rows(
    probs: FloatArray,
    labels: IntArray,
    patients: Sequence[str | None],
    classes: Sequence[str],
    positive: int,
    n_bootstrap: int,
    seed: int,
) -> list[Row]:
    names = sorted({patient for patient in patients if patient is not None})
    if not names:
        return [make_row("accuracy", "patient", 0, np.nan, notes=["no known patient"])]
    known = [index for index, patient in enumerate(patients) if patient is not None]
    mean_probs, n_labels = _by_patient(probs[known], labels[known], [patients[index] for index in known])
    n_mixed = int(((n_labels > 0).sum(axis=1) > 1).sum())
    if n_mixed:
        return [make_row("accuracy", "patient", len(names), np.nan, notes=[f"{n_mixed} patients have several labels"])]
    metrics = _Metrics(mean_probs, n_labels.argmax(axis=1), classes, positive)
    chosen = [metrics.names.index(name) for name in _PATIENT_METRICS]
    left_out = len(patients) - len(known)
    remark = f"{left_out} images without a known patient are left out" if left_out else ""
    return _rows(
        _PATIENT_METRICS,
        lambda weights: metrics(weights)[:, chosen],
        "patient",
        len(names),
        names,
        {name: "; ".join(filter(None, (metrics.notes.get(name), remark))) for name in _PATIENT_METRICS},
        n_bootstrap,
        seed,
    )


def _by_patient(probs: FloatArray, labels: IntArray, patients: Sequence[str | None]) -> tuple[FloatArray, FloatArray]:
    """Mean probabilities (P, C) and number of images of each label (P, C), patients in sorted order."""
    _, index = np.unique(np.array(patients, dtype=str), return_inverse=True)
    total = np.zeros((index.max() + 1, probs.shape[1]))
    n_labels = np.zeros_like(total)
    np.add.at(total, index, probs)
    np.add.at(n_labels, (index, labels), 1)
    return total / n_labels.sum(axis=1, keepdims=True), n_labels


def _rows(
    names: Sequence[str],
    statistic: _Statistic,
    level: str,
    n: int,
    patients: Sequence[str | None],
    notes: dict[str, str],
    n_bootstrap: int,
    seed: int,
) -> list[Row]:
    """One row for each of the K metrics that `statistic` gives; `patients` has one entry for each of its weights."""
    values = statistic(np.ones((1, len(patients))))[0]
    clusters = cluster_index(patients) if n_bootstrap else None
    replicates = None if clusters is None else bootstrap_replicates(statistic, clusters, n_bootstrap, seed)
    doubt = "no interval: fewer than two known patients" if n_bootstrap and clusters is None else ""
    unknown = sum(patient is None for patient in patients)
    if clusters is not None and unknown:
        doubt = f"{unknown} images without a known patient are resampled as one group"
    return [
        make_row(
            name, level, n, values[k], None if replicates is None else replicates[:, k], [notes.get(name, ""), doubt]
        )
        for k, name in enumerate(names)
    ]
