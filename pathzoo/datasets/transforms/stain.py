"""H&E colour jitter in the space of the stains instead of red, green and blue."""

from typing import Any

import cv2
import numpy as np
from albumentations.core.transforms_interface import ImageOnlyTransform

from pathzoo.errors import ConfigError

#: Absorption of haematoxylin, eosin and a third stain (DAB), rows over (R, G, B): Ruifrok and Johnston 2001.
RUIFROK = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))

# Optical density of each grey value; 0 counts as 1, which keeps the round trip within one grey level.
_DENSITY = (-np.log(np.maximum(np.arange(256), 1) / 255)).astype(np.float32)
# How much tissue a pixel is, by its mean grey value: 0 on glass (240 and up), 1 in tissue (210 and below).
_TISSUE = np.clip((240 - np.arange(256)) / 30, 0, 1).astype(np.float32)


def jitter_stains(
    image: np.ndarray,
    alpha: np.ndarray | tuple[float, ...],
    beta: np.ndarray | tuple[float, ...] = (0.0, 0.0, 0.0),
    vectors: Any = RUIFROK,
) -> np.ndarray:
    """Scales and shifts the amount of each stain: s' = alpha s + beta.

    The amounts are those of Ruifrok and Johnston 2001 (optical density times the inverse of the stains' matrix), the
    jitter that of Tellez et al. 2018. Both steps and the way back are linear in optical density, so one product with
    a 3x3 matrix does all. Unlike there, beta fades out on glass, which stays white.

    Args:
        image: RGB uint8 (H, W, 3).
        alpha: (3,) factor on each stain, 1 keeps it.
        beta: (3,) amount added to each stain in tissue, in natural-log optical density; 0 adds none.
        vectors: (3, 3) absorption of each stain over (R, G, B), one stain a row.

    Returns:
        RGB uint8 (H, W, 3). At alpha 1 and beta 0 within one grey level of `image`.
    """
    stains = np.asarray(vectors, np.float64)
    matrix = np.linalg.inv(stains) @ np.diag(np.asarray(alpha, np.float64)) @ stains
    # All signs are turned round, so that what comes out is the logarithm of the light.
    light = cv2.transform(cv2.LUT(image, _DENSITY), -matrix.T.astype(np.float32))
    shift = np.asarray(beta, np.float64) @ stains
    if shift.any():
        grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        faded = (_TISSUE[:, None] * -shift).astype(np.float32)  # (256, 3), by grey value
        cv2.add(light, cv2.LUT(grey, faded[:, None]), dst=light)
    return cv2.convertScaleAbs(cv2.exp(light, dst=light), alpha=255.0)


class StainJitter(ImageOnlyTransform):
    """Jitters the amounts of haematoxylin, eosin and the rest (`jitter_stains`); for use inside `Albumentations`.

    Args:
        alpha: each stain is scaled by a draw from 1 - alpha .. 1 + alpha; 0 keeps it. Tellez et al. 2018 call 0.05
            light and 0.2 strong.
        beta: each stain gains a draw from -beta .. beta, in natural-log optical density.
        p: probability of being applied.

    Raises:
        ConfigError: alpha outside 0..1, or beta below 0.
    """

    def __init__(self, alpha: float = 0.15, beta: float = 0.04, p: float = 0.5):
        super().__init__(p=p)
        if not 0 <= alpha < 1 or not beta >= 0:
            raise ConfigError(f"StainJitter(alpha={alpha}, beta={beta}): needs 0 <= alpha < 1 and beta >= 0")
        self.alpha, self.beta = alpha, beta

    def get_params(self) -> dict[str, Any]:
        """Draws the factor and the shift of each stain."""
        return {
            "stain_alpha": 1 + self.alpha * self.random_generator.uniform(-1, 1, 3),
            "stain_beta": self.beta * self.random_generator.uniform(-1, 1, 3),
        }

    def apply(self, img: np.ndarray, stain_alpha: np.ndarray, stain_beta: np.ndarray, **params: Any) -> np.ndarray:
        """Applies a draw to RGB uint8 (H, W, 3)."""
        return jitter_stains(img, stain_alpha, stain_beta)

    def get_transform_init_args_names(self) -> tuple[str, ...]:
        """The arguments by which the transform prints and serialises itself."""
        return ("alpha", "beta")
