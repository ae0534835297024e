"""Principal components of vectors: the directions in which they differ most (Pearson, 1901), by SVD."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pathzoo.wsi.types import Float32

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Principal:
    """`mean` (D,), `axes` (k, D) orthonormal rows, and `share` (k,) of the variance that each explains, 0..1."""

    mean: Float64
    axes: Float64
    share: Float64

    def project(self, vectors: Float32) -> Float64:
        """(N, D) -> (N, k)."""
        return np.asarray((vectors - self.mean) @ self.axes.T, np.float64)


def principal_components(vectors: Float32, k: int) -> Principal:
    """The first k components.

    Args:
        vectors: (N, D), N >= 1.
        k: How many; directions beyond min(N, D) are zero, with a share of 0.

    Returns:
        Components, largest variance first. Each axis is signed so that its largest entry is positive: the same vectors
        give the same pictures.
    """
    data = np.asarray(vectors, np.float64)
    mean = data.mean(axis=0)
    _, scale, rows = np.linalg.svd(data - mean, full_matrices=False)
    axes, share = np.zeros((k, data.shape[1])), np.zeros(k)
    n = min(k, len(rows))
    axes[:n] = rows[:n]
    total = float((scale**2).sum())
    if total > 0:
        share[:n] = scale[:n] ** 2 / total
    largest = np.abs(axes).argmax(axis=1)
    axes *= np.where(axes[np.arange(k), largest] < 0, -1, 1)[:, None]
    return Principal(mean, axes, share)
