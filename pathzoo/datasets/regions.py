"""Segmentation of regions: pictures of any size with label masks, read as patches that are cut on the fly."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from pathzoo.datasets import drawn_regions
from pathzoo.datasets.inventory import scan_images
from pathzoo.datasets.label_noise import LabelNoise, RegionNoise, plan_noise
from pathzoo.datasets.leakage import refuse_twins
from pathzoo.datasets.masks import scan_masks, value_lookup
from pathzoo.datasets.patch_dataset import PatchDataset
from pathzoo.datasets.region_files import count_regions, region_entry, split_item
from pathzoo.datasets.region_reader import RegionReader
from pathzoo.datasets.region_samples import RegionSamples, check_sampling
from pathzoo.datasets.region_table import read_region_table, resolve_classes
from pathzoo.datasets.resolution_check import refuse_resolutions
from pathzoo.datasets.split_caveats import CAVEATS
from pathzoo.datasets.split_dataset import SplitDataset, check_choice
from pathzoo.datasets.splits import caveats, resolve_split
from pathzoo.errors import ConfigError, DataError
from pathzoo.fileio import canonical_json, sha256_bytes
from pathzoo.registry import DATASETS

#: What a sample's pack has to keep of it: `PackSegInputs(meta_keys=SEG_META_KEYS)`.
SEG_META_KEYS = (
    "item",
    "patient",
    "slide",
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


@DATASETS.register_module()
class RegionSegmentation(PatchDataset):
    """Patches of regions with label masks, listed in a CSV.

        image,mask,patient,slide,mpp
        images/0001.png,masks/0001.png,P07,S12,1.0

    `image`, `mask` and `patient` are needed (see `pathzoo.datasets.region_table`); an empty mask says that nobody has
    labelled the region. Masks hold class indices and 255 where a pixel is ignored (see `pathzoo.datasets.masks`).

    Before anything else every picture and mask is decoded once and checked. Regions are decoded again when the first
    patch of them is asked for, and kept (see `pathzoo.datasets.region_store`): a patch is then a copy of some rows.

    A sample holds img (P, P, 3) uint8 RGB; gt_seg_map (P, P) uint8, 255 where ignored, unlabelled or beyond the region
    (there the picture is white); seg_fields; img_path, seg_map_path; item, patient, slide, mpp, sha256 of the region;
    region_index (place in `regions`), patch_x, patch_y (pixels of the region); img_shape, ori_shape, both (P, P);
    reduce_zero_label False; sample_idx, sample_seed; loss_weight 1.0; unlabelled (True in the subset of that name).
    `get_data_info` gives the same without img and gt_seg_map.

    Splits deal whole regions, by the rarest class that each shows (`split_label`). Regions without a mask join
    the subset "unlabelled". That subset hands out no label, also of regions that have a mask.

    Args:
        data_root: what the table's paths are relative to; "" for its folder.
        ann_file: the CSV; a relative path is looked for in `data_root` first.
        classes: names in the order of the mask values; None for those of classes.json, or the data set's own.
        palette: RGB of each class; None likewise.
        subset: "train", "val", "test", "unlabelled" (training regions without labels) or "all".
        split: `dict(scheme=...)` or a saved `splits.json`; see `pathzoo.datasets.splits`.
        patch_size: P, pixels.
        patches_per_epoch: None for the grid that covers every pixel once; N for N patches at places that are drawn by
            (seed, epoch, index), the epoch being that of a `SampleIndex`.
        jitter: patches of the grid are moved by up to half a patch, drawn likewise and kept inside their region.
        value_map: what the values of foreign masks mean, as {0: 0, 255: 1}: value -> class index, or 255 to ignore it.
            With a map only its values and 255 may occur.
        label_noise: labels made wrong on purpose, for `subset="train"` alone; see `pathzoo.datasets.label_noise`.
        balance: probability that a drawn place is centred on a pixel of a class, which is drawn evenly among those
            that the subset's labels show. Otherwise places are even over the regions' area.
        cache: "memory", or "memmap" for data larger than that.
        on_bad_image: "error" names a damaged picture or mask; "skip" leaves the region out, logs it and lists it in
            `skipped`. Masks of another size or with wrong values are an error always.
        mpp: microns per pixel of regions whose line gives none.
        seed: of places and of `sample_seed`.
        leave_out_tested: leave regions without a mask out where their patient is validated or tested on; otherwise
            they are an error.
        synthetic: folder of drawn regions (`pathzoo.datasets.drawn_regions`) that join those of `subset="train"`, after
            the real ones. Their masks hold class indices; `value_map` and `label_noise` are not for them.
        indices: which regions of the subset: the first ones, or those of a list.
        metainfo, serialize_data, pipeline, test_mode, lazy_init: as in mmengine's BaseDataset.

    Attributes:
        split: the `Split` in use, with all its subsets; drawn regions are not in it, their patients are.
        skipped: records of the files left out as damaged, of all subsets.
        noise: item -> `RegionNoise`, what was made wrong in which region of this subset; empty without `label_noise`.

    Raises:
        ConfigError: an argument out of its choices, an unknown split scheme or key, no such file, no classes.
        DataError: a malformed table, a missing or damaged file, a mask that does not fit its image or holds other
            values than classes, an empty subset, no labelled region; drawn regions of another table or other classes.
        LeakageError: a patient or identical bytes on two sides of the split; an unlabelled region of a patient who is
            tested on; one region labelled and unlabelled; drawn regions outside of training, or of who is not in it.
    """

    def __init__(
        self,
        data_root: str = "",
        ann_file: str = "regions.csv",
        classes: Sequence[str] | None = None,
        palette: Sequence[Sequence[int]] | None = None,
        subset: str = "all",
        split: Mapping[str, Any] | str | Path | None = None,
        patch_size: int = 256,
        patches_per_epoch: int | None = None,
        jitter: bool = False,
        value_map: Mapping[int, int] | None = None,
        label_noise: Mapping[str, Any] | None = None,
        balance: float = 0.0,
        cache: str = "memory",
        on_bad_image: str = "error",
        mpp: float | None = None,
        seed: int = 0,
        leave_out_tested: bool = False,
        synthetic: str | Path | None = None,
        metainfo: Mapping[str, Any] | None = None,
        indices: int | Sequence[int] | None = None,
        serialize_data: bool = True,
        pipeline: Sequence[dict | Callable] = (),
        test_mode: bool = False,
        lazy_init: bool = False,
    ) -> None:
        check_choice("cache", cache, ("memory", "memmap"))
        check_sampling(patch_size, patches_per_epoch, jitter, balance, subset)
        drawn_regions.check_synthetic(subset, synthetic)
        if label_noise is not None and subset != "train":
            raise ConfigError(
                f"label_noise is an experiment on subset='train', not {subset!r}: the rest keeps its labels"
            )
        self.patch_size, self.patches_per_epoch, self.jitter = patch_size, patches_per_epoch, jitter
        self.balance, self.cache, self.leave_out_tested = balance, cache, leave_out_tested
        self.value_map = None if value_map is None else dict(value_map)
        self.label_noise = None if label_noise is None else LabelNoise.of(label_noise)
        self._wanted_classes, self._synthetic = (classes, palette), synthetic
        self.noise: dict[str, RegionNoise] = {}
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

    @staticmethod
    def check_config(arguments: Mapping[str, Any]) -> None:
        """Checks the keys of `split` and `label_noise`, and the pipeline, before anything of a config is built.

        Raises:
            ConfigError: an unknown scheme or key, or a value out of bounds.
            LeakageError: drawn regions for another subset than train.
        """
        SplitDataset.check_config(arguments)
        drawn_regions.check_synthetic(arguments.get("subset"), arguments.get("synthetic"))
        for step in arguments.get("pipeline") or ():
            keys = step.get("meta_keys") if isinstance(step, Mapping) else None
            if isinstance(keys, str):  # its letters would be taken for keys, and every sample lose what is known of it
                raise ConfigError(f"meta_keys={keys!r}: give a list of names, those of SEG_META_KEYS in {__name__}")
        if isinstance(arguments.get("label_noise"), Mapping):
            LabelNoise.of(arguments["label_noise"])

    @property
    def data_digest(self) -> str:
        """SHA-256 over (item, digest of its bytes, of its mask's bytes) of this subset's regions, in order of item.

        Masks that are not handed out do not count; `value_map` and `label_noise` do.
        """
        hidden = self.subset == "unlabelled"
        real = [region for region in self.regions if region.source is None]
        rows: list[Any] = sorted([r.item, r.sha256, None if hidden else r.mask_sha256 or ""] for r in real)
        if self.value_map is not None:
            rows.append(["value_map", sorted([int(value), index] for value, index in self.value_map.items())])
        if self.noise:
            rows.append(["label_noise", *vars(self.label_noise).values()])
        return sha256_bytes(canonical_json([*rows, *drawn_regions.drawn_rows(self.regions)]))

    @property
    def table_digest(self) -> str:
        """That of `pathzoo.datasets.drawn_regions`, over the table's regions of all subsets: drawn ones keep it."""
        self.full_init()
        return self._table_digest

    def describe(self) -> dict[str, Any]:
        """Counts for tables: those of `count_regions` with n_synthetic, n_patches and skipped; split, split_digest,
        caveats.

        Classes are counted in the labels that are handed out, before `label_noise`; its extent stands in label_noise:
        n_swapped and n_shifted regions.
        """
        counts = {
            "subset": self.subset,
            **count_regions(self.regions, self._pixels, self.metainfo["classes"]),
            "n_patches": len(self),
            "skipped": len(self.skipped),
            "split": self.split.scheme,
            "split_digest": self.split.digest,
            "caveats": list(self._caveats),
        }
        if self.label_noise is not None:
            swapped = sum(noise.swapped is not None for noise in self.noise.values())
            shifted = sum(noise.shift is not None for noise in self.noise.values())
            counts["label_noise"] = {"n_swapped": swapped, "n_shifted": shifted}
        of_generator = self._of_generator
        return drawn_regions.count_drawn(counts, self.regions, self._pixels, self.metainfo["classes"], of_generator)

    def load_data_list(self) -> list[dict]:
        """Finds the regions, checks them, splits them and keeps this subset; see the class."""
        classes = self._resolve_classes()
        entries = self._find(classes)
        items = [split_item(entry) for entry in entries]
        labelled, bare = [item for item in items if item.label >= 0], [item for item in items if item.label < 0]
        if not labelled and self.subset != "all":
            raise DataError(f"{self._table()}: none of its {len(items)} regions has a mask: fill the column mask")
        self._split = resolve_split(labelled, self._wanted_split, classes, (), bare, self.leave_out_tested)
        self._caveats, self._of_generator = caveats(self._split, items), []
        subsets = self._split.subsets
        if {"train", "unlabelled"} <= set(subsets):
            refuse_twins(subsets["train"].items, subsets["unlabelled"].items)
        kept = self._select(entries, "regions")
        if self.subset == "train" and not any(sum(entry["pixels"]) for entry in kept):
            raise DataError(f"{self._table()}: no pixel of the {len(kept)} masks to train on has a label: all are 255")
        if self.label_noise is not None:
            pixels = {entry["item"]: entry["pixels"] for entry in kept}
            self.noise = plan_noise(self.label_noise, pixels, classes)
        if self.subset == "unlabelled":
            kept = [{**entry, "pixels": None} for entry in kept]
        self._table_digest = drawn_regions.table_digest(entries, self.value_map)
        if self._synthetic is not None:
            about = (self._split, classes, self.mpp, self._table_digest)
            kept = kept + drawn_regions.drawn_entries(self._synthetic, entries, *about)
            self._of_generator = list(drawn_regions.read_record(self._synthetic).get(CAVEATS, []))
        refuse_resolutions(kept, self.pipeline.transforms, self.ann_file or self.data_root, self.mpp_remedy)
        return kept

    def _resolve_classes(self) -> tuple[str, ...]:
        root = Path(self.data_root) if self.data_root else self._table().parent
        found = resolve_classes(
            self._wanted_classes, self._metainfo, root / "classes.json", mapped=self.value_map is not None
        )
        self._metainfo |= {"classes": found.classes, "palette": [list(color) for color in found.palette]}
        self._lookup = value_lookup(len(found.classes), self.value_map)
        return found.classes

    def _find(self, classes: tuple[str, ...]) -> list[dict[str, Any]]:
        """All regions of the table with sound files, checked."""
        infos = read_region_table(self._table(), self.data_root or None)
        drawn_regions.refuse_as_data([self._table(), *(info["img_path"] for info in infos)], self.subset)
        pairs = self._sound(infos, scan_images([info["img_path"] for info in infos]))
        masked = [info for info, _ in pairs if info["mask_path"] is not None]
        masks = self._sound(masked, scan_masks([info["mask_path"] for info in masked]), "mask")
        of_item = {info["item"]: mask for info, mask in masks}
        return [
            region_entry(info, record, of_item.get(info["item"]), self.mpp, self._lookup, classes)
            for info, record in pairs
            if info["mask_path"] is None or info["item"] in of_item
        ]

    def _settle(self) -> None:
        entries, hidden = self._entries(), self.subset == "unlabelled"
        self._pixels = [entry["pixels"] for entry in entries]
        regions = [entry["region"] for entry in entries]
        self._reader = RegionReader(regions, self._lookup, self.noise, hidden, self.cache)
        self._samples = RegionSamples(
            self._reader,
            self.patch_size,
            self.patches_per_epoch,
            self.jitter,
            self.balance,
            len(self.metainfo["classes"]),
            self.seed,
            hidden,
        )
        counts = count_regions(regions, self._pixels, self.metainfo["classes"])
        shown = ", ".join(f"{name} in {count['n_images']}" for name, count in counts["per_class"].items())
        shown = "no labels" if hidden else shown
        made = sum(region.source is not None for region in regions)
        print_log(
            f"{type(self).__name__} {self.subset}: {len(regions)} regions, {made} of them synthetic, "
            f"{counts['megapixels']:.1f} megapixels ({shown}), {counts['n_patients']} known patients, "
            f"{len(self._samples)} patches of {self.patch_size} px, {len(self.skipped)} damaged files skipped",
            logger="current",
        )
