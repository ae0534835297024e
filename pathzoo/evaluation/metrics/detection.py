"""The metric of detection configs."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log

from pathzoo.errors import ConfigError
from pathzoo.evaluation.detection_files import write_detection
from pathzoo.evaluation.detection_report import DetectionRules, DetectionSet, evaluate_detection
from pathzoo.evaluation.functional import Row
from pathzoo.evaluation.functional.detection_matching import Picture
from pathzoo.registry import METRICS

#: What the metric needs of each sample beside boxes; mmdet.PackDetInputs carries it in `meta_keys`.
META_KEYS = ("item", "patient", "slide", "img_shape", "scale_factor")
_KEPT = META_KEYS[:3]


@METRICS.register_module()
class BoxMetric(BaseMetric):
    """All of `evaluate_detection` over the tiles of a validation or test set.

    It returns a flat dict for the log: COCO's `ap`, `ap50`, `ap75`, `ar100` (and `ap_CLASS` with several classes), and
    at one least overlap `average_precision`, `highest_recall`, `best_f1`, and `threshold_at_best_f1`,
    `precision_at_best_f1`, ..., `recall_at_target_recall`, ... There is no prefix, so `save_best="ap"` works. What is
    undefined on the set is left out and said in a warning. `rows` keeps everything, with n, intervals and notes, on the
    main process. An object that lies in several tiles counts in each: whole slides are for
    tools/analysis_tools/slide_detection.py.

    With several processes each evaluates its share; mmengine gathers the shares on the main one in the order in which
    its samplers deal them out and cuts off the repeats, so that every tile counts once. Only the main one computes.

    The truth's boxes are those that the pipeline moved with the picture, as pathzoo's datasets have them. mmdet's heads
    answer in pixels before resizing (`scale_factor`), and so the truth is scaled back by it. Predictions are cut at the
    picture's edges as `pathzoo predict` cuts them. Objects with `gt_ignore_flags` need not be found, and a detection in
    one is not false.

    Args:
        classes: C class names; by default the dataset's (`metainfo["classes"]`).
        iou: least intersection over union of a detection and the object that it finds, for all but COCO's rows.
        target_recall: a threshold is looked for that reaches it; None for none.
        threshold: one to report on, chosen on other data; None for none.
        n_bootstrap: resamples of patients for intervals; by default 1000 where files are written, else 0.
        seed: of the resampling.
        out_dir: folder for metrics.json, matches.csv, curves/ and plots/ (`write_detection`); None writes nothing.
        collect_device: "cpu" (through files) or "gpu", as BaseMetric.
        prefix: of the names in the log.
        collect_dir: folder for the files of collect_device "cpu"; it must be shared by all processes.
    """

    default_prefix = ""

    def __init__(
        self,
        classes: Sequence[str] | None = None,
        iou: float = 0.5,
        target_recall: float | None = 0.99,
        threshold: float | None = None,
        n_bootstrap: int | None = None,
        seed: int = 0,
        out_dir: str | None = None,
        collect_device: str = "cpu",
        prefix: str | None = None,
        collect_dir: str | None = None,
    ):
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        self.classes = None if classes is None else tuple(classes)
        self.iou, self.target_recall, self.threshold = iou, target_recall, threshold
        self.n_bootstrap = (1000 if out_dir else 0) if n_bootstrap is None else n_bootstrap
        self.seed = seed
        self.out_dir = out_dir
        self.rows: list[Row] = []

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keeps the boxes and the origin of each sample (mmdet's DetDataSample as a dict)."""
        for sample in data_samples:
            missing = [key for key in _KEPT if key not in sample]
            if missing:
                raise ConfigError(
                    f"BoxMetric: samples lack {', '.join(missing)}; the pipeline's PackDetInputs needs "
                    f"meta_keys={META_KEYS}"
                )
            kept = {key: sample[key] for key in _KEPT}
            kept["picture"] = tuple(_picture(sample))
            self.results.append(kept)

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Flat dict of the defined metrics; sets `rows`, and writes the files where `out_dir` is given."""
        pictures = [Picture(*result["picture"]) for result in results]
        origin = ([result[key] for result in results] for key in _KEPT)
        found = DetectionSet(pictures, *origin, self._class_names(), level="tile")
        rules = DetectionRules(self.iou, self.target_recall, self.threshold, self.n_bootstrap, self.seed)
        if self.out_dir is None:
            self.rows = evaluate_detection(found, rules).rows
        else:
            self.rows = write_detection(self.out_dir, found, rules).rows
            print_log(f"Evaluation written to {Path(self.out_dir)}", logger="current")
        undefined = [row["metric"] for row in self.rows if row["value"] is None]
        if undefined:
            print_log(f"undefined on this set: {', '.join(undefined)}", logger="current", level=logging.WARNING)
        return {row["metric"]: row["value"] for row in self.rows if row["value"] is not None}

    def _class_names(self) -> tuple[str, ...]:
        names = self.classes or (self.dataset_meta or {}).get("classes")
        if not names:
            raise ConfigError("BoxMetric: no class names; give classes=(...) or a dataset with metainfo classes")
        return tuple(names)


def _picture(sample: dict) -> Picture:
    for key in ("gt_instances", "pred_instances"):
        if key not in sample:
            raise ConfigError(f"BoxMetric: {sample['item']} has no {key}; evaluate a labelled set by a model")
    found, ignored = sample["pred_instances"], sample.get("ignored_instances") or {}
    truth = [sample["gt_instances"], *([ignored] if len(ignored.get("bboxes", ())) else [])]
    boxes, scores, labels = _boxes(found["bboxes"]), _array(found["scores"]), _array(found["labels"])
    scale = np.tile(np.asarray(sample.get("scale_factor", (1.0, 1.0)), np.float64)[:2], 2)
    if "img_shape" in sample:
        boxes = boxes.clip(0, np.tile(sample["img_shape"][1::-1], 2) / scale)
    inside = (boxes[:, :2] < boxes[:, 2:]).all(axis=1) | ~np.isfinite(boxes).all(axis=1)  # NaN is told, not left out
    objects = np.concatenate([_boxes(part["bboxes"]) for part in truth]) / scale
    object_labels = np.concatenate([_array(part["labels"]) for part in truth]).astype(np.int64)
    is_ignored = np.arange(len(objects)) >= len(truth[0]["bboxes"])
    labels = labels.astype(np.int64)
    return Picture(boxes[inside], scores[inside], labels[inside], objects, object_labels, is_ignored)


def _boxes(values: Any) -> np.ndarray:
    """float64 (n, 4); mmdet may wrap boxes in a class of its own."""
    return _array(getattr(values, "tensor", values)).reshape(-1, 4)


def _array(values: Any) -> np.ndarray:
    return (values.detach().float().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)).astype(
        np.float64
    )
