"""How far probabilities can be taken at their word.

Letters: N images, C classes, M bins, `...` the leading axes of weights (see `classification`).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from pathzoo.evaluation.functional.classification import FloatArray, IntArray, divide

#: Bins of Guo et al. (2017).
N_BINS = 15


class ReliabilityCurve(NamedTuple):
    """Per bin of confidence: `edges` (M + 1,), `counts` (M,), mean `confidence` and `accuracy` (M,; NaN if empty)."""

    edges: FloatArray
    counts: FloatArray
    confidence: FloatArray
    accuracy: FloatArray


def top_confidence(probs: FloatArray) -> FloatArray:
    """Probability of the predicted class, the largest of each row: (N, C) -> (N,), in 1/C..1."""
    return np.asarray(np.asarray(probs, dtype=np.float64).max(axis=1))


def expected_calibration_error(
    confidence: ArrayLike, correct: ArrayLike, n_bins: int = N_BINS, weights: FloatArray | None = None
) -> FloatArray:
    """Mean gap between confidence and accuracy over bins of equal width, weighted by their images (Guo et al. 2017).

    It is biased upwards where bins hold few images: compare it only between sets of like size.

    Args:
        confidence: (N,) in 0..1; pathzoo reports that of the predicted class (`top_confidence`), also for two classes.
        correct: whether each prediction is right (N,).
        n_bins: M; bin m holds m/M < confidence <= (m+1)/M, and the first one also 0.
        weights: how often each image counts (..., N).

    Returns:
        (...) in 0..1; NaN where no image counts.
    """
    values = np.asarray(confidence, dtype=np.float64)
    members = np.eye(n_bins)[_bins(values, n_bins)]  # (N, M)
    gap = members * (np.asarray(correct, dtype=np.float64) - values)[:, None]
    rows = np.ones(len(values)) if weights is None else np.asarray(weights, dtype=np.float64)
    return divide(np.abs(rows @ gap).sum(axis=-1), rows.sum(axis=-1))


def reliability_curve(confidence: ArrayLike, correct: ArrayLike, n_bins: int = N_BINS) -> ReliabilityCurve:
    """Accuracy against mean confidence in bins of equal width; arguments as `expected_calibration_error`."""
    values = np.asarray(confidence, dtype=np.float64)
    index = _bins(values, n_bins)
    counts = np.bincount(index, minlength=n_bins).astype(np.float64)
    return ReliabilityCurve(
        edges=np.linspace(0.0, 1.0, n_bins + 1),
        counts=counts,
        confidence=divide(np.bincount(index, weights=values, minlength=n_bins), counts),
        accuracy=divide(np.bincount(index, weights=np.asarray(correct, dtype=float), minlength=n_bins), counts),
    )


def negative_log_likelihood(probs: FloatArray, labels: ArrayLike, weights: FloatArray | None = None) -> FloatArray:
    """Mean of -ln(probability of the true class), in nats: (N, C), (N,) -> (...).

    A probability of exactly 0 counts as the float64 rounding unit, 2.2e-16 (36 nats), so the mean stays finite.
    """
    truth = np.asarray(labels, dtype=np.int64)
    chosen = np.asarray(probs, dtype=np.float64)[np.arange(len(truth)), truth]
    return _weighted_mean(-np.log(np.maximum(chosen, np.finfo(np.float64).eps)), weights)


def brier_score(probs: FloatArray, labels: ArrayLike, weights: FloatArray | None = None) -> FloatArray:
    """Mean squared error of the probabilities (Brier, 1950): (N, C), (N,) -> (...).

    Two classes: (p - y)² of one of them, in 0..1, as is usual. More: summed over the classes, in 0..2.
    """
    values = np.asarray(probs, dtype=np.float64)
    squared = (values - np.eye(values.shape[1])[np.asarray(labels, dtype=np.int64)]) ** 2
    return _weighted_mean(squared[:, 1] if values.shape[1] == 2 else squared.sum(axis=1), weights)


def _bins(confidence: FloatArray, n_bins: int) -> IntArray:
    inner_edges = np.linspace(0.0, 1.0, n_bins + 1)[1:-1]
    return np.searchsorted(inner_edges, confidence, side="left").astype(np.int64)


def _weighted_mean(values: FloatArray, weights: FloatArray | None) -> FloatArray:
    if weights is None:
        return np.asarray(values.mean())
    rows = np.asarray(weights, dtype=np.float64)
    return divide(rows @ values, rows.sum(axis=-1))
