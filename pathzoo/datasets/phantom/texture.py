"""The wavy bundles of collagen that fill most of a breast section."""

import cv2
import numpy as np

from pathzoo.datasets.noise_fields import enlarged, smooth_noise

_PATCH = 384  # px of the repeating patch that fibres are cut from; it wraps at its borders


class Fibres:
    """Wavy collagen over a canvas: how dense it is, where it tears, and which way it runs.

    Args:
        rng: source of the draws.
        shape: (height, width) of the canvas in pixels.
        mpp: microns per pixel.
        waviness: bending of the bundles; 0 is straight.

    Attributes:
        density: float32 (height, width), mean about 0, spread about 1.
        clefts: float32 (height, width) in 0..1, 1 inside a tear between bundles.
    """

    def __init__(self, rng: np.random.Generator, shape: tuple[int, int], mpp: float, waviness: float = 1.0):
        self.mpp = mpp
        height, width = shape
        angle = rng.uniform(0, np.pi)
        # The bending is coarse, so it is drawn on a grid of 4 um and enlarged.
        step = max(1.0, 4.0 / mpp)
        rows, columns = max(2, int(height / step) + 2), max(2, int(width / step) + 2)
        y, x = np.mgrid[0:rows, 0:columns].astype(np.float32) * np.float32(step * mpp)
        along = np.float32(np.cos(angle)) * x + np.float32(np.sin(angle)) * y
        across = np.float32(-np.sin(angle)) * x + np.float32(np.cos(angle)) * y
        cell = step * mpp
        across += smooth_noise(rng, (rows, columns), 220 / cell) * np.float32(55 * waviness)
        across += smooth_noise(rng, (rows, columns), 60 / cell) * np.float32(9 * waviness)
        across += smooth_noise(rng, (rows, columns), 24 / cell) * np.float32(2.2 * waviness)
        across += smooth_noise(rng, (rows, columns), 11 / cell) * np.float32(1.3 * waviness)
        along += smooth_noise(rng, (rows, columns), 150 / cell) * np.float32(30)
        gradient_y, gradient_x = np.gradient(across)
        self._direction = np.arctan2(-gradient_x, gradient_y)  # fibres run along lines of equal `across`
        self._cell = cell
        bundles = _streaks(rng, ((0.65, 2.2, 22), (0.45, 5, 60), (0.5, 14, 160)))
        tears = _streaks(rng, ((0.7, 3.0, 50), (0.5, 4.5, 110)))
        map_x, map_y = (enlarged(grid, shape, step, cv2.INTER_LINEAR) for grid in (along, across))
        self.density = _cut(bundles, map_x, map_y)
        self.clefts = _cut(tears, map_x, map_y)
        self.clefts += smooth_noise(rng, shape, 130 / mpp) * np.float32(0.6)
        self.clefts -= np.float32(1.25)
        self.clefts *= np.float32(2.5)
        np.clip(self.clefts, 0, 1, out=self.clefts)

    def direction(self, x_um: np.ndarray, y_um: np.ndarray) -> np.ndarray:
        """Angle of the fibres in radians at the points (x_um, y_um), given in microns."""
        rows, columns = self._direction.shape
        row = np.clip((np.asarray(y_um) / self._cell).astype(int), 0, rows - 1)
        column = np.clip((np.asarray(x_um) / self._cell).astype(int), 0, columns - 1)
        return self._direction[row, column]


def _streaks(rng: np.random.Generator, parts: tuple[tuple[float, float, float], ...]) -> np.ndarray:
    """A patch of horizontal streaks at 1 um a pixel that wraps at its borders.

    Drawn in the frequency domain, where every patch wraps by itself and wide blurs cost nothing.

    Args:
        rng: source of the draws.
        parts: (weight, thickness, length) of each kind of streak, in microns; the weight is its standard deviation.
    """
    down, right = np.fft.fftfreq(_PATCH)[:, None], np.fft.rfftfreq(_PATCH)[None]
    spectrum = np.zeros((_PATCH, _PATCH // 2 + 1), np.float32)
    for weight, thickness, length in parts:
        blur = np.exp(-2 * np.pi**2 * ((thickness / 2.2 * down) ** 2 + (length / 4 * right) ** 2))
        blur[0, 0] = 0  # mean 0
        # Sum over all frequencies: those left out of a real transform count twice.
        power = 2 * np.sum(blur**2) - np.sum(blur[:, 0] ** 2) - np.sum(blur[:, -1] ** 2)
        spectrum += (weight * _PATCH / np.sqrt(power)) * blur.astype(np.float32)
    noise = np.fft.rfft2(rng.standard_normal((_PATCH, _PATCH), dtype=np.float32))
    return np.fft.irfft2(noise.astype(np.complex64) * spectrum, s=(_PATCH, _PATCH)).astype(np.float32)


def _cut(patch: np.ndarray, map_x: np.ndarray, map_y: np.ndarray) -> np.ndarray:
    return cv2.remap(patch, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
