"""A plug-in for pathzoo: one neck. The decorator and the entry point are all there is to it."""

from torch import nn

from pathzoo.registry import MODELS


@MODELS.register_module()
class MaxPooling(nn.Module):
    """(N, C, H, W) -> (N, C): the maximum over the map."""

    def forward(self, maps: tuple) -> tuple:
        """Pools the last map."""
        return (maps[-1].amax((2, 3)),)
