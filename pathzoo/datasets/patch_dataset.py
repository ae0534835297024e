"""Data sets whose samples are patches of regions: reading whole regions, and a patch through the pipeline."""

from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset

from pathzoo.datasets.region_files import Region
from pathzoo.datasets.region_reader import RegionReader
from pathzoo.datasets.region_samples import RegionSamples
from pathzoo.datasets.split_dataset import SplitDataset


class PatchDataset(SplitDataset):
    """What mmengine lists are regions, what it hands out are patches; `RegionSegmentation` says which.

    A subclass gives `load_data_list`, whose dicts hold `region`, and `_make_samples`.
    """

    _reader: RegionReader
    _samples: RegionSamples

    @property
    def regions(self) -> tuple[Region, ...]:
        """The regions of this subset, in the order of the table."""
        self.full_init()
        return self._reader.regions

    def read_image(self, region_index: int) -> np.ndarray:
        """The picture of a region: RGB uint8 (H, W, 3), read-only.

        Raises:
            DataError: the file is gone, or its bytes changed since the data set was loaded.
        """
        self.full_init()
        return self._reader.image(region_index)

    def read_labels(self, region_index: int) -> np.ndarray:
        """What training sees of a region's labels: uint8 (H, W), read-only; all 255 in the subset "unlabelled"."""
        self.full_init()
        return self._reader.labels(region_index)

    def read_truth(self, region_index: int) -> np.ndarray | None:
        """What a region's mask says, after `value_map`, before `label_noise`: uint8 (H, W); None without a mask.

        Also of the subset "unlabelled", for an audit of what a method made of it. Nothing may be trained on it.
        """
        self.full_init()
        return self._reader.truth(region_index)

    def __len__(self) -> int:
        self.full_init()
        return len(self._samples)

    def get_data_info(self, idx: int) -> dict[str, Any]:
        """All of a sample but img and gt_seg_map; decodes no picture.

        Raises:
            IndexError: no such sample.
        """
        count, index = len(self), int(idx)
        if not -count <= index < count:
            raise IndexError(f"sample {index} of {count}")
        return self._samples.info(index % count, getattr(idx, "epoch", 0))

    def drawn_info(self, index: int, epoch: int) -> dict[str, Any]:
        """`get_data_info` of a place drawn by (seed, epoch, index): also where samples are those of the grid."""
        self.full_init()
        return self._samples.drawn_info(index, epoch)

    def prepare_data(self, idx: int) -> Any:
        """One patch through the pipeline, as `finish`."""
        return self.finish(self.get_data_info(idx))

    def finish(self, info: dict[str, Any], labels: np.ndarray | None = None) -> Any:
        """Cuts the patch that `info` describes and sends it through the pipeline.

        Args:
            info: of `get_data_info` or `drawn_info`; changed in place.
            labels: uint8 (H, W), in place of the region's own labels.

        Raises:
            DataError: a file can no longer be read, or the pipeline gave None; the message names the file.
        """
        where = f"{info['img_path']} (patch at x={info['patch_x']}, y={info['patch_y']})"
        return self.through_pipeline(self._samples.cut(info, labels), where)

    def _entries(self) -> list[dict[str, Any]]:
        """What mmengine keeps of each region."""
        return [BaseDataset.get_data_info(self, index) for index in range(BaseDataset.__len__(self))]

    def _settle(self) -> None:
        """Makes ready to hand out patches of the regions that are left."""
        raise NotImplementedError
