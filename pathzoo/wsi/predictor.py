"""The seam between models and slides: pictures in, arrays out. wsi/ knows nothing else of a model.

Whatever wraps a network (see pathzoo.apis) or a rule implements `Predictor`.
"""

from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from pathzoo.wsi.stain import StainFit
from pathzoo.wsi.types import Float32, RGBBatch


@dataclass(frozen=True)
class InputSpec:
    """How a model wants to be fed.

    Args:
        tile_size: Width and height in pixels.
        mpp: Microns per pixel of the pictures it was trained on; None where unknown: it takes images, not slides.
        mpp_tolerance: How much finer (relative) than a slide `mpp` may be, the slide being read as it is.
        stain: The stain that its pictures have to have: a slide is fitted once by the same method and its tiles are
            transformed to this; None takes them as they are.
    """

    tile_size: tuple[int, int]
    mpp: float | None
    mpp_tolerance: float = 0.1
    stain: StainFit | None = None


@dataclass
class ClassProbs:
    """probs: (N, C) float32, each row in 0..1 and summing to 1."""

    probs: Float32


@dataclass
class SegProbs:
    """probs: (N, C, H, W) float32 in 0..1, summing to 1 over C."""

    probs: Float32


@dataclass
class Boxes:
    """boxes: one (n, 6) float32 array per tile: x0, y0, x1, y1 in tile pixels, score in 0..1, class index."""

    boxes: list[Float32] = field(default_factory=list)


@dataclass
class Embeddings:
    """vectors: (N, D) float32."""

    vectors: Float32


@dataclass
class Pictures:
    """values: (N, K, H, W) float32, drawn by a translator: Hounsfield units, or 0..255."""

    values: Float32


Prediction: TypeAlias = ClassProbs | SegProbs | Boxes | Embeddings | Pictures


class Predictor(Protocol):
    """A model ready to be called."""

    name: str
    version: str
    #: SHA-256 of what was loaded, as 64 hexadecimal digits, or an empty string for a rule without weights.
    digest: str
    #: classification, segmentation, detection, representation or translation.
    task: str
    classes: tuple[str, ...]
    input: InputSpec

    def __call__(self, tiles: RGBBatch, /) -> Prediction:
        """Predicts uint8 RGB tiles (N, H, W, 3) of `input.tile_size`; returns the kind that `task` names."""
        ...
