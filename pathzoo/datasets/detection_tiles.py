"""Tiles with boxes from a COCO file, out of tile files or straight from slides: what a detector trains on."""

import functools
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log

from pathzoo.datasets.coco_tiles import read_coco_tiles
from pathzoo.datasets.detection_pixels import inspect_tiles, read_tile
from pathzoo.datasets.inventory import inspect_image
from pathzoo.datasets.resolution_check import refuse_resolutions
from pathzoo.datasets.sampling import SampleIndex, mix_seed
from pathzoo.datasets.split_dataset import SplitDataset, check_choice
from pathzoo.datasets.splits import SplitItem, caveats, resolve_split
from pathzoo.errors import ConfigError
from pathzoo.fileio import canonical_json, sha256_bytes
from pathzoo.registry import DATASETS

#: What of a sample mmdet's PackDetInputs should hand on, as its `meta_keys`.
DET_META_KEYS = (
    *("img_id", "img_path", "ori_shape", "img_shape", "scale_factor"),
    *("item", "patient", "slide", "x", "y", "downsample", "mpp", "sample_idx"),
)
#: What splits call the class of a tile without objects.
BACKGROUND = "background"
_OWN = ("boxes", "labels", "ignore", "width", "height", "source", "where")


@DATASETS.register_module()
class TileDetection(SplitDataset):
    """Tiles with boxes.

        dict(type=TileDetection, ann_file="tiles.json", data_root="glomeruli/", subset="train",
             split=dict(scheme="patient_ratio", ratios=dict(train=0.7, val=0.1, test=0.2)), background_rate=0.25,
             pipeline=[dict(type=Mosaic, size=(640, 640)), ..., dict(type=PackDetInputs, meta_keys=DET_META_KEYS)])

    A sample, before its pipeline: img (RGB uint8 (H, W, 3), loaded already), img_shape and ori_shape (both (H, W)),
    gt_bboxes float32 (n, 4) as x0, y0, x1, y1 in pixels, gt_bboxes_labels int64 (n,), gt_ignore_flags bool (n,),
    img_path, img_id, item, patient, slide, x and y (level-0 corner), downsample (level-0 pixels per pixel of the tile;
    1 where not told), mpp, sha256, sample_idx, sample_seed. What is not known is None.

    Tiles whose COCO image has `source: "slide"` are read from the slide at each drawing, by every worker for itself.

    Args:
        ann_file: COCO file; a relative path is looked for in `data_root` first. See `pathzoo.datasets.coco_tiles`.
        data_root: what file names are relative to; "" for the file's folder.
        classes: names in the order of the labels; None for all categories. Boxes of others are left out.
        subset: "train", "val", "test", "unlabelled" (training tiles that `label_fraction` left out, without their
            boxes) or "all".
        split: `dict(scheme=...)` or a saved `splits.json`; see `pathzoo.datasets.splits`. By patient, as tiles overlap.
        background_rate: share of the tiles without any box that an epoch draws, 0 to 1; each is drawn equally often.
            Tiles with nothing but ignored boxes show parts of objects: they are no background, each is drawn.
        on_bad_image: "error" names a damaged picture or slide; "skip" leaves it out, logs it and lists it in `skipped`.
        on_bad_box: "error" refuses boxes outside of their picture, without area or of an unlisted category; "clip" cuts
            those that leave it and drops the others; "drop" drops them all. All are logged.
        mpp: microns per pixel of tiles whose image states none.
        seed: of `sample_seed` and of the background that is drawn.
        metainfo, indices, serialize_data, pipeline, test_mode, lazy_init: as in mmengine's BaseDataset.

    Attributes:
        skipped: records of the files left out as damaged, of all subsets.

    Raises:
        ConfigError: an argument out of its choices, no such file, a class that it does not list.
        DataError: a malformed file, bad boxes, a missing or damaged picture or one of another size, an empty subset.
        LeakageError: a patient or identical bytes on two sides of the split.
    """

    mpp_remedy = "fill the field mpp of its images, or give the dataset mpp=..."

    def __init__(
        self,
        ann_file: str = "",
        data_root: str = "",
        classes: Sequence[str] | None = None,
        subset: str = "all",
        split: Mapping[str, Any] | str | Path | None = None,
        background_rate: float = 1.0,
        on_bad_image: str = "error",
        on_bad_box: str = "error",
        mpp: float | None = None,
        seed: int = 0,
        metainfo: Mapping[str, Any] | None = None,
        indices: int | Sequence[int] | None = None,
        serialize_data: bool = True,
        pipeline: Sequence[dict | Callable] = (),
        test_mode: bool = False,
        lazy_init: bool = False,
    ) -> None:
        check_choice("on_bad_box", on_bad_box, ("error", "clip", "drop"))
        if not 0 <= background_rate <= 1:
            raise ConfigError(f"background_rate={background_rate!r}: give a share of the tiles without objects, 0 to 1")
        if background_rate < 1 and (test_mode or subset == "unlabelled"):
            raise ConfigError(f"background_rate={background_rate!r} is for training: what is judged is all of a slide")
        self.on_bad_box, self.background_rate = on_bad_box, background_rate
        self._wanted_classes = classes
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
        """SHA-256 over (item, digest of its bytes, boxes, labels, ignore flags) of this subset, in order of item."""
        rows = []
        for info in self._entries():
            arrays = [info[name].tolist() for name in ("boxes", "labels", "ignore")]
            rows.append([info["item"], info["sha256"], *arrays])
        return sha256_bytes(canonical_json(sorted(rows, key=lambda row: row[0])))

    def describe(self) -> dict[str, Any]:
        """Counts for tables: n_images, n_with_objects, n_ignored_alone, n_background, n_boxes, n_ignored, n_slides and
        n_patients (known ones), n_unknown_patient_images, skipped; per_class (n_images, n_patients, n_boxes); split,
        split_digest, caveats. An image has objects where it has a box that is not ignored, and is background where it
        has no box at all.
        """
        infos = self._entries()
        per_class = {}
        for label, name in enumerate(self.metainfo["classes"]):
            own = [(info, int((_counted(info) == label).sum())) for info in infos]
            own = [(info, n) for info, n in own if n]
            patients = {info["patient"] for info, _ in own} - {None}
            per_class[name] = {"n_images": len(own), "n_patients": len(patients), "n_boxes": sum(n for _, n in own)}
        return {
            "subset": self.subset,
            "n_images": len(infos),
            "n_with_objects": (with_objects := sum(len(_counted(info)) > 0 for info in infos)),
            "n_ignored_alone": len(self._with) - with_objects,
            "n_background": len(self._without),
            "n_boxes": sum(len(_counted(info)) for info in infos),
            "n_ignored": sum(int(info["ignore"].sum()) for info in infos),
            "n_slides": len({info["slide"] for info in infos} - {None}),
            "n_patients": len({info["patient"] for info in infos} - {None}),
            "n_unknown_patient_images": sum(info["patient"] is None for info in infos),
            "skipped": len(self.skipped),
            "per_class": per_class,
            "split": self.split.scheme,
            "split_digest": self.split.digest,
            "caveats": list(self._caveats),
        }

    def load_data_list(self) -> list[dict]:
        """Reads the file, checks its pictures, splits them and keeps this subset; see the class."""
        if any(getattr(transform, "mixes_tiles", False) for transform in self.pipeline.transforms[1:]):
            raise ConfigError("pipeline: put Mosaic first: it mixes tiles as they are read, not as others changed them")
        read = read_coco_tiles(self._table(), self.data_root or None, self._wanted_classes, self.on_bad_box)
        self._metainfo["classes"] = read.classes
        for line in read.problems:
            print_log(f"bad box: {line}", logger="current", level=logging.WARNING)
        for name, n in read.left_out.items():
            print_log(f"{self.ann_file}: {n} boxes of class {name!r} were not asked for", logger="current")
        tiles = [tile | {"mpp": self.mpp if tile["mpp"] is None else tile["mpp"]} for tile in read.tiles]
        pairs = self._sound(tiles, inspect_tiles(tiles))
        kept = [tile | {"sha256": record.sha256} for tile, record in pairs]
        items = [_split_item(tile, read.classes) for tile in kept]
        self._split = resolve_split(items, self._wanted_split, (*read.classes, BACKGROUND))
        self._caveats = caveats(self._split, items)
        kept = self._select(kept, "tiles")
        refuse_resolutions(kept, self.pipeline.transforms, self.ann_file or self.data_root, self.mpp_remedy)
        return [_without_boxes(tile) for tile in kept] if self.subset == "unlabelled" else kept

    def __len__(self) -> int:
        self.full_init()
        return len(self._with) + self._n_background

    def get_data_info(self, idx: int) -> dict[str, Any]:
        """All of a sample but its pixels; the epoch comes with a `SampleIndex`.

        Raises:
            IndexError: no such sample.
        """
        count, index, epoch = len(self), int(idx), getattr(idx, "epoch", 0)
        if not -count <= index < count:
            raise IndexError(f"sample {index} of {count}")
        index %= count
        info = super().get_data_info(self._row(index, epoch))
        info["gt_bboxes"], info["gt_bboxes_labels"], info["gt_ignore_flags"] = (
            info[name].copy() for name in ("boxes", "labels", "ignore")
        )
        return info | {"sample_idx": index, "sample_seed": mix_seed(self.seed, epoch, index)}

    def prepare_data(self, idx: int) -> Any:
        """One tile through the pipeline; a transform that says `mixes_tiles` finds others by `results["tile_pool"]`.

        Raises:
            DataError, SlideError: the file can no longer be read, or the pipeline gave None; the message names it.
        """
        info = self._loaded(idx)
        if any(getattr(transform, "mixes_tiles", False) for transform in self.pipeline.transforms[:1]):
            info["tile_pool"] = functools.partial(self._drawn_tile, getattr(idx, "epoch", 0))
        path = info["img_path"]
        is_file = "#" not in info["item"]
        damage = (lambda: inspect_image(path).error) if is_file else (lambda: None)
        return self.through_pipeline(info, path if is_file else f"{path} ({info['item']})", damage)

    def get_cat_ids(self, idx: int) -> list[int]:
        """The classes that a tile shows, once each: what mmengine's ClassBalancedDataset balances by."""
        return sorted(set(_counted(self.get_data_info(idx)).tolist()))

    def _drawn_tile(self, epoch: int, seed: int) -> dict[str, Any]:
        """A tile that `seed` draws among those of an epoch, loaded, without the pipeline."""
        return self._loaded(SampleIndex(mix_seed(seed) % len(self), epoch))

    def _loaded(self, idx: int) -> dict[str, Any]:
        info = self.get_data_info(idx)
        info["img"] = read_tile(info)
        info["img_shape"] = info["ori_shape"] = info["img"].shape[:2]
        for name in _OWN:
            info.pop(name)
        return info

    def _row(self, index: int, epoch: int) -> int:
        """Where a sample stands in the data: tiles with boxes first, unless all of the background is drawn."""
        if self._n_background == len(self._without):
            return index
        if index < len(self._with):
            return int(self._with[index])
        # An endless row of permutations, so that every tile is drawn equally often.
        number, place = divmod(epoch * self._n_background + index - len(self._with), len(self._without))
        if number not in self._orders:
            self._orders = {number: np.random.default_rng([self.seed, number]).permutation(self._without)}
        return int(self._orders[number][place])

    def _entries(self) -> list[dict[str, Any]]:
        """What mmengine keeps of each tile."""
        self.full_init()
        return [BaseDataset.get_data_info(self, row) for row in range(BaseDataset.__len__(self))]

    def _settle(self) -> None:
        """Finds which tiles have boxes, ignored ones too, and tells the log."""
        infos = [BaseDataset.get_data_info(self, row) for row in range(BaseDataset.__len__(self))]
        shows = np.array([len(info["boxes"]) > 0 for info in infos], bool)
        self._with, self._without = np.flatnonzero(shows), np.flatnonzero(~shows)
        self._n_background = math.ceil(self.background_rate * len(self._without) - 1e-9)
        self._orders: dict[int, np.ndarray] = {}
        print_log(
            f"{type(self).__name__} {self.subset}: {len(self._with)} tiles with {sum(len(_counted(i)) for i in infos)} "
            f"boxes, {len(self._without)} without ({self._n_background} in an epoch), "
            f"{sum(int(i['ignore'].sum()) for i in infos)} boxes ignored, "
            f"{len({i['patient'] for i in infos} - {None})} known patients, {len(self.skipped)} damaged files skipped",
            logger="current",
        )


def _counted(info: Mapping[str, Any]) -> np.ndarray:
    """The labels of the boxes that are not ignored."""
    return info["labels"][~info["ignore"]]


def _without_boxes(tile: dict[str, Any]) -> dict[str, Any]:
    return tile | {name: tile[name][:0] for name in ("boxes", "labels", "ignore")}


def _split_item(tile: Mapping[str, Any], classes: Sequence[str]) -> SplitItem:
    """A tile as splits see it: dealt by the first class it shows, or as background."""
    shown = tuple(sorted(set(_counted(tile).tolist()))) or (len(classes),)
    return SplitItem(tile["item"], shown[0], tile["sha256"], tile["patient"], shown, tile["slide"])
