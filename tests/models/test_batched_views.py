"""Views of batches against `HistologyViews`: the same where the draws are the same, and equal in distribution."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.dataset import default_collate
from mmpretrain.datasets.transforms import PackInputs
from scipy import ndimage, stats

from pathzoo.datasets.phantom import draw_tissue
from pathzoo.datasets.transforms import HistologyViews
from pathzoo.datasets.transforms.view_recipe import N_DRAWS, ViewRecipe, view_draws, view_parameters
from pathzoo.datasets.transforms.views import make_view
from pathzoo.engine.hooks import EpochSeedHook
from pathzoo.errors import ConfigError, DataError
from pathzoo.models import BatchedViews
from pathzoo.models.data_preprocessors.batched_views import blur_batch, make_views_batch
from pathzoo.registry import MODELS

_SIZE = 40


@pytest.fixture(scope="module")
def tissue() -> np.ndarray:
    """72 x 60 pixels."""
    return draw_tissue(3, "malignant", (72, 60), 0.5)


def _batch(*pictures):
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)


def _collated(pictures, **meta):
    """As the loader hands pictures over; `meta`: name -> one value for each."""
    pack = PackInputs(meta_keys=tuple(meta))
    samples = [
        pack({"img": picture, **{name: values[k] for name, values in meta.items()}})
        for k, picture in enumerate(pictures)
    ]
    return default_collate(samples)


# The one step taken alone, and what may lie between: the one rounds, the other does not.
_STEPS = {
    "crop": ({}, 0.001),
    "symmetry": ({"flips": True, "turns": True}, 0.001),
    "zoom": ({"zoom": (0.8, 1.25)}, 1.01),
    "stains": ({"jitter_p": 0.7, "stain_alpha": 0.3, "stain_beta": 0.08}, 1.01),
    "colour": ({"jitter_p": 0.7, "brightness": 0.3, "contrast": 0.3, "saturation": 0.3}, 1.01),
    "blur": ({"blur_p": 0.7}, 1.01),
}
_STILL = {"zoom": (1, 1), "flips": False, "turns": False, "jitter_p": 0, "blur_p": 0}
_STILL |= dict.fromkeys(("stain_alpha", "stain_beta", "brightness", "contrast", "saturation"), 0)


@pytest.mark.parametrize("step", _STEPS)
def test_each_step_is_that_of_one_picture(tissue, step):
    arguments, slack = _STEPS[step]
    recipe = ViewRecipe(_SIZE, **_STILL | arguments)
    drawn = view_draws(1, 24)
    views = view_parameters(recipe, drawn, 60, 72)
    expected = [make_view(tissue, {name: v[k] for name, v in views.items()}, _SIZE) for k in range(24)]
    batch = _batch(tissue).float().expand(24, -1, -1, -1)
    got = make_views_batch(batch, view_parameters(recipe, torch.from_numpy(drawn), 60, 72), recipe)
    assert got.shape == (24, 3, _SIZE, _SIZE) and got.dtype == torch.float32
    assert (got - _batch(*expected)).abs().max() <= slack
    assert len({view.tobytes() for view in expected}) > 4


def test_whole_views_differ_by_rounding_alone(tissue):
    """In validation the draws are those of HistologyViews whose sample_seed is the sample's index."""
    pictures = [tissue, tissue[::-1].copy(), 255 - tissue]
    module = BatchedViews(size=_SIZE)
    out = module(_collated(pictures, sample_idx=[7, 0, 23]))
    assert len(out["inputs"]) == 2 and len(out["data_samples"]) == 3
    for row, (picture, index) in enumerate(zip(pictures, (7, 0, 23), strict=True)):
        views = HistologyViews(size=_SIZE)({"img": picture, "sample_seed": index})["img"]
        for view, batch in zip(views, out["inputs"], strict=True):
            difference = (batch[row] - _batch(view)[0]).abs()
            assert difference.max() < 4 and difference.mean() < 0.6


def test_validation_does_not_depend_on_batch_or_generator(tissue):
    module = MODELS.build({"type": BatchedViews, "size": _SIZE, "mean": [9.0, 8, 7], "std": [2.0, 3, 4], "n_views": 3})
    pictures = [tissue, tissue[:, ::-1].copy()]
    both = module(_collated(pictures, sample_idx=[4, 5]))["inputs"]
    torch.manual_seed(1)
    alone = module(_collated(pictures[1:], sample_idx=[5]))["inputs"]
    assert len(both) == 3
    for batch, single in zip(both, alone, strict=True):
        torch.testing.assert_close(batch[1:], single, atol=1e-3, rtol=0)
    plain = BatchedViews(size=_SIZE, n_views=3)(_collated(pictures, sample_idx=[4, 5]))["inputs"]
    mean, std = torch.tensor([9.0, 8, 7])[:, None, None], torch.tensor([2.0, 3, 4])[:, None, None]
    torch.testing.assert_close(both[0], (plain[0] - mean) / std)
    with pytest.raises(ConfigError, match="sample_idx"):
        module(_collated(pictures, item=["a", "b"]))


def test_training_draws_from_torch_or_from_the_samples_seed(tissue):
    module = BatchedViews(size=_SIZE)
    data = _collated([tissue, tissue], sample_idx=[4, 5])
    torch.manual_seed(3)
    one, two = module(data, training=True)["inputs"], module(data, training=True)["inputs"]
    torch.manual_seed(3)
    for again, first in zip(module(data, training=True)["inputs"], one, strict=True):
        assert torch.equal(again, first)
    assert not torch.equal(one[0], two[0]) and not torch.equal(one[0], one[1]) and not torch.equal(one[0][0], one[0][1])
    seeded = _collated([tissue, tissue], sample_idx=[4, 5], sample_seed=[11, 12])
    batch = module(seeded, training=True)["inputs"][1]
    view = HistologyViews(size=_SIZE)({"img": tissue, "sample_seed": 12})["img"][1]
    assert (batch[1] - _batch(view)[0]).abs().max() < 4
    assert len(BatchedViews(size=_SIZE, n_views=1)(data, training=True)["inputs"]) == 1


def test_without_a_samples_seed_the_hook_gives_each_process_and_epoch_its_own(tissue):
    module, data = BatchedViews(size=_SIZE), _collated([tissue], sample_idx=[4])

    def drawn(rank, epoch):
        EpochSeedHook().before_train_epoch(SimpleNamespace(seed=3, rank=rank, epoch=epoch))
        return module(data, training=True)["inputs"][0]

    first = drawn(0, 0)
    assert torch.equal(first, drawn(0, 0)), "a resumed run"
    assert not torch.equal(first, drawn(1, 0)) and not torch.equal(first, drawn(0, 1))


def _features(views):
    """(N, 3, H, W) -> name -> (N,): what colour, contrast, structure and placing show of themselves."""
    views = np.asarray(views, float)
    grey = views.mean(1)
    features = {f"mean {c}": views[:, c].mean((1, 2)) for c in range(3)}
    features |= {f"deviation {c}": views[:, c].std((1, 2)) for c in range(3)}
    features["sharpness"] = np.log([ndimage.laplace(picture).std() for picture in grey])
    features["left to right"] = grey[:, :, : _SIZE // 2].mean((1, 2)) - grey[:, :, _SIZE // 2 :].mean((1, 2))
    features["top to bottom"] = grey[:, : _SIZE // 2].mean((1, 2)) - grey[:, _SIZE // 2 :].mean((1, 2))
    return features


def test_equal_in_distribution(tissue):
    """Drawn by torch here and numpy there: parameters and what pixels show pass the same two-sample test."""
    n = 1000
    recipe = ViewRecipe(_SIZE)
    torch.manual_seed(0)
    by_torch = view_parameters(recipe, torch.rand(n, N_DRAWS, dtype=torch.float64), 60, 72)
    by_numpy = view_parameters(recipe, np.concatenate([view_draws(seed, 1) for seed in range(n)]), 60, 72)
    assert set(by_torch) == set(by_numpy)
    for name, values in by_numpy.items():
        assert by_torch[name].shape == values.shape
        for one, other in zip(np.atleast_2d(by_torch[name].numpy().T), np.atleast_2d(values.T), strict=True):
            assert stats.ks_2samp(one, other).pvalue > 1e-3, name
    transform = HistologyViews(size=_SIZE, n_views=1)
    alone = _batch(*(transform({"img": tissue, "sample_seed": 10_000 + seed})["img"][0] for seed in range(n)))
    module = BatchedViews(size=_SIZE, n_views=1)
    batch = {"inputs": _batch(tissue).expand(n, -1, -1, -1)}
    batched = module(batch, training=True)["inputs"][0].round()
    weaker = BatchedViews(size=_SIZE, n_views=1, brightness=0.1, blur_p=0.3, turns=False)
    told = _features(weaker(batch, training=True)["inputs"][0].round())
    ours, theirs = _features(batched), _features(alone)
    for name, values in theirs.items():
        assert stats.ks_2samp(values, ours[name]).pvalue > 1e-3, name
        assert abs(values.mean() - ours[name].mean()) < 4 * values.std() * (2 / n) ** 0.5, name
    # The test can fail: it tells a slightly different recipe.
    assert min(stats.ks_2samp(values, told[name]).pvalue for name, values in theirs.items()) < 1e-6


def test_blur_takes_each_sigma_by_itself():
    images = torch.rand(4, 3, 20, 24, dtype=torch.float64) * 255
    sigma = [0.0, 0.4, 1.0, 1.5]
    got = blur_batch(images, torch.tensor(sigma, dtype=torch.float64), radius=5)
    assert torch.equal(got[0], images[0])
    for image, own, reach, blurred in zip(images[1:], sigma[1:], (2, 3, 5), got[1:], strict=True):
        over = {"sigma": (0, own, own), "radius": (0, reach, reach)}
        np.testing.assert_allclose(blurred, ndimage.gaussian_filter(image.numpy(), **over, mode="mirror"), atol=1e-9)


def test_mixed_precision_costs_no_grey_levels(tissue):
    module, data = BatchedViews(size=_SIZE), _collated([tissue], sample_idx=[0])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = module(data)["inputs"]
    for one, other in zip(mixed, module(data)["inputs"], strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=0)


def test_what_does_not_serve_is_refused(tissue):
    module = BatchedViews(size=_SIZE)
    plain = _batch(tissue)
    for inputs in ([plain, plain], [plain[0]], plain.float(), plain[0], plain[:, :1]):
        with pytest.raises(ConfigError, match="one uint8 batch"):
            module({"inputs": inputs}, training=True)
    with pytest.raises(DataError, match=r"72 x 49 px is smaller than the largest crop, 50 px"):
        module({"inputs": plain[:, :, :49]}, training=True)
    for arguments in ({"n_views": 0}, {"zoom": (0, 1)}, {"blur_p": 2}):
        with pytest.raises(ConfigError, match=next(iter(arguments))):
            BatchedViews(size=_SIZE, **arguments)
