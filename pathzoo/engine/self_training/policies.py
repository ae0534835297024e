"""Which pixels of a prediction are trusted: pure functions over class and confidence.

    "all"                                   every pixel, as in the study
    dict(type="fixed", threshold=0.9)       pixels whose class has at least this probability
    dict(type="quantile", keep=0.5)         of every class's pixels the most confident half

The quantile is taken for each class over all of the unlabelled part, so that a rare class, of which a network is less
sure, keeps the same share of its pixels as a common one (class-balanced self-training: Zou et al., ECCV 2018).
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathzoo.engine.self_training.confidence import LEVELS, level_of
from pathzoo.errors import ConfigError
from pathzoo.nearest import did_you_mean

#: The label of a pixel that is not trusted: mmseg's ignore index.
NOT_KEPT = 255
#: type -> its one number, which lies in (0, 1].
_NUMBERS = {"all": None, "fixed": "threshold", "quantile": "keep"}


def checked_policy(policy: str | Mapping[str, Any]) -> dict[str, Any]:
    """A policy as a plain dict with `type` and its number.

    Raises:
        ConfigError: an unknown type or key, a missing number, or one that is not above 0 and at most 1.
    """
    values = {"type": policy} if isinstance(policy, str) else dict(policy)
    kind = values.get("type")
    if kind not in _NUMBERS:
        raise ConfigError(f"policy type {kind!r}{did_you_mean(str(kind), _NUMBERS)}")
    number = _NUMBERS[kind]
    for key in values:
        if key not in ("type", number):
            raise ConfigError(f"policy {kind!r} takes no {key!r}{did_you_mean(key, [number] if number else [])}")
    if number is None:
        return {"type": kind}
    value = values.get(number)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= 1:
        raise ConfigError(f"policy {kind!r}: {number}={value!r}: give a number above 0 and at most 1")
    return {"type": kind, number: float(value)}


def lowest_levels(policy: Mapping[str, Any], histogram: NDArray[np.integer]) -> NDArray[np.int64]:
    """The lowest level of confidence that is kept, by class.

    Args:
        policy: of `checked_policy`.
        histogram: (C, 256) pixels by predicted class and level, over the whole unlabelled part.

    Returns:
        (C,) levels in 0..255. For the quantile it is the highest level that leaves at least the share `keep` of the
        class: pixels of one level are not told apart, so all of the lowest one stay, and a class that was predicted at
        all keeps a pixel. For a fixed threshold it is the threshold's own level: every pixel at or above the threshold
        is kept, and of those below it only what shares its level (at 0.9 down to 0.894).
    """
    counts = np.asarray(histogram, np.int64)
    if policy["type"] == "all":
        return np.zeros(len(counts), np.int64)
    if policy["type"] == "fixed":
        return np.full(len(counts), level_of(policy["threshold"]), np.int64)
    at_or_above = counts[:, ::-1].cumsum(axis=1)[:, ::-1]  # (C, 256), falls with the level
    # 0.1 * 30 is a little over 3 in floating point; no share is meant that finely.
    wanted = [math.ceil(policy["keep"] * total - 1e-9 * total) for total in at_or_above[:, 0].tolist()]
    enough = at_or_above >= np.maximum(wanted, 1)[:, None]
    return np.where(enough.any(axis=1), LEVELS - 1 - enough[:, ::-1].argmax(axis=1), 0)


def keep(predicted: NDArray[np.uint8], confidence: NDArray[np.uint8], lowest: NDArray[np.integer]) -> NDArray[np.uint8]:
    """The pseudo-label: the class where its confidence is at least that class's lowest level, elsewhere 255.

    Args:
        predicted: (H, W) class indices below C.
        confidence: (H, W) levels.
        lowest: (C,) of `lowest_levels`.
    """
    needed = np.asarray(lowest).astype(np.uint8)[predicted]
    return np.where(confidence >= needed, predicted, np.uint8(NOT_KEPT))
