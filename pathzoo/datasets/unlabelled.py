"""Tiles without labels, from folders, slides, tables and packed stores: what self-supervision trains on."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log

from pathzoo.datasets import drawn_regions
from pathzoo.datasets.inventory import inspect_image, scan_images
from pathzoo.datasets.packed_tiles import PackedTiles
from pathzoo.datasets.sampling import mix_seed
from pathzoo.datasets.slide_places import TissuePlaces, survey_slides
from pathzoo.datasets.split_dataset import SplitDataset, check_choice
from pathzoo.datasets.tile_windows import cut_window
from pathzoo.datasets.transforms.loading import read_rgb
from pathzoo.datasets.unlabelled_checks import fitted, not_held_out
from pathzoo.datasets.unlabelled_sources import list_tiles
from pathzoo.datasets.unlabelled_split import split_by_share
from pathzoo.errors import ConfigError
from pathzoo.fileio import canonical_json, sha256_bytes
from pathzoo.phantom_mark import any_phantom
from pathzoo.registry import DATASETS

#: A picture that is larger than `size` by more is handed out in windows: no worker passes whole pictures around.
_CONTEXT = 1.5
#: From so many whole tiles in a picture on it is worth saying that an epoch sees one of them.
_MANY_TILES = 4


@DATASETS.register_module()
class UnlabelledTiles(SplitDataset):
    """Tiles without labels.

        dict(type=UnlabelledTiles, source=["kidney.safetensors", "slides/"], size=280, mpp=0.5, tiles_per_epoch=50_000,
             held_out="work_dirs/classifier/splits.json", pipeline=[dict(type=HistologyViews, size=224), ...])

    Sources may be mixed; `pathzoo.datasets.unlabelled_sources.list_tiles` says which there are. Slides are read in
    place: a tile lies at a random place over tissue (`pathzoo.datasets.slide_places`).

    A sample, before its pipeline: img (RGB uint8 (H, W, 3), loaded already), img_shape and ori_shape (both (H, W)),
    img_path (of the picture, slide or store), item, patient, slide, mpp (None where not known), sha256, sample_idx,
    sample_seed; of a tile from a slide also x and y, its corner in level-0 pixels. There is no gt_label.

    Up to `window` pixels a side, img is all of a picture or stored tile, beyond that a window at a place drawn by
    sample_seed; from a slide it is a whole window, from one that is smaller a square of its shorter side. An epoch has
    every picture and stored tile once, or `tiles_per_epoch` draws, with replacement, in which every whole tile of
    tissue is as likely as any other: a picture counts as often as tiles of `size` lie side by side in it, a slide as
    often as they would on its tissue.

    A large picture is decoded whole for each window: thousands of them are better packed into tiles once
    (tools/dataset_converters/pack_tiles.py).

    Args:
        source: a folder, CSV, slide, picture or packed store, or several.
        size: the longest side of crop that the views take, in pixels; what is smaller is refused.
        mpp: microns per pixel that everything is brought to; None takes pictures as they are, slides at level 0.
        tiles_per_epoch: samples in an epoch of training; None for every tile once. Needed with slides. Of the subset
            "val" `val_share` of that, one at least.
        window: side in pixels beyond which a picture is cut; None for 1.5 * size.
        subset: "all", or "train" or "val" by `val_share`.
        val_share: part of the tiles that validates the pretext, 0 to below 1. Patients stay whole; tiles whose patient
            is not known stay together by slide, else by file.
        split_seed: of who is in `val_share`.
        held_out: a `splits.json` of the task that will be tested: its patients, slides and pictures of val and test, by
            name and by bytes, may not be learnt from. What tells neither patient nor slide is compared by bytes alone,
            and a caveat of `describe` says so.
        leave_out_tested: leave those out, where they would be an error.
        on_bad_image: "error" names a damaged picture or slide; "skip" leaves it out, logs it and lists it in
            `skipped`. A damaged store is an error always.
        seed: of places, windows and `sample_seed`, by (seed, epoch, index).
        metainfo, serialize_data, pipeline, test_mode, lazy_init: as in mmengine's BaseDataset.

    Attributes:
        skipped: records of the files left out as damaged.
        n_held_out: tiles left out by `leave_out_tested`.

    Raises:
        ConfigError: an argument out of its choices, no such source, slides without `tiles_per_epoch`.
        DataError: an empty folder, a damaged, too small or non-RGB picture (16-bit, CMYK), a slide without tissue, an
            unknown or too coarse resolution, an empty subset.
        SlideError: a slide whose resolution is not known or too coarse.
        LeakageError: something that `held_out` keeps for validation or testing.
    """

    mpp_remedy = "give a CSV with the column mpp, or take pictures as they are (mpp=None)"

    def __init__(
        self,
        source: str | Path | Sequence[str | Path],
        size: int,
        mpp: float | None = None,
        tiles_per_epoch: int | None = None,
        window: int | None = None,
        subset: str = "all",
        val_share: float = 0.0,
        split_seed: int = 0,
        held_out: str | Path | None = None,
        leave_out_tested: bool = False,
        on_bad_image: str = "error",
        seed: int = 0,
        metainfo: Mapping[str, Any] | None = None,
        serialize_data: bool = True,
        pipeline: Sequence[dict | Callable] = (),
        test_mode: bool = False,
        lazy_init: bool = False,
    ) -> None:
        check_choice("subset", subset, ("all", "train", "val"))
        for name, count in (("size", size), ("tiles_per_epoch", tiles_per_epoch), ("window", window)):
            if (count is not None or name == "size") and not (type(count) is int and count > 0):
                raise ConfigError(f"{name}={count!r}: give a whole number above 0")
        if window is not None and window < size:
            raise ConfigError(f"window={window!r} is smaller than size={size!r}, the crop that is taken from it")
        if not 0 <= val_share < 1 or (subset != "all" and not val_share):
            raise ConfigError(
                f"val_share={val_share!r} with subset={subset!r}: give a part of the tiles, above 0 and below 1, or "
                'subset="all" without validation'
            )
        if subset == "val" and tiles_per_epoch is not None:
            tiles_per_epoch = max(1, round(val_share * tiles_per_epoch))
        self.source, self.size, self.tiles_per_epoch = source, size, tiles_per_epoch
        self.window = round(_CONTEXT * size) if window is None else window
        self.val_share, self.split_seed = val_share, split_seed
        self.held_out, self.leave_out_tested, self.n_held_out = held_out, leave_out_tested, 0
        self._stores: dict[str, PackedTiles] = {}
        self._places: dict[str, TissuePlaces] = {}
        super().__init__(
            ann_file="",
            data_root="",
            subset=subset,
            split=None,
            on_bad_image=on_bad_image,
            mpp=mpp,
            seed=seed,
            metainfo=metainfo,
            indices=None,
            serialize_data=serialize_data,
            pipeline=pipeline,
            test_mode=test_mode,
            lazy_init=lazy_init,
        )

    @property
    def data_digest(self) -> str:
        """SHA-256 over (item, digest) of every picture, slide (`slide_fingerprint`) and stored tile of this subset.

        The digest of a stored tile is that of its pixels: one file may have been cut and resampled in many ways.
        """
        return sha256_bytes(canonical_json(sorted([info["item"], self._content(info)] for info in self._entries())))

    @property
    def synthetic(self) -> bool:
        """Whether any of the tiles was drawn: a phantom.json lies above its file, or its store says so."""
        self.full_init()
        drawn = any(store.phantom for store in self._stores.values())
        return drawn or any_phantom(info["img_path"] for info in self._entries())

    def describe(self) -> dict[str, Any]:
        """Counts for tables, as those of `TileClassification`; slides and stored tiles are counted as images too."""
        infos = self._entries()
        return {
            "subset": self.subset,
            "n_images": len(infos),
            "n_slides": sum(info["kind"] == "slide" for info in infos),
            "n_patients": len({info["patient"] for info in infos} - {None}),
            "n_unknown_patient_images": sum(info["patient"] is None for info in infos),
            "n_samples": len(self),
            "skipped": len(self.skipped),
            "n_held_out": self.n_held_out,
            "split": self.split.scheme,
            "split_digest": self.split.digest,
            "caveats": list(self._caveats),
        }

    def load_data_list(self) -> list[dict]:
        """Lists the sources, checks what they hold, leaves out what is tested on, and keeps this subset."""
        infos, self._stores = list_tiles(self.source)
        pictures = [info for info in infos if info["kind"] == "picture"]
        slides = [info for info in infos if info["kind"] == "slide"]
        drawn_regions.refuse_as_data([info["img_path"] for info in pictures], self.subset, drawn_regions.LEAVE_OUT)
        if slides and self.tiles_per_epoch is None:
            raise ConfigError(
                f"{slides[0]['img_path']} is a slide, which has no list of tiles: say by tiles_per_epoch=... how many "
                "are drawn in an epoch"
            )
        found = [info for info in infos if info["kind"] == "stored"]
        for info, record in self._sound(pictures, scan_images([info["img_path"] for info in pictures])):
            found.append(info | {"sha256": record.sha256, "width": record.width, "height": record.height})
        found += self._surveyed(slides)
        order = {info["item"]: number for number, info in enumerate(infos)}
        found.sort(key=lambda info: order[info["item"]])
        rest, self._caveats = found, []
        if self.held_out is not None:
            rest, self._caveats = not_held_out(found, self.held_out, self.leave_out_tested)
        for text in self._caveats:
            print_log(f"{text}; name patients or slides in a table", logger="current", level=logging.WARNING)
        self.n_held_out = len(found) - len(rest)
        kept = [fitted(info, self.size, self.mpp) for info in rest]
        self._split = split_by_share(kept, self.val_share if self.subset != "all" else 0.0, self.split_seed)
        return self._select(kept, "tiles")

    def __len__(self) -> int:
        self.full_init()
        return self._count if self.tiles_per_epoch is None else self.tiles_per_epoch

    def get_data_info(self, idx: int) -> dict[str, Any]:
        """All of a sample but its pixels; the epoch comes with a `SampleIndex`.

        Raises:
            IndexError: no such sample.
        """
        count, index, epoch = len(self), int(idx), getattr(idx, "epoch", 0)
        if not -count <= index < count:
            raise IndexError(f"sample {index} of {count}")
        index %= count
        seed, row = mix_seed(self.seed, epoch, index), index
        if self.tiles_per_epoch is not None:
            row = int(np.searchsorted(self._until, mix_seed(seed, 2) / 2**32 * self._until[-1], side="right"))
        info = super().get_data_info(row)
        info |= {"sample_idx": index, "sample_seed": seed, "mpp": self._resolution(info)}
        if info["kind"] == "slide":
            info["x"], info["y"] = self._places[info["img_path"]].place(epoch, index)
        return info

    def prepare_data(self, idx: int) -> Any:
        """One tile through the pipeline.

        Raises:
            DataError, SlideError: the file can no longer be read, or the pipeline gave None; the message names it.
        """
        info = self.get_data_info(idx)
        path = info["img_path"]
        info["img"] = self._pixels(info)
        info["img_shape"] = info["ori_shape"] = info["img"].shape[:2]
        damage = (lambda: inspect_image(path).error) if info["kind"] == "picture" else (lambda: None)
        for name in ("kind", "ratio", "tiles", "row", "width", "height", "where", "label"):
            info.pop(name, None)
        return self.through_pipeline(info, f"{path} ({info['item']})", damage)

    def _pixels(self, info: Mapping[str, Any]) -> np.ndarray:
        if info["kind"] == "slide":
            return self._places[info["img_path"]].read(info["x"], info["y"])
        stored = info["kind"] == "stored"
        picture = self._stores[info["img_path"]][info["row"]] if stored else read_rgb(info["img_path"])
        return cut_window(picture, self.window, info["ratio"], info["sample_seed"])

    def _content(self, info: Mapping[str, Any]) -> str:
        if info["kind"] == "stored":
            return self._stores[info["img_path"]].sha256[info["row"]].tobytes().hex()
        return info["sha256"]

    def _resolution(self, info: Mapping[str, Any]) -> float | None:
        if info["kind"] == "slide":
            return self._places[info["img_path"]].mpp
        return info["mpp"] if info["ratio"] == 1 else self.mpp

    def _surveyed(self, slides: Sequence[dict]) -> list[dict]:
        """The slides that can be read; the others are an error, or join `skipped`."""
        found = []
        surveyed = survey_slides(slides, self.window, self.mpp, self.seed, smallest=self.size)
        for info, record in zip(slides, surveyed, strict=True):
            if record.places is None:
                if self.on_bad_image == "error":
                    raise record.failure
                self.skipped.append(record)
                print_log(f"skipped {record.error}", logger="current", level=logging.WARNING)
                continue
            self._places[info["img_path"]] = record.places
            tiles = record.places.tiles * (record.places.size / self.size) ** 2
            found.append(info | {"sha256": record.sha256, "ratio": 1.0, "tiles": tiles})
        return found

    def _entries(self) -> list[dict[str, Any]]:
        """What mmengine keeps of each picture, slide and stored tile."""
        self.full_init()
        return [BaseDataset.get_data_info(self, row) for row in range(self._count)]

    def _settle(self) -> None:
        """Counts what is left, for draws and for the log."""
        self._count = BaseDataset.__len__(self)
        infos = self._entries()
        tiles = np.array([info["tiles"] for info in infos], float)
        self._until = np.cumsum(tiles)
        kinds = ", ".join(
            f"{sum(info['kind'] == kind for info in infos)} {many}"
            for kind, many in (("picture", "pictures"), ("stored", "stored tiles"), ("slide", "slides"))
        )
        print_log(
            f"{type(self).__name__} {self.subset}: {kinds}, {len({i['patient'] for i in infos} - {None})} known "
            f"patients, {len(self)} samples in an epoch, {len(self.skipped)} damaged files skipped, "
            f"{self.n_held_out} tiles left out since they are tested on",
            logger="current",
        )
        if self.tiles_per_epoch is None and self._until[-1] >= _MANY_TILES * self._count:
            print_log(
                f"these hold {int(self._until[-1])} whole tiles of {self.size} px, of which an epoch sees "
                f"{self._count}, one of each file: set tiles_per_epoch to see more, or pack them into tiles",
                logger="current",
            )
