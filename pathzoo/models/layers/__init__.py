"""Building blocks that several networks share."""

from pathzoo.models.layers.csp import SPPF, Bottleneck, ConvUnit, CSPStage, fuse_conv_bn, scaled_channels, scaled_depth

__all__ = ["SPPF", "Bottleneck", "CSPStage", "ConvUnit", "fuse_conv_bn", "scaled_channels", "scaled_depth"]
