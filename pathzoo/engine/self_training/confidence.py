"""Confidence in one byte: the odds of the predicted class on a logarithmic scale.

A network that has trained for a while gives most pixels over 0.99, and `round(255 * p)` puts all of those into two or
three levels: no quantile can tell them apart, and a picture of them is white. Steps of equal log-odds are as fine as
that at 0.9 (0.006) and ever finer towards 1; the last level begins at 1 - 7e-6.
"""

import math

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

#: Number of levels.
LEVELS = 256
#: level = round(_STEPS * log(p / (1 - p)) + _EVEN), cut to 0..255; so 64 is p = 0.5.
_STEPS, _EVEN = 16, 64
#: For a file that says how its levels are to be read.
SCALE = f"level = round({_STEPS} * ln(p / (1 - p)) + {_EVEN}), cut to 0..{LEVELS - 1}"


def levels_of(probs: torch.Tensor) -> torch.Tensor:
    """Levels of probabilities: any shape, float in 0..1 and finite, to uint8 on the same device."""
    odds = torch.logit(probs.clamp(0, 1))  # -inf and inf at the ends
    return (odds * _STEPS + _EVEN).round().clamp(0, LEVELS - 1).to(torch.uint8)


def level_of(probability: float) -> int:
    """The level of one probability in 0..1."""
    if probability <= 0 or probability >= 1:
        return 0 if probability <= 0 else LEVELS - 1
    level = round(_STEPS * math.log(probability / (1 - probability)) + _EVEN)
    return min(max(level, 0), LEVELS - 1)


def probability_of(levels: ArrayLike) -> NDArray[np.float64]:
    """The probability in the middle of each level."""
    return 1 / (1 + np.exp((_EVEN - np.asarray(levels, np.float64)) / _STEPS))


def lowest_probability(level: int) -> float:
    """The least probability that has this level or a higher one."""
    return 0.0 if level <= 0 else float(probability_of(level - 0.5))
