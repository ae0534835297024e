"""The losses over label maps against their definitions, pixel by pixel, and torch's own where there is one."""

import math
from collections import defaultdict

import pytest
import torch
from torch.nn import functional

from pathzoo.errors import ConfigError
from pathzoo.models import DiceLoss, PixelCrossEntropy
from pathzoo.models.losses import dice_loss, pixel_cross_entropy

_CLASS_WEIGHT = torch.tensor([0.5, 2.0, 3.0])
_SAMPLE_WEIGHT = torch.tensor([1.0, 0.25, 3.0]).view(3, 1, 1)


@pytest.fixture
def case():
    """logits (3, 3, 4, 5) and labels (3, 4, 5) of which about a third are ignored; class 2 occurs in one sample."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(3, 3, 4, 5, generator=generator)
    labels = torch.randint(0, 2, (3, 4, 5), generator=generator)
    labels[1, :2] = 2
    labels[torch.rand(3, 4, 5, generator=generator) < 0.3] = 255
    return logits, labels


def _probabilities(logits, n, y, x):
    powers = [math.exp(float(value)) for value in logits[n, :, y, x]]
    return [power / sum(powers) for power in powers]


def _pixels(labels, weight):
    """(n, y, x, label, weight) of every pixel that counts."""
    for n, y, x in torch.nonzero(labels != 255).tolist():
        yield n, y, x, int(labels[n, y, x]), 1.0 if weight is None else float(weight[n, 0, 0])


@pytest.mark.parametrize("class_weight", [None, _CLASS_WEIGHT])
@pytest.mark.parametrize("weight", [None, _SAMPLE_WEIGHT])
def test_cross_entropy_is_its_definition(case, class_weight, weight):
    logits, labels = case
    above, below = 0.0, 0.0
    for n, y, x, label, w in _pixels(labels, weight):
        w *= 1.0 if class_weight is None else float(class_weight[label])
        above -= w * math.log(_probabilities(logits, n, y, x)[label])
        below += w
    assert float(pixel_cross_entropy(logits, labels, class_weight, weight)) == pytest.approx(above / below, rel=1e-5)


@pytest.mark.parametrize("class_weight", [None, _CLASS_WEIGHT])
def test_cross_entropy_is_torchs_where_samples_weigh_alike(case, class_weight):
    logits, labels = case
    expected = functional.cross_entropy(logits, labels, weight=class_weight, ignore_index=255)
    torch.testing.assert_close(pixel_cross_entropy(logits, labels, class_weight), expected)
    torch.testing.assert_close(pixel_cross_entropy(logits, labels, class_weight, torch.full((3, 1, 1), 0.5)), expected)


@pytest.mark.parametrize("class_weight", [None, _CLASS_WEIGHT])
@pytest.mark.parametrize("weight", [None, _SAMPLE_WEIGHT])
def test_dice_is_its_definition(case, class_weight, weight):
    logits, labels = case
    overlap, predicted, occurring = defaultdict(float), defaultdict(float), defaultdict(float)
    for n, y, x, label, w in _pixels(labels, weight):
        for c, p in enumerate(_probabilities(logits, n, y, x)):
            predicted[c] += w * p
        overlap[label] += w * _probabilities(logits, n, y, x)[label]
        occurring[label] += w
    assert sorted(occurring) == [0, 1, 2]
    above, below = 0.0, 0.0
    for c in occurring:
        share = 1.0 if class_weight is None else float(class_weight[c])
        above += share * (1 - (2 * overlap[c] + 1.5) / (predicted[c] + occurring[c] + 1.5))
        below += share
    found = dice_loss(logits, labels, class_weight, weight, smooth=1.5)
    assert float(found) == pytest.approx(above / below, rel=1e-5)


def test_dice_of_the_truth_is_0_and_of_its_contrary_nearly_1(case):
    _, labels = case
    truth = functional.one_hot(labels.where(labels != 255, 0), 3).permute(0, 3, 1, 2).float()
    assert float(dice_loss(100 * truth, labels, smooth=0)) < 1e-5
    assert float(dice_loss(100 * truth.roll(1, dims=1), labels, smooth=0)) > 0.99


def test_a_class_that_no_label_names_is_left_out_of_dice():
    labels = torch.zeros(1, 4, 4, dtype=torch.int64)
    labels[0, :2] = 1
    logits = torch.randn(1, 3, 4, 4)
    probs = logits.softmax(1)
    both = [float(1 - 2 * probs[0, c][labels[0] == c].sum() / (probs[0, c].sum() + 8)) for c in (0, 1)]
    assert float(dice_loss(logits, labels, smooth=0)) == pytest.approx(sum(both) / 2, rel=1e-5)


@pytest.mark.parametrize("loss", [PixelCrossEntropy(class_weight=[1, 2, 3]), DiceLoss(class_weight=[1, 2, 3])])
class TestBoth:
    def gradient(self, loss, logits, labels, weight=None):
        logits = logits.clone().requires_grad_()
        loss(logits, labels, weight=weight).backward()
        return logits.grad

    def test_ignored_pixels_get_no_gradient_and_labelled_ones_do(self, loss, case):
        gradient = self.gradient(loss, *case).abs().sum(1)
        assert not gradient[case[1] == 255].any()
        assert (gradient[case[1] != 255] > 0).all()

    def test_what_an_ignored_pixel_is_predicted_to_be_changes_nothing(self, loss, case):
        logits, labels = case
        other = torch.where((labels == 255)[:, None], torch.randn_like(logits) * 9, logits)
        torch.testing.assert_close(loss(other, labels), loss(logits, labels))

    def test_a_sample_of_weight_0_is_as_good_as_absent(self, loss, case):
        logits, labels = case
        gradient = self.gradient(loss, logits, labels, torch.tensor([1.0, 1.0, 0.0]).view(3, 1, 1))
        assert not gradient[2].any()
        torch.testing.assert_close(gradient[:2], self.gradient(loss, logits[:2], labels[:2]))

    def test_a_sample_of_weight_2_is_as_good_as_there_twice(self, loss, case):
        logits, labels = case
        index = torch.tensor([0, 1, 1, 2])
        twice = loss(logits[index], labels[index])
        torch.testing.assert_close(loss(logits, labels, weight=torch.tensor([1.0, 2.0, 1.0]).view(3, 1, 1)), twice)

    def test_nothing_labelled_is_0_with_a_gradient_of_0(self, loss, case):
        logits, labels = case
        for weight, hidden in ((None, torch.full_like(labels, 255)), (torch.zeros(3, 1, 1), labels)):
            assert float(loss(logits, hidden, weight=weight)) == 0
            assert not self.gradient(loss, logits, hidden, weight).any()

    def test_half_precision_is_computed_in_full(self, loss, case):
        logits, labels = case
        found = loss(logits.bfloat16(), labels)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, loss(logits.bfloat16().float(), labels))

    def test_the_heads_ignore_index_goes_before_its_own(self, loss, case):
        logits, labels = case
        other = labels.where(labels != 255, 7)
        torch.testing.assert_close(loss(logits, other, ignore_index=7), loss(logits, labels))

    def test_weights_of_classes_are_none_of_the_checkpoints_business(self, loss, case):
        assert not loss.state_dict()
        with pytest.raises(ConfigError, match="class_weight has 3 numbers, but the head has 2 classes"):
            loss(case[0][:, :2], case[1])


@pytest.mark.parametrize("kind", [PixelCrossEntropy, DiceLoss])
@pytest.mark.parametrize("weights", [[1.0, -1.0], [0.0, 0.0], [1.0, math.nan]])
def test_weights_that_cannot_be_meant_are_refused(kind, weights):
    with pytest.raises(ConfigError, match=rf"{kind.__name__}: class_weight is .* numbers of 0 or more"):
        kind(class_weight=weights)


def test_loss_weight_scales(case):
    for kind in (PixelCrossEntropy, DiceLoss):
        torch.testing.assert_close(kind(loss_weight=3.0)(*case), 3 * kind()(*case))


class TestWhyNotTheHosts:
    """These fail on the day when mmseg's own do: then ours may go."""

    def test_cross_entropy_with_class_weights_fails(self, case):
        from mmseg.models.losses import CrossEntropyLoss

        with pytest.raises((IndexError, RuntimeError)):
            CrossEntropyLoss(class_weight=[1.0, 2.0, 3.0], avg_non_ignore=True)(*case, ignore_index=255)

    def test_cross_entropy_counts_samples_of_weight_0(self, case):
        from mmseg.models.losses import CrossEntropyLoss

        logits, labels = case
        weight = torch.tensor([1.0, 1.0, 0.0]).view(3, 1, 1)
        theirs = CrossEntropyLoss(avg_non_ignore=True)(logits, labels, weight=weight, ignore_index=255)
        absent = functional.cross_entropy(logits[:2], labels[:2], ignore_index=255)
        assert float(theirs) < 0.9 * float(absent)

    def test_dice_counts_ignored_pixels(self, case):
        from mmseg.models.losses import DiceLoss as Theirs

        logits, labels = case
        other = torch.where((labels == 255)[:, None], torch.randn_like(logits) * 9, logits)
        theirs = Theirs(use_sigmoid=False)
        assert float(theirs(logits, labels) - theirs(other, labels)) != 0
