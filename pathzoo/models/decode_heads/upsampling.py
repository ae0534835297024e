"""A convolution over a map that was doubled and joined with another, without making either map."""

import torch
from torch.nn import functional

#: Pixels of the map to be doubled, over the batch: below, summing the kernels costs more than it saves (measured).
_ENOUGH_PIXELS = 512


def conv_of_joined(
    x: torch.Tensor, beside: torch.Tensor | None, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """A 3x3 convolution, padded by 1, of `x` enlarged by nearest neighbours and joined with `beside`.

    On a CPU, and where the enlarging is an exact doubling, the same numbers are had for fewer multiplications: the
    pixels of a doubled map are alike in blocks of 2x2, so that a 3x3 kernel over it is a transposed convolution of
    stride 2 by a 4x4 kernel of sums of its weights (4 products a pixel in the place of 9), and a convolution over
    joined maps is the sum of one over each. tools/benchmarks/segmentation_training.py shows what that saves.

    Args:
        x: (N, C, h, w).
        beside: (N, B, H, W), at whose size the result is; None for none, and H = 2h, W = 2w.
        weight: (O, C + B, 3, 3).
        bias: (O,).

    Returns:
        (N, O, H, W).
    """
    height, width = 2 * x.shape[2], 2 * x.shape[3]
    size = (height, width) if beside is None else tuple(beside.shape[2:])
    pixels = x.shape[0] * x.shape[2] * x.shape[3]
    if x.device.type == "cpu" and size == (height, width) and pixels >= _ENOUGH_PIXELS:
        channels = x.shape[1]
        kernel = doubling_kernel(weight[:, :channels])
        result = functional.conv_transpose2d(x, kernel, bias, stride=2, padding=1)
        return result if beside is None else result + functional.conv2d(beside, weight[:, channels:], padding=1)
    enlarged = functional.interpolate(x, size=size, mode="nearest")
    joined = enlarged if beside is None else torch.cat([enlarged, beside], dim=1)
    return functional.conv2d(joined, weight, bias, padding=1)


def doubling_kernel(weight: torch.Tensor) -> torch.Tensor:
    """(O, C, 3, 3), over a map doubled by nearest neighbours -> (C, O, 4, 4), transposed, of stride 2 and padding 1.

    In one dimension (a, b, c) gives (c, c + b, b + a, a): an even pixel 2i of the doubled map sees a of pixel i - 1 and
    b + c of pixel i, an odd one 2i + 1 sees a + b of pixel i and c of pixel i + 1.
    """
    for axis in (2, 3):
        first, middle, last = weight.unbind(axis)
        weight = torch.stack([last, last + middle, middle + first, first], dim=axis)
    return weight.transpose(0, 1)
