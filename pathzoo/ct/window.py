"""Hounsfield units -> the brightness that a window shows of them."""

import math

import numpy as np

from pathzoo.errors import ConfigError

#: HU by which a window may miss a known range: rounding of centre and width, far below what a scanner resolves.
SLACK = 1e-3


def within(inner: tuple[float, float], outer: tuple[float, float] | None) -> bool:
    """Whether (low, high) in HU lie within `outer`, but for `SLACK`; None holds all."""
    return outer is None or (outer[0] - SLACK <= inner[0] and inner[1] <= outer[1] + SLACK)


def window_range(centre: float, width: float) -> tuple[float, float]:
    """(low, high) in HU of a window: what is shown black and below, white and above.

    low = centre - width / 2 and high = centre + width / 2, the linear function "LINEAR_EXACT" of DICOM PS3.3,
    C.11.2.1.3.2.

    Raises:
        ConfigError: a width that is not above 0, a value that is not finite.
    """
    if not (math.isfinite(centre) and math.isfinite(width) and width > 0):
        raise ConfigError(f"window centre {centre!r}, width {width!r}: give HU, the width above 0, such as 0 and 400")
    return centre - width / 2, centre + width / 2


def window(hu: np.ndarray, centre: float, width: float) -> np.ndarray:
    """What a window shows of Hounsfield units.

    Args:
        hu: of any shape and real type.
        centre, width: of the window in HU.

    Returns:
        float32 of the same shape: 0 at `centre - width / 2` and below, 255 at `centre + width / 2` and above, linear
        and not rounded between.

    Raises:
        ConfigError: see `window_range`.
    """
    return window_between(hu, *window_range(centre, width))


def window_between(hu: np.ndarray, low: float, high: float) -> np.ndarray:
    """`window` by its ends in HU."""
    shown = np.asarray(hu, np.float32) - np.float32(low)
    shown *= np.float32(255 / (high - low))
    return np.clip(shown, 0, 255, out=shown)


def hounsfield_between(shown: np.ndarray, low: float, high: float) -> np.ndarray:
    """The way back from `window_between`, of any shape: float64 HU, not rounded; what the window cut off stays cut."""
    return low + np.asarray(shown, np.float64) / 255 * (high - low)
