"""Doubt about a metric: the bootstrap over patients.

Images of one patient resemble each other, so the patient is what is drawn: with replacement, each with all images. A
replicate is a row of weights (how often each image counts), and a metric answers for many rows at once.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from pathzoo.evaluation.functional.classification import FloatArray, IntArray

#: A metric is undefined in replicates that drew no patient of some class. Beyond this share of them there is no
#: interval. With a single patient of a class at least a quarter of the replicates miss it ((1 - 1/n)^n >= 0.25), so a
#: class seen in one patient never gets one; two patients of a class stay below 0.14.
MAX_UNDEFINED = 0.2

#: Weights held at once; it bounds memory, not the result.
_BLOCK = 4_000_000


class Interval(NamedTuple):
    """Percentile interval `low`..`high`, and the share of replicates in which the metric was `undefined`.

    `low` and `high` are None where that share exceeds MAX_UNDEFINED.
    """

    low: float | None
    high: float | None
    undefined: float


def cluster_index(patients: Sequence[str | None]) -> IntArray | None:
    """Number (N,) of each image's patient for resampling, or None with fewer than two known patients.

    All images of unknown patient (None) form one further cluster: which of them belong together is not known, and
    drawing them one by one would claim certainty that is not there.
    """
    names = sorted({patient for patient in patients if patient is not None})
    if len(names) < 2:
        return None
    number = {name: index for index, name in enumerate(names)}
    return np.array([len(names) if patient is None else number[patient] for patient in patients], dtype=np.int64)


def resample_counts(n_clusters: int, n_replicates: int, seed: int) -> IntArray:
    """How often each cluster is drawn in each replicate: (n_replicates, n_clusters), rows summing to n_clusters."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(n_clusters, np.full(n_clusters, 1.0 / n_clusters), size=n_replicates)


def bootstrap_replicates(
    statistic: Callable[[FloatArray], ArrayLike], clusters: IntArray, n_replicates: int = 1000, seed: int = 0
) -> FloatArray:
    """The statistic's values over resampled patients.

    Args:
        statistic: takes weights (R, N), returns (R,) or (R, K) for K metrics of the same resamples; NaN = undefined.
        clusters: number of each image's patient (N,), from `cluster_index`.
        n_replicates: number of resamples in all; `statistic` gets them in blocks.
        seed: equal seeds draw the same patients, whatever the statistic.

    Returns:
        (n_replicates,) or (n_replicates, K).
    """
    counts = resample_counts(int(clusters.max()) + 1, n_replicates, seed)
    return np.concatenate([np.asarray(statistic(weights)) for weights in _blocks(counts, clusters)])


def percentile_interval(replicates: FloatArray, level: float = 0.95) -> Interval:
    """Percentile interval (Efron, 1979) of the defined (not NaN) values of `replicates` (R,).

    It is too narrow for few patients (under about 20), and of no width where every replicate agrees (all right). A
    metric that is biased with few images (the calibration error) is biased once more in the replicates, so that its
    interval can lie beside its value.
    """
    defined = replicates[~np.isnan(replicates)]
    undefined = 1.0 - len(defined) / len(replicates)
    if undefined > MAX_UNDEFINED:
        return Interval(None, None, undefined)
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), undefined)


def bootstrap_interval(
    statistic: Callable[[FloatArray], ArrayLike],
    patients: Sequence[str | None],
    n_replicates: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval | None:
    """Interval of one metric over resampled patients; None with fewer than two known patients.

    Example:
        `bootstrap_interval(lambda w: roc_auc(scores, is_positive, w), patients)`

    Args:
        statistic: takes weights (R, N), returns (R,); NaN = undefined.
        patients: each image's patient (N,), None where unknown.
        n_replicates: number of resamples; 1000 or more for a 95 % interval.
        seed: equal seeds draw the same patients.
        level: coverage aimed at, in 0..1.
    """
    clusters = cluster_index(patients)
    if clusters is None:
        return None
    return percentile_interval(bootstrap_replicates(statistic, clusters, n_replicates, seed), level)


def _blocks(counts: IntArray, clusters: IntArray) -> Iterator[FloatArray]:
    step = max(1, _BLOCK // len(clusters))
    for start in range(0, len(counts), step):
        yield counts[start : start + step][:, clusters].astype(np.float64)
