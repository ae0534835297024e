"""A U-Net decoder over any encoder's pyramid, as a decode head of mmseg."""

from collections.abc import Sequence
from typing import Any

import torch
from mmcv.cnn import ConvModule
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import nn
from torch.nn import functional

from pathzoo.errors import ConfigError
from pathzoo.models.decode_heads.upsampling import conv_of_joined
from pathzoo.models.losses import PixelCrossEntropy
from pathzoo.registry import MODELS

_NORM = {"type": nn.BatchNorm2d}
_ACT = {"type": nn.ReLU}
_LOSS = {"type": PixelCrossEntropy}
_INIT = {"type": "Normal", "std": 0.01, "override": {"name": "conv_seg"}}
#: Stages that may follow the finest map: encoders whose first map lies at stride 4 need two to reach the input's size.
_MOST_BEYOND = 2


@MODELS.register_module()
class UNetHead(BaseDecodeHead):
    """Decodes from the coarsest map upwards; each stage doubles the size, joins the next finer map and convolves twice.

    Source: Ronneberger, Fischer, Brox, U-Net, MICCAI 2015, with padded convolutions, normalisation, and nearest
    neighbours in the place of transposed convolutions, as is usual over a pretrained encoder.

    Args:
        in_channels: Channels of the encoder's maps, finest first, each half as large as the one before.
        decoder_channels: Channels of the stages, coarsest first. The first `len(in_channels) - 1` join a map each;
            those beyond only double the size: one brings a pyramid that begins at stride 2 to the input's resolution,
            two one that begins at stride 4. Narrow ones, such as (64, 48, 32, 24, 16), are for small data and CPUs.
        num_classes: Number of classes, each with a logit of its own.
        in_index: Which of the encoder's maps are taken, finest first; all, where None.
        norm_cfg: As mmcv takes it; None for none.
        act_cfg: Likewise.
        dropout_ratio: Of whole channels, before the last convolution.
        align_corners: Of the resizing of logits, where stages are too few to reach the labels' size.
        loss_decode: One loss or several; `pathzoo.models.losses` has those that respect what is not labelled.
        ignore_index: Label that counts nowhere.
        init_cfg: mmengine's.

    Shape: maps (N, C_k, H_k, W_k) -> logits (N, `num_classes`, 2^b H_0, 2^b W_0), b the stages beyond. Sizes that 2
    does not divide are no matter: a stage takes the size of the map that it joins, and what the last ones give too much
    at the right and the bottom is cut off, since the encoder rounds up, so that pixels keep their places.

    A sample's loss counts `loss_weight` times (its metainfo; 1 where absent): see `sample_weights`.

    Raises:
        ConfigError: Too few or too many stages, or maps that are not those of `in_channels`.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        decoder_channels: Sequence[int] = (256, 128, 64, 32, 16),
        *,
        num_classes: int,
        in_index: Sequence[int] | None = None,
        norm_cfg: dict | None = _NORM,
        act_cfg: dict | None = _ACT,
        dropout_ratio: float = 0.0,
        align_corners: bool = False,
        loss_decode: dict | Sequence[dict] = _LOSS,
        ignore_index: int = 255,
        init_cfg: dict | None = _INIT,
    ) -> None:
        maps, widths = tuple(in_channels), tuple(decoder_channels)
        index = tuple(range(len(maps))) if in_index is None else tuple(in_index)
        _check(maps, widths, index)
        super().__init__(
            list(maps),
            widths[-1],
            num_classes=num_classes,
            out_channels=num_classes,
            dropout_ratio=dropout_ratio,
            norm_cfg=norm_cfg,
            act_cfg=act_cfg,
            in_index=list(index),
            input_transform="multiple_select",
            loss_decode=loss_decode,
            ignore_index=ignore_index,
            align_corners=align_corners,
            init_cfg=init_cfg,
        )
        self._beyond = len(widths) - (len(maps) - 1)
        joined = [*maps[-2::-1], *[0] * self._beyond]  # coarsest first
        taken = [maps[-1], *widths[:-1]]
        self.stages = nn.ModuleList(
            _Stage(before, beside, width, norm_cfg, act_cfg)
            for before, beside, width in zip(taken, joined, widths, strict=True)
        )

    def forward(self, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        """Logits of the encoder's maps; see the class for their size."""
        maps = self._transform_inputs(inputs)
        found = [level.shape[1] for level in maps]
        if found != list(self.in_channels):
            raise ConfigError(
                f"UNetHead: the encoder's maps have {found} channels, in_channels says {list(self.in_channels)}; set "
                "it to the encoder's (TimmBackbone(..., out_indices).channels)"
            )
        x = maps[-1]
        for stage, beside in zip(self.stages, [*maps[-2::-1], *[None] * self._beyond], strict=True):
            x = stage(x, beside)
        return self.cls_seg(x)

    def loss_by_feat(self, seg_logits: torch.Tensor, batch_data_samples: Sequence[Any]) -> dict[str, torch.Tensor]:
        """The losses by name, and `acc_seg`: per cent of the labelled pixels that are right."""
        labels = self._stack_batch_gt(batch_data_samples).squeeze(1)  # (N, H, W)
        logits = self._fitted(seg_logits, labels.shape[1:])
        weight = sample_weights(batch_data_samples, logits)
        losses: dict[str, torch.Tensor] = {}
        for part in self.loss_decode if isinstance(self.loss_decode, nn.ModuleList) else [self.loss_decode]:
            value = part(logits, labels, weight=weight, ignore_index=self.ignore_index)
            losses[part.loss_name] = losses[part.loss_name] + value if part.loss_name in losses else value
        right = (logits.detach().argmax(dim=1) == labels).sum()
        losses["acc_seg"] = 100.0 * right / (labels != self.ignore_index).sum().clamp_min(1)
        return losses

    def predict_by_feat(self, seg_logits: torch.Tensor, batch_img_metas: Sequence[dict]) -> torch.Tensor:
        """Logits at the size of the (padded) inputs."""
        first = batch_img_metas[0]
        own = isinstance(first["img_shape"], torch.Size)  # mmseg's sliding window says it thus
        shape = first["img_shape"] if own or "pad_shape" not in first else first["pad_shape"]
        return self._fitted(seg_logits, shape[:2])

    def _fitted(self, logits: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
        """Logits at `size`: cut where doubling rounded-up sizes gave too much, else resized."""
        height, width = size
        surplus = (logits.shape[2] - height, logits.shape[3] - width)
        if surplus == (0, 0):
            return logits
        if all(0 <= pixels < 2**self._beyond for pixels in surplus):
            return logits[:, :, :height, :width]
        return functional.interpolate(logits, size=(height, width), mode="bilinear", align_corners=self.align_corners)


class _Stage(nn.Module):
    """Doubles the size, joins a finer map, convolves twice."""

    def __init__(self, before: int, beside: int, width: int, norm_cfg: dict | None, act_cfg: dict | None) -> None:
        super().__init__()
        self.first = ConvModule(before + beside, width, 3, padding=1, norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.second = ConvModule(width, width, 3, padding=1, norm_cfg=norm_cfg, act_cfg=act_cfg)

    def forward(self, x: torch.Tensor, beside: torch.Tensor | None) -> torch.Tensor:
        """(N, `before`, h, w) and (N, `beside`, H, W) -> (N, `width`, H, W); H = 2h, W = 2w where nothing is joined."""
        first = self.first
        x = conv_of_joined(x, beside, first.conv.weight, first.conv.bias)
        if first.with_norm:
            x = first.norm(x)
        if first.with_activation:
            x = first.activate(x)
        return self.second(x)


def sample_weights(data_samples: Sequence[Any], like: torch.Tensor) -> torch.Tensor | None:
    """`loss_weight` of the samples' metainfo, (N, 1, 1), to weigh all pixels of a sample; None where all are 1.

    None, so that a loss which knows no weights (a host's) works where none are asked for. Ours divide by the sum of the
    weights: a sample of weight 0 is as good as absent, and weights that are all alike change nothing.

    Raises:
        ConfigError: A weight below 0.
    """
    weights = [float(sample.metainfo.get("loss_weight", 1.0)) for sample in data_samples]
    if min(weights) < 0:
        raise ConfigError(f"loss_weight of a sample is {min(weights)}; 0 or more is taken")
    if all(weight == 1.0 for weight in weights):
        return None
    return torch.tensor(weights, dtype=torch.float32, device=like.device).view(-1, 1, 1)


def _check(maps: tuple[int, ...], widths: tuple[int, ...], index: tuple[int, ...]) -> None:
    if len(maps) < 2 or len(index) != len(maps):
        raise ConfigError(
            f"UNetHead: in_channels {maps} and in_index {index}: two maps at least, and as many numbers in both"
        )
    beyond = len(widths) - (len(maps) - 1)
    if not 0 <= beyond <= _MOST_BEYOND or not widths:
        raise ConfigError(
            f"UNetHead: decoder_channels {widths} are {len(widths)} stages; {len(maps)} maps take {len(maps) - 1} to "
            f"{len(maps) - 1 + _MOST_BEYOND} ({len(maps)} where the finest map lies at stride 2)"
        )
