"""YOLOv5's neck (release 7.0): a path aggregation network of cross-stage-partial stages."""

from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from torch import nn

from pathzoo.errors import ConfigError
from pathzoo.models.layers import ConvUnit, CSPStage, scaled_depth
from pathzoo.registry import MODELS


@MODELS.register_module()
class YOLOv5PAFPN(BaseModule):
    """From the coarse map down to the fine one and up again, each step joining the map of its size.

    Path aggregation: Liu et al., CVPR 2018. Maps are enlarged by repetition (nearest neighbour).

    Args:
        channels: of the three maps, the finest first, as `YOLOv5Backbone.channels`.
        deepen: depth multiple; each stage has 3 bottlenecks times it, which do not add their input.
        init_cfg: mmengine's; leave it None.

    Shape: three maps (N, channels[k], h, w), the finest first, each half as large as the one before -> the same shapes.

    Raises:
        ConfigError: not three levels.
    """

    def __init__(self, channels: Sequence[int], deepen: float = 1.0, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        if len(channels) != 3:
            raise ConfigError(f"YOLOv5PAFPN: channels={tuple(channels)}: give those of three levels, the finest first")
        fine, middle, coarse = self.channels = tuple(channels)
        depth = scaled_depth(3, deepen)
        self.reduce_coarse = ConvUnit(coarse, middle)
        self.down_middle = CSPStage(2 * middle, middle, depth, shortcut=False)
        self.reduce_middle = ConvUnit(middle, fine)
        self.down_fine = CSPStage(2 * fine, fine, depth, shortcut=False)
        self.shrink_fine = ConvUnit(fine, fine, kernel=3, stride=2)
        self.up_middle = CSPStage(2 * fine, middle, depth, shortcut=False)
        self.shrink_middle = ConvUnit(middle, middle, kernel=3, stride=2)
        self.up_coarse = CSPStage(2 * middle, coarse, depth, shortcut=False)
        self.enlarge = nn.Upsample(scale_factor=2, mode="nearest")

    def forward(self, maps: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Returns the aggregated maps, the finest first."""
        fine, middle, coarse = maps
        coarse = self.reduce_coarse(coarse)
        middle = self.reduce_middle(self.down_middle(torch.cat((self.enlarge(coarse), middle), dim=1)))
        fine = self.down_fine(torch.cat((self.enlarge(middle), fine), dim=1))
        middle = self.up_middle(torch.cat((self.shrink_fine(fine), middle), dim=1))
        coarse = self.up_coarse(torch.cat((self.shrink_middle(middle), coarse), dim=1))
        return fine, middle, coarse
