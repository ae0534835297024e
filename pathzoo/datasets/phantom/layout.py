"""Where the tissues of a phantom region lie: lesions apart from each other, normal ground, the tissue's edge."""

from collections.abc import Sequence

import cv2
import numpy as np

from pathzoo.datasets.noise_fields import smooth_noise
from pathzoo.datasets.phantom.tissue import Kind

#: Ground for one lesion, in square microns, where a region is large.
_LESION_GROUND = 1.1e5
_GAP_UM = 40.0  # stroma between the grounds of two lesions


def lay_out(
    rng: np.random.Generator, size: tuple[int, int], mpp: float, kinds: Sequence[Kind]
) -> tuple[list[tuple[Kind, np.ndarray]], np.ndarray]:
    """Where lesions lie: (kind, bool (H, W)) of each, apart from each other; and uint8 (H, W), 1 on normal ground."""
    width, height = size
    area = width * height * mpp**2
    count = max(len(kinds), min(8, round(area / _LESION_GROUND * rng.uniform(0.7, 1.3))))
    order = [*kinds, *(kinds[int(i)] for i in rng.integers(0, len(kinds), count - len(kinds)))]
    shares = rng.uniform(0.6, 1.4, count)
    radii = np.sqrt(shares / shares.sum() * rng.uniform(0.45, 0.65) * area / np.pi) / mpp  # pixels
    taken = np.zeros((height, width), np.uint8)
    gap = disc(_GAP_UM / mpp)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    centres: list[np.ndarray] = []
    lesions = []
    for kind, radius in zip(order, radii, strict=True):
        # The farthest of some candidates from what is there: lesions spread over the region.
        candidates = rng.uniform(0.1, 0.9, (10, 2)) * (width, height)
        away = [min((np.hypot(*(c - other)) for other in centres), default=0.0) for c in candidates]
        centre = candidates[int(np.argmax(away))]
        centres.append(centre)
        angle, stretch = rng.uniform(0, np.pi), np.sqrt(rng.uniform(1.0, 1.8))
        along = np.cos(angle) * (x - centre[0]) + np.sin(angle) * (y - centre[1])
        across = np.cos(angle) * (y - centre[1]) - np.sin(angle) * (x - centre[0])
        distance = np.hypot(along / stretch, across * stretch) / radius
        rough = smooth_noise(rng, (height, width), max(8.0, 0.55 * radius)) * np.float32(0.16)
        rough += smooth_noise(rng, (height, width), max(8.0, 0.2 * radius)) * np.float32(0.05)
        territory = (distance + rough < 1) & (taken == 0)
        lesions.append((kind, territory))
        taken |= cv2.dilate(territory.astype(np.uint8), gap)
    covered = np.any([territory for _, territory in lesions], axis=0)
    return lesions, (~covered).astype(np.uint8)


def tissue_edge(rng: np.random.Generator, size: tuple[int, int], mpp: float) -> np.ndarray:
    """float32 (H, W): 1 in tissue, 0 on glass, rising over a few microns along an edge that cuts off a part."""
    width, height = size
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    reach = 0.5 * (abs(np.cos(angle)) * width + abs(np.sin(angle)) * height)
    side = np.cos(angle) * (x - width / 2) + np.sin(angle) * (y - height / 2)
    side += smooth_noise(rng, (height, width), 60 / mpp) * np.float32(9 / mpp)
    side += smooth_noise(rng, (height, width), max(8.0, 14 / mpp)) * np.float32(2.5 / mpp)
    return np.clip((reach * rng.uniform(0.55, 0.85) - side) * np.float32(mpp / 6) + np.float32(0.5), 0, 1)


def disc(radius: float) -> np.ndarray:
    """A structuring element of that many pixels."""
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * max(1, round(radius)) + 1,) * 2)
