"""What pathzoo's pretext tasks share: they can be validated."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from mmpretrain.models import SelfSupDataPreprocessor
from mmpretrain.models.selfsup.base import BaseSelfSupervisor
from mmpretrain.structures import DataSample


class PretextModel(BaseSelfSupervisor):
    """mmpretrain's BaseSelfSupervisor that also takes mode "predict", by which mmengine's loops validate and test.

    A prediction is the pretext task's own loss of each sample: `pretext_loss`, and by choice `pretext_correct`, which
    `pathzoo.evaluation.metrics.PretextMetric` averages.

    Attributes:
        views_in_one_pass: Views of the same pictures that pass each module in one batch, one view after the other;
            `pathzoo.engine.hooks.CollapseMonitor` asks for it.
    """

    views_in_one_pass = 1

    def __init__(
        self,
        backbone: Any,
        neck: Any = None,
        head: Any = None,
        data_preprocessor: Any = None,
        init_cfg: dict | list | None = None,
    ) -> None:
        if data_preprocessor is None or isinstance(data_preprocessor, dict):
            # The host would name it by a string, which is found in some default scopes only.
            data_preprocessor = {"type": SelfSupDataPreprocessor, **(data_preprocessor or {})}
        parts = {"neck": neck, "head": head, "data_preprocessor": data_preprocessor}
        super().__init__(backbone=backbone, **parts, init_cfg=init_cfg)

    def forward(self, inputs: Any, data_samples: Sequence[DataSample] | None = None, mode: str = "tensor") -> Any:
        """Modes: "tensor" (N, 3, H, W) -> the backbone's maps; "loss" -> dict of losses; "predict" -> samples."""
        if mode == "predict":
            return self.predict(inputs, data_samples)
        return super().forward(inputs, data_samples, mode)

    @abstractmethod
    def predict(self, inputs: Any, data_samples: Sequence[DataSample] | None = None) -> list[DataSample]:
        """The samples, each with its `pretext_loss`."""

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        """What the neck makes of images, (N, D); without a neck the backbone's last map, averaged over its places."""
        maps = self.backbone(images)
        found = self.neck(maps) if self.with_neck else maps
        last = found[-1] if isinstance(found, tuple | list) else found
        return last.flatten(2).mean(2) if last.ndim > 2 else last


def with_fields(data_samples: Sequence[DataSample] | None, fields: dict[str, torch.Tensor]) -> list[DataSample]:
    """The samples (new ones where there are none), each with its row of every field."""
    n = len(next(iter(fields.values())))
    samples = [DataSample() for _ in range(n)] if data_samples is None else list(data_samples)
    for index, sample in enumerate(samples):
        for name, values in fields.items():
            sample.set_field(values[index], name)
    return samples
