"""How well two label maps agree: counts of pixels by true and predicted class, and what follows from them.

Letters: C classes, `...` any leading axes (patches, regions, patients, bootstrap replicates). Counts are (..., C, C),
rows the true class, columns the predicted one. All values are fractions in 0..1; what cannot be computed is NaN, never
0 or 1.

A class *occurs* where it has a pixel in truth or prediction. Means over classes are taken over those that occur: a
class that is in neither says nothing about the model, and would count as 0/0. One that is predicted but not there
counts with 0.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from pathzoo.errors import DataError
from pathzoo.evaluation.functional.classification import BoolArray, FloatArray, IntArray, divide

#: Values that a label map can hold: it is an 8-bit picture.
N_VALUES = 256

#: What `mean_values` gives, in its order.
MEANS = ("miou", "miou_micro", "f1", "f1_micro", "accuracy")

#: Pixels counted at once: what they take stays in the processor's cache.
_BLOCK = 1 << 16


def confusion_counts(truth: ArrayLike, prediction: ArrayLike, n_classes: int, ignore_index: int = 255) -> IntArray:
    """Counts pixels by true class (row) and predicted class (column): one bincount over a joint code.

    Args:
        truth: integers of any shape; class indices 0..C-1, or `ignore_index` for a pixel that counts nowhere.
        prediction: integers of the same shape; class indices 0..C-1 everywhere.
        n_classes: C.
        ignore_index: 0..255, no class.

    Returns:
        int64 (C, C).

    Raises:
        DataError: shapes differ, or a value is no class; it names the value.
    """
    true, guess = np.asarray(truth), np.asarray(prediction)
    if true.shape != guess.shape:
        raise DataError(f"truth of shape {true.shape} and prediction of shape {guess.shape}: give maps of one size")
    if true.dtype.kind not in "iub" or guess.dtype.kind not in "iub":
        raise DataError(f"label maps of type {true.dtype} and {guess.dtype}: give integers")
    true, guess = true.reshape(-1), guess.reshape(-1)
    if guess.size:
        check_values("truth", int(true.min()), int(true.max()), N_VALUES)
        check_values("prediction", int(guess.min()), int(guess.max()), n_classes)
    codes = np.zeros(N_VALUES * n_classes, dtype=np.int64)
    for start in range(0, true.size, _BLOCK):
        part = slice(start, start + _BLOCK)
        code = true[part].astype(np.intp) * n_classes + guess[part]
        codes += np.bincount(code, minlength=codes.size)
    return class_counts(codes.reshape(N_VALUES, n_classes), ignore_index)


def check_values(name: str, lowest: int, highest: int, n_values: int) -> None:
    """Raises DataError where the values of a map do not lie in 0..n_values-1."""
    if lowest < 0 or highest >= n_values:
        bad = lowest if lowest < 0 else highest
        raise DataError(f"{name} holds the value {bad}: values must lie in 0..{n_values - 1}")


def class_counts(counts: IntArray, ignore_index: int = 255) -> IntArray:
    """The classes' part (C, C) of counts by value of the truth (256, C).

    Raises:
        DataError: the truth holds a value that is neither a class nor `ignore_index`.
    """
    n_classes = counts.shape[1]
    used = np.flatnonzero(counts.any(axis=1))
    foreign = used[(used >= n_classes) & (used != ignore_index)]
    if foreign.size:
        raise DataError(
            f"truth holds the value {foreign[0]} ({int(counts[foreign[0]].sum())} pixels), which is none of the "
            f"{n_classes} classes nor ignore_index {ignore_index}; map it by value_map"
        )
    return counts[:n_classes]


def occurs(counts: ArrayLike) -> BoolArray:
    """Whether each class has a pixel in truth or prediction: (..., C, C) -> (..., C)."""
    matrix = np.asarray(counts)
    return np.asarray((matrix.sum(axis=-1) + matrix.sum(axis=-2)) > 0)


def iou(counts: ArrayLike) -> FloatArray:
    """|P and G| / |P or G| of each class (Jaccard index): (..., C, C) -> (..., C); NaN for one that does not occur."""
    hit, false, missed = _parts(counts)
    return divide(hit, hit + false + missed)


def f1(counts: ArrayLike) -> FloatArray:
    """Harmonic mean of precision and recall of each class (the Dice index): (..., C, C) -> (..., C).

    2 TP / (2 TP + FP + FN), so that a class that occurs but is never hit scores 0; NaN for one that does not occur.
    """
    hit, false, missed = _parts(counts)
    return divide(2 * hit, 2 * hit + false + missed)


def precision(counts: ArrayLike) -> FloatArray:
    """Share of the pixels given to each class that are its own: (..., C, C) -> (..., C); NaN if it is given none."""
    hit, false, _ = _parts(counts)
    return divide(hit, hit + false)


def recall(counts: ArrayLike) -> FloatArray:
    """Share of each class's pixels that are found: (..., C, C) -> (..., C); NaN if it has none."""
    hit, _, missed = _parts(counts)
    return divide(hit, hit + missed)


def accuracy(counts: ArrayLike) -> FloatArray:
    """(TP + TN) / (TP + FN + TN + FP) of each class against the rest: (..., C, C) -> (..., C); NaN without pixels.

    A wrong pixel is wrong for two classes and right for all others: the mean over C classes is 1 - 2/C of the share
    of wrong pixels, so it is no less than `pixel_accuracy`, and the more so the more classes there are. Every class has
    the same denominator; thus macro and micro mean over the same classes are one.
    """
    _, false, missed = _parts(counts)
    total = np.asarray(counts, dtype=np.float64).sum(axis=(-2, -1))[..., None]
    return divide(total - false - missed, total)


def pixel_accuracy(counts: ArrayLike) -> FloatArray:
    """Share of pixels on the diagonal: (..., C, C) -> (...). It equals the micro F1."""
    matrix = np.asarray(counts, dtype=np.float64)
    return divide(np.trace(matrix, axis1=-2, axis2=-1), matrix.sum(axis=(-2, -1)))


def micro_iou(counts: ArrayLike) -> FloatArray:
    """IoU of the counts of all classes against the rest, added up: (..., C, C) -> (...)."""
    hit, false, missed = (part.sum(axis=-1) for part in _parts(counts))
    return divide(hit, hit + false + missed)


def micro_f1(counts: ArrayLike) -> FloatArray:
    """F1 of the counts of all classes against the rest, added up: (..., C, C) -> (...)."""
    hit, false, missed = (part.sum(axis=-1) for part in _parts(counts))
    return divide(2 * hit, 2 * hit + false + missed)


def macro(per_class: FloatArray, counts: ArrayLike, present: BoolArray | None = None) -> FloatArray:
    """Plain mean over classes: (..., C) -> (...).

    Args:
        per_class: the classes' values (..., C).
        counts: the counts (..., C, C) they come from.
        present: classes (C,) to average over; by default, in each matrix on its own, those that occur. The bootstrap
            gives the classes of the full set, so that a replicate without one of them is NaN, not another quantity.

    Returns:
        (...); NaN where no class occurs.
    """
    if present is not None:
        chosen = per_class[..., present]
        return divide(chosen.sum(axis=-1), chosen.shape[-1])
    there = occurs(counts)
    return divide(np.where(there, per_class, 0.0).sum(axis=-1), there.sum(axis=-1))


def mean_values(counts: ArrayLike, present: BoolArray | None = None) -> FloatArray:
    """The `MEANS` of counts: (..., C, C) -> (..., 5).

    `miou`, `f1` and `accuracy` are means over classes (`macro`; `present` as there), `miou_micro` and `f1_micro` come
    from the counts of all classes against the rest, added up (Lee, Park and Lee define the former and speak of the
    latter).
    """
    values = (
        macro(iou(counts), counts, present),
        micro_iou(counts),
        macro(f1(counts), counts, present),
        micro_f1(counts),
        macro(accuracy(counts), counts, present),
    )
    return np.stack(values, axis=-1)


def unit_names(classes: Sequence[str]) -> tuple[str, ...]:
    """Names of `unit_values`: the `MEANS`, then iou_CLASS of each class."""
    return (*MEANS, *(f"iou_{name}" for name in classes))


def unit_values(counts: ArrayLike) -> FloatArray:
    """What is averaged over patches, regions or patients: counts (..., C, C) of each -> (..., 5 + C)."""
    return np.concatenate([mean_values(counts), iou(counts)], axis=-1)


def _parts(counts: ArrayLike) -> tuple[FloatArray, FloatArray, FloatArray]:
    """True positives, false positives and false negatives of each class against the rest, each (..., C)."""
    matrix = np.asarray(counts, dtype=np.float64)
    hit = np.diagonal(matrix, axis1=-2, axis2=-1)
    return hit, matrix.sum(axis=-2) - hit, matrix.sum(axis=-1) - hit
