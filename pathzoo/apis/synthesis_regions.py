"""Drawn tiles of tissue: from the label maps of regions to a folder of drawn regions."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config

from pathzoo.apis.checks import check_data_resolution, errors_of_the_config
from pathzoo.apis.lineage import refuse_trained_split
from pathzoo.apis.synthesis_maps import Add, Drawn, TrainingMaps, class_indices, parents_of
from pathzoo.datasets.drawn_regions import PARENT_TABLE, read_record
from pathzoo.datasets.drawn_regions_writer import drawn_region_writer
from pathzoo.datasets.label_augmentation import LabelAugmentation
from pathzoo.datasets.masks import read_mask
from pathzoo.datasets.region_patches import PatchGrid, Place, cut
from pathzoo.datasets.region_table import IGNORE, ClassList
from pathzoo.datasets.regions import RegionSegmentation
from pathzoo.datasets.splits import Split
from pathzoo.datasets.transforms.loading import decode_rgb
from pathzoo.errors import ConfigError, DataError
from pathzoo.registry import DATASETS

#: Beyond a region lies glass, as in training.
_WHITE = 255


class RegionMaps(TrainingMaps):
    """The patches that cover the labelled training regions and show a chosen class; see the base class.

    Patches have the config's size and lie on its grid; the last of a row or column is moved into its region.
    """

    drawn_name, map_name = "regions", "patches"
    has_lesions = False

    def __init__(self, cfg: Config, classes: Sequence[str] | None = None) -> None:
        self._cfg = cfg
        self._data = self._dataset("train")
        check_data_resolution(cfg, self._data)
        self.classes = tuple(self._data.metainfo["classes"])
        self.palette = tuple((r, g, b) for r, g, b in self._data.metainfo["palette"])
        self._chosen = class_indices(classes, self.classes)
        self._places = self._shown(self._data)
        if not self._places:
            raise DataError(
                f"{self._data.data_root or self._data.ann_file}: no patch of {self._data.patch_size} px in training "
                f"regions shows {' or '.join(classes or self.classes[1:])}: give other classes or another fold"
            )
        self.patients = tuple(self._data.regions[place.region].patient for place in self._places)
        self.parent, self.split = (PARENT_TABLE, self._data.table_digest), self._data.split

    def label(self, index: int) -> np.ndarray:
        """uint8 (P, P), 255 where not labelled and beyond the region."""
        return _label(self._data, self._places[index])

    def real(self, index: int) -> np.ndarray:
        """float32 RGB (P, P, 3) of 0..255."""
        return _picture(self._data, self._places[index])

    def validation(self) -> Iterator[np.ndarray]:
        """As `real`."""
        if "val" in self._data.split.subsets:
            data = self._dataset("val")
            yield from (_picture(data, place) for place in self._shown(data))

    def fitted(self, augmentation: LabelAugmentation) -> LabelAugmentation:
        """Maps as a whole: no lesion lies in an organ, and what comes in over the border nobody has labelled.

        Raises:
            ConfigError: lesions that change by themselves.
        """
        if augmentation.changes_lesions:
            raise ConfigError(
                "label maps of tissue have no lesion in an organ that changes by itself: leave tumour_scale and "
                "tumour_shift (--tumour-scale, --tumour-shift) out"
            )
        return replace(augmentation, lesion=None, outside=IGNORE)

    def refuse_held_out(self, trained: Sequence[tuple[Split, str]]) -> None:
        """See the base class."""
        for split, source in trained:
            remedy = "draw by a generator that was trained on this split's training subset, or give its fold and split"
            refuse_trained_split(self._data.split, split, source, remedy)

    @contextmanager
    def writer(self, out: str | Path, record: dict[str, Any], overwrite: bool) -> Iterator[Add]:
        """A folder as `pathzoo.datasets.drawn_regions` reads it."""
        about = {"patch_size": self._data.patch_size, "split": self._data.split.digest}
        with drawn_region_writer(out, ClassList(self.classes, self.palette), record | about, overwrite) as writer:

            def add(number: int, index: int, labels: np.ndarray, picture: np.ndarray) -> None:
                if len(picture) != 3:
                    raise ConfigError(f"{self._cfg.filename}: draws {len(picture)} channels; regions are RGB")
                place = self._places[index]
                rgb = np.rint(np.moveaxis(picture, 0, -1)).clip(0, 255).astype(np.uint8)
                writer.add(rgb, labels, self._data.regions[place.region], place.x, place.y)

            yield add

    @staticmethod
    def record_of(folder: str | Path) -> dict[str, Any]:
        """synthetic.json."""
        return read_record(folder)

    def read(self, folder: str | Path) -> Drawn:
        """See the base class."""
        drawn = read_record(folder)["items"]
        items, regions = tuple(drawn), self._data.regions
        files = [Path(folder, item) for item in items]
        return Drawn(
            items,
            parents_of(
                folder,
                items,
                [(about["source"], about["x"], about["y"]) for about in drawn.values()],
                [(regions[place.region].item, place.x, place.y) for place in self._places],
            ),
            lambda index: read_mask(Path(folder, "masks", files[index].name)),
            lambda index: decode_rgb(files[index].read_bytes(), files[index]).astype(np.float32),
        )

    def _dataset(self, subset: str) -> RegionSegmentation:
        """The config's data set with other patches, and real regions alone."""
        given = self._cfg.train_dataloader.dataset.copy()  # hands out lazily imported classes as what they are
        given.update(subset=subset, patches_per_epoch=None, balance=0.0, jitter=False, synthetic=None, pipeline=[])
        if subset != "train":
            given.update(label_noise=None, indices=None)
        with errors_of_the_config(self._cfg):
            return DATASETS.build(given)

    def _shown(self, data: RegionSegmentation) -> tuple[Place, ...]:
        """The patches of a data set that show a chosen class."""
        sizes = [(region.width, region.height) for region in data.regions]
        places = inner_places(sizes, data.patch_size)
        return tuple(place for place in places if np.isin(_label(data, place), self._chosen).any())


def inner_places(sizes: Sequence[tuple[int, int]], patch: int) -> Iterator[Place]:
    """Where patches that cover regions of `sizes` (width, height) are cut, none beyond a region that is large enough.

    Of a grid; its last column and row are moved inwards and overlap those before.
    """
    grid = PatchGrid(sizes, patch)
    for place in map(grid.place, range(len(grid))):
        width, height = sizes[place.region]
        yield Place(place.region, min(place.x, max(0, width - patch)), min(place.y, max(0, height - patch)))


def _label(data: RegionSegmentation, place: Place) -> np.ndarray:
    return cut(data.read_labels(place.region), place.x, place.y, data.patch_size, IGNORE)


def _picture(data: RegionSegmentation, place: Place) -> np.ndarray:
    return cut(data.read_image(place.region), place.x, place.y, data.patch_size, _WHITE).astype(np.float32)
