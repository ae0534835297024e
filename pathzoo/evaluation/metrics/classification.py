"""The metric of classification configs."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log

from pathzoo.errors import ConfigError
from pathzoo.evaluation.functional import Row, classification_report
from pathzoo.evaluation.report import write_evaluation
from pathzoo.registry import METRICS

#: What the metric needs of each sample beside label and score; mmpretrain.PackInputs carries it in `meta_keys`.
META_KEYS = ("item", "patient", "slide")


@METRICS.register_module()
class ClassificationMetric(BaseMetric):
    """All of `classification_report` over a validation or test set.

    It returns a flat dict for the log: `accuracy`, `balanced_accuracy`, `sensitivity`, `specificity`, `f1`, `roc_auc`,
    `average_precision`, `ece`, `nll`, `brier` of the images, and other levels by name (`patient_recognition_rate`,
    `slide_recognition_rate`, `patient_accuracy`, ...). There is no prefix, so `save_best="balanced_accuracy"` works.
    What is undefined on the set (no image of a class) is left out and said in a warning. `rows` keeps everything, with
    n, intervals and notes, on the main process.

    With several processes each evaluates its share; mmengine gathers the shares on the main one in the order in
    which its samplers deal them out (item i to rank i % world) and cuts off the repeats that even the shares out, so
    every item counts once. Only the main process computes and writes.

    Args:
        classes: C class names; by default the dataset's (`metainfo["classes"]`).
        positive: positive class of two, by name or index.
        n_bootstrap: resamples of patients for intervals; by default 1000 where files are written, else 0.
        seed: of the resampling.
        level: what one image is: "image" or "tile".
        out_dir: folder for metrics.json, predictions.csv, curves/ and plots/ (`write_evaluation`); None writes nothing.
        collect_device: "cpu" (through files) or "gpu", as BaseMetric.
        prefix: of the names in the log.
        collect_dir: folder for the files of collect_device "cpu"; it must be shared by all processes.
    """

    default_prefix = ""

    def __init__(
        self,
        classes: Sequence[str] | None = None,
        positive: int | str = 1,
        n_bootstrap: int | None = None,
        seed: int = 0,
        level: str = "image",
        out_dir: str | None = None,
        collect_device: str = "cpu",
        prefix: str | None = None,
        collect_dir: str | None = None,
    ):
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        self.classes = None if classes is None else tuple(classes)
        self.positive = positive
        self.n_bootstrap = (1000 if out_dir else 0) if n_bootstrap is None else n_bootstrap
        self.seed = seed
        self.level = level
        self.out_dir = out_dir
        self.rows: list[Row] = []

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keeps score, label and origin of each sample (mmpretrain's DataSample as a dict)."""
        for sample in data_samples:
            missing = [key for key in META_KEYS if key not in sample]
            if missing:
                raise ConfigError(
                    f"ClassificationMetric: samples lack {', '.join(missing)}; "
                    f"the pipeline's PackInputs needs meta_keys={META_KEYS}"
                )
            kept = {key: sample[key] for key in META_KEYS}
            kept["label"] = int(sample["gt_label"].item())
            kept["probs"] = sample["pred_score"].detach().float().cpu().numpy()
            self.results.append(kept)

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Flat dict of the defined metrics; sets `rows`, and writes the files where `out_dir` is given."""
        classes = self._class_names()
        columns = {key: [result[key] for result in results] for key in (*META_KEYS, "label", "probs")}
        arguments: dict[str, Any] = {
            "probs": np.array(columns["probs"]),
            "labels": np.array(columns["label"], dtype=np.int64),
            "patients": columns["patient"],
            "slides": columns["slide"],
            "classes": classes,
            "positive": self._positive_index(classes),
            "n_bootstrap": self.n_bootstrap,
            "seed": self.seed,
            "level": self.level,
        }
        if self.out_dir is None:
            self.rows = classification_report(**arguments)
        else:
            self.rows = write_evaluation(self.out_dir, items=columns["item"], **arguments)
            print_log(f"Evaluation written to {Path(self.out_dir)}", logger="current")
        for row in self.rows:
            if row["value"] is None:
                text = f"{row['metric']} ({row['level']}) is undefined: {row.get('note', '')}"
                print_log(text, logger="current", level=logging.WARNING)
        return {self._log_name(row): row["value"] for row in self.rows if row["value"] is not None}

    def _log_name(self, row: Row) -> str:
        return row["metric"] if row["level"] == self.level else f"{row['level']}_{row['metric']}"

    def _class_names(self) -> tuple[str, ...]:
        names = self.classes or (self.dataset_meta or {}).get("classes")
        if not names:
            raise ConfigError(
                "ClassificationMetric: no class names; give classes=(...) or a dataset with metainfo classes"
            )
        return tuple(names)

    def _positive_index(self, classes: Sequence[str]) -> int:
        if isinstance(self.positive, int):
            return self.positive
        if self.positive not in classes:
            raise ConfigError(
                f"ClassificationMetric: positive={self.positive!r} is none of the classes {list(classes)}"
            )
        return list(classes).index(self.positive)
