"""Where a label and a model that was trained without it disagree: confident learning on label maps.

Follows Northcutt, Jiang and Chuang, "Confident learning: estimating uncertainty in dataset labels" (JAIR 2021): what
counts as a confident answer is asked of each class on its own, since a class that is hard gets lower probabilities
everywhere, rightly labelled or not. The probabilities must come from models that have not seen the region's patient
(cross-fitting): a model that was trained on a label repeats it.

Letters: R regions, C classes, H x W pixels. Labels are class indices; 255 (and whatever is no index) counts nowhere.
Probabilities are (C, H, W), float in 0..1 or uint8 in 0..255.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pathzoo.evaluation.functional.classification import FloatArray, IntArray, divide

#: A class that covers less of a region's labelled pixels gives it no flip score: a few pixels say nothing.
MIN_SHARE = 0.01
#: No class: neither a label nor a confident answer.
NONE = 255
#: Pixels worked on at once: what they take stays in the processor's cache.
_BLOCK = 1 << 16

LabelMap = npt.NDArray[np.uint8]
ProbMap = npt.NDArray[np.floating] | npt.NDArray[np.uint8]


class RegionTally(NamedTuple):
    """What a region's scores are computed from; tallies of parts of a region add up."""

    #: (C,) pixels labelled with each class.
    pixels: IntArray
    #: (C, C) probability of class j, summed over the pixels labelled i.
    sums: FloatArray


class RegionScores(NamedTuple):
    """How suspicious each region's labels are, (R,) each; NaN (-1 for classes) where nothing is labelled."""

    #: Mean probability of the label, 0..1; low is suspicious.
    self_confidence: FloatArray
    #: The same less what is usual for the labels' classes, -1..1; low is suspicious.
    adjusted_confidence: FloatArray
    #: Share of the labelled pixels that the model confidently gives to another class, 0..1.
    disagreement: FloatArray
    #: By how much a region's labels of two classes would fit the model better if exchanged, -2..2: of all pairs the one
    #: for which it is highest. Above 0 the exchange is likelier than what stands there.
    flip: FloatArray
    #: That pair: the class with more of the region's pixels, and the other.
    flip_from: IntArray
    flip_to: IntArray


def tally(labels: LabelMap, probs: ProbMap) -> RegionTally:
    """Counts a region or a part of it.

    Raises:
        ValueError: The shapes do not fit, or probabilities lie outside 0..1.
    """
    _check(labels, probs)
    classes = len(probs)
    pixels, sums = np.zeros(NONE + 1, np.int64), np.zeros((NONE + 1, classes))
    for given, values in _blocks(labels, probs):
        pixels += np.bincount(given, minlength=NONE + 1)
        for index in range(classes):
            sums[:, index] += np.bincount(given, weights=values[index], minlength=NONE + 1)
    return RegionTally(pixels[:classes], sums[:classes])


def class_thresholds(pixels: IntArray, sums: FloatArray) -> FloatArray:
    """Mean probability of each class over the pixels labelled with it: what is usual, and counts as confident.

    Args:
        pixels: (R, C) or (C,), of `tally`.
        sums: (R, C, C) or (C, C).

    Returns:
        (C,); NaN for a class without a labelled pixel: nothing is known of it.
    """
    own = np.diagonal(sums, axis1=-2, axis2=-1)
    classes = own.shape[-1]
    return divide(own.reshape(-1, classes).sum(axis=0), pixels.reshape(-1, classes).sum(axis=0))


def confident_classes(probs: ProbMap, thresholds: FloatArray) -> LabelMap:
    """The class that the model is confident of at each pixel: (C, H, W) -> (H, W) uint8.

    Of the classes whose probability is at least their threshold it is the most probable one; `NONE` where none is.
    """
    values = _as_float(probs)
    best = np.full(values.shape[1:], -np.inf, np.float32)
    found = np.full(values.shape[1:], NONE, np.uint8)
    for index, threshold in enumerate(thresholds):
        if np.isnan(threshold):
            continue
        better = (values[index] >= threshold) & (values[index] > best)
        np.copyto(best, values[index], where=better)
        np.copyto(found, np.uint8(index), where=better)
    return found


def confident_joint(labels: LabelMap, probs: ProbMap, thresholds: FloatArray) -> IntArray:
    """Pixels by label (row) and confident class (column): (C, C) int64; pixels without either do not count."""
    _check(labels, probs)
    classes = len(probs)
    counts = np.zeros((NONE + 1) ** 2, np.int64)
    for given, values in _blocks(labels, probs):
        code = given.astype(np.int64) * (NONE + 1) + confident_classes(values, thresholds)
        counts += np.bincount(code, minlength=len(counts))
    return counts.reshape(NONE + 1, NONE + 1)[:classes, :classes]


def margins(pixels: IntArray, sums: FloatArray, thresholds: FloatArray) -> FloatArray:
    """By how much what is labelled i looks more like class j than like i: (..., C), (..., C, C) -> (..., C, C).

    It is the mean over those pixels of (p_j - t_j) - (p_i - t_i), each probability taken relative to its class's
    threshold t. 0 on the diagonal; NaN where no pixel has the label, or nothing is known of a class.
    """
    means = divide(sums, pixels[..., None]) - thresholds
    own = np.diagonal(means, axis1=-2, axis2=-1)
    return means - own[..., None]


def flip_scores(
    pixels: IntArray,
    sums: FloatArray,
    thresholds: FloatArray,
    exchangeable: Sequence[int] | None = None,
    min_share: float = MIN_SHARE,
) -> tuple[FloatArray, IntArray, IntArray]:
    """How well an exchange of two classes over the whole region would explain what the model sees.

    For the classes i and j it is the mean, over the pixels labelled i or j, of the margin (see `margins`) of the other
    one. A region that is wrong as a whole, as when a lesion was taken for benign, has all its pixels against it; in one
    that is hard they differ.

    Args:
        pixels: (R, C), of `tally`.
        sums: (R, C, C), of `tally`.
        thresholds: (C,), over all regions.
        exchangeable: Classes that may be taken for each other; None for all. Without the background it is told apart
            what lesion is there from where it ends; the latter is uncertain everywhere, and hides the former.
        min_share: Part of a region's labelled pixels that a pair must cover.

    Returns:
        The highest value (R,), and its pair (R,) each, the class of more pixels first; NaN and -1 where no pair is.
    """
    among = range(pixels.shape[1]) if exchangeable is None else exchangeable
    of_pair = margins(pixels, sums, thresholds)
    weighted = np.nan_to_num(of_pair) * pixels[..., None]
    total = pixels.sum(axis=1)
    best = np.full(len(pixels), -np.inf)
    first, second = np.full(len(pixels), -1), np.full(len(pixels), -1)
    for i, j in itertools.combinations(among, 2):
        if np.isnan(thresholds[[i, j]]).any():
            continue
        covered = pixels[:, i] + pixels[:, j]
        value = np.where(
            covered >= np.maximum(min_share * total, 1), divide(weighted[:, i, j] + weighted[:, j, i], covered), -np.inf
        )
        better = value > best
        more = pixels[:, i] >= pixels[:, j]
        first = np.where(better, np.where(more, i, j), first)
        second = np.where(better, np.where(more, j, i), second)
        best = np.where(better, value, best)
    return np.where(first >= 0, best, np.nan), first, second


def score_regions(
    pixels: IntArray,
    sums: FloatArray,
    joint: IntArray,
    thresholds: FloatArray,
    exchangeable: Sequence[int] | None = None,
) -> RegionScores:
    """Scores of R regions.

    Args:
        pixels: (R, C), of `tally`.
        sums: (R, C, C), of `tally`.
        joint: (R, C, C), of `confident_joint`.
        thresholds: (C,), over all regions.
        exchangeable: As in `flip_scores`.
    """
    total = pixels.sum(axis=1)
    own = np.diagonal(sums, axis1=1, axis2=2).sum(axis=1)
    usual = pixels @ np.nan_to_num(thresholds)
    confident = joint.sum(axis=(1, 2)) - np.trace(joint, axis1=1, axis2=2)
    flips = flip_scores(pixels, sums, thresholds, exchangeable)
    return RegionScores(divide(own, total), divide(own - usual, total), divide(confident, total), *flips)


def ranking(suspicion: FloatArray) -> IntArray:
    """Indices (R,) from the most suspicious on; ties in their order, NaN last."""
    return np.argsort(-np.where(np.isnan(suspicion), -np.inf, suspicion), kind="stable")


def found_in_first(suspicion: FloatArray, wrong: npt.ArrayLike, share: float = 0.2) -> float:
    """Part of the regions whose labels are `wrong` (R,) that stand in the first `share` of the ranking.

    Chance gives `share`. NaN where none is wrong. The first `share` of R regions are ceil(share * R).
    """
    is_wrong = np.asarray(wrong, bool)
    first = ranking(suspicion)[: int(np.ceil(share * len(is_wrong) - 1e-9))]
    return float(divide(is_wrong[first].sum(), is_wrong.sum()))


def _check(labels: LabelMap, probs: ProbMap) -> None:
    if labels.dtype != np.uint8 or probs.ndim != labels.ndim + 1 or probs.shape[1:] != labels.shape:
        raise ValueError(f"labels {labels.dtype} {labels.shape} and probabilities {probs.shape} do not fit")
    if probs.dtype != np.uint8 and probs.size and not (probs.min() >= 0 and probs.max() <= 1 + 1e-3):
        raise ValueError(f"probabilities lie in {probs.min():g}..{probs.max():g}, expected 0..1")


def _blocks(labels: LabelMap, probs: ProbMap) -> Iterator[tuple[LabelMap, npt.NDArray[np.float32]]]:
    given, values = labels.reshape(-1), probs.reshape(len(probs), -1)
    for start in range(0, given.size, _BLOCK):
        yield given[start : start + _BLOCK], _as_float(values[:, start : start + _BLOCK])


def _as_float(probs: ProbMap) -> npt.NDArray[np.float32]:
    values = probs.astype(np.float32)
    if probs.dtype == np.uint8:
        values /= np.float32(255)
    return values
