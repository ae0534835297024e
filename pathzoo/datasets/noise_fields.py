"""Seeded smooth noise: phantoms are textured by it, label noise bends outlines by it. numpy and OpenCV only."""

import cv2
import numpy as np


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], scale: float) -> np.ndarray:
    """Gaussian noise whose blobs are about `scale` pixels wide, also where the field is smaller than one blob.

    Args:
        rng: source of the draws.
        shape: (height, width) in pixels.
        scale: distance of the control points in pixels, >= 1.

    Returns:
        float32 (height, width), mean about 0, standard deviation about 1.
    """
    height, width = shape
    if scale < 32:
        grid = rng.standard_normal((int(height / scale) + 2, int(width / scale) + 2), dtype=np.float32)
        return enlarged(grid, shape, scale, cv2.INTER_CUBIC)
    # Few control points: cubic B-splines as two small matrix products have no kinks, which would fold the fibres.
    rows, columns = _spline(rng, height, scale), _spline(rng, width, scale)
    grid = rng.standard_normal((rows.shape[1], columns.shape[1]), dtype=np.float32)
    return rows @ grid @ columns.T


def enlarged(grid: np.ndarray, shape: tuple[int, int], scale: float, interpolation: int) -> np.ndarray:
    """`grid` (float32) enlarged `scale` times and cut to `shape` (height, width)."""
    height, width = shape
    size = (max(width, round(grid.shape[1] * scale)), max(height, round(grid.shape[0] * scale)))
    return np.ascontiguousarray(cv2.resize(grid, size, interpolation=interpolation)[:height, :width])


def _spline(rng: np.random.Generator, length: int, scale: float) -> np.ndarray:
    """Weights (length, knots) of uniform cubic B-splines, scaled so that noise keeps its standard deviation."""
    where = np.arange(length) / scale + rng.uniform()
    knots = np.arange(int(where[-1]) + 4)
    distance = np.abs(where[:, None] + 1 - knots[None])
    near = (4 - 6 * distance**2 + 3 * distance**3) / 6
    far = np.clip(2 - distance, 0, None) ** 3 / 6
    weights = np.where(distance < 1, near, far)
    return (weights / np.sqrt(151 / 315)).astype(np.float32)
