"""Samples of regions: where each patch is, what is known of it, and its pixels."""

from typing import Any

import numpy as np

from pathzoo.datasets.region_patches import PatchGrid, Place, PlaceDrawer, class_rows, cut, jittered
from pathzoo.datasets.region_reader import RegionReader
from pathzoo.datasets.region_table import IGNORE
from pathzoo.datasets.sampling import mix_seed
from pathzoo.errors import ConfigError

#: Beyond a region lies glass.
_WHITE = 255


class RegionSamples:
    """The samples of one data set.

    Args:
        reader: of its regions.
        patch: side of a patch.
        count: number of drawn places; None for the grid.
        jitter: moves patches of the grid.
        balance: part of the drawn places that are centred on a pixel of a drawn class.
        n_classes: number of classes.
        seed: of places and samples.
        hidden: its labels are not handed out.
    """

    def __init__(
        self,
        reader: RegionReader,
        patch: int,
        count: int | None,
        jitter: bool,
        balance: float,
        n_classes: int,
        seed: int,
        hidden: bool,
    ) -> None:
        self._reader, self._patch, self._jitter, self._seed, self._hidden = reader, patch, jitter, seed, hidden
        self._sizes = [(region.width, region.height) for region in reader.regions]
        self._grid = PatchGrid(self._sizes, patch)
        self._count = count
        # Counted here, by the main process, so that forked workers share what was decoded for it.
        rows = [class_rows(reader.labels(index), n_classes) for index in range(len(self._sizes))] if balance else []
        self._drawer = PlaceDrawer(self._sizes, patch, balance, rows)

    def __len__(self) -> int:
        return len(self._grid) if self._count is None else self._count

    def info(self, index: int, epoch: int) -> dict[str, Any]:
        """What is known of sample `index`; decodes no picture."""
        if self._count is not None:
            return self.drawn_info(index, epoch)
        place = self._grid.place(index)
        if self._jitter:
            place = jittered(place, self._sizes[place.region], self._patch, self._seed, epoch, index)
        return self._info(place, index, epoch)

    def drawn_info(self, index: int, epoch: int) -> dict[str, Any]:
        """The same of a place drawn by (seed, epoch, index), whatever the number of samples."""
        return self._info(self._drawer.place(self._seed, epoch, index, self._reader.labels), index, epoch)

    def cut(self, info: dict[str, Any], labels: np.ndarray | None = None) -> dict[str, Any]:
        """Adds img and gt_seg_map to an info; the labels of its region are `labels` where given."""
        region, x, y = info["region_index"], info["patch_x"], info["patch_y"]
        labels = self._reader.labels(region) if labels is None else labels
        info["img"] = cut(self._reader.image(region), x, y, self._patch, _WHITE)
        info["gt_seg_map"] = cut(labels, x, y, self._patch, IGNORE)
        return info

    def _info(self, place: Place, index: int, epoch: int) -> dict[str, Any]:
        region = self._reader.regions[place.region]
        side = self._patch
        return {
            "img_path": str(region.image),
            "seg_map_path": None if self._hidden or region.mask is None else str(region.mask),
            "seg_fields": ["gt_seg_map"],
            "item": region.item,
            "patient": region.patient,
            "slide": region.slide,
            "mpp": region.mpp,
            "sha256": region.sha256,
            "region_index": place.region,
            "patch_x": place.x,
            "patch_y": place.y,
            "img_shape": (side, side),
            "ori_shape": (side, side),
            "reduce_zero_label": False,
            "sample_idx": index,
            "sample_seed": mix_seed(self._seed, epoch, index),
            "loss_weight": 1.0,
            "unlabelled": self._hidden,
        }


def check_sampling(patch_size: int, patches_per_epoch: int | None, jitter: bool, balance: float, subset: str) -> None:
    """Checks how patches are to be chosen, as `RegionSegmentation` takes it.

    Raises:
        ConfigError: a value out of bounds, or two that exclude each other.
    """
    for name, count in (("patch_size", patch_size), ("patches_per_epoch", patches_per_epoch)):
        if (count is not None or name == "patch_size") and not (type(count) is int and count > 0):
            raise ConfigError(f"{name}={count!r}: give a whole number above 0")
    if not 0 <= balance <= 1:
        raise ConfigError(f"balance={balance!r}: give a probability, 0 to 1")
    if balance and (patches_per_epoch is None or subset == "unlabelled"):
        raise ConfigError(f"balance={balance!r} chooses drawn places by labels: give patches_per_epoch, and labels")
    if jitter and patches_per_epoch is not None:
        raise ConfigError("jitter moves patches of the grid; with patches_per_epoch every place is drawn already")
