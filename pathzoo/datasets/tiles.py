"""Classification of tiles from a CSV: what a lab needs to train on its own data."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from pathzoo.datasets import drawn_regions
from pathzoo.datasets.inventory import ImageRecord, inspect_image, scan_images
from pathzoo.datasets.resolution_check import refuse_resolutions
from pathzoo.datasets.sampling import mix_seed
from pathzoo.datasets.split_dataset import SplitDataset
from pathzoo.datasets.split_schemes import rank
from pathzoo.datasets.splits import SplitItem, caveats, resolve_split
from pathzoo.datasets.tile_table import read_tile_table
from pathzoo.errors import ConfigError, DataError
from pathzoo.fileio import canonical_json, sha256_bytes
from pathzoo.nearest import did_you_mean
from pathzoo.registry import DATASETS


@DATASETS.register_module()
class TileClassification(SplitDataset):
    """Images with one class each, listed in a CSV.

        path,label,patient,slide,mpp,x,y
        tiles/0001.png,tumour,P07,S12,0.5,10240,8192

    `path`, `label` and `patient` are needed (see `pathzoo.datasets.tile_table`). An image yields img_path, item (its
    path relative to the root), gt_label, patient, slide, mpp, sha256, sample_idx, sample_seed, and x and y where given.

    Every image is decoded once before training (remembered in the cache of `pathzoo.datasets.inventory`). No image is
    ever replaced by another: what cannot be read is an error, or left out and counted before anything is split.

    Args:
        ann_file: the CSV; a relative path is looked for in `data_root` first.
        data_root: what image paths are relative to; "" for the CSV's folder.
        classes: names in the order of the labels; None for the labels found, sorted.
        subset: "train", "val", "test", "unlabelled" (training images that `label_fraction` left out) or "all".
        split: `dict(scheme=...)` or a saved `splits.json`; see `pathzoo.datasets.splits`.
        on_bad_image: "error" names a damaged or empty image; "skip" leaves it out, logs it and lists it in `skipped`.
        mpp: microns per pixel of images whose line gives none.
        shuffle_labels: control experiment, for `subset="train"` alone: a seed (True for `seed`) by which the labels of
            all training images are permuted, within and between patients. Class counts stay; what a model then scores
            on its untouched test images is chance.
        seed: of `sample_seed`, the augmentation's number for each (seed, epoch, index).
        metainfo, indices, serialize_data, pipeline, test_mode, lazy_init: as in mmengine's BaseDataset.

    Attributes:
        split: the `Split` in use, with all its subsets.
        skipped: records of the images left out as damaged, of all subsets.

    Raises:
        ConfigError: an argument out of its choices, an unknown split scheme or key, no such file.
        DataError: a malformed table, a missing or damaged image, an unknown label, an empty subset; images that a
            `ResizeToMpp` of the pipeline would refuse, for want of a resolution or as too coarse.
        LeakageError: a patient or identical bytes on two sides of the split.
    """

    def __init__(
        self,
        ann_file: str = "",
        data_root: str = "",
        classes: Sequence[str] | None = None,
        subset: str = "all",
        split: Mapping[str, Any] | str | Path | None = None,
        on_bad_image: str = "error",
        mpp: float | None = None,
        shuffle_labels: bool | int | None = None,
        seed: int = 0,
        metainfo: Mapping[str, Any] | None = None,
        indices: int | Sequence[int] | None = None,
        serialize_data: bool = True,
        pipeline: Sequence[dict | Callable] = (),
        test_mode: bool = False,
        lazy_init: bool = False,
    ) -> None:
        self.shuffle_labels = seed if shuffle_labels is True else None if shuffle_labels is False else shuffle_labels
        if self.shuffle_labels is not None and subset != "train":
            raise ConfigError(
                f"shuffle_labels is a control for subset='train', not {subset!r}: the rest keeps its labels"
            )
        if classes is not None:
            metainfo = {**(metainfo or {}), "classes": tuple(classes)}
        super().__init__(
            ann_file=ann_file,
            data_root=data_root,
            subset=subset,
            split=split,
            on_bad_image=on_bad_image,
            mpp=mpp,
            seed=seed,
            metainfo=metainfo,
            indices=indices,
            serialize_data=serialize_data,
            pipeline=pipeline,
            test_mode=test_mode,
            lazy_init=lazy_init,
        )

    @property
    def data_digest(self) -> str:
        """SHA-256 over (item, digest of its bytes, label) of every image of this subset, in order of item."""
        infos = [self.get_data_info(index) for index in range(len(self))]
        rows = sorted([info["item"], info["sha256"], info["gt_label"]] for info in infos)
        return sha256_bytes(canonical_json(rows))

    def describe(self) -> dict[str, Any]:
        """Counts for tables: n_images, n_patients (known ones), n_unknown_patient_images, skipped, per_class.

        `per_class` maps each class to its n_images and n_patients; `split` and `split_digest` name the split; `caveats`
        are the sentences that belong beside its scores (inflated by image, straddling or unknown patients, absent
        classes).
        """
        infos = [self.get_data_info(index) for index in range(len(self))]
        per_class = {}
        for label, name in enumerate(self.metainfo["classes"]):
            own = [info for info in infos if info["gt_label"] == label]
            per_class[name] = {"n_images": len(own), "n_patients": len({i["patient"] for i in own} - {None})}
        return {
            "subset": self.subset,
            "n_images": len(infos),
            "n_patients": len({info["patient"] for info in infos} - {None}),
            "n_unknown_patient_images": sum(info["patient"] is None for info in infos),
            "skipped": len(self.skipped),
            "per_class": per_class,
            "split": self.split.scheme,
            "split_digest": self.split.digest,
            "caveats": list(self._caveats),
        }

    def load_data_list(self) -> list[dict]:
        """Finds the images, checks them, splits them and keeps this subset; see the class."""
        infos, left_out = self.find_images()
        drawn_regions.refuse_as_data([info["img_path"] for info in infos], self.subset, drawn_regions.LEAVE_OUT)
        records = scan_images([info["img_path"] for info in infos])
        pairs = self._sound(infos, records)
        classes = self._resolve_classes([info for info, _ in pairs])
        kept = [self._data_info(info, record, classes) for info, record in pairs]
        items = [SplitItem(i["item"], i["gt_label"], i["sha256"], i["patient"], slide=i["slide"]) for i in kept]
        self._split = resolve_split(items, self._wanted_split, classes, left_out)
        self._caveats = caveats(self._split, items)
        kept = self._select(kept)
        refuse_resolutions(kept, self.pipeline.transforms, self.ann_file or self.data_root, self.mpp_remedy)
        if self.shuffle_labels is not None:
            _permute_labels(kept, self.shuffle_labels)
        self._log_counts(kept, classes)
        return kept

    def find_images(self) -> tuple[list[dict[str, Any]], Collection[str]]:
        """The images as dicts of `read_tile_table`, and the ids of those that this use of the data set leaves out."""
        return read_tile_table(self._table(), self.data_root or None), ()

    def resolution(self, info: Mapping[str, Any], record: ImageRecord) -> float | None:
        """Microns per pixel of one image, None where not known."""
        return info["mpp"] if info["mpp"] is not None else self.mpp

    def prepare_data(self, idx: int) -> Any:
        """One image through the pipeline, seeded by (seed, epoch, index); the epoch comes with a `SampleIndex`.

        Raises:
            DataError: the file can no longer be read, or the pipeline gave None; the message names the file.
        """
        info = self.get_data_info(int(idx))
        info["sample_seed"] = mix_seed(self.seed, getattr(idx, "epoch", 0), info["sample_idx"])
        path = info["img_path"]
        return self.through_pipeline(info, path, lambda: inspect_image(path).error)

    def get_cat_ids(self, idx: int) -> list[int]:
        """The label of one image, in a list: what mmengine's ClassBalancedDataset balances by.

        mmengine's wrappers hand on plain indices: beneath one, `sample_seed` no longer changes with the epoch.
        """
        return [self.get_data_info(int(idx))["gt_label"]]

    def _resolve_classes(self, infos: list[dict]) -> tuple[str, ...]:
        classes = self._metainfo.get("classes")
        if classes is None:
            classes = sorted({info["label"] for info in infos})
        classes = self._metainfo["classes"] = tuple(classes)
        for info in infos:
            if info["label"] not in classes:
                raise DataError(
                    f"{info['where']}: unknown label {info['label']!r}{did_you_mean(info['label'], classes)}"
                )
        return classes

    def _data_info(self, info: dict, record: ImageRecord, classes: tuple[str, ...]) -> dict[str, Any]:
        gone = ("where", "label", *(name for name in ("x", "y") if info.get(name) is None))
        values = {name: value for name, value in info.items() if name not in gone}
        values["mpp"] = self.resolution(info, record)
        return {**values, "gt_label": classes.index(info["label"]), "sha256": record.sha256}

    def _log_counts(self, infos: list[dict], classes: tuple[str, ...]) -> None:
        counts = Counter(info["gt_label"] for info in infos)
        text = ", ".join(f"{name} {counts[label]}" for label, name in enumerate(classes))
        unknown = sum(info["patient"] is None for info in infos)
        patients = len({info["patient"] for info in infos} - {None})
        print_log(
            f"{type(self).__name__} {self.subset}: {len(infos)} images ({text}), {patients} known patients, "
            f"{unknown} images without one, {len(self.skipped)} damaged images skipped",
            logger="current",
        )


def _permute_labels(infos: list[dict], seed: int) -> None:
    order = sorted(infos, key=lambda info: info["item"])
    shuffled = sorted(order, key=lambda info: rank(seed, info["item"]))
    for info, label in zip(order, [other["gt_label"] for other in shuffled], strict=True):
        info["gt_label"] = label
