"""Metrics that count right and wrong decisions; all but one are functions of the confusion matrix.

Letters: N images, C classes, `...` any leading axes. Weights of shape (..., N) say how often an image counts; given a
stack of them (one row per bootstrap replicate), every function answers for the whole stack at once. All values are
fractions in 0..1. What cannot be computed, because no image of a class counts, is NaN, never 0 or 1.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


def confusion_matrix(
    labels: ArrayLike, predicted: ArrayLike, n_classes: int, weights: FloatArray | None = None
) -> FloatArray:
    """Counts images by true class (row) and predicted class (column).

    Args:
        labels: true class indices (N,) in 0..n_classes-1.
        predicted: predicted class indices (N,) in 0..n_classes-1.
        n_classes: C.
        weights: how often each image counts (..., N); once each by default.

    Returns:
        (..., C, C) of summed weights.

    Raises:
        ValueError: shapes differ, or an index lies outside 0..n_classes-1.
    """
    truth, guess = np.asarray(labels, dtype=np.int64), np.asarray(predicted, dtype=np.int64)
    if truth.shape != guess.shape or truth.ndim != 1:
        raise ValueError(f"labels and predicted must both be (N,), got {truth.shape} and {guess.shape}")
    for name, indices in (("labels", truth), ("predicted", guess)):
        if indices.size and (indices.min() < 0 or indices.max() >= n_classes):
            raise ValueError(f"{name} must lie in 0..{n_classes - 1}, got {indices.min()}..{indices.max()}")
    cells = truth * n_classes + guess
    if weights is None:
        counts = np.bincount(cells, minlength=n_classes**2).astype(np.float64)
    else:
        counts = np.asarray(weights, dtype=np.float64) @ np.eye(n_classes**2)[cells]  # (..., N) @ (N, C*C)
    return counts.reshape(*counts.shape[:-1], n_classes, n_classes)


def accuracy(confusion: FloatArray) -> FloatArray:
    """Share of images on the diagonal: (..., C, C) -> (...)."""
    return divide(np.trace(confusion, axis1=-2, axis2=-1), confusion.sum(axis=(-2, -1)))


def recall_per_class(confusion: FloatArray) -> FloatArray:
    """Share of each class's images that are found: (..., C, C) -> (..., C); NaN for a class without images."""
    return divide(np.diagonal(confusion, axis1=-2, axis2=-1), confusion.sum(axis=-1))


def specificity_per_class(confusion: FloatArray) -> FloatArray:
    """Share of the other classes' images not taken for the class: (..., C, C) -> (..., C); NaN where no others."""
    true_positive = np.diagonal(confusion, axis1=-2, axis2=-1)
    others = confusion.sum(axis=(-2, -1))[..., None] - confusion.sum(axis=-1)
    false_positive = confusion.sum(axis=-2) - true_positive
    return divide(others - false_positive, others)


def f1_per_class(confusion: FloatArray) -> FloatArray:
    """2 TP / (2 TP + FP + FN) of each class: (..., C, C) -> (..., C); NaN for a class without images.

    A class that has images but neither finds nor claims any scores 0.
    """
    true_positive = np.diagonal(confusion, axis1=-2, axis2=-1)
    support = confusion.sum(axis=-1)
    score = divide(2 * true_positive, support + confusion.sum(axis=-2))
    return np.where(support > 0, score, np.nan)


def sensitivity(confusion: FloatArray, positive: int = 1, present: BoolArray | None = None) -> FloatArray:
    """Recall of the positive class (C = 2), or the mean over classes (C > 2; see `macro`): -> (...)."""
    return _positive_or_macro(recall_per_class(confusion), confusion, positive, present)


def specificity(confusion: FloatArray, positive: int = 1, present: BoolArray | None = None) -> FloatArray:
    """Specificity of the positive class (C = 2), or the one-vs-rest mean over classes (C > 2): -> (...)."""
    return _positive_or_macro(specificity_per_class(confusion), confusion, positive, present)


def f1(confusion: FloatArray, positive: int = 1, present: BoolArray | None = None) -> FloatArray:
    """F1 of the positive class (C = 2), or the mean over classes (C > 2; see `macro`): -> (...)."""
    return _positive_or_macro(f1_per_class(confusion), confusion, positive, present)


def balanced_accuracy(confusion: FloatArray, present: BoolArray | None = None) -> FloatArray:
    """Mean of the classes' recalls: -> (...). NaN where C = 2 and one of the two has no images."""
    recall = recall_per_class(confusion)
    return recall.mean(axis=-1) if recall.shape[-1] == 2 else macro(recall, confusion, present)


def macro(per_class: FloatArray, confusion: FloatArray, present: BoolArray | None = None) -> FloatArray:
    """Plain mean over the classes that have images: (..., C) -> (...).

    Args:
        per_class: the classes' values (..., C).
        confusion: the matrices (..., C, C) they come from.
        present: classes (C,) to average over; by default, in each matrix on its own, those with images. The bootstrap
            gives the classes of the full set, so that a replicate without one of them is NaN, not another quantity.

    Returns:
        (...); NaN where fewer than two classes have images, since nothing can then be told apart.
    """
    if present is not None:
        if present.sum() < 2:
            return np.full(per_class.shape[:-1], np.nan)
        return np.asarray(per_class[..., present].mean(axis=-1))
    counted = confusion.sum(axis=-1) > 0
    n_counted = counted.sum(axis=-1)
    mean = divide(np.where(counted, per_class, 0.0).sum(axis=-1), n_counted)
    return np.where(n_counted >= 2, mean, np.nan)


def recognition_rate(correct: ArrayLike, groups: Sequence[str | None], weights: FloatArray | None = None) -> FloatArray:
    """Mean over groups of the share of a group's images that are right.

    With patients as groups it is the patient recognition rate of Spanhol et al. (2016, IEEE TBME 63:1455). BreakHis'
    own 82 groups are slide folders, and fewer patients by the digits, so the grouping must be named beside the number.

    Args:
        correct: whether each image is right (N,).
        groups: each image's patient or slide (N,); images of None (unknown) are left out.
        weights: how often each image counts (..., N). A group counts as often as its images do on average: when a
            bootstrap draws a patient twice, the patient counts twice.

    Returns:
        (...) in 0..1; NaN where no group counts.
    """
    known = np.array([group is not None for group in groups], dtype=bool)
    _, index = np.unique(np.array([group for group in groups if group is not None], dtype=str), return_inverse=True)
    share = np.zeros(len(known))  # one image's part in its group
    share[known] = 1.0 / np.bincount(index)[index]
    rows = np.ones(len(known)) if weights is None else np.asarray(weights, dtype=np.float64)
    return divide(rows @ (share * np.asarray(correct, dtype=np.float64)), rows @ share)


def divide(numerator: ArrayLike, denominator: ArrayLike) -> FloatArray:
    """Element-wise quotient (broadcast); NaN, without a warning, where the denominator is 0."""
    top, bottom = np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    shape = np.broadcast_shapes(top.shape, bottom.shape)
    quotient = np.full(shape, np.nan)
    np.divide(top, bottom, out=quotient, where=bottom != 0)
    return quotient


def _positive_or_macro(
    per_class: FloatArray, confusion: FloatArray, positive: int, present: BoolArray | None
) -> FloatArray:
    if per_class.shape[-1] == 2:
        return np.asarray(per_class[..., positive])
    return macro(per_class, confusion, present)
