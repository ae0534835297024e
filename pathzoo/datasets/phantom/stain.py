"""From amounts of dye to light: the optical-density model that every phantom is rendered with.

Light through a stained section follows the law of Beer and Lambert: each dye multiplies the light by exp(-amount x
absorption). Overlapping structures therefore add in optical density, never in grey values, as on a real slide.
"""

from dataclasses import dataclass

import numpy as np

from pathzoo.datasets.noise_fields import smooth_noise

# Absorption of haematoxylin and eosin in red, green and blue (unit vectors), close to published fits of H&E slides.
HAEMATOXYLIN = (0.60, 0.71, 0.37)
EOSIN = (0.17, 0.86, 0.48)


@dataclass(frozen=True)
class Stain:
    """How one laboratory's section takes the dyes and how its scanner sees them; one per patient.

    Attributes:
        haematoxylin, eosin: unit absorption vectors over (R, G, B).
        haematoxylin_gain, eosin_gain: factors on the amount of each dye, 1 is a middling section.
        white: colour of empty glass, (R, G, B) in 0..255.
    """

    haematoxylin: tuple[float, float, float] = HAEMATOXYLIN
    eosin: tuple[float, float, float] = EOSIN
    haematoxylin_gain: float = 1.0
    eosin_gain: float = 1.0
    white: tuple[float, float, float] = (243.0, 244.0, 243.0)


def draw_stain(rng: np.random.Generator) -> Stain:
    """Draws a patient's stain: hue, strength of each dye and colour of the glass, all independent of the diagnosis."""
    white = rng.uniform(228, 250) + rng.normal(0, 3.0, 3) + np.array([-1, 2, -1]) * abs(rng.normal(0, 3.0))
    return Stain(
        haematoxylin=_turned(HAEMATOXYLIN, rng, 0.045),
        eosin=_turned(EOSIN, rng, 0.06),
        haematoxylin_gain=float(np.exp(rng.normal(0, 0.20))),
        eosin_gain=float(np.exp(rng.normal(0, 0.28))),
        white=tuple(float(value) for value in np.clip(white, 205, 254)),
    )


def vary_stain(stain: Stain, rng: np.random.Generator) -> Stain:
    """The same section in another field of view: thickness and lamp differ by some percent."""
    return Stain(
        stain.haematoxylin,
        stain.eosin,
        stain.haematoxylin_gain * float(np.exp(rng.normal(0, 0.08))),
        stain.eosin_gain * float(np.exp(rng.normal(0, 0.10))),
        tuple(min(254.0, value * scale) for scale in [float(np.exp(rng.normal(0, 0.012)))] for value in stain.white),
    )


def render(
    haematoxylin: np.ndarray, eosin: np.ndarray, stain: Stain, rng: np.random.Generator, *, noise: float = 1.6
) -> np.ndarray:
    """Renders amounts of dye as a picture.

    Args:
        haematoxylin, eosin: float32 (H, W), amounts >= 0; 1 is the optical density of a well stained nucleus.
        stain: how the dyes absorb.
        rng: draws the uneven lamp and the camera's noise.
        noise: standard deviation of the camera's noise in grey values.

    Returns:
        RGB uint8 (H, W, 3).
    """
    height, width = haematoxylin.shape
    grain = rng.standard_normal((min(height, 512), min(width, 512)), dtype=np.float32) * noise
    grain = np.tile(grain, (-(-height // grain.shape[0]), -(-width // grain.shape[1])))[:height, :width]
    lamp = smooth_noise(rng, (height, width), max(height, width) / 2) * 0.015
    picture = np.empty((height, width, 3), np.uint8)
    for channel in range(3):
        density = haematoxylin * np.float32(-stain.haematoxylin_gain * stain.haematoxylin[channel])
        density -= eosin * np.float32(stain.eosin_gain * stain.eosin[channel])
        density += lamp
        light = np.exp(density, out=density)
        light *= np.float32(stain.white[channel])
        light += grain
        light += np.float32(0.5)
        picture[..., channel] = np.clip(light, 0, 255, out=light)
    return picture


def _turned(vector: tuple[float, float, float], rng: np.random.Generator, amount: float) -> tuple[float, float, float]:
    moved = np.maximum(np.array(vector) + rng.normal(0, amount, 3), 0.02)
    return tuple(float(value) for value in moved / np.linalg.norm(moved))
