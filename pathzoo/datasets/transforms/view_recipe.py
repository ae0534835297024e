"""What is drawn for a view of a tile: numpy and torch alike, so that one function serves pictures and batches."""

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pathzoo.errors import ConfigError, DataError

#: Numbers drawn for a view.
N_DRAWS = 17
#: The steps of the colour jitter after the stains, in order.
COLOUR = ("brightness", "contrast", "saturation")

#: Sets the draws apart from those of other transforms with the same sample seed.
VIEW_SALT = zlib.crc32(b"HistologyViews")


@dataclass(frozen=True)
class ViewRecipe:
    """What views are drawn from; the arguments of `HistologyViews`, which explains them.

    Raises:
        ConfigError: a value out of its range.
    """

    size: int
    zoom: tuple[float, float] = (0.8, 1.25)
    flips: bool = True
    turns: bool = True
    stain_alpha: float = 0.2
    stain_beta: float = 0.05
    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    jitter_p: float = 0.8
    blur_p: float = 0.5
    blur_sigma: tuple[float, float] = (0.1, 1.5)

    def __post_init__(self) -> None:
        # Below a half linear interpolation would leave out pixels; beyond two a nucleus would become something else.
        low, high = _pair("zoom", self.zoom)
        if not 0.5 <= low <= high <= 2:
            raise ConfigError(f"views: zoom {tuple(self.zoom)}; needs (low, high) with 0.5 <= low <= high <= 2")
        low, high = _pair("blur_sigma", self.blur_sigma)
        if not 0 < low <= high:
            raise ConfigError(f"views: blur_sigma {tuple(self.blur_sigma)}; needs (low, high) with 0 < low <= high")
        reach = blur_radius(high)
        if self.size <= reach:
            raise ConfigError(f"views: size {self.size}; needs over {reach} px, the reach of blur_sigma {high:g}")
        strengths = {name: getattr(self, name) for name in ("stain_alpha", "stain_beta", *COLOUR)}
        check_strengths("views", strengths, {"jitter_p": self.jitter_p, "blur_p": self.blur_p})

    @property
    def largest_crop(self) -> int:
        """Side in pixels of what the smallest zoom takes: pictures have to be that large."""
        return math.floor(self.size / self.zoom[0] + 0.5)

    def check_size(self, height: int, width: int, name: str) -> None:
        """Raises DataError for a picture that the largest crop does not fit in."""
        if min(height, width) < self.largest_crop:
            fits = math.floor(min(height, width) * self.zoom[0])
            zoom = ", zoom from 1 on" if self.size <= min(height, width) else ""
            raise DataError(
                f"{name}: {width} x {height} px is smaller than the largest crop, {self.largest_crop} px (size "
                f"{self.size} at zoom {self.zoom[0]:g}); give a size of at most {fits}{zoom}, or larger tiles"
            )


def view_draws(seed: int, n_views: int, stream: int = 0) -> np.ndarray:
    """What `view_parameters` maps, (n_views, N_DRAWS) in 0..1 (1 left out): by seed, view and stream alone."""
    return np.random.Generator(np.random.PCG64([int(seed), VIEW_SALT, stream])).random((n_views, N_DRAWS))


def view_parameters(recipe: ViewRecipe, drawn: Any, height: int, width: int) -> dict[str, Any]:
    """Maps numbers drawn evenly from 0..1 to what is done to make views.

    Args:
        recipe: what to draw from.
        drawn: (N, N_DRAWS), float64, an array or a tensor; what comes out is of the same kind.
        height, width: of the pictures, at least `recipe.largest_crop` each.

    Returns:
        side, left, top: (N,) whole numbers, pixels of the picture; the zoom's logarithm is drawn evenly, so that
        twice is as likely as half.
        mirrored: (N,) 1 where left and right are exchanged, before the turn.
        turn: (N,) 0..3 quarter turns, counter-clockwise.
        alpha, beta: (N, 3) of `jitter_stains`.
        brightness, contrast, saturation: (N,) factors.
        sigma: (N,) of the Gaussian blur, in pixels of the view; 0 for none.
    """
    low, high = recipe.zoom
    side = (recipe.size / (low * (high / low) ** drawn[:, 0]) + 0.5) // 1
    around = (2 * drawn[:, 6:15] - 1) * (drawn[:, 5:6] < recipe.jitter_p)
    softest, strongest = recipe.blur_sigma
    return {
        "side": side,
        "left": drawn[:, 1] * (width - side + 1) // 1,
        "top": drawn[:, 2] * (height - side + 1) // 1,
        "mirrored": 2 * drawn[:, 3] // 1 * recipe.flips,
        "turn": 4 * drawn[:, 4] // 1 * recipe.turns,
        "alpha": 1 + recipe.stain_alpha * around[:, 0:3],
        "beta": recipe.stain_beta * around[:, 3:6],
        **{name: 1 + getattr(recipe, name) * around[:, 6 + k] for k, name in enumerate(COLOUR)},
        "sigma": (drawn[:, 15] < recipe.blur_p) * (softest + (strongest - softest) * drawn[:, 16]),
    }


def blur_radius(sigma: float) -> int:
    """Pixels on each side of the middle one that a Gaussian blur takes in: three sigma, rounded up."""
    return math.ceil(3 * sigma)


def check_strengths(owner: str, strengths: Mapping[str, float], shares: Mapping[str, float]) -> None:
    """Refuses what is no strength, or no probability.

    Raises:
        ConfigError: `stain_beta` below 0, another strength outside 0..1 (1 left out), a share outside 0..1.
    """
    for name, value in strengths.items():
        if not value >= 0 or (name != "stain_beta" and not value < 1):
            raise ConfigError(f"{owner}: {name} {value}; needs {'0 or more' if name == 'stain_beta' else '0 <= x < 1'}")
    for name, value in shares.items():
        if not 0 <= value <= 1:
            raise ConfigError(f"{owner}: {name} {value}; needs a probability, 0..1")


def _pair(name: str, value: Any) -> tuple[float, float]:
    try:
        low, high = value
    except (TypeError, ValueError) as error:
        raise ConfigError(f"views: {name} {value!r}; needs two numbers, (low, high)") from error
    return low, high
