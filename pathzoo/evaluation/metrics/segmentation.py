"""The metric of segmentation configs."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.dist import all_gather_object, all_reduce, broadcast_object_list, get_dist_info, is_main_process
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log

from pathzoo.errors import ConfigError, DataError
from pathzoo.evaluation.functional import RegionTally, Row, segmentation, segmentation_report
from pathzoo.evaluation.region_maps import MapPatch, RegionMaps, stitch
from pathzoo.evaluation.segmentation_files import RegionPicture, spread_regions, write_pictures, write_segmentation
from pathzoo.registry import METRICS

#: What the metric needs of each sample beside label maps; mmseg.PackSegInputs carries it in `meta_keys`.
META_KEYS = ("item", "patient", "slide", "region_index", "sample_idx", "patch_x", "patch_y", "img_path")

#: Levels other than pixel have this prefix and these two in the log; `rows` has all.
_LOGGED = ("miou", "f1")


class _Region(NamedTuple):
    item: str
    patient: str | None
    slide: str | None
    img_path: str


@METRICS.register_module()
class SegmentationMetric(BaseMetric):
    """All of `segmentation_report` over the patches of a validation or test set.

    It returns a flat dict for the log: of all pixels `miou`, `miou_micro`, `f1`, `f1_micro`, `accuracy`,
    `pixel_accuracy`, `iou_CLASS`, `f1_CLASS`; of other levels `patch_miou`, `region_f1`, `patient_miou`, ... There is
    no prefix, so `save_best="miou"` works. What is undefined on the set is left out and said in a warning. `rows`
    keeps everything, with n, intervals and notes, on the main process.

    Memory does not grow with the pixels: of a patch its (C, C) counts are taken on the device that predicts, and added
    to its region's. With several processes each evaluates its share; the sums of all are taken by one all-reduce.
    The repeats by which mmengine's sampler evens the shares out count once: sample i belongs to process i % world.
    Only the main process computes and writes.

    Args:
        classes: C class names; by default the dataset's (`metainfo["classes"]`).
        ignore_index: 0..255, value of the truth that counts nowhere: what nobody labelled, and padding.
        n_bootstrap: resamples of patients for intervals; by default 1000 where files are written, else 0.
        seed: of the resampling.
        out_dir: folder for metrics.json, regions.csv and plots/ (`write_segmentation`); None writes nothing.
        pictures: regions that are drawn in plots/, evenly from the worst mIoU to the best (three: worst, median, best).
            Where files are written, all patches are kept for it, compressed to about a fortieth of their pixels;
            0 draws nothing and keeps nothing.
        prefix: of the names in the log.
    """

    default_prefix = ""
    #: What a sample has to carry, and what is kept of it for its region, a named tuple of it: a subclass may need more.
    meta_keys: tuple[str, ...] = META_KEYS
    region_type: type[Any] = _Region

    def __init__(
        self,
        classes: Sequence[str] | None = None,
        ignore_index: int = 255,
        n_bootstrap: int | None = None,
        seed: int = 0,
        out_dir: str | None = None,
        pictures: int = 3,
        prefix: str | None = None,
    ):
        super().__init__(prefix=prefix)
        self.classes = None if classes is None else tuple(classes)
        self.ignore_index = ignore_index
        self.n_bootstrap = (1000 if out_dir else 0) if n_bootstrap is None else n_bootstrap
        self.seed = seed
        self.out_dir = out_dir
        self.pictures = pictures if out_dir else 0
        self.rows: list[Row] = []
        self._start()

    def _start(self) -> None:
        self._tally: RegionTally | None = None
        self._regions: dict[int, Any] = {}
        self._seen: set[int] = set()
        self._maps = RegionMaps()

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Counts the pixels of each sample (mmseg's SegDataSample as a dict) that belongs to this process."""
        rank, world = get_dist_info()
        if self._tally is None:
            self._tally = RegionTally(len(self._class_names()))
        regions, counts = [], []
        for sample in data_samples:
            missing = [key for key in self.meta_keys if key not in sample]
            if missing:
                raise ConfigError(
                    f"{type(self).__name__}: samples lack {', '.join(missing)}; "
                    f"the pipeline's PackSegInputs needs meta_keys={self.meta_keys}"
                )
            index = int(sample["sample_idx"])
            if index % world != rank or index in self._seen:
                continue
            self._seen.add(index)
            truth, prediction = _label_maps(sample)
            try:
                rows = count_by_value(truth, prediction, self._tally.n_classes)
                counts.append(segmentation.class_counts(rows, self.ignore_index))
            except DataError as error:
                place = f"patch at x {sample['patch_x']}, y {sample['patch_y']}"
                raise DataError(f"{sample['item']}, {place}: {error}") from None
            regions.append(self._number(sample))
            if self.pictures:
                maps = (part.to(torch.uint8).cpu().numpy() for part in (truth, prediction))
                self._maps.add(regions[-1], int(sample["patch_x"]), int(sample["patch_y"]), *maps)
        if regions:
            self._tally.add(np.array(regions), np.stack(counts))

    def evaluate(self, size: int) -> dict[str, float]:
        """Adds up what all processes counted and computes; every process gets the dict, only the main one `rows`.

        Args:
            size: samples of the whole set.

        Raises:
            ConfigError: not each of them was counted once.
        """
        C = len(self._class_names())
        regions = {index: region for share in all_gather_object(self._regions) for index, region in share.items()}
        table = torch.from_numpy((self._tally or RegionTally(C)).padded(max(regions, default=-1) + 1))
        if regions:
            all_reduce(table)
        self._check_size(int(table[:, -1].sum()), size)
        order = sorted(regions)
        tally = RegionTally(C, table.numpy()[order])
        drawn = [order[k] for k in spread_regions(tally.counts(), self.pictures)] if self.pictures else []
        shares = all_gather_object(self._maps.of(drawn)) if drawn else []
        values: list[dict[str, float] | None] = [None]
        if is_main_process():
            pages = self._pages(drawn, shares, regions)
            values = [self.compute_metrics([tally, [regions[index] for index in order], pages])]
        broadcast_object_list(values)
        self._start()
        return {f"{self.prefix}/{key}" if self.prefix else key: value for key, value in (values[0] or {}).items()}

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Flat dict of the defined metrics; sets `rows`, and writes the files where `out_dir` is given.

        `results`: the tally of the whole set, its regions in the same order, and the pages to draw.
        """
        tally, regions, pages = results
        classes, counts, patches = self._class_names(), tally.counts(), tally.patch_sums()
        patients = [region.patient for region in regions]
        first = self._first_rows(counts, patients, classes)
        if self.out_dir is None:
            self.rows = first + segmentation_report(counts, patients, classes, patches, self.n_bootstrap, self.seed)
        else:
            items, slides = [region.item for region in regions], [region.slide for region in regions]
            write_pictures(Path(self.out_dir) / "plots", pages, classes, self._colors(classes), self.ignore_index)
            self.rows = write_segmentation(
                self.out_dir,
                counts,
                items,
                patients,
                slides,
                classes,
                patches,
                self.n_bootstrap,
                self.seed,
                first_rows=first,
            )
            print_log(f"Evaluation written to {Path(self.out_dir)}", logger="current")
        undefined = [f"{row['metric']} ({row['level']})" for row in self.rows if row["value"] is None]
        if undefined:
            print_log(f"undefined on this set: {', '.join(undefined)}", logger="current", level=logging.WARNING)
        names = [row["metric"] for row in first] + [_log_name(row) for row in self.rows[len(first) :]]
        values = [row["value"] for row in self.rows]
        return {name: value for name, value in zip(names, values, strict=True) if name and value is not None}

    def _first_rows(self, counts: np.ndarray, patients: Sequence[str | None], classes: Sequence[str]) -> list[Row]:
        """A subclass's own rows, from the counts of each region (N, C, C); in the log under their metric's name."""
        return []

    def _picture(self, region: Any, patches: Sequence[MapPatch]) -> np.ndarray:
        """The region as it is drawn, RGB uint8 (H, W, 3); ConfigError or DataError where it cannot be read."""
        from pathzoo.datasets.transforms.loading import read_rgb

        return read_rgb(region.img_path)

    def _number(self, sample: dict) -> int:
        """The sample's region, remembered by what it is."""
        index = int(sample["region_index"])
        region = self.region_type(*(sample[key] for key in self.region_type._fields))
        known = self._regions.setdefault(index, region)
        if known.item != region.item:
            raise ConfigError(
                f"{type(self).__name__}: {known.item} and {region.item} have the same region_index {index}; "
                "evaluate one dataset at a time"
            )
        return index

    def _check_size(self, counted: int, size: int) -> None:
        if counted != size:
            raise ConfigError(
                f"{type(self).__name__}: {counted} of {size} samples were counted; sample_idx must be a sample's place "
                "in the dataset, and with several processes sample i must go to process i % their number "
                "(DefaultSampler with shuffle=False)"
            )

    def _pages(
        self,
        drawn: Sequence[int],
        shares: Sequence[dict[int, list[MapPatch]]],
        regions: dict[int, Any],
    ) -> Iterator[RegionPicture]:
        """One region at a time; one whose image cannot be read is left out and said."""
        for place, index in enumerate(drawn):
            region = regions[index]
            patches = [patch for share in shares for patch in share[index]]
            try:
                image = self._picture(region, patches)
            except (ConfigError, DataError) as error:
                print_log(f"{region.item} is not drawn: {error}", logger="current", level=logging.WARNING)
                continue
            truth, prediction = stitch(patches, *image.shape[:2], fill=self.ignore_index)
            rank = {len(drawn) - 1: "best", 0: "worst"}.get(
                place, "median" if len(drawn) == 3 else "between the others"
            )
            yield RegionPicture(
                f"{region.item}, {rank} of {len(regions)} by mIoU", image, truth, {"prediction": prediction}
            )

    def _class_names(self) -> tuple[str, ...]:
        names = self.classes or (self.dataset_meta or {}).get("classes")
        if not names:
            raise ConfigError(
                f"{type(self).__name__}: no class names; give classes=(...) or a dataset with metainfo classes"
            )
        return tuple(names)

    def _colors(self, classes: Sequence[str]) -> list[tuple[int, int, int]] | None:
        palette = (self.dataset_meta or {}).get("palette")
        return [tuple(color) for color in palette] if palette and len(palette) == len(classes) else None


def count_by_value(truth: torch.Tensor, prediction: torch.Tensor, n_classes: int) -> np.ndarray:
    """Pixels by value of the truth (row) and predicted class: `confusion_counts`' joint code on the maps' own device.

    Args:
        truth: integers (H, W) in 0..255.
        prediction: integers (H, W) in 0..C-1.
        n_classes: C.

    Returns:
        int64 (256, C).

    Raises:
        DataError: a value out of range; it names the value.
    """
    lowest, highest = (int(value) for value in torch.aminmax(prediction))
    segmentation.check_values("prediction", lowest, highest, n_classes)
    lowest, highest = (int(value) for value in torch.aminmax(truth))
    segmentation.check_values("truth", lowest, highest, segmentation.N_VALUES)
    code = (truth.to(torch.int32) * n_classes + prediction.to(torch.int32)).reshape(-1)
    n_codes = segmentation.N_VALUES * n_classes
    return torch.bincount(code, minlength=n_codes).cpu().numpy().reshape(segmentation.N_VALUES, n_classes)


def _label_maps(sample: dict) -> tuple[torch.Tensor, torch.Tensor]:
    """Truth and prediction (H, W) on the prediction's device."""
    for key in ("gt_sem_seg", "pred_sem_seg"):
        if key not in sample:
            raise ConfigError(f"SegmentationMetric: {sample['item']} has no {key}; evaluate a labelled set by a model")
    prediction = sample["pred_sem_seg"]["data"].squeeze(0)
    truth = sample["gt_sem_seg"]["data"].squeeze(0).to(prediction.device)
    if truth.shape != prediction.shape:
        raise DataError(
            f"{sample['item']}: truth of {tuple(truth.shape)} and prediction of {tuple(prediction.shape)} pixels; "
            "the model must predict at the patch's own size"
        )
    return truth, prediction


def _log_name(row: Row) -> str | None:
    """The row's name in the log; None for one that is only in `rows`."""
    if row["level"] == "pixel":
        return None if row["metric"].startswith(("precision_", "recall_")) else row["metric"]
    return f"{row['level']}_{row['metric']}" if row["metric"] in _LOGGED else None
