"""Datasets, splits, phantoms and transforms.

The dataset classes load on first use: splits, inventory and phantoms have to do without torch.
"""

import importlib
from typing import Any

#: public name -> module that defines it
_EXPORTS = {
    "BreakHis": "pathzoo.datasets.breakhis",
    "BreastLesions": "pathzoo.datasets.breast_lesions",
    "BreastTiles": "pathzoo.datasets.breast_tiles",
    "PseudoLabelled": "pathzoo.datasets.pseudo_labelled",
    "RegionSegmentation": "pathzoo.datasets.regions",
    "SliceSegmentation": "pathzoo.datasets.slices",
    "TileClassification": "pathzoo.datasets.tiles",
    "TileDetection": "pathzoo.datasets.detection_tiles",
    "UnlabelledTiles": "pathzoo.datasets.unlabelled",
}

__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module 'pathzoo.datasets' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})
