import albumentations as A  # noqa: N812
import numpy as np
import pytest

from pathzoo.datasets.transforms.stain import RUIFROK, StainJitter, jitter_stains
from pathzoo.errors import ConfigError

_SKIMAGE_UNIT = -np.log(1e-6)  # skimage divides optical density by this


def test_nothing_happens_at_strength_zero(tissue):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    for picture in (tissue, noise):
        assert np.abs(jitter_stains(picture, (1, 1, 1)).astype(int) - picture).max() <= 1
    out = A.Compose([StainJitter(alpha=0, beta=0, p=1)])(image=tissue)["image"]
    assert np.abs(out.astype(int) - tissue).max() <= 1


def _amounts(picture):
    """Amounts of the three stains by solving Beer and Lambert's equations pixel by pixel."""
    density = -np.log(np.maximum(picture, 1).reshape(-1, 3) / 255)
    return np.array([np.linalg.solve(np.transpose(RUIFROK), pixel) for pixel in density])


def test_each_stain_is_scaled_and_shifted(tissue):
    dark = tissue[tissue.max(-1) < 205][:3000][None]  # full tissue, where the shift is not faded
    alpha, beta = np.array([1.25, 0.8, 1.1]), np.array([0.10, 0.05, -0.05])
    expected = 255 * np.exp(-(alpha * _amounts(dark) + beta) @ np.array(RUIFROK))
    got = jitter_stains(dark, alpha, beta)[0]
    assert np.abs(got - np.clip(expected, 0, 255)).max() <= 0.51


def test_agrees_with_skimage(tissue):
    color = pytest.importorskip("skimage.color")
    alpha, beta = np.array([1.25, 0.8, 1.1]), np.array([0.06, 0.03, 0.02])
    # skimage cuts negative amounts off and does not fade the shift, so only dark pixels without them compare.
    comparable = (_amounts(tissue).reshape(tissue.shape) >= 0).all(-1) & (tissue.max(-1) < 205)
    assert comparable.sum() > 500
    unit = -np.log(1e-6)  # skimage divides optical density by this
    expected = color.hed2rgb(color.rgb2hed(tissue) * alpha + beta / unit) * 255
    assert np.abs(jitter_stains(tissue, alpha, beta) - expected)[comparable].max() <= 1.5


def test_glass_stays_white_and_black_stays_dark():
    white, black = np.full((4, 4, 3), 255, np.uint8), np.zeros((4, 4, 3), np.uint8)
    assert (jitter_stains(white, (1.3, 0.7, 1.3), (0.2, -0.2, 0.2)) == 255).all()
    assert jitter_stains(black, (1.2, 1.2, 1.2)).max() <= 1
    glass = np.full((4, 4, 3), 243, np.uint8)
    assert np.abs(jitter_stains(glass, (1.2, 0.8, 1.2), (0.1, 0.1, 0.1)).astype(int) - 243).max() <= 4


def test_more_haematoxylin_darkens_nuclei_more_than_stroma(tissue):
    amounts = _amounts(tissue)[:, 0].reshape(tissue.shape[:2])
    change = tissue.astype(int) - jitter_stains(tissue, (1.3, 1, 1))
    nuclei, stroma = amounts > np.percentile(amounts, 95), amounts < np.percentile(amounts, 30)
    assert change[nuclei].mean() > 3 * abs(change[stroma].mean())


def test_draws_lie_in_their_range_and_differ():
    jitter = StainJitter(alpha=0.2, beta=0.05, p=1)
    jitter.set_random_seed(0)
    draws = [jitter.get_params() for _ in range(300)]
    alpha, beta = (np.array([d[key] for d in draws]) for key in ("stain_alpha", "stain_beta"))
    assert 0.8 <= alpha.min() < 0.82 and 1.18 < alpha.max() <= 1.2
    assert -0.05 <= beta.min() < -0.045 and 0.045 < beta.max() <= 0.05
    assert np.abs(np.corrcoef(np.hstack([alpha, beta]).T) - np.eye(6)).max() < 0.25


@pytest.mark.parametrize("arguments", [{"alpha": 1.0}, {"alpha": -0.1}, {"beta": -1}])
def test_strengths_out_of_range_are_refused(arguments):
    with pytest.raises(ConfigError, match="StainJitter"):
        StainJitter(**arguments)
