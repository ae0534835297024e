"""The weighted vote of the nearest neighbours: what vectors tell of classes without any training."""

import numpy as np
from numpy.typing import ArrayLike

from pathzoo.errors import DataError
from pathzoo.evaluation.functional.classification import FloatArray

#: Of Wu et al. (2018) the temperature; their k is 200, for 1.3 million images.
K, TEMPERATURE = 20, 0.07


def knn_probs(
    train: ArrayLike,
    labels: ArrayLike,
    queries: ArrayLike,
    n_classes: int,
    k: int = K,
    temperature: float = TEMPERATURE,
    chunk: int = 1024,
) -> FloatArray:
    """Class probabilities by the k nearest training vectors (Wu et al., Instance Discrimination, 2018, section 3.4).

    A neighbour of cosine similarity s votes for its class with exp(s / temperature); votes are divided by their sum.

    Args:
        train: Vectors (N, D), N >= 1.
        labels: Their classes (N,), in 0..n_classes-1.
        queries: Vectors (M, D).
        n_classes: C.
        k: Neighbours that vote; all N where there are fewer. Which of several at exactly the distance of the k-th vote
            is not defined.
        temperature: Above 0; the smaller, the more the nearest decides.
        chunk: Queries whose similarities (chunk, N) are held at once; does not change the result.

    Returns:
        float64 (M, C), rows summing to 1. A vector of zeros has the similarity 0 to all.

    Raises:
        DataError: Shapes or labels that do not fit, values that are no numbers, k below 1, temperature not above 0.
    """
    known, truth, asked = checked_vectors(train, labels, queries, n_classes)
    if k < 1 or not temperature > 0:
        raise DataError(f"kNN: k is {k} and the temperature {temperature}; both must be above 0")
    if chunk < 1:
        raise DataError(f"kNN: chunk is {chunk}; it must be above 0")
    known, asked = _unit(known), _unit(asked)
    k = min(k, len(known))
    probs = np.empty((len(asked), n_classes))
    for first in range(0, len(asked), chunk):
        similarity = asked[first : first + chunk] @ known.T
        nearest = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
        close = np.take_along_axis(similarity, nearest, axis=1)
        votes = np.exp((close - close.max(axis=1, keepdims=True)) / temperature)  # the largest is 1: nothing overflows
        counted = np.zeros((len(close), n_classes))
        np.add.at(counted, (np.arange(len(close))[:, None], truth[nearest]), votes)
        probs[first : first + chunk] = counted / counted.sum(axis=1, keepdims=True)
    return probs


def checked_vectors(
    train: ArrayLike, labels: ArrayLike, queries: ArrayLike, n_classes: int
) -> tuple[FloatArray, np.ndarray, FloatArray]:
    """The three as arrays, float64 (N, D), int64 (N,) and float64 (M, D), once they are known to be usable.

    Raises:
        DataError: It says which is not.
    """
    known, asked = np.asarray(train, np.float64), np.asarray(queries, np.float64)
    truth = np.asarray(labels, np.int64)
    if known.ndim != 2 or asked.ndim != 2 or known.shape[1] != asked.shape[1] or truth.shape != known.shape[:1]:
        raise DataError(
            f"vectors {known.shape} with labels {truth.shape} and vectors {asked.shape} to judge do not fit: give "
            "(N, D), (N,) and (M, D)"
        )
    if not len(known):
        raise DataError("no vectors to learn from: the training set is empty")
    if truth.min() < 0 or truth.max() >= n_classes:
        raise DataError(f"labels {truth.min()}..{truth.max()} for {n_classes} classes: give 0..{n_classes - 1}")
    for name, values in (("training vectors", known), ("vectors to judge", asked)):
        bad = ~np.isfinite(values).all(axis=1)
        if bad.any():
            raise DataError(f"{name}: row {int(bad.argmax())} holds NaN or infinity; the network is unusable")
    return known, truth, asked


def _unit(vectors: FloatArray) -> FloatArray:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)
