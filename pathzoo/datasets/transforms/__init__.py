"""Transforms of one results dict, from the file to what the data preprocessor takes. Importing registers them."""

import os

# Otherwise albumentations asks the package registry for a newer version whenever it is imported.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

from pathzoo.datasets.transforms.albumentations import Albumentations
from pathzoo.datasets.transforms.ct import HUWindow
from pathzoo.datasets.transforms.geometry import CenterCropOrPad, ResizeShortSide, ResizeToMpp
from pathzoo.datasets.transforms.loading import LoadTile
from pathzoo.datasets.transforms.mosaic import LetterBox, Mosaic
from pathzoo.datasets.transforms.stain import StainJitter
from pathzoo.datasets.transforms.stain_normalize import NormalizeStain
from pathzoo.datasets.transforms.views import HistologyViews

__all__ = [
    "Albumentations",
    "CenterCropOrPad",
    "HUWindow",
    "HistologyViews",
    "LetterBox",
    "LoadTile",
    "Mosaic",
    "NormalizeStain",
    "ResizeShortSide",
    "ResizeToMpp",
    "StainJitter",
]
