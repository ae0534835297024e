"""Inconsistent labels on purpose: what happens to training, and to a review of labels, when annotators disagree.

    dict(flip=0.2, swap=("benign", "malignant"), boundary=8, seed=0)

Two mistakes that annotators make. `flip`: in this share of the regions two classes are taken for one another, in the
whole region. `boundary`: outlines are off by about this many pixels, in each region in one of three ways: bent hither
and thither, too wide, or too tight. Numpy and OpenCV only; the same seed and regions give the same labels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pathzoo.datasets.noise_fields import smooth_noise
from pathzoo.datasets.region_table import IGNORE
from pathzoo.datasets.split_schemes import rank
from pathzoo.errors import ConfigError
from pathzoo.fileio import write_json
from pathzoo.nearest import did_you_mean

#: How outlines are off.
SHIFTS = ("bent", "wide", "tight")
#: Outlines bend on a scale of this many times the shift, at least `_LEAST_BEND` pixels.
_BEND, _LEAST_BEND = 6, 24


@dataclass(frozen=True)
class LabelNoise:
    """What is to be made wrong.

    Args:
        flip: share of the regions in which the classes `swap` are exchanged, 0..1, of those that show either class.
        swap: the names of two classes.
        boundary: pixels by which outlines are off (root mean square where they are bent); 0 leaves them.
        seed: of all choices.

    Raises:
        ConfigError: a value out of bounds.
    """

    flip: float = 0.0
    swap: tuple[str, str] = ("benign", "malignant")
    boundary: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not _is_number(self.flip) or not 0 <= self.flip <= 1:
            raise ConfigError(f"label_noise: flip={self.flip!r}: give a share of the regions, 0 to 1")
        if not _is_number(self.boundary) or not self.boundary >= 0:
            raise ConfigError(f"label_noise: boundary={self.boundary!r}: give pixels, 0 or more")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            raise ConfigError(f"label_noise: seed={self.seed!r}: give a whole number")
        names = self.swap
        if not isinstance(names, Sequence) or isinstance(names, str) or len(names) != 2 or names[0] == names[1]:
            raise ConfigError(f"label_noise: swap={names!r}: give the names of two classes")
        object.__setattr__(self, "swap", tuple(names))

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "LabelNoise":
        """From a config's dict.

        Raises:
            ConfigError: an unknown key (the nearest is named), or a value out of bounds.
        """
        for key in values:
            if key not in cls.__dataclass_fields__:
                raise ConfigError(f"label_noise has no key {key!r}{did_you_mean(key, cls.__dataclass_fields__)}")
        return cls(**{key: values[key] for key in values})

    def indices(self, classes: Sequence[str]) -> tuple[int, int]:
        """The class indices of `swap`.

        Raises:
            ConfigError: a name that is no class.
        """
        for name in self.swap:
            if name not in classes:
                raise ConfigError(f"label_noise: swap={self.swap}: no class {name!r}{did_you_mean(name, classes)}")
        return classes.index(self.swap[0]), classes.index(self.swap[1])


@dataclass(frozen=True)
class RegionNoise:
    """What is made wrong in one region.

    Attributes:
        swapped: two class indices that are exchanged, or None.
        shift: how outlines are off, one of `SHIFTS`, or None.
        pixels: by how much.
        seed: of the bends.
    """

    swapped: tuple[int, int] | None = None
    shift: str | None = None
    pixels: float = 0.0
    seed: int = 0


def plan_noise(
    noise: LabelNoise, pixels: Mapping[str, Sequence[int]], classes: Sequence[str]
) -> dict[str, RegionNoise]:
    """What is made wrong in which region.

    Exactly the share `flip`, rounded to whole regions, of those that show either class: the ones whose items come first
    in an order drawn by the seed, so that those flipped at 10 % are flipped at 20 % too.

    Args:
        noise: what is asked for.
        pixels: item -> pixels of each class in its labels.
        classes: names.

    Raises:
        ConfigError: `swap` names no class.
    """
    pair = noise.indices(classes) if noise.flip else (0, 0)
    eligible = [item for item, counts in pixels.items() if counts[pair[0]] or counts[pair[1]]] if noise.flip else []
    drawn = sorted(eligible, key=lambda item: rank(noise.seed, f"flip {item}"))
    swapped = set(drawn[: int(noise.flip * len(drawn) + 0.5)])
    return {
        item: RegionNoise(
            swapped=pair if item in swapped else None,
            shift=SHIFTS[rank(noise.seed, f"shift {item}") % len(SHIFTS)] if noise.boundary else None,
            pixels=noise.boundary,
            seed=rank(noise.seed, f"bend {item}"),
        )
        for item in pixels
    }


def corrupt(labels: np.ndarray, noise: RegionNoise) -> np.ndarray:
    """The labels with the mistakes of `noise`.

    Args:
        labels: uint8 (H, W) class indices; 255 stays where and what it is.
        noise: one region's part of `plan_noise`.
    """
    if noise.shift == "bent":
        labels = bend_outlines(labels, noise.pixels, noise.seed)
    elif noise.shift is not None:
        labels = widen(labels, noise.pixels if noise.shift == "wide" else -noise.pixels)
    return labels if noise.swapped is None else swap_classes(labels, *noise.swapped)


def swap_classes(labels: np.ndarray, first: int, second: int) -> np.ndarray:
    """Exchanges two class indices in a uint8 map."""
    lookup = np.arange(256, dtype=np.uint8)
    lookup[[first, second]] = second, first
    return cv2.LUT(labels, lookup)


def bend_outlines(labels: np.ndarray, pixels: float, seed: int) -> np.ndarray:
    """Moves every outline to and fro by a smooth random displacement of `pixels` root mean square along its normal.

    A pixel takes the label of the place that the displacement points to; one that is ignored, or that an ignored place
    would be moved to, keeps its own.

    Args:
        labels: uint8 (H, W).
        pixels: above 0.
        seed: another seed, another bend.
    """
    height, width = labels.shape
    rng = np.random.default_rng([seed % 2**32, seed >> 32])
    scale = max(_LEAST_BEND, _BEND * pixels)
    x = np.arange(width, dtype=np.float32) + smooth_noise(rng, labels.shape, scale) * np.float32(pixels)
    y = np.arange(height, dtype=np.float32)[:, None] + smooth_noise(rng, labels.shape, scale) * np.float32(pixels)
    moved = cv2.remap(labels, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
    return np.where((labels == IGNORE) | (moved == IGNORE), labels, moved)


def widen(labels: np.ndarray, pixels: float) -> np.ndarray:
    """Widens all but the first class by `pixels` at the cost of the first, or tightens them by -`pixels`.

    A pixel that changes takes the class of the nearest pixel that it is widened from; 255 stays and gives nothing.

    Args:
        labels: uint8 (H, W), class 0 the background.
        pixels: above 0 widens, below 0 tightens.
    """
    background = labels == 0
    source = ~background & (labels != IGNORE) if pixels > 0 else background
    target = background if pixels > 0 else ~background & (labels != IGNORE)
    if not source.any() or not target.any():
        return labels
    # Distance of each pixel to the nearest of `source`, and which one that is.
    distance, nearest = cv2.distanceTransformWithLabels(
        (~source).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    value_of = np.zeros(int(nearest.max()) + 1, np.uint8)
    value_of[nearest[source]] = labels[source]
    return np.where(target & (distance <= abs(pixels)), value_of[nearest], labels)


def noise_rows(plan: Mapping[str, RegionNoise]) -> list[dict[str, Any]]:
    """A plan as rows: item, swapped (true or false), shift (bent, wide, tight or None)."""
    return [
        {"item": item, "swapped": noise.swapped is not None, "shift": noise.shift}
        for item, noise in sorted(plan.items())
    ]


def write_noise(path: str | Path, noise: LabelNoise, plan: Mapping[str, RegionNoise]) -> None:
    """Writes what was made wrong where as JSON, so that a review of the labels can be held against it."""
    asked = {"flip": noise.flip, "swap": list(noise.swap), "boundary": noise.boundary, "seed": noise.seed}
    write_json(path, {"format": 1, "label_noise": asked, "regions": noise_rows(plan)})


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
