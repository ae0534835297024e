"""Networks and their parts, by kind. Importing this package registers them.

Those over hosts' models (mmseg and mmdet, which are optional dependencies, and mmpretrain), slow to import, are
imported and registered when first asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

from pathzoo.models.backbones import TimmBackbone
from pathzoo.models.backbones.yolov5_backbone import YOLOv5Backbone
from pathzoo.models.losses import DiceLoss, PixelCrossEntropy
from pathzoo.models.necks import YOLOv5PAFPN
from pathzoo.models.rule_based import BlobDetector, ColorThresholdClassifier, ColorThresholdSegmenter

if TYPE_CHECKING:
    from pathzoo.models.batched_colour import BatchedColourJitter
    from pathzoo.models.data_preprocessors import BatchedViews
    from pathzoo.models.decode_heads import UNetHead
    from pathzoo.models.dense_heads.yolov5_head import YOLOv5Head
    from pathzoo.models.segmentors import ConsistencySegmentor
    from pathzoo.models.selfsup.rotation_pred import RotationHead, RotationPred
    from pathzoo.models.selfsup.simclr import NTXentHead, SimCLR
    from pathzoo.models.translators import LabelToImage, PairPreprocessor, PatchDiscriminator, UnetGenerator

__all__ = [
    "BatchedColourJitter",
    "BatchedViews",
    "BlobDetector",
    "ColorThresholdClassifier",
    "ColorThresholdSegmenter",
    "ConsistencySegmentor",
    "DiceLoss",
    "LabelToImage",
    "NTXentHead",
    "PairPreprocessor",
    "PatchDiscriminator",
    "PixelCrossEntropy",
    "RotationHead",
    "RotationPred",
    "SimCLR",
    "TimmBackbone",
    "UNetHead",
    "UnetGenerator",
    "YOLOv5Backbone",
    "YOLOv5Head",
    "YOLOv5PAFPN",
]

#: name -> module that defines it, of what stands on a host's models, or on albumentations
_OVER_HOSTS = {
    "BatchedColourJitter": "pathzoo.models.batched_colour",
    "BatchedViews": "pathzoo.models.data_preprocessors",
    "ConsistencySegmentor": "pathzoo.models.segmentors",
    "LabelToImage": "pathzoo.models.translators",
    "NTXentHead": "pathzoo.models.selfsup.simclr",
    "PairPreprocessor": "pathzoo.models.translators",
    "PatchDiscriminator": "pathzoo.models.translators",
    "RotationHead": "pathzoo.models.selfsup.rotation_pred",
    "RotationPred": "pathzoo.models.selfsup.rotation_pred",
    "SimCLR": "pathzoo.models.selfsup.simclr",
    "UNetHead": "pathzoo.models.decode_heads",
    "UnetGenerator": "pathzoo.models.translators",
    "YOLOv5Head": "pathzoo.models.dense_heads.yolov5_head",
}
#: What needs mmagic's parts.
_OVER_MMAGIC = "pathzoo.models.translators"
#: optional host -> the extra that brings it
_EXTRAS = {"mmseg": "segmentation", "mmdet": "detection"}


def __getattr__(name: str) -> Any:
    if name not in _OVER_HOSTS:
        raise AttributeError(f"module 'pathzoo.models' has no attribute {name!r}")
    from pathzoo import compat

    compat.install()  # hosts' models import mmcv's ops
    if _OVER_HOSTS[name] == _OVER_MMAGIC:
        importlib.import_module("pathzoo.compat.mmagic").install()
    try:
        return getattr(importlib.import_module(_OVER_HOSTS[name]), name)
    except ModuleNotFoundError as error:
        needed = _EXTRAS.get((error.name or "").partition(".")[0])
        if needed is None:
            raise
        raise ImportError(f"pathzoo.models.{name} needs mm{needed}; install pathzoo[{needed}]") from error


def __dir__() -> list[str]:
    return sorted({*globals(), *_OVER_HOSTS})
