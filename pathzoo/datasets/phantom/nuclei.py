"""Nuclei: banks of haematoxylin stamps drawn once and set down many times."""

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class NucleusKind:
    """What the nuclei of one kind of cell look like. Lengths in microns.

    Attributes:
        diameter: mean diameter (geometric mean of the two axes).
        size_spread: standard deviation of the logarithm of the diameter (anisonucleosis).
        elongation: mean ratio of the axes, >= 1.
        irregularity: uneven outline, 0 is a smooth ellipse.
        chromatin: contrast of the grain inside, 0 is even.
        intensity: mean amount of haematoxylin, 1 is a well stained nucleus.
        intensity_spread: standard deviation of its logarithm (hyperchromasia).
        nucleolus: chance of a dark nucleolus.
    """

    diameter: float
    size_spread: float = 0.06
    elongation: float = 1.15
    irregularity: float = 0.02
    chromatin: float = 0.15
    intensity: float = 1.0
    intensity_spread: float = 0.08
    nucleolus: float = 0.0


LYMPHOCYTE = NucleusKind(5.2, 0.06, 1.08, 0.02, 0.10, 1.35, 0.08)
FIBROBLAST = NucleusKind(4.6, 0.14, 4.2, 0.05, 0.15, 1.0, 0.18)


class NucleusBank:
    """Stamps of one kind of nucleus at one resolution.

    Args:
        rng: source of the draws.
        kind: what they look like.
        mpp: microns per pixel.
        count: number of different nuclei; their long axes point evenly over half a turn.

    Attributes:
        areas: float (count,), area of each nucleus in square microns.
    """

    def __init__(self, rng: np.random.Generator, kind: NucleusKind, mpp: float, count: int = 64):
        diameter = kind.diameter * np.exp(np.clip(rng.normal(0, kind.size_spread, count), -0.9, 0.75))
        elongation = 1 + (kind.elongation - 1) * rng.uniform(0.6, 1.4, count)
        self.angles = (np.arange(count) + rng.uniform(0, 1, count)) * np.pi / count
        self.areas = np.pi / 4 * diameter**2
        radius = diameter / (2 * mpp)
        self.stamps = [
            self._stamp(rng, kind, radius[i], elongation[i], self.angles[i]).astype(np.float32) for i in range(count)
        ]

    def __len__(self) -> int:
        return len(self.stamps)

    @staticmethod
    def _stamp(rng: np.random.Generator, kind: NucleusKind, radius: float, ratio: float, angle: float) -> np.ndarray:
        half = int(np.ceil(radius * np.sqrt(ratio) * (1 + 2.5 * kind.irregularity) + 1))
        y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float32)
        along, across = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
        along, across = along / np.sqrt(ratio), across * np.sqrt(ratio)
        rho, phi = np.hypot(along, across), np.arctan2(across, along)
        edge = np.full_like(rho, radius)
        for order in (2, 3, 5):
            amount = radius * kind.irregularity * rng.normal(0, 3 / (1 + order))
            edge += np.float32(amount) * np.cos(order * phi + rng.uniform(0, 2 * np.pi))
        inside = np.clip((edge - rho) / max(0.9, 0.14 * radius) + 0.5, 0, 1)
        # Chromatin gathers at the membrane and in clumps; both blur away at low magnification by themselves.
        rim = np.clip(rho / np.maximum(edge, 1e-3), 0, 1) ** 4
        grid = rng.standard_normal((7, 7)).astype(np.float32)
        grain = cv2.resize(grid, (x.shape[1], x.shape[0]), interpolation=cv2.INTER_CUBIC)
        amount = 1 + kind.chromatin * (0.8 * grain + 1.4 * (rim - 0.35))
        if rng.random() < kind.nucleolus:
            offset = rng.uniform(-0.3, 0.3, 2) * radius
            spot = np.hypot(x - offset[0], y - offset[1]) / max(0.6, 0.20 * radius)
            amount += 0.7 * np.exp(-(spot**2))
        intensity = kind.intensity * np.exp(rng.normal(0, kind.intensity_spread))
        return np.clip(amount, 0.35, 2.0) * inside * intensity

    def nearest(self, angle: np.ndarray) -> np.ndarray:
        """Indices of the stamps whose long axes lie along `angle` (radians)."""
        return np.floor((np.asarray(angle) % np.pi) * len(self) / np.pi).astype(int) % len(self)

    def put(self, canvas: np.ndarray, x: np.ndarray, y: np.ndarray, index: np.ndarray) -> float:
        """Sets nuclei down on the haematoxylin canvas.

        Where nuclei overlap the darker one counts: a section is about as thin as one nucleus.

        Args:
            canvas: float32 (H, W), changed in place.
            x, y: (n,) centres in pixels; those outside are cut at the border.
            index: (n,) which stamps.

        Returns:
            The sum of their areas in square microns, of those whose centre lies on the canvas.
        """
        height, width = canvas.shape
        area = 0.0
        for column, row, i in zip(np.rint(x).astype(int), np.rint(y).astype(int), index, strict=True):
            stamp = self.stamps[i]
            half = stamp.shape[0] // 2
            top, left = row - half, column - half
            bottom, right = row + half + 1, column + half + 1
            if bottom <= 0 or right <= 0 or top >= height or left >= width:
                continue
            y0, x0, y1, x1 = max(top, 0), max(left, 0), min(bottom, height), min(right, width)
            window = canvas[y0:y1, x0:x1]
            np.maximum(window, stamp[y0 - top : y1 - top, x0 - left : x1 - left], out=window)
            if 0 <= row < height and 0 <= column < width:
                area += self.areas[i]
        return area
