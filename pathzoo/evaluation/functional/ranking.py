"""Metrics and curves that depend on the order of the scores alone; no threshold is chosen.

Letters: N images, U distinct scores, `...` the leading axes of weights (see `classification`). NaN where images of
either kind are missing.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from pathzoo.evaluation.functional.classification import BoolArray, FloatArray, divide


class RocCurve(NamedTuple):
    """One point per distinct score, thresholds falling; the first point (0, 0) has the threshold infinity."""

    false_positive_rate: FloatArray
    true_positive_rate: FloatArray
    thresholds: FloatArray


class PrecisionRecallCurve(NamedTuple):
    """One point per distinct score, thresholds falling and recall rising. No point is invented at recall 0."""

    recall: FloatArray
    precision: FloatArray
    thresholds: FloatArray


def roc_auc(scores: ArrayLike, is_positive: ArrayLike, weights: FloatArray | None = None) -> FloatArray:
    """Chance that a positive image scores higher than a negative one, a tie counting half (Mann-Whitney U).

    Equals the area under the ROC curve (Hanley and McNeil, 1982).

    Args:
        scores: (N,), higher means more likely positive; any monotone scale.
        is_positive: (N,).
        weights: how often each image counts (..., N).

    Returns:
        (...) in 0..1; NaN where no positive or no negative image counts.
    """
    positive, negative, _ = _counts_by_score(scores, is_positive, weights)  # (..., U), scores falling
    total_negative = negative.sum(axis=-1)
    below = total_negative[..., None] - negative.cumsum(axis=-1)
    wins = (positive * (below + 0.5 * negative)).sum(axis=-1)
    return divide(wins, positive.sum(axis=-1) * total_negative)


def average_precision(scores: ArrayLike, is_positive: ArrayLike, weights: FloatArray | None = None) -> FloatArray:
    """Sum over falling thresholds of precision times the gain in recall (no interpolation).

    Arguments as `roc_auc`. A score without skill gets the share of positives, not 0.5. NaN where no positive counts,
    and also where no negative counts: precision would be 1 whatever the scores.
    """
    positive, negative, _ = _counts_by_score(scores, is_positive, weights)
    found = positive.cumsum(axis=-1)
    precision = np.nan_to_num(divide(found, found + negative.cumsum(axis=-1)))  # 0 before the first image that counts
    total = positive.sum(axis=-1)
    area = divide((precision * positive).sum(axis=-1), total)
    return np.where(negative.sum(axis=-1) > 0, area, np.nan)


def one_vs_rest(
    metric: Callable[[ArrayLike, ArrayLike, FloatArray | None], FloatArray],
    probs: FloatArray,
    labels: ArrayLike,
    weights: FloatArray | None = None,
    present: BoolArray | None = None,
) -> FloatArray:
    """Plain mean over classes of a binary metric, each class in turn against all others.

    Args:
        metric: `roc_auc` or `average_precision`.
        probs: class scores (N, C).
        labels: class indices (N,).
        weights: how often each image counts (..., N).
        present: classes (C,) to average over; by default those that occur in `labels`.

    Returns:
        (...); NaN where a class to average over has no image that counts, or there are fewer than two classes.
    """
    truth = np.asarray(labels)
    if present is None:
        present = np.isin(np.arange(probs.shape[1]), truth)
    if present.sum() < 2:
        return np.full(() if weights is None else weights.shape[:-1], np.nan)
    values = [metric(probs[:, k], truth == k, weights) for k in np.flatnonzero(present)]
    return np.asarray(np.mean(values, axis=0))


def roc_curve(scores: ArrayLike, is_positive: ArrayLike) -> RocCurve:
    """False and true positive rate at every distinct score (N,), "positive" meaning score >= threshold."""
    positive, negative, thresholds = _counts_by_score(scores, is_positive, None)
    false_rate = divide(negative.cumsum(), negative.sum())
    true_rate = divide(positive.cumsum(), positive.sum())
    start = np.zeros(1)
    return RocCurve(
        np.concatenate([start, false_rate]),
        np.concatenate([start, true_rate]),
        np.concatenate([start + np.inf, thresholds]),
    )


def precision_recall_curve(scores: ArrayLike, is_positive: ArrayLike) -> PrecisionRecallCurve:
    """Precision and recall at every distinct score (N,), "positive" meaning score >= threshold."""
    positive, negative, thresholds = _counts_by_score(scores, is_positive, None)
    found = positive.cumsum()
    return PrecisionRecallCurve(divide(found, positive.sum()), divide(found, found + negative.cumsum()), thresholds)


def _counts_by_score(
    scores: ArrayLike, is_positive: ArrayLike, weights: FloatArray | None
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Weight of positive and of negative images at each distinct score, falling: (..., U), (..., U), (U,)."""
    values, truth = np.asarray(scores), np.asarray(is_positive, dtype=bool)
    if values.shape != truth.shape or values.ndim != 1 or not values.size:
        raise ValueError(f"scores and is_positive must both be (N,) with N > 0, got {values.shape} and {truth.shape}")
    order = np.argsort(-values, kind="stable")
    values, truth = values[order], truth[order]
    starts = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))
    rows = np.ones(len(order)) if weights is None else np.asarray(weights, dtype=np.float64)[..., order]
    positive = np.add.reduceat(rows * truth, starts, axis=-1)
    everything = np.add.reduceat(rows, starts, axis=-1)
    return positive, everything - positive, values[starts].astype(np.float64)
