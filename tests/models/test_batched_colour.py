"""Colour jitter of batches against the functions for one picture, torchvision and its own statement."""

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as reference

from pathzoo.datasets.phantom import draw_tissue
from pathzoo.datasets.transforms.stain import jitter_stains
from pathzoo.datasets.transforms.views import adjust_colour
from pathzoo.errors import ConfigError
from pathzoo.models import BatchedColourJitter
from pathzoo.models.batched_colour import adjust_colour_batch, jitter_stains_batch


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    """(8, 48, 64, 3): tissue, noise, glass and black."""
    rng = np.random.default_rng(0)
    tissue = [draw_tissue(seed, kind, (64, 48), 0.5) for seed, kind in enumerate(("benign", "malignant") * 2)]
    noise = list(rng.integers(0, 256, (2, 48, 64, 3), np.uint8))
    return np.stack([*tissue, *noise, np.full_like(noise[0], 250), np.zeros_like(noise[0])])


def _batch(pictures):
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float()


def _unbatch(images):
    return images.permute(0, 2, 3, 1).numpy()


def test_stains_are_those_of_one_picture_within_a_grey_level(pictures):
    rng = np.random.default_rng(1)
    alpha, beta = rng.uniform(0.7, 1.3, (8, 3)), rng.uniform(-0.1, 0.1, (8, 3))
    got = _unbatch(jitter_stains_batch(_batch(pictures), torch.tensor(alpha), torch.tensor(beta)))
    expected = np.stack([jitter_stains(*each) for each in zip(pictures, alpha, beta, strict=True)])
    assert np.abs(got - expected).max() <= 1
    assert got.min() >= 0 and got.max() <= 255
    vectors = [[0.6, 0.7, 0.4], [0.2, 0.9, 0.3], [0.3, 0.3, 0.9]]
    got = _unbatch(jitter_stains_batch(_batch(pictures), torch.tensor(alpha), torch.tensor(beta), vectors))
    expected = np.stack([jitter_stains(*each, vectors) for each in zip(pictures, alpha, beta, strict=True)])
    assert np.abs(got - expected).max() <= 1


def test_colour_is_that_of_one_picture_and_torchvisions(pictures):
    factors = np.random.default_rng(2).uniform(0.7, 1.3, (3, 8))
    got = _unbatch(adjust_colour_batch(_batch(pictures), *torch.tensor(factors)))
    expected = np.stack([adjust_colour(image, *own) for image, own in zip(pictures, factors.T, strict=True)])
    assert np.abs(got - expected).max() <= 1.01
    for k, step in enumerate((reference.adjust_brightness, reference.adjust_contrast, reference.adjust_saturation)):
        alone = torch.ones(3, 8)
        alone[k] = torch.tensor(factors[k])
        theirs = [step(x / 255, float(f)) * 255 for x, f in zip(_batch(pictures), factors[k], strict=True)]
        torch.testing.assert_close(
            adjust_colour_batch(_batch(pictures), *alone), torch.stack(theirs), atol=0.01, rtol=0
        )


def test_a_generator_says_all_and_pictures_differ(pictures):
    same = _batch(pictures[:1]).expand(64, -1, -1, -1)
    jitter = BatchedColourJitter(p=0.75)
    one = jitter(same, torch.Generator().manual_seed(3))
    assert torch.equal(one, jitter(same, torch.Generator().manual_seed(3)))
    assert not torch.equal(one, jitter(same, torch.Generator().manual_seed(4)))
    torch.manual_seed(3)
    assert torch.equal(jitter(same), one)
    untouched = [k for k in range(64) if torch.equal(one[k], same[k])]
    assert 6 <= len(untouched) <= 26  # 16 of 64, three deviations
    assert len({picture.numpy().tobytes() for picture in one}) == 65 - len(untouched)
    assert torch.equal(BatchedColourJitter(p=0)(same), same)
    assert jitter(same[:0]).shape == (0, 3, 48, 64)


def test_strengths_reach_the_pixels(pictures):
    grey = torch.full((400, 3, 2, 2), 100.0)
    still = {"stain_alpha": 0, "stain_beta": 0, "brightness": 0, "contrast": 0, "saturation": 0, "p": 1}
    torch.testing.assert_close(BatchedColourJitter(**still)(grey), grey)
    bright = BatchedColourJitter(**still | {"brightness": 0.3})(grey)[:, 0, 0, 0] / 100
    assert 0.7 <= float(bright.min()) < 0.72 and 1.28 < float(bright.max()) <= 1.3
    tissue = _batch(pictures[:1]).expand(100, -1, -1, -1)
    for name in ("stain_alpha", "stain_beta", "contrast", "saturation"):
        means = [
            (BatchedColourJitter(**still | {name: strength})(tissue) - tissue).abs().mean() for strength in (0.02, 0.2)
        ]
        assert 4 < means[1] / means[0] < 25


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision_costs_no_grey_levels(pictures, dtype):
    jitter = BatchedColourJitter(p=1)
    plain = jitter(_batch(pictures), torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=dtype):
        mixed = jitter(_batch(pictures), torch.Generator().manual_seed(0))
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, plain, atol=1e-3, rtol=0)


@pytest.mark.parametrize("arguments", [{"stain_alpha": 1}, {"stain_beta": -1}, {"saturation": -0.1}, {"p": 2}])
def test_strengths_out_of_range_are_refused(arguments):
    with pytest.raises(ConfigError, match=f"BatchedColourJitter: {next(iter(arguments))}"):
        BatchedColourJitter(**arguments)


def test_it_prints_its_strengths():
    assert "saturation=0.2, p=0.8" in repr(BatchedColourJitter())
