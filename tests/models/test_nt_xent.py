"""NT-Xent: the paper's definition by loops, its gradient, several processes, half precision, bad input."""

import math

import processes
import pytest
import torch
from nt_xent_worker import network, views, work
from torch.nn import functional

from pathzoo.models.selfsup import nt_xent, nt_xent_of_pairs


def pairs(n, d=5, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(n, d, generator=generator, dtype=torch.float64).to(dtype) for _ in range(2))


def by_loops(first, second, temperature):
    """Equation 1 and the mean over both anchors of each pair, of lists of numbers; the loss of each anchor."""

    def similarity(u, v):
        dot = sum(a * b for a, b in zip(u, v, strict=True))
        return dot / math.sqrt(sum(a * a for a in u) * sum(b * b for b in v))

    rows, n = first.tolist() + second.tolist(), len(first)
    losses = []
    for i, anchor in enumerate(rows):
        positive = math.exp(similarity(anchor, rows[(i + n) % (2 * n)]) / temperature)
        below = sum(math.exp(similarity(anchor, other) / temperature) for k, other in enumerate(rows) if k != i)
        losses.append(-math.log(positive / below))
    return losses


def plain(first, second, temperature):
    """The usual code, with the matrix of all similarities, for autograd."""
    z = functional.normalize(torch.cat([first, second]))
    logits = (z @ z.T / temperature).fill_diagonal_(-math.inf)
    return functional.cross_entropy(logits, torch.arange(len(z)).roll(len(z) // 2))


def gradients(function, first, second, *arguments):
    leaves = [first.detach().clone().requires_grad_(), second.detach().clone().requires_grad_()]
    value = function(*leaves, *arguments)
    value.backward()
    return value.detach(), [leaf.grad for leaf in leaves]


@pytest.mark.parametrize("n", [2, 3, 7])
@pytest.mark.parametrize("temperature", [0.01, 0.1, 0.5, 2.0])
def test_is_the_papers_definition(n, temperature):
    first, second = pairs(n)
    losses = by_loops(first, second, temperature)
    assert float(nt_xent(first, second, temperature)) == pytest.approx(sum(losses) / len(losses), rel=1e-9, abs=1e-12)
    of_pairs = nt_xent_of_pairs(first, second, temperature)
    for k in range(n):
        assert float(of_pairs[k]) == pytest.approx((losses[k] + losses[k + n]) / 2, rel=1e-9, abs=1e-12)
    assert not of_pairs.requires_grad


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 13, 26, 1000])
def test_tiles_of_any_side_give_the_same_value_and_gradient(chunk):
    first, second = pairs(13)
    value, grads = gradients(nt_xent, first, second, 0.2, chunk)
    expected, wanted = gradients(plain, first, second, 0.2)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(grads, wanted)
    torch.testing.assert_close(nt_xent_of_pairs(first, second, 0.2, chunk).mean(), expected)


@pytest.mark.parametrize(("temperature", "chunk"), [(0.1, 3), (0.02, 4), (1.0, 100)])
def test_gradient_is_the_slope(temperature, chunk):
    leaves = [view.requires_grad_() for view in pairs(4, d=3)]
    assert torch.autograd.gradcheck(lambda one, two: nt_xent(one, two, temperature, chunk), leaves)


def test_the_gradient_that_comes_in_scales_the_one_that_goes_out():
    first, second = pairs(4)
    _, once = gradients(nt_xent, first, second)
    _, thrice = gradients(lambda one, two: 3 * nt_xent(one, two), first, second)
    torch.testing.assert_close(thrice, [3 * grad for grad in once])


def test_single_precision_is_near_double():
    first, second = pairs(50, d=32)
    expected, wanted = gradients(nt_xent, first, second, 0.1, 17)
    value, grads = gradients(nt_xent, first.float(), second.float(), 0.1, 17)
    assert value.dtype == grads[0].dtype == torch.float32
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close([grad.double() for grad in grads], wanted, rtol=1e-3, atol=1e-7)


def test_mmpretrains_loss_is_the_same_in_one_process():
    """Its algorithm with nothing for a network: views are the projections."""
    from mmpretrain.models.heads import ContrastiveHead
    from mmpretrain.models.losses import CrossEntropyLoss
    from mmpretrain.models.selfsup import SimCLR

    class Flat(torch.nn.Module):
        def forward(self, x):
            return (x.flatten(1),)

    class Same(torch.nn.Module):
        def forward(self, x):
            return x

    head = ContrastiveHead(loss={"type": CrossEntropyLoss}, temperature=0.1)
    theirs = SimCLR(backbone=Flat(), neck=Same(), head=head, data_preprocessor=torch.nn.Identity())
    first, second = pairs(6, dtype=torch.float32)
    loss = theirs.loss([first[:, :, None, None], second[:, :, None, None]], [])["loss"]
    torch.testing.assert_close(nt_xent(first, second), loss)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    first, second = pairs(12, d=16, dtype=dtype)
    value, grads = gradients(nt_xent, first, second)
    expected, wanted = gradients(nt_xent, first.float(), second.float())
    assert value.dtype == torch.float32 and grads[0].dtype == dtype
    assert value == expected
    torch.testing.assert_close(grads, [grad.to(dtype) for grad in wanted])


def test_autocast_changes_nothing():
    first, second = pairs(12, d=16, dtype=torch.float32)
    expected, wanted = gradients(nt_xent, first, second)
    with torch.autocast("cpu", torch.bfloat16):
        value, grads = gradients(nt_xent, first, second)
        of_pairs = nt_xent_of_pairs(first, second)
    assert value.dtype == of_pairs.dtype == torch.float32 and value == expected
    torch.testing.assert_close(of_pairs.mean(), expected)
    torch.testing.assert_close(grads, wanted)


@pytest.mark.parametrize("scale", [65504.0, 1e-3])
def test_extremes_of_float16_are_finite(scale):
    """The largest and small values, vectors that are equal, opposite, and 0."""
    first, second = (view.sign() * scale for view in pairs(6, d=64))
    first[1], second[1] = first[0], first[0]
    second[2] = -first[2]
    first[3] = 0
    for temperature in (0.003, 0.1, 10.0):
        value, grads = gradients(nt_xent, first.half(), second.half(), temperature)
        assert value.isfinite()
        assert all(grad.isfinite().all() for grad in grads)
        assert not grads[0][3].any(), "what has no direction cannot be turned"


@pytest.mark.parametrize("temperature", [0.003, 0.01, 0.024, 0.026])
def test_pairs_that_point_away_at_low_temperature_stay_exact(temperature):
    """Every similarity but a few is -1 or near it: exponentials of float32 would all be 0."""
    first = torch.tensor([[1.0, 0.0], [1.0, 1e-3]])
    second = torch.tensor([[-1.0, 0.0], [-1.0, 1e-3]])
    value, grads = gradients(nt_xent, first, second, temperature)
    expected, wanted = gradients(plain, first.double(), second.double(), temperature)
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close([grad.double() for grad in grads], wanted, rtol=1e-4, atol=1e-4)


def test_one_pair_has_nothing_to_be_told_from():
    value, grads = gradients(nt_xent, *pairs(1))
    assert float(value) == pytest.approx(0, abs=1e-12)
    assert max(float(grad.abs().max()) for grad in grads) < 1e-12


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_and_infinity_come_out_as_nan(bad):
    first, second = pairs(4)
    first[2, 1] = bad
    value, grads = gradients(nt_xent, first, second)
    assert value.isnan() and grads[0].isnan().any()


@pytest.mark.parametrize(
    ("shapes", "arguments", "words"),
    [
        (((3, 4), (4, 4)), {}, r"shapes \(3, 4\) and \(4, 4\)"),
        (((3, 4, 1), (3, 4, 1)), {}, r"\(3, 4, 1\)"),
        (((0, 4), (0, 4)), {}, r"N >= 1"),
        (((3, 4), (3, 4)), {"temperature": 0.0}, r"temperature 0\.0"),
        (((3, 4), (3, 4)), {"temperature": -1}, "temperature -1"),
        (((3, 4), (3, 4)), {"temperature": math.nan}, "temperature nan"),
        (((3, 4), (3, 4)), {"chunk": 0}, "chunk 0"),
    ],
)
def test_bad_input_is_refused(shapes, arguments, words):
    for function in (nt_xent, nt_xent_of_pairs):
        with pytest.raises(ValueError, match=words):
            function(*(torch.ones(shape) for shape in shapes), **arguments)


def test_two_processes_are_as_one_with_the_whole_batch(tmp_path):
    """Value on each, and the network's gradients after DDP's mean, against plain autograd; equal and unequal shares."""
    cases = [[5, 5], [2, 6]]
    processes.spawn(work, (str(tmp_path), cases, 3))
    for rank in range(2):
        for sizes, found in zip(cases, torch.load(tmp_path / f"{rank}.pt"), strict=True):
            model = network()
            batches = [views(k, n) for k, n in enumerate(sizes)]
            first, second = torch.cat(batches, dim=1)
            expected = plain(model(first), model(second), 0.3)
            expected.backward()
            torch.testing.assert_close(found["loss"], expected.detach(), rtol=1e-12, atol=1e-12)
            wanted = [parameter.grad for parameter in model.parameters()]
            torch.testing.assert_close(found["gradients"], wanted, rtol=1e-9, atol=1e-12)
            apart = plain(*(model(view) for view in batches[rank]), 0.3).detach()
            torch.testing.assert_close(found["apart"], apart)
            assert abs(apart - expected.detach()) > 1e-3, "the other's pictures count"
