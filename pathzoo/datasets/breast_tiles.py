"""Breast tiles: benign, atypical ductal hyperplasia, ductal carcinoma in situ."""

from typing import ClassVar

from pathzoo.datasets.tiles import TileClassification
from pathzoo.registry import DATASETS

CLASSES = ("benign", "ADH", "DCIS")


@DATASETS.register_module()
class BreastTiles(TileClassification):
    """Tiles of breast sections, 0 benign, 1 ADH (atypical ductal hyperplasia), 2 DCIS (ductal carcinoma in situ).

    The data of Kim and Cho (study 2) have these classes: 3080 training patches of 224 x 224 each, and 1136, 1876 and
    770 for testing. They are not public; a lab's own tiles are listed in a CSV, see `pathzoo.datasets.tile_table`.

    | study | here |
    |---|---|
    | 8:2 for training and validation | `split=dict(..., ratios=dict(train=0.8, val=0.2, test=0))` |
    | 5, 25, 50 % of the labels of both: 154, 770, 1540 of each class | `label_fraction=0.05, val_label_fraction=0.05` |

    Arguments, samples and errors are those of `TileClassification`; `classes` may name others.
    """

    METAINFO: ClassVar[dict] = {"classes": CLASSES}
