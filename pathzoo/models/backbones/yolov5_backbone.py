"""YOLOv5's backbone (release 7.0): five strided units, four cross-stage-partial stages, pooling of three sizes."""

import torch
from mmengine.model import BaseModule
from torch import nn

from pathzoo.models.layers import SPPF, ConvUnit, CSPStage, scaled_channels, scaled_depth
from pathzoo.registry import MODELS

#: Size -> (depth multiple, width multiple).
YOLOV5_SIZES = {"n": (0.33, 0.25), "s": (0.33, 0.5), "m": (0.67, 0.75), "l": (1.0, 1.0), "x": (1.33, 1.25)}
_WIDTHS = (64, 128, 256, 512, 1024)
_DEPTHS = (3, 6, 9, 3)


@MODELS.register_module()
class YOLOv5Backbone(BaseModule):
    """Convolutional pyramid at strides 8, 16 and 32.

    Args:
        deepen: depth multiple; the stages have 3, 6, 9 and 3 bottlenecks times it.
        widen: width multiple; the levels have 64, 128, 256, 512 and 1024 channels times it, in multiples of 8.
        channels_last: keep activations as (N, H, W, C) in memory, from here to the head. The results are the same but
            for rounding; on a CPU a training step of S takes three quarters of the time, of L nine tenths.
        init_cfg: mmengine's; leave it None.

    Attributes:
        channels: of the three maps.

    Shape: (N, 3, H, W) with sides that 32 divides -> three maps (N, `channels[k]`, H / 8, W / 8), / 16, / 32.
    """

    strides = (8, 16, 32)

    def __init__(
        self, deepen: float = 1.0, widen: float = 1.0, channels_last: bool = True, init_cfg: dict | None = None
    ) -> None:
        super().__init__(init_cfg)
        widths = [scaled_channels(width, widen) for width in _WIDTHS]
        depths = [scaled_depth(depth, deepen) for depth in _DEPTHS]
        self.channels: tuple[int, ...] = tuple(widths[2:])
        self._memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.stem = ConvUnit(3, widths[0], kernel=6, stride=2, padding=2)
        self.stages = nn.ModuleList(
            nn.Sequential(ConvUnit(before, width, kernel=3, stride=2), CSPStage(width, width, depth))
            for before, width, depth in zip(widths, widths[1:], depths, strict=False)
        )
        self.pooling = SPPF(widths[-1], widths[-1])

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Returns the maps, the finest first."""
        maps = [self.stem(x.contiguous(memory_format=self._memory_format))]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps[2], maps[3], self.pooling(maps[4])
