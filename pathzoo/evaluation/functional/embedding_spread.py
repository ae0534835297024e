"""Whether embeddings use the room they have, or have collapsed.

Letters: n embeddings, D dimensions. All but `unit_rows` take rows of length 1.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from pathzoo.evaluation.functional.classification import FloatArray

#: Rows of the matrix of distances that are held at once; it bounds memory, not the result.
_BLOCK = 1024


class EmbeddingSpread(NamedTuple):
    """What is told of one batch: n, D, and the four numbers; NaN where one is not defined."""

    n: int
    dimensions: int
    spread: float
    effective_rank: float
    alignment: float
    uniformity: float


def embedding_spread(first: ArrayLike, second: ArrayLike | None = None) -> EmbeddingSpread:
    """All four numbers of a batch.

    Args:
        first: embeddings (n, D) of any length.
        second: of other views of the same pictures, (n, D); None where there are none, and then alignment is NaN.

    Returns:
        Spread and effective rank are taken over all rows of both views, uniformity as the mean over the views.

    Raises:
        ValueError: shapes that differ or are not (n, D).
    """
    views = [unit_rows(view) for view in (first, second) if view is not None]
    rows = np.concatenate(views)
    return EmbeddingSpread(
        n=len(views[0]),
        dimensions=rows.shape[1],
        spread=spread(rows),
        effective_rank=effective_rank(rows - rows.mean(axis=0)),
        alignment=alignment(*views) if len(views) == 2 else float("nan"),
        uniformity=float(np.mean([uniformity(view) for view in views])),
    )


def unit_rows(embeddings: ArrayLike) -> FloatArray:
    """Rows scaled to length 1, in float64: (n, D) -> (n, D); rows of 0 stay 0.

    Raises:
        ValueError: not (n, D), or nothing in it.
    """
    rows = np.asarray(embeddings, dtype=np.float64)
    if rows.ndim != 2 or not rows.size:
        raise ValueError(f"embeddings of shape {rows.shape}; give (n, D)")
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1.0)


def spread(rows: ArrayLike) -> float:
    """The dimensions' standard deviations, averaged, times sqrt(D).

    0 where all are the same, 1 for the uniform distribution over the sphere, whose dimensions have a variance of 1/D
    each. Source: Chen and He, Exploring Simple Siamese Representation Learning, CVPR 2021, section 4.1.
    """
    values = np.asarray(rows, dtype=np.float64)
    return float(values.std(axis=0).mean() * np.sqrt(values.shape[1]))


def alignment(first: ArrayLike, second: ArrayLike) -> float:
    """Mean squared distance of the two views of a picture: 0 (the same) .. 4 (opposite); 2 for views at random.

    Source: Wang and Isola, Understanding Contrastive Representation Learning through Alignment and Uniformity on the
    Hypersphere, ICML 2020, with alpha = 2.

    Raises:
        ValueError: shapes that differ.
    """
    one, other = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if one.shape != other.shape:
        raise ValueError(f"views of shapes {one.shape} and {other.shape}; give two alike")
    return float(((one - other) ** 2).sum(axis=1).mean())


def uniformity(rows: ArrayLike) -> float:
    """log of the mean of exp(-2 |u - v|²) over all pairs of different rows: 0 (all the same) .. about -4.

    The uniform distribution over the sphere of D dimensions has the lowest value there is in expectation,
    log(0F1(; D / 2; 4)) - 4; n rows alone can stand further apart, down to -4 n / (n - 1). Source: Wang and Isola 2020
    (see `alignment`), with t = 2. NaN for a single row.
    """
    values = np.asarray(rows, dtype=np.float64)
    n = len(values)
    if n < 2:
        return float("nan")
    squares = (values**2).sum(axis=1)
    total = 0.0
    for start in range(0, n, _BLOCK):
        part = slice(start, start + _BLOCK)
        distances = squares[part, None] + squares[None] - 2 * values[part] @ values.T
        total += float(np.exp(-2 * np.maximum(distances, 0.0)).sum())
    # Each row stands at distance 0 from itself, and each pair was counted twice.
    return float(np.log(max(total - n, np.finfo(np.float64).tiny) / (n * (n - 1))))


def effective_rank(matrix: ArrayLike) -> float:
    """exp of the entropy of the singular values, taken as shares of their sum: 1..min(n, D), 0 for a matrix of 0.

    k equal singular values give k. Source: Roy and Vetterli, The effective rank: a measure of effective
    dimensionality, EUSIPCO 2007. NaN where the matrix holds NaN or infinity.
    """
    values = np.asarray(matrix, dtype=np.float64)
    if not np.isfinite(values).all():
        return float("nan")
    singular = np.linalg.svd(values, compute_uv=False)
    # What centring rows that are all the same leaves is rounding, and rounding has full rank.
    singular = singular[singular > 1e-12 * np.sqrt(len(values))]
    if not len(singular):
        return 0.0
    shares = singular / singular.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))
