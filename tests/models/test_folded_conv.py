"""Convolution and SiLU in one against the plain operations: other sizes, other weights, copies, gradients."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional

from pathzoo.models.layers import folded_conv
from pathzoo.models.layers.folded_conv import FoldedConv

#: Sides of the input, channels in and out, then what nn.Conv2d takes.
KINDS = {
    "stem": ((20, 28), 3, 8, {"kernel_size": 6, "stride": 2, "padding": 2}),
    "pointwise": ((7, 9), 16, 24, {"kernel_size": 1}),
    "strided": ((9, 8), 16, 16, {"kernel_size": 3, "stride": 2, "padding": 1}),
    "groups": ((6, 6), 8, 8, {"kernel_size": 3, "padding": 1, "groups": 4}),
}


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def pair(request):
    """A convolution, the same folded, and an input of two pictures."""
    torch.manual_seed(0)
    sides, before, after, words = request.param
    conv = nn.Conv2d(before, after, **words)
    return conv, FoldedConv(conv), torch.randn(2, before, *sides)


def same(conv, folded, x):
    """Whether both agree to rounding."""
    torch.testing.assert_close(folded(x), functional.silu(conv(x)), rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_it_is_convolution_and_silu_for_inputs_of_any_size_and_order(pair):
    conv, folded, x = pair
    for given in (x, x[:1], torch.cat((x, x), dim=2), x.contiguous(memory_format=torch.channels_last), x[..., ::2], x):
        same(conv, folded, given)
    assert folded(x[:0]).shape == (0, *conv(x).shape[1:])


def test_it_has_the_tensors_of_its_convolution(pair):
    conv, folded, _ = pair
    assert folded.weight is conv.weight and list(folded.state_dict()) == list(conv.state_dict())


def test_other_weights_are_seen(pair):
    conv, folded, x = pair
    with torch.no_grad():
        before = folded(x)
        folded.load_state_dict({"weight": -2 * conv.weight, "bias": conv.bias + 1})
        assert not torch.allclose(folded(x), before)
        same(conv, folded, x)


def test_where_a_gradient_is_wanted_there_is_one(pair):
    conv, folded, x = pair
    with torch.no_grad():
        folded(x)
    folded(x).square().sum().backward()
    mine, conv.weight.grad = conv.weight.grad, None
    functional.silu(conv(x)).square().sum().backward()
    torch.testing.assert_close(mine, conv.weight.grad)


@torch.inference_mode()
def test_copies_and_pickles_answer_alike(pair):
    conv, folded, x = pair
    folded(x)
    for other in (copy.deepcopy(folded), pickle.loads(pickle.dumps(folded))):
        same(conv, other, x)


@torch.inference_mode()
def test_half_precision_and_autocast_take_the_plain_operations(pair):
    _, folded, x = pair
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert folded(x).dtype == torch.bfloat16
    assert folded.to(torch.bfloat16)(x.to(torch.bfloat16)).dtype == torch.bfloat16


@torch.inference_mode()
def test_weights_are_arranged_once_for_a_size(pair, monkeypatch):
    if not folded_conv._ONEDNN:
        pytest.skip("oneDNN's own kernels are not on this processor")
    conv, folded, x = pair
    folded(x)
    first = folded._arranged
    folded(x + 1)
    assert folded._arranged is first
    folded(x[:1])
    assert folded._arranged is not first
    monkeypatch.setattr(folded_conv, "_ONEDNN", False)
    same(conv, folded, x)
