"""Segmentation of CT slices: axial slices in Hounsfield units out of a store, with or without synthetic ones."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log

from pathzoo.ct.store import SliceStore
from pathzoo.datasets.sampling import mix_seed
from pathzoo.datasets.slice_checks import (
    PARENT_STORE,
    refuse_as_data,
    refuse_leaking,
    refuse_misfit,
    split_item,
    store_split,
)
from pathzoo.datasets.slice_records import count_slices, list_slices
from pathzoo.datasets.split_caveats import CAVEATS
from pathzoo.datasets.split_dataset import SplitDataset
from pathzoo.datasets.split_schemes import rank
from pathzoo.datasets.splits import caveats, no_such_subset
from pathzoo.datasets.transforms.ct import HUWindow
from pathzoo.errors import ConfigError, DataError, LeakageError
from pathzoo.fileio import canonical_json, sha256_bytes
from pathzoo.registry import DATASETS

#: What a sample's pack has to keep of it: `PackSegInputs(meta_keys=SLICE_META_KEYS)`.
SLICE_META_KEYS = (
    "item",
    "patient",
    "slide",
    "case",
    "store",
    "subset",
    "slice_index",
    "hu_window",
    "spacing",
    "synthetic",
    "mpp",
    "region_index",
    "patch_x",
    "patch_y",
    "sample_idx",
    "loss_weight",
    "unlabelled",
    "img_path",
    "ori_shape",
    "img_shape",
)
#: RGB of background, kidney and tumour in pictures.
PALETTE = ((0, 0, 0), (0, 158, 115), (213, 94, 0))


@DATASETS.register_module()
class SliceSegmentation(SplitDataset):
    """The slices of one subset of a store (`pathzoo.ct.store`), whole, each as one sample.

        dict(type=SliceSegmentation, data_root="data/kits19_slices", subset="train", synthetic="data/kits19_synthetic",
             pipeline=[dict(type=HUWindow, centre=0.0, width=400.0), ...,
                       dict(type=PackSegInputs, meta_keys=SLICE_META_KEYS)])

    The split is the store's own, by patient. Nothing is decoded: a sample is a copy of some pages of the store.

    A sample, before its pipeline: img int16 (H, W) HU; gt_seg_map uint8 (H, W), values of `metainfo["classes"]`;
    seg_fields; item, patient (None where not known), case, slide (the case again, which splits go by where patients are
    not known); store (its folder), subset, slice_index (place in that subset of that store); hu_known_range (low, high)
    or None; spacing (row, column) mm per pixel or None; synthetic; sha256; img_path ("STORE/subset#index", no file's
    path), seg_map_path None; region_index (= sample_idx), patch_x, patch_y 0; img_shape, ori_shape, both (H, W);
    reduce_zero_label False; label_pixels (of each class); sample_idx, sample_seed; loss_weight 1.0; unlabelled False;
    mpp None.
    `get_data_info` gives the same without img and gt_seg_map.

    Args:
        data_root: folder of a store of real slices (or of a phantom's).
        subset: "train", "val" or "test", as the store has them, or "all" of them.
        synthetic: folder of a store of synthetic slices that join those of `subset="train"`; never judged on. They come
            after the real ones. Their HU may be known within a window alone, where the pipeline's `HUWindow` fits it.
        synthetic_count: how many of them, the first by an order drawn from `seed`; None for all.
        only_labelled: leave out slices that show neither kidney nor tumour.
        seed: of `sample_seed`, and of the choice of synthetic slices.
        indices: which slices of those: the first ones, or those of a list.
        metainfo, serialize_data, pipeline, test_mode, lazy_init: as in mmengine's BaseDataset.

    Attributes:
        split: the store's `Split`; synthetic slices are not in it, their patients are.

    Raises:
        ConfigError: no such store or subset, an argument out of bounds, a `HUWindow` in the pipeline that shows more HU
            than the slices hold; synthetic slices as `data_root`, real ones as `synthetic`.
        DataError: a store that changed since it was built; synthetic slices of another size, other classes, another
            known range or another store; no slice left.
        LeakageError: a patient or identical bytes on two sides of the store; synthetic slices outside of training, or
            of who does not stand in training.
    """

    def __init__(
        self,
        data_root: str = "",
        subset: str = "all",
        synthetic: str | Path | None = None,
        synthetic_count: int | None = None,
        only_labelled: bool = False,
        seed: int = 0,
        metainfo: Mapping[str, Any] | None = None,
        indices: int | Sequence[int] | None = None,
        serialize_data: bool = True,
        pipeline: Sequence[dict | Callable] = (),
        test_mode: bool = False,
        lazy_init: bool = False,
    ) -> None:
        _check_synthetic(subset, synthetic, synthetic_count)
        self._synthetic = None if synthetic is None else Path(synthetic)
        self.synthetic_count, self.only_labelled = synthetic_count, only_labelled
        super().__init__(
            ann_file="",
            data_root=data_root,
            subset=subset,
            split=None,
            on_bad_image="error",
            mpp=None,
            seed=seed,
            metainfo=metainfo,
            indices=indices,
            serialize_data=serialize_data,
            pipeline=pipeline,
            test_mode=test_mode,
            lazy_init=lazy_init,
        )

    @staticmethod
    def check_config(arguments: Mapping[str, Any]) -> None:
        """Checks the arguments about synthetic slices, and the pipeline's keys, before anything of a config is built.

        Raises:
            ConfigError: a value out of bounds.
            LeakageError: synthetic slices for another subset than train.
        """
        values = (arguments.get(name) for name in ("subset", "synthetic", "synthetic_count"))
        _check_synthetic(*values)
        for step in arguments.get("pipeline") or ():
            keys = step.get("meta_keys") if isinstance(step, Mapping) else None
            if isinstance(keys, str):  # its letters would be taken for keys, and every sample lose what is known of it
                raise ConfigError(f"meta_keys={keys!r}: give a list of names, those of SLICE_META_KEYS in {__name__}")

    @property
    def synthetic(self) -> bool:
        """Whether the bodies are a phantom's: what `train_run.json` says under this name. See `describe` for slices
        that a network made, which the argument of this name adds."""
        self.full_init()
        return any(store.phantom for store in self._stores.values())

    @property
    def data_digest(self) -> str:
        """SHA-256 over (item, digest of its image's and label's bytes, synthetic) of this subset, in order of item."""
        rows = sorted([info["item"], info["sha256"], info["synthetic"]] for info in self._entries())
        return sha256_bytes(canonical_json(rows))

    def describe(self) -> dict[str, Any]:
        """Counts for tables: those of `count_slices`; phantom, known_range; split, split_digest, caveats."""
        counts = count_slices(self._entries(), self.metainfo["classes"])
        texts = list(self._caveats)
        if self.synthetic:
            texts.append("the bodies are drawn (a phantom): nothing here is about patients")
        if made := counts["n_synthetic"]:
            texts.append(f"{made} of {counts['n_images']} slices are synthetic: a network drew them from label maps")
            if self._parent_unknown:
                texts.append("the synthetic store does not say from which store it was made: names alone were compared")
            texts += self._of_generator
        return {
            "subset": self.subset,
            **counts,
            "phantom": self.synthetic,
            "known_range": self._stores[self.data_root].known_range,
            "split": self.split.scheme,
            "split_digest": self.split.digest,
            "caveats": texts,
            **({CAVEATS: self._of_generator} if self._of_generator else {}),
        }

    def load_data_list(self) -> list[dict]:
        """Opens the stores, holds them against each other and lists this subset; see the class."""
        store = SliceStore(self.data_root)
        refuse_as_data(store, self.subset)
        self._split = store_split(store)
        self._caveats = caveats(self._split, [split_item(r) for name in store.subsets for r in store.records(name)])
        if self.subset not in (*store.subsets, "all"):
            raise ConfigError(f"{store.folder}: {no_such_subset(self._split, self.subset)}")
        self._take_classes(store)
        self._stores, self._parent_unknown, self._of_generator = {self.data_root: store}, False, []
        names = store.subsets if self.subset == "all" else (self.subset,)
        infos = [info for name in names for info in list_slices(store, self.data_root, name, self.only_labelled)]
        windows = [step for step in self.pipeline.transforms if isinstance(step, HUWindow)]
        for step in windows:
            step.refuse_beyond(store.known_range, str(store.folder))
        if self._synthetic is not None:
            infos += self._list_synthetic(store, windows)
        if not infos:
            chosen = " that shows kidney or tumour" if self.only_labelled else ""
            raise DataError(f"{store.folder}: the subset {self.subset!r} holds no slice{chosen}: build the store anew")
        return infos

    def get_data_info(self, idx: int) -> dict[str, Any]:
        """All of a sample but img and gt_seg_map; reads no pixel.

        Raises:
            IndexError: no such sample.
        """
        info = super().get_data_info(int(idx))
        info["region_index"] = info["sample_idx"]
        info["sample_seed"] = mix_seed(self.seed, getattr(idx, "epoch", 0), info["sample_idx"])
        return info

    def prepare_data(self, idx: int) -> Any:
        """One slice through the pipeline, seeded by (seed, epoch, index); the epoch comes with a `SampleIndex`.

        Raises:
            DataError: pixels that are not those that were stored; the pipeline gave None; the message names the slice.
        """
        info = self.get_data_info(idx)
        store, place = self._stores[info["store"]], (info["subset"], info["slice_index"])
        # Copies: the store is mapped read-only, and a transform may write.
        info["img"], info["gt_seg_map"] = map(np.array, store.checked(*place))
        return self.through_pipeline(info, info["img_path"])

    def _list_synthetic(self, store: SliceStore, windows: Sequence[HUWindow]) -> list[dict[str, Any]]:
        made = SliceStore(self._synthetic)
        refuse_misfit(store, made, windowed=bool(windows))
        refuse_leaking(store, made)
        for step in windows:
            step.refuse_beyond(made.known_range, str(made.folder))
        name = str(self._synthetic)
        about = made.synthetic or {}
        self._stores[name], self._parent_unknown = made, PARENT_STORE not in about
        self._of_generator = list(about.get(CAVEATS, []))
        infos = list(list_slices(made, name, "train", self.only_labelled))
        count = self.synthetic_count
        if count is None:
            return infos
        if count > len(infos):
            raise ConfigError(
                f"synthetic_count={count}: {name} holds {len(infos)} slices"
                f"{' with kidney or tumour' if self.only_labelled else ''}: give at most as many, or synthesize more"
            )
        return sorted(infos, key=lambda info: (rank(self.seed, info["item"]), info["item"]))[:count]

    def _take_classes(self, store: SliceStore) -> None:
        given = self._metainfo.get("classes")
        if given is not None and tuple(given) != store.classes:
            raise ConfigError(f"metainfo: classes {', '.join(given)}; {store.folder} has {', '.join(store.classes)}")
        self._metainfo["classes"] = store.classes
        if len(store.classes) == len(PALETTE):
            self._metainfo.setdefault("palette", [list(color) for color in PALETTE])

    def _entries(self) -> list[dict[str, Any]]:
        """What is listed, without seeds."""
        return [BaseDataset.get_data_info(self, index) for index in range(len(self))]

    def _settle(self) -> None:
        counts = self.describe()
        shown = ", ".join(f"{name} in {count['n_images']}" for name, count in counts["per_class"].items())
        print_log(
            f"{type(self).__name__} {self.subset}: {counts['n_images']} slices ({shown}), {counts['n_synthetic']} of "
            f"them synthetic, {counts['n_patients']} known patients",
            logger="current",
        )


def _check_synthetic(subset: str | None, synthetic: Any, count: Any) -> None:
    if synthetic is not None and subset != "train":
        raise LeakageError(
            f"synthetic={str(synthetic)!r}: synthetic slices are for subset='train', not {subset!r}: what is judged is "
            "real; leave synthetic out here"
        )
    if count is not None and synthetic is None:
        raise ConfigError(f"synthetic_count={count!r}: give synthetic=FOLDER too")
    if count is not None and not (type(count) is int and count > 0):
        raise ConfigError(f"synthetic_count={count!r}: give a whole number above 0, or None for all")
