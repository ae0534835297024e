"""The short way to a convolution over a doubled map, against the long one and against its definition."""

import pytest
import torch
from torch.nn import functional

from pathzoo.models.decode_heads import upsampling
from pathzoo.models.decode_heads.upsampling import conv_of_joined, doubling_kernel


def long_way(x, beside, weight, bias):
    height, width = (2 * x.shape[2], 2 * x.shape[3]) if beside is None else beside.shape[2:]
    x = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)[:, :, :height, :width]
    return functional.conv2d(x if beside is None else torch.cat([x, beside], dim=1), weight, bias, padding=1)


@pytest.mark.parametrize("joined", [0, 3])
@pytest.mark.parametrize("size", [(32, 32), (31, 32), (31, 31)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_values_and_gradients_are_the_long_ways(joined, size, layout, monkeypatch):
    monkeypatch.setattr(upsampling, "_ENOUGH_PIXELS", 0)
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    x = drawn(2, 5, 16, 16).contiguous(memory_format=layout)
    beside = drawn(2, joined, *size).contiguous(memory_format=layout) if joined else None
    given = [x, *([beside] if joined else []), drawn(4, 5 + joined, 3, 3), drawn(4)]
    results = []
    for way in (conv_of_joined, long_way):
        tensors = [tensor.clone().requires_grad_() for tensor in given]
        value = way(tensors[0], tensors[1] if joined else None, tensors[-2], tensors[-1])
        value.square().sum().backward()
        results.append([value, *(tensor.grad for tensor in tensors)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_kernel_in_one_dimension():
    """Written out for a map (p, q) doubled to (p, p, q, q), beyond it zeros, and a kernel (a, b, c)."""
    a, b, c, p, q = 2.0, 3.0, 5.0, 7.0, 11.0
    kernel = doubling_kernel(torch.tensor([a, b, c]).view(1, 1, 1, 3).expand(1, 1, 3, 3) * torch.eye(3)[1].view(3, 1))
    line = torch.tensor([p, q]).view(1, 1, 1, 2)
    found = functional.conv_transpose2d(line, kernel, stride=2, padding=1)[0, 0]
    wanted = [(b + c) * p, (a + b) * p + c * q, a * p + (b + c) * q, (a + b) * q]
    assert found.tolist() == [wanted, wanted]


def test_small_maps_take_the_long_way_to_the_same_numbers():
    x, weight = torch.randn(1, 3, 4, 4), torch.randn(2, 3, 3, 3)
    torch.testing.assert_close(conv_of_joined(x, None, weight), long_way(x, None, weight, None))
