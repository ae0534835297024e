"""Blocks of cross-stage-partial networks, as YOLOv5 (release 7.0) puts them together.

Written from published facts: cross-stage partial connections (Wang et al., CSPNet, CVPR Workshops 2020), spatial
pyramid pooling (He et al., TPAMI 2015) with three pools in a row in the place of three side by side, SiLU (Elfwing et
al., Neural Networks 2018), batch normalisation with eps 1e-3 and momentum 0.03. The parameter counts of the release say
whether it came out right (tests/models/test_yolov5_detector.py).
"""

import math

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from pathzoo.models.layers.folded_conv import FoldedConv

_EPS, _MOMENTUM = 1e-3, 0.03


class ConvUnit(nn.Sequential):
    """Convolution without bias, batch normalisation, SiLU; "same" padding unless given.

    Args:
        in_channels, out_channels: of the convolution.
        kernel: side of the kernel, pixels.
        stride: of the convolution.
        padding: pixels; half of the kernel where not given.

    Shape: (N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride)) for an odd kernel.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int = 1, stride: int = 1, padding: int | None = None
    ) -> None:
        super().__init__()
        padding = kernel // 2 if padding is None else padding
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, eps=_EPS, momentum=_MOMENTUM)
        self.act = nn.SiLU(inplace=True)


class Bottleneck(nn.Module):
    """A 1 x 1 and a 3 x 3 unit of equal width, with the input added to their result by choice.

    Shape: (N, channels, H, W) -> the same.
    """

    def __init__(self, channels: int, shortcut: bool = True) -> None:
        super().__init__()
        self.reduce = ConvUnit(channels, channels, 1)
        self.spread = ConvUnit(channels, channels, 3)
        self.shortcut = shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the block's map."""
        found = self.spread(self.reduce(x))
        return x + found if self.shortcut else found


class CSPStage(nn.Module):
    """A stage of cross-stage-partial bottlenecks with three 1 x 1 units (known as C3).

    One half of the channels runs through the bottlenecks, the other past them; both are joined.

    Args:
        in_channels, out_channels: of the stage; each half has half of `out_channels`.
        depth: number of bottlenecks.
        shortcut: whether these add their input.

    Shape: (N, in_channels, H, W) -> (N, out_channels, H, W).
    """

    def __init__(self, in_channels: int, out_channels: int, depth: int, shortcut: bool = True) -> None:
        super().__init__()
        half = out_channels // 2
        self.main = ConvUnit(in_channels, half)
        self.past = ConvUnit(in_channels, half)
        self.join = ConvUnit(2 * half, out_channels)
        self.blocks = nn.Sequential(*(Bottleneck(half, shortcut) for _ in range(depth)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the stage's map."""
        return self.join(torch.cat((self.blocks(self.main(x)), self.past(x)), dim=1))


class SPPF(nn.Module):
    """Spatial pyramid pooling by one max-pooling of 5 x 5 pixels, applied three times in a row.

    Twice and three times are poolings of 9 x 9 and 13 x 13, at a fraction of their cost.

    Shape: (N, in_channels, H, W) -> (N, out_channels, H, W).
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 5) -> None:
        super().__init__()
        half = in_channels // 2
        self.reduce = ConvUnit(in_channels, half)
        self.join = ConvUnit(4 * half, out_channels)
        self.pool = nn.MaxPool2d(kernel, stride=1, padding=kernel // 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the joined pyramid."""
        maps = [self.reduce(x)]
        for _ in range(3):
            maps.append(self.pool(maps[-1]))
        return self.join(torch.cat(maps, dim=1))


def scaled_channels(channels: int, multiple: float) -> int:
    """Channels times a network's width multiple, up to the next multiple of 8."""
    return math.ceil(channels * multiple / 8) * 8


def scaled_depth(depth: int, multiple: float) -> int:
    """Blocks of a stage times a network's depth multiple, rounded, one at least."""
    return max(round(depth * multiple), 1)


@torch.no_grad()
def fuse_conv_bn(module: nn.Module) -> int:
    """Folds the normalisation of every `ConvUnit` below `module` into its convolution, in place, for inference.

    The convolution becomes a `FoldedConv`, which applies SiLU too.

    Returns:
        The number of units folded. A unit that is folded already is left alone.

    Raises:
        ValueError: `module` is in training mode, where the normalisation takes its statistics from the batch.
    """
    if module.training:
        raise ValueError("fuse_conv_bn: the network is in training mode; call eval() first")
    count = 0
    for unit in module.modules():
        if isinstance(unit, ConvUnit) and isinstance(unit.bn, nn.BatchNorm2d):
            unit.conv = FoldedConv(fuse_conv_bn_eval(unit.conv, unit.bn))
            unit.bn, unit.act = nn.Identity(), nn.Identity()
            count += 1
    return count
