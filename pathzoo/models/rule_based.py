"""Models by rule, without any training: they show what the zoo does with a task until trained ones are there.

They follow their hosts' contracts (mmpretrain's, mmseg's and mmdet's `forward` by mode, answers in mmengine's
structures) but import none of them. Their few numbers are parameters, so that a published one is loaded, verified and
moved to a device like any network. They take RGB in 0..255: their preprocessor has mean 0 and standard deviation 1.
"""

import math
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from torch import nn
from torch.nn import functional

from pathzoo.errors import ConfigError
from pathzoo.registry import MODELS

#: Logits over (R, G, B) of the optical density (natural logarithm), and their offsets: background, pink, purple.
#: Pink (eosin, PAS) against glass: mean density above 0.12. Purple (haematoxylin) against pink: red absorbed more than
#: half as much as green. Haematoxylin absorbs red 0.9 times as much as green, eosin 0.1 (Ruifrok and Johnston 2001).
_PINK = (12.0, 12.0, 12.0)
_PURPLE = (12.0 + 16.0, 12.0 - 8.0, 12.0)
_WEIGHT, _OFFSET = ((0.0, 0.0, 0.0), _PINK, _PURPLE), (0.0, -36 * 0.12, -36 * 0.12 - 1.0)


class _Rule(BaseModel):
    """Numbers instead of training."""

    def __init__(self, radius: int, data_preprocessor: dict | None, init_cfg: dict | None) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        if radius < 0:
            raise ConfigError(f"{type(self).__name__}: radius is {radius}; it must be 0 or more")
        steps = [math.comb(2 * radius, k) / 4**radius for k in range(2 * radius + 1)]
        self.smoothing = _number(steps)  # a binomial filter: near a Gaussian of sigma sqrt(radius / 2)

    def forward(self, inputs: torch.Tensor, data_samples: list | None = None, mode: str = "tensor") -> Any:
        """Hosts' contract: "tensor" gives the rule's maps or logits, "predict" one sample per picture."""
        if mode == "tensor":
            return self.rule(inputs)
        if mode == "predict":
            return self.predict(inputs, data_samples)
        raise ConfigError(f"{type(self).__name__}: a rule has nothing to train (mode {mode!r})")

    def smooth(self, maps: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W), each channel for itself; edges are continued outwards."""
        channels, radius = maps.shape[1], len(self.smoothing) // 2
        if not radius:
            return maps
        across = self.smoothing.view(1, 1, 1, -1).expand(channels, 1, 1, -1)
        down = self.smoothing.view(1, 1, -1, 1).expand(channels, 1, -1, 1)
        padded = functional.pad(maps, (radius, radius, radius, radius), mode="replicate")
        return functional.conv2d(functional.conv2d(padded, across, groups=channels), down, groups=channels)


@MODELS.register_module()
class ColorThresholdSegmenter(_Rule):
    """Background, pink (eosin, PAS) and purple (haematoxylin) by colour; mmseg's contract.

    Smoothed optical density, then a linear rule: what a pixel is depends on its neighbours within `radius` only, and
    a shift of the picture shifts the answer.

    Args:
        radius: Of the smoothing filter, in px.
        data_preprocessor: mean 0, std 1.
        init_cfg: mmengine's; leave it None.

    Shape: (N, 3, H, W) RGB in 0..255 -> logits (N, 3, H, W).
    """

    def __init__(self, radius: int = 4, data_preprocessor: dict | None = None, init_cfg: dict | None = None) -> None:
        super().__init__(radius, data_preprocessor, init_cfg)
        self.weight, self.offset = _number(_WEIGHT), _number(_OFFSET)

    def rule(self, inputs: torch.Tensor) -> torch.Tensor:
        """Logits (N, 3, H, W) of background, pink, purple."""
        density = self.smooth(-torch.log(inputs.clamp(1, 255) / 255))
        return torch.einsum("kc,nchw->nkhw", self.weight, density) + self.offset.view(1, -1, 1, 1)

    def predict(self, inputs: torch.Tensor, data_samples: list | None = None) -> list:
        """One sample per picture, with `seg_logits` (3, H, W) and `pred_sem_seg` (1, H, W)."""
        samples = data_samples or [BaseDataElement() for _ in range(len(inputs))]
        for sample, logits in zip(samples, self.rule(inputs), strict=True):
            sample.set_data(
                {"seg_logits": PixelData(data=logits), "pred_sem_seg": PixelData(data=logits.argmax(0, keepdim=True))}
            )
        return samples


@MODELS.register_module()
class ColorThresholdClassifier(ColorThresholdSegmenter):
    """How much of a picture is background, pink and purple; mmpretrain's contract.

    Shape: (N, 3, H, W) RGB in 0..255 -> logits (N, 3), whose softmax is the mean of the segmenter's probabilities.
    """

    def rule(self, inputs: torch.Tensor) -> torch.Tensor:
        """Logits (N, 3)."""
        return super().rule(inputs).softmax(dim=1).mean(dim=(2, 3)).clamp_min(1e-12).log()

    def predict(self, inputs: torch.Tensor, data_samples: list | None = None) -> list:
        """One sample per picture, with `pred_score` (3,) and `pred_label` (1,)."""
        samples = data_samples or [BaseDataElement() for _ in range(len(inputs))]
        for sample, scores in zip(samples, self.rule(inputs).softmax(dim=1), strict=True):
            sample.set_data({"pred_score": scores, "pred_label": scores.argmax(0, keepdim=True)})
        return samples


@MODELS.register_module()
class BlobDetector(_Rule):
    """Dark blobs (nuclei) as boxes; mmdet's contract.

    Absorbed red light (eosin and PAS absorb little of it), smoothed, above a threshold; 8-connected components of a
    fitting area are the objects, their mean absorption is the score.

    Args:
        radius: Of the smoothing filter, in px.
        threshold: Absorbed part of red light, 0..1.
        min_area: Smaller components are dropped, in px.
        max_area: Larger ones too.
        data_preprocessor: mean 0, std 1.
        init_cfg: mmengine's; leave it None.

    Shape: (N, 3, H, W) RGB in 0..255 -> (N, 1, H, W) absorption in mode "tensor"; boxes in mode "predict".
    """

    def __init__(
        self,
        radius: int = 6,
        threshold: float = 0.45,
        min_area: int = 40,
        max_area: int = 4000,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(radius, data_preprocessor, init_cfg)
        self.channels, self.threshold = _number((1.0, 0.0, 0.0)), _number(threshold)
        self.min_area, self.max_area = min_area, max_area

    def rule(self, inputs: torch.Tensor) -> torch.Tensor:
        """Absorption (N, 1, H, W) in 0..1."""
        return self.smooth(torch.einsum("c,nchw->nhw", self.channels, 1 - inputs / 255)[:, None])

    def predict(self, inputs: torch.Tensor, data_samples: list | None = None) -> list:
        """One sample per picture, with `pred_instances`: bboxes (n, 4) in px, scores (n,), labels (n,) all 0."""
        samples = data_samples or [BaseDataElement() for _ in range(len(inputs))]
        threshold = float(self.threshold)
        for sample, absorption in zip(samples, self.rule(inputs)[:, 0].float().cpu().numpy(), strict=True):
            boxes, scores = _blobs(absorption, threshold, self.min_area, self.max_area)
            found = InstanceData(
                bboxes=torch.from_numpy(boxes).to(inputs.device),
                scores=torch.from_numpy(scores).to(inputs.device),
                labels=torch.zeros(len(boxes), dtype=torch.int64, device=inputs.device),
            )
            sample.set_data({"pred_instances": found})
        return samples


def _blobs(absorption: np.ndarray, threshold: float, min_area: int, max_area: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (n, 4) and mean absorption (n,), float32, of the connected components above the threshold."""
    n, labels, stats, _ = cv2.connectedComponentsWithStats((absorption > threshold).astype(np.uint8), connectivity=8)
    area = stats[:, cv2.CC_STAT_AREA]
    score = np.bincount(labels.ravel(), weights=absorption.ravel(), minlength=n) / np.maximum(area, 1)
    keep = (area >= min_area) & (area <= max_area)
    keep[0] = False  # label 0 is what lies below the threshold
    corner = stats[:, [cv2.CC_STAT_LEFT, cv2.CC_STAT_TOP]]
    size = stats[:, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]]
    boxes = np.concatenate([corner, corner + size], axis=1)
    return boxes[keep].astype(np.float32), score[keep].clip(0, 1).astype(np.float32)


def _number(values: Any) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values, dtype=torch.float32), requires_grad=False)
