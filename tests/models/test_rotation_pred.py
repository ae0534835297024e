"""RotationPred: exact turns, jitter after them, validation that is the same every time, and no way to cheat."""

import math

import numpy as np
import pytest
import torch
from mmpretrain.models import GlobalAveragePooling
from pretext_models import MEAN, STD, WIDTH, TinyBackbone, pixels, rotation_pred, samples
from torch import nn
from torch.nn import functional

from pathzoo.errors import ConfigError
from pathzoo.models.selfsup.rotation_pred import turn, turn_all


def by_numpy(images, turns):
    return np.stack([np.rot90(image, k, (1, 2)) for image, k in zip(images.numpy(), turns, strict=True)])


def test_turns_move_pixels_and_change_none():
    images = pixels(6, 3, 5, 5).float()
    turns = [0, 1, 2, 3, 1, 0]
    np.testing.assert_array_equal(turn(images, torch.tensor(turns)), by_numpy(images, turns))
    turned, labels = turn_all(images)
    assert labels.tolist() == [0] * 6 + [1] * 6 + [2] * 6 + [3] * 6
    np.testing.assert_array_equal(turned, by_numpy(images.repeat(4, 1, 1, 1), labels.tolist()))


def test_loss_of_all_turns_is_the_mean_cross_entropy():
    model = rotation_pred(neck={"type": GlobalAveragePooling}).eval()
    batch = model.data_preprocessor({"inputs": [pixels(5, 3, 16, 16)], "data_samples": samples(5)})
    found = model(**batch, mode="loss")
    losses, correct = [], []
    for image in batch["inputs"][0]:
        for k in range(4):
            features = model.backbone(torch.rot90(image[None], k, (2, 3)))[0].mean((2, 3))
            logits = model.head.fc(features)
            losses.append(-logits.log_softmax(1)[0, k].detach())
            correct.append(float(logits.argmax() == k))
    torch.testing.assert_close(found["loss"].detach(), torch.stack(losses).mean())
    assert float(found["accuracy"]) == pytest.approx(np.mean(correct))
    predicted = model(**batch, mode="predict")
    torch.testing.assert_close(
        torch.stack([sample.pretext_loss for sample in predicted]), torch.stack(losses).view(5, 4).mean(1)
    )
    assert [float(s.pretext_correct) for s in predicted] == pytest.approx(np.reshape(correct, (5, 4)).mean(1).tolist())


def test_without_a_neck_maps_are_averaged():
    with_neck, without = rotation_pred(neck={"type": GlobalAveragePooling}).eval(), rotation_pred().eval()
    image = torch.randn(3, 3, 16, 16)
    torch.testing.assert_close(with_neck([image], mode="loss"), without(image, mode="loss"))


def test_one_turn_is_drawn_in_training_and_fixed_by_the_sample_else():
    model = rotation_pred(rotations="one").train()
    seen = []
    model.head.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    images = torch.randn(64, 3, 8, 8)
    drawn = [model._turned(images, None)[1] for _ in range(2)]
    assert not torch.equal(*drawn) and set(drawn[0].tolist()) == {0, 1, 2, 3}
    torch.manual_seed(3)
    one = model._turned(images, None)[1]
    torch.manual_seed(3)
    assert torch.equal(one, model._turned(images, None)[1])
    model.eval()
    values = [torch.stack([s.pretext_loss for s in model(images, samples(64), mode="predict")]) for _ in range(2)]
    assert torch.equal(*values) and seen == [64, 64]
    turns = model._turned(images, samples(64))[1]
    assert set(turns.tolist()) == {0, 1, 2, 3}
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0)).tolist()
    shuffled = model._turned(images, [samples(64)[k] for k in order])[1]
    assert shuffled.tolist() == turns[order].tolist(), "a sample keeps its turn in any batch"
    with pytest.raises(ConfigError, match=r"lack sample_idx.*meta_keys"):
        model(images, None, mode="predict")


class Noted(nn.Module):
    """A jitter that keeps what it got and adds a number of its own to each picture."""

    def forward(self, images, generator=None):
        self.got = images
        self.added = torch.arange(len(images)).view(-1, 1, 1, 1).float()
        return images + self.added


def test_jitter_gets_turned_pixels_and_each_picture_its_own():
    model = rotation_pred(jitter=Noted()).train()
    images = pixels(3, 3, 8, 8)
    batch = model.data_preprocessor({"inputs": [images], "data_samples": samples(3)})
    seen = []
    model.backbone.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    model(**batch, mode="loss")
    turned, _ = turn_all(images.float())
    torch.testing.assert_close(model.jitter.got, turned, rtol=0, atol=1e-4)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    torch.testing.assert_close(seen[0], (turned + model.jitter.added - mean) / std)
    del model.jitter.got
    model.eval()(**batch, mode="predict")
    assert not hasattr(model.jitter, "got"), "validation shows pictures as they are"


def test_batched_colour_jitter_serves():
    from pathzoo.models.batched_colour import BatchedColourJitter

    model = rotation_pred(jitter={"type": BatchedColourJitter, "p": 1.0}).train()
    batch = model.data_preprocessor({"inputs": [pixels(4, 3, 16, 16)], "data_samples": samples(4)})
    seen = []
    model.backbone.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    assert model(**batch, mode="loss")["loss"].isfinite()
    plain, _ = turn_all(batch["inputs"][0])
    assert seen[0].shape == plain.shape and float((seen[0] - plain).abs().mean()) > 0.05
    low, high = ((torch.tensor(end) - torch.tensor(MEAN)) / torch.tensor(STD) for end in (0.0, 255.0))
    assert (seen[0].amin((0, 2, 3)) >= low - 1e-4).all() and (seen[0].amax((0, 2, 3)) <= high + 1e-4).all()


def noise(n, generator):
    """Each pixel for itself, and blurred alike in both directions: no direction in it."""
    plain = torch.randn(n, 3, 20, 20, generator=generator)
    return torch.cat([plain[: n // 2, :, 2:-2, 2:-2], 3 * functional.avg_pool2d(plain[n // 2 :], 5, 1)])


def gradients(n, generator):
    """Noise that is brighter towards the top."""
    return noise(n, generator) + torch.linspace(1.5, -1.5, 16).view(1, 1, 16, 1)


def stripes(n, generator):
    """Noise blurred along rows alone, as colour subsampling does: quarter turns show, half turns do not."""
    return 2 * functional.avg_pool2d(torch.randn(n, 3, 16, 20, generator=generator), (1, 5), 1)


def held_out_accuracy(draw, n=800):
    """Trains a small network on pictures by `draw`, a turn each, and tests it on others."""
    generator = torch.Generator().manual_seed(7)
    model = rotation_pred(rotations="one", backbone=TinyBackbone(), data_preprocessor={}).train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(60):
        loss = model(draw(64, generator), mode="loss")["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        predicted = model.eval()(draw(n, generator), samples(n), mode="predict")
    return float(torch.stack([sample.pretext_correct for sample in predicted]).mean())


def test_turns_of_isotropic_noise_cannot_be_told():
    four_deviations = 4 * math.sqrt(0.25 * 0.75 / 800)
    assert abs(held_out_accuracy(noise) - 0.25) < four_deviations


def test_turns_can_be_told_where_there_is_a_direction():
    assert held_out_accuracy(gradients) > 0.9
    assert 0.4 < held_out_accuracy(stripes) < 0.6


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (torch.zeros(2, 3, 16, 8), "pictures of 8 x 16 pixels.*crop squares"),
        ([torch.zeros(2, 3, 16, 16)] * 2, r"2 views.*n_views=1"),
    ],
)
def test_what_cannot_be_turned_is_refused(inputs, words):
    for mode in ("loss", "predict"):
        with pytest.raises(ConfigError, match=words):
            rotation_pred()(inputs, samples(2), mode=mode)


def test_unknown_rotations_are_refused():
    with pytest.raises(ConfigError, match=r"rotations='some'; give 'all' or 'one'"):
        rotation_pred(rotations="some")
    assert rotation_pred().head.fc.in_features == WIDTH
