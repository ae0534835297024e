"""Breast lesions: regions of breast tumour sections with masks of normal, benign and malignant tissue."""

from typing import ClassVar

from pathzoo.datasets.region_table import default_palette
from pathzoo.datasets.regions import RegionSegmentation
from pathzoo.registry import DATASETS

CLASSES = ("normal", "benign", "malignant")
#: RGB of each class.
PALETTE = default_palette(3)


@DATASETS.register_module()
class BreastLesions(RegionSegmentation):
    """Regions of breast sections, 0 normal and background (fat inside a tumour too), 1 benign, 2 malignant.

    The data of Lee, Park and Lee (44 regions of 2560 x 1920, study 1) have these classes. They are not public; a lab's
    own regions go into the same files: regions.csv, images and masks, see `pathzoo.datasets.region_table`, written from
    QuPath's or ImageScope's annotations by `tools/dataset_converters/annotations_to_regions.py`.

    Arguments, samples and errors are those of `RegionSegmentation`; `classes` and `palette` may name others.
    """

    METAINFO: ClassVar[dict] = {"classes": CLASSES, "palette": [list(color) for color in PALETTE]}
