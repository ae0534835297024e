"""Networks and their parts, by kind. Importing this package registers them.

Those over mmseg, which is an optional dependency and slow to import, are imported and registered when first asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

from pathzoo.models.backbones import TimmBackbone
from pathzoo.models.losses import DiceLoss, PixelCrossEntropy
from pathzoo.models.rule_based import BlobDetector, ColorThresholdClassifier, ColorThresholdSegmenter

if TYPE_CHECKING:
    from pathzoo.models.decode_heads import UNetHead
    from pathzoo.models.segmentors import ConsistencySegmentor

__all__ = [
    "BlobDetector",
    "ColorThresholdClassifier",
    "ColorThresholdSegmenter",
    "ConsistencySegmentor",
    "DiceLoss",
    "PixelCrossEntropy",
    "TimmBackbone",
    "UNetHead",
]

#: name -> module that defines it, of what needs mmseg
_OVER_MMSEG = {"ConsistencySegmentor": "pathzoo.models.segmentors", "UNetHead": "pathzoo.models.decode_heads"}


def __getattr__(name: str) -> Any:
    if name not in _OVER_MMSEG:
        raise AttributeError(f"module 'pathzoo.models' has no attribute {name!r}")
    from pathzoo import compat

    compat.install()  # mmseg imports mmcv's ops
    try:
        return getattr(importlib.import_module(_OVER_MMSEG[name]), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "mmseg":
            raise
        raise ImportError(f"pathzoo.models.{name} needs mmsegmentation; install pathzoo[segmentation]") from error


def __dir__() -> list[str]:
    return sorted({*globals(), *_OVER_MMSEG})
