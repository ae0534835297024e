"""Patches of labelled and of unlabelled regions in one epoch, for self-training and for consistency methods."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from pathzoo.datasets.inventory import cache_folder
from pathzoo.datasets.leakage import refuse_twins
from pathzoo.datasets.region_store import MemmapStore, MemoryStore, Store
from pathzoo.datasets.region_table import IGNORE
from pathzoo.datasets.regions import RegionSegmentation
from pathzoo.datasets.splits import Split
from pathzoo.errors import ConfigError, DataError
from pathzoo.fileio import sha256_bytes
from pathzoo.registry import DATASETS


@DATASETS.register_module()
class PseudoLabelled(Dataset):
    """A labelled part and an unlabelled one, at drawn places, in a fixed proportion.

        dict(type=PseudoLabelled, patches_per_epoch=4096, share=0.5, weight=1.0,
             labelled=dict(type=BreastLesions, subset="train", split=..., balance=0.5, pipeline=...),
             unlabelled=dict(type=BreastLesions, subset="unlabelled", split=..., seed=1, pipeline=...))

    An epoch has `patches_per_epoch` samples whatever is labelled, so methods are compared at equal numbers of steps.
    Sample i is of the unlabelled part where i < round(share * patches_per_epoch), otherwise of the labelled part;
    its place is drawn by that part's (seed, epoch, i). What a sample holds is said in `RegionSegmentation`;
    `region_index` counts the regions of its own part.

    With `pseudo` all samples are of the labelled part until `use_pseudo_labels` was called; from then on those of the
    unlabelled part carry the pseudo-labels of their region and loss_weight `weight`. Without `pseudo`, for methods
    that make their own target, they carry no label: gt_seg_map is all 255, `unlabelled` is True, loss_weight 1.

    Args:
        labelled: a `RegionSegmentation` of subset "train", or a dict that describes one. A dict needs no
            `patches_per_epoch`.
        unlabelled: the same of subset "unlabelled", with the same split, classes and patch size.
        patches_per_epoch: samples in an epoch, above 0.
        share: part of them that comes from the unlabelled part, above 0 and below 1.
        weight: loss_weight of pseudo-labelled samples, above 0.
        pseudo: wait for pseudo-labels; False for online methods.

    Attributes:
        labelled, unlabelled: the parts.
        subset: "train".

    Raises:
        ConfigError: an argument out of bounds; parts of other subsets, or that differ in classes or patch size.
        DataError: no labelled region (from the part), parts with different splits.
        LeakageError: a region that is labelled and unlabelled, by name or by bytes.
    """

    subset = "train"
    #: As SplitDataset has it.
    draws_by_epoch = True

    def __init__(
        self,
        labelled: Mapping[str, Any] | RegionSegmentation,
        unlabelled: Mapping[str, Any] | RegionSegmentation,
        patches_per_epoch: int,
        share: float = 0.5,
        weight: float = 1.0,
        pseudo: bool = True,
    ) -> None:
        if type(patches_per_epoch) is not int or patches_per_epoch < 1:
            raise ConfigError(f"patches_per_epoch={patches_per_epoch!r}: give a whole number above 0")
        if not 0 < share < 1:
            raise ConfigError(f"share={share!r}: give the unlabelled part of an epoch, above 0 and below 1")
        if not weight > 0:
            raise ConfigError(f"weight={weight!r}: give a factor on the loss above 0")
        self._count, self.share, self.weight, self.pseudo = patches_per_epoch, share, weight, pseudo
        self._n_unlabelled = round(share * patches_per_epoch)
        self.labelled, self.unlabelled = (_built(part, patches_per_epoch) for part in (labelled, unlabelled))
        self._labels: Store | None = None
        self._folder: Any = None
        self.full_init()

    def full_init(self) -> None:
        """Loads both parts and holds them against each other."""
        for name, part, subset in (("labelled", self.labelled, "train"), ("unlabelled", self.unlabelled, "unlabelled")):
            if part.subset != subset:
                raise ConfigError(f"{name}: its subset is {part.subset!r}; give subset={subset!r}")
            part.full_init()
        one, other = self.labelled, self.unlabelled
        for what, first, second in (
            ("classes", one.metainfo["classes"], other.metainfo["classes"]),
            ("patch_size", one.patch_size, other.patch_size),
        ):
            if first != second:
                raise ConfigError(f"{what} of the labelled part is {first}, of the unlabelled part {second}: give one")
        if one.split.digest != other.split.digest:
            raise DataError(
                f"the parts' splits differ (digests {one.split.digest[:12]}, {other.split.digest[:12]}), so one may "
                "hold what the other tests on: give both the same ann_file and split"
            )
        refuse_twins(*({region.item: region.sha256 for region in part.regions} for part in (one, other)))

    @property
    def metainfo(self) -> dict[str, Any]:
        """Classes and palette."""
        return self.labelled.metainfo

    @property
    def split(self) -> Split:
        """The split of both parts."""
        return self.labelled.split

    @property
    def data_digest(self) -> str:
        """That of the labelled part; the split's digest names the unlabelled regions and their bytes."""
        return self.labelled.data_digest

    def describe(self) -> dict[str, Any]:
        """Counts of the labelled part; under unlabelled the n_images, n_patients and megapixels of the other."""
        counts = self.unlabelled.describe()
        rest = {name: counts[name] for name in ("n_images", "n_patients", "megapixels")}
        return {**self.labelled.describe(), "n_patches": self._count, "unlabelled": rest}

    def use_pseudo_labels(self, folder: Any) -> None:
        """Takes the pseudo-labels of a round from now on; to be called between epochs, in every process of a run.

        Workers that live on see nothing of it.

        Args:
            folder: a `PseudoLabelFolder`: `check(dataset)`, `read(item)` -> uint8 (H, W), 255 where not kept; `path`.

        Raises:
            ConfigError: this data set was made with pseudo=False.
            DataError: the folder is of another run, split or data (from `check`).
        """
        if not self.pseudo:
            raise ConfigError(
                "pseudo=False: this data set hands out unlabelled patches without labels; set pseudo=True"
            )
        folder.check(self)
        shapes = [(region.height, region.width) for region in self.unlabelled.regions]
        before, self._folder = self._labels, folder
        if self.unlabelled.cache == "memory":
            self._labels = MemoryStore(shapes)
            return
        made_by = sha256_bytes(Path(folder.path, "provenance.json").read_bytes())
        place = cache_folder() / "regions" / f"pseudo-{made_by[:24]}"
        self._labels = MemmapStore(shapes, [str(number) for number in range(len(shapes))], place)
        if isinstance(before, MemmapStore) and before.folder != place:
            shutil.rmtree(before.folder, ignore_errors=True)

    def __len__(self) -> int:
        return self._count

    def get_data_info(self, idx: int) -> dict[str, Any]:
        """All of a sample but img and gt_seg_map; see `RegionSegmentation`.

        Raises:
            IndexError: no such sample.
        """
        return self._info(idx)[1]

    def __getitem__(self, idx: int) -> Any:
        """One patch through the pipeline of its part; the epoch comes with a `SampleIndex`.

        Raises:
            DataError: a file or a pseudo-label can no longer be read; the message names it.
        """
        part, info = self._info(idx)
        if part is self.labelled:
            return part.finish(info)
        region = info["region_index"]
        if self._labels is None:
            return part.finish(info)  # hands out no label
        return part.finish(info, self._labels.get(region, lambda: self._read(region)))

    def _info(self, idx: int) -> tuple[RegionSegmentation, dict[str, Any]]:
        index, epoch = int(idx), getattr(idx, "epoch", 0)
        if not -self._count <= index < self._count:
            raise IndexError(f"sample {index} of {self._count}")
        index %= self._count
        if index >= self._n_unlabelled or (self.pseudo and self._labels is None):
            return self.labelled, self.labelled.drawn_info(index, epoch)
        info = self.unlabelled.drawn_info(index, epoch)
        if self.pseudo:
            info |= {"loss_weight": self.weight, "unlabelled": False}
        return self.unlabelled, info

    def _read(self, index: int) -> np.ndarray:
        region, n_classes = self.unlabelled.regions[index], len(self.metainfo["classes"])
        labels = self._folder.read(region.item)
        if labels.shape != (region.height, region.width):
            raise DataError(
                f"{self._folder.path}: the pseudo-label of {region.item} is {labels.shape[1]} x {labels.shape[0]} px, "
                f"the region {region.width} x {region.height}: make the round again"
            )
        wrong = labels[(labels >= n_classes) & (labels != IGNORE)]
        if len(wrong):
            raise DataError(
                f"{self._folder.path}: the pseudo-label of {region.item} holds the value {wrong[0]}, there are "
                f"{n_classes} classes: make the round again"
            )
        return labels


def _built(part: Mapping[str, Any] | RegionSegmentation, count: int) -> RegionSegmentation:
    if not isinstance(part, Mapping):
        return part
    part = part.copy()  # an mmengine config hands out its lazily imported classes only as what it is
    if part.get("patches_per_epoch") is None:
        part["patches_per_epoch"] = count
    return DATASETS.build(part)
