"""The metric of pretext tasks: how well a model solves the task that it makes up for itself."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric

from pathzoo.errors import ConfigError
from pathzoo.evaluation.functional import Row, bootstrap_replicates, cluster_index
from pathzoo.evaluation.functional.classification import FloatArray, divide
from pathzoo.evaluation.functional.rows import make_row
from pathzoo.registry import METRICS

#: Name in the log -> field of a predicted sample.
_FIELDS = {"loss": "pretext_loss", "accuracy": "pretext_correct"}


@METRICS.register_module()
class PretextMetric(BaseMetric):
    """Means over the samples of a validation set: `loss` and, where the model tells it, `accuracy`.

    Lower is better for `loss`, so `save_best="loss", rule="less"` keeps the epoch of the lowest one, as study 2 does.
    Every sample counts once: batches that are not full weigh less, and the repeats by which samplers even the
    processes' shares out are cut off, as for `ClassificationMetric`. A contrastive loss depends on the batch (a
    picture is held against the others of its batch in its process), so that it compares between epochs of one run and
    between runs of the same `val_dataloader` and number of processes; the last batch, if smaller, has a lower one.

    Args:
        n_bootstrap: resamples of patients for intervals in `rows`, where samples carry `patient` (in PackInputs'
            `meta_keys`); 0 for none.
        seed: of the resampling.
        level: what one sample is: "image" or "tile".
        collect_device, prefix, collect_dir: as BaseMetric.

    Attributes:
        rows: the numbers for metrics.json, on the main process.
    """

    default_prefix = ""

    def __init__(
        self,
        n_bootstrap: int = 0,
        seed: int = 0,
        level: str = "tile",
        collect_device: str = "cpu",
        prefix: str | None = None,
        collect_dir: str | None = None,
    ):
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        self.n_bootstrap, self.seed, self.level = n_bootstrap, seed, level
        self.rows: list[Row] = []

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keeps the values of each sample (mmpretrain's DataSample as a dict) and its patient.

        Raises:
            ConfigError: a sample without `pretext_loss`: the model is none of pathzoo's pretext tasks.
        """
        if any(_FIELDS["loss"] not in sample for sample in data_samples):
            raise ConfigError(
                "PretextMetric: samples have no pretext_loss; it evaluates pathzoo's SimCLR and RotationPred. For "
                "another model set val_evaluator, val_dataloader and val_cfg to None, or take its own metric"
            )
        names = [name for name, field in _FIELDS.items() if all(field in sample for sample in data_samples)]
        # One transfer for the batch, not one for each number.
        columns = {
            name: torch.stack([sample[_FIELDS[name]] for sample in data_samples]).double().cpu().tolist()
            for name in names
        }
        for index, sample in enumerate(data_samples):
            values = {name: column[index] for name, column in columns.items()}
            self.results.append(values | {"patient": sample.get("patient")})

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Flat dict of the means; sets `rows`."""
        names = [name for name in _FIELDS if name in results[0]]
        values = np.array([[result[name] for name in names] for result in results])  # (N, K)
        clusters = cluster_index([result["patient"] for result in results]) if self.n_bootstrap else None

        def means(weights: FloatArray) -> FloatArray:
            return divide(weights @ values, weights.sum(axis=1, keepdims=True))

        drawn = None if clusters is None else bootstrap_replicates(means, clusters, self.n_bootstrap, self.seed)
        self.rows = [
            make_row(name, self.level, len(values), float(values[:, k].mean()), None if drawn is None else drawn[:, k])
            for k, name in enumerate(names)
        ]
        return {name: float(values[:, k].mean()) for k, name in enumerate(names)}
