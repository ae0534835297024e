"""A linear classifier on fixed vectors: what a representation tells of classes that a plane can part."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pathzoo.errors import DataError
from pathzoo.evaluation.functional.calibration import negative_log_likelihood
from pathzoo.evaluation.functional.classification import FloatArray
from pathzoo.evaluation.functional.knn import checked_vectors

#: scikit-learn's C, the inverse of the L2 penalty, weakest last.
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
_FOLDS, _MIDDLE = 5, 1.0

_Part = tuple[FloatArray, np.ndarray]


@dataclass(frozen=True)
class LinearProbe:
    """`probs` (M, C) of the queries; `strength`, scikit-learn's C; and in words what chose it."""

    probs: FloatArray
    strength: float
    chosen_by: str


def linear_probe(
    train: ArrayLike,
    labels: ArrayLike,
    queries: ArrayLike,
    n_classes: int,
    validation: tuple[ArrayLike, ArrayLike] | None = None,
    patients: Sequence[str | None] | None = None,
    strengths: Sequence[float] = STRENGTHS,
    seed: int = 0,
) -> LinearProbe:
    """Multinomial logistic regression with an L2 penalty, by scikit-learn, on standardised vectors.

    The penalty is the one with the smallest negative log-likelihood on `validation`, else in 5 folds of the training
    part, patients kept together (tiles apart, where fewer than two patients are known); the stronger one if tied. Mean
    and deviation of each number are the training part's.

    Args:
        train: Vectors (N, D).
        labels: Their classes (N,), two of them at least. One of 0..n_classes-1 that is missing gets the probability 0.
        queries: Vectors (M, D) to judge.
        n_classes: C.
        validation: Vectors and labels that choose the penalty; none of the final classifier's training.
        patients: Of each training vector, None where unknown (these are one group); None for all unknown.
        strengths: Values of scikit-learn's C to choose from.
        seed: Of the folds.

    Raises:
        DataError: Shapes, labels or values that do not fit; a single class.
    """
    known, truth, asked = checked_vectors(train, labels, queries, n_classes)
    present = np.unique(truth)
    if len(present) < 2:
        raise DataError(f"linear probe: the training part shows class {present[0]} alone; two at least are needed")
    if patients is not None and len(patients) != len(truth):
        raise DataError(f"linear probe: {len(patients)} patients for {len(truth)} vectors: give one for each")
    tried = sorted(strengths)
    if validation is not None:
        _, chosen_labels, chosen_vectors = checked_vectors(validation[0], validation[1], validation[0], n_classes)
        parts = [((known, truth), (chosen_vectors, chosen_labels))]
        by = "validation"
    else:
        parts, by = _folds(known, truth, patients, seed)
    strength = _choose(parts, tried, n_classes) if parts else _MIDDLE
    return LinearProbe(_fit_and_judge((known, truth), asked, strength, n_classes), strength, by)


def _choose(parts: Sequence[tuple[_Part, _Part]], strengths: Sequence[float], n_classes: int) -> float:
    """The penalty with the smallest mean loss; `strengths` rise: the first of equals is the stronger penalty."""
    losses = []
    for strength in strengths:
        each = [
            float(negative_log_likelihood(_fit_and_judge(fit, judged[0], strength, n_classes), judged[1]))
            for fit, judged in parts
        ]
        losses.append(float(np.mean(each)))
    return strengths[int(np.argmin(losses))]


def _folds(
    vectors: FloatArray, labels: np.ndarray, patients: Sequence[str | None] | None, seed: int
) -> tuple[list[tuple[_Part, _Part]], str]:
    """(to fit, to judge) of each fold whose part to fit shows two classes at least, and what the folds are of."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    names = ["" if patient is None else patient for patient in (patients or [None] * len(labels))]
    n_groups, counts = len(set(names)), np.unique(labels, return_counts=True)[1]
    splitter: Any
    if n_groups >= 2:
        n = min(_FOLDS, n_groups, int(counts.max()))
        by = f"{n} folds of patients"
    else:
        n = min(_FOLDS, int(counts.min()))
        by = f"{n} folds of tiles, patients unknown"
    if n < 2:
        return [], f"nothing: too few tiles to leave some out; C is {_MIDDLE:g}"
    splitter = StratifiedGroupKFold if n_groups >= 2 else StratifiedKFold
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that some class has fewer tiles than there are folds
        folds = list(splitter(n, shuffle=True, random_state=seed).split(vectors, labels, names))
    parts = [
        ((vectors[fit], labels[fit]), (vectors[out], labels[out]))
        for fit, out in folds
        if len(out) and len(np.unique(labels[fit])) > 1
    ]
    return parts, by if parts else f"nothing: each fold would show one class; C is {_MIDDLE:g}"


def _fit_and_judge(part: _Part, queries: FloatArray, strength: float, n_classes: int) -> FloatArray:
    from sklearn.linear_model import LogisticRegression

    vectors, labels = part
    mean, deviation = vectors.mean(axis=0), vectors.std(axis=0)
    deviation[deviation < 1e-12] = 1.0  # a number that never changes tells nothing; it must not become infinite
    model = LogisticRegression(C=strength, max_iter=2000)
    model.fit((vectors - mean) / deviation, labels)
    probs = np.zeros((len(queries), n_classes))
    if len(queries):
        probs[:, model.classes_] = model.predict_proba((queries - mean) / deviation)
    return probs
