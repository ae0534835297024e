"""Views for self-supervision: what is drawn, what is done, and what both depend on."""

import math
import multiprocessing

import numpy as np
import pytest
import torch
from mmengine.dataset import default_collate
from mmpretrain.datasets.transforms import PackInputs
from mmpretrain.models import SelfSupDataPreprocessor
from scipy import ndimage, stats
from torchvision.transforms.v2 import functional as reference

from pathzoo.datasets.transforms import HistologyViews
from pathzoo.datasets.transforms.stain import jitter_stains
from pathzoo.datasets.transforms.view_recipe import N_DRAWS, ViewRecipe, view_draws, view_parameters
from pathzoo.datasets.transforms.views import adjust_colour, make_view
from pathzoo.errors import ConfigError, DataError
from pathzoo.registry import TRANSFORMS

#: Nothing but the crop.
_PLAIN = {"zoom": (1, 1), "flips": False, "turns": False, "jitter_p": 0, "blur_p": 0}
_NOTHING = {
    "left": 0,
    "top": 0,
    "mirrored": 0,
    "turn": 0,
    "alpha": np.ones(3),
    "beta": np.zeros(3),
    "brightness": 1,
    "contrast": 1,
    "saturation": 1,
    "sigma": 0,
}


def _views(image, seed=0, **arguments):
    transform = TRANSFORMS.build({"type": HistologyViews, "size": 64, **arguments})
    return transform({"img": image, "sample_seed": seed, "item": "t.png"})["img"]


def test_what_is_drawn_has_the_distributions_it_says():
    recipe = ViewRecipe(40, zoom=(0.8, 1.25), stain_alpha=0.3, stain_beta=0.1, blur_sigma=(0.5, 1.0), blur_p=0.3)
    drawn = view_draws(1, 20_000)
    view = view_parameters(recipe, drawn, height=60, width=80)
    assert set(view["side"]) <= set(range(32, 51)) and {32, 40, 50} <= set(view["side"])
    # The logarithm of the zoom is even: half of all views enlarge.
    assert abs((40 / view["side"] > 1).mean() + 0.5 * (view["side"] == 40).mean() - 0.5) < 0.02
    for first, length in (("left", 80), ("top", 60)):
        assert view[first].min() == 0 and (view[first] + view["side"]).max() == length
        own = view[first][view["side"] == 40]
        assert stats.chisquare(np.bincount(own.astype(int), minlength=length - 39)).pvalue > 1e-3
    counts = np.zeros((2, 4))
    np.add.at(counts, (view["mirrored"].astype(int), view["turn"].astype(int)), 1)
    assert stats.chisquare(counts.ravel()).pvalue > 1e-3
    jittered = view["brightness"] != 1
    assert abs(jittered.mean() - 0.8) < 0.02
    for name, middle, reach in (("alpha", 1, 0.3), ("beta", 0, 0.1), ("contrast", 1, 0.2), ("saturation", 1, 0.2)):
        values = view[name].reshape(20_000, -1)
        assert (values[~jittered] == middle).all()
        for column in values[jittered].T:
            assert stats.kstest(column, stats.uniform(middle - reach, 2 * reach).cdf).pvalue > 1e-3
    blurred = view["sigma"] > 0
    assert abs(blurred.mean() - 0.3) < 0.02
    assert stats.kstest(view["sigma"][blurred], stats.uniform(0.5, 0.5).cdf).pvalue > 1e-3
    assert np.abs(np.corrcoef(drawn.T) - np.eye(N_DRAWS)).max() < 0.04


def test_plain_views_are_crops_untouched():
    image = np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)
    windows = np.lib.stride_tricks.sliding_window_view(image, (64, 64, 3))[:, :, 0]
    places = set()
    for seed in range(40):
        for view in _views(image, seed, **_PLAIN):
            found = np.argwhere((windows == view).all((2, 3, 4)))
            assert len(found) == 1
            places.add(tuple(found[0]))
    assert len(places) > 60
    image.flags.writeable = False  # as a memory-mapped store hands them out
    view = _views(np.ascontiguousarray(image[:64, :64]), **_PLAIN)[0]
    assert view.flags.writeable and view.flags.c_contiguous


def test_the_eight_symmetries_are_exact_and_none_else():
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    symmetries = [np.rot90(m, k).tobytes() for m in (image, image[:, ::-1]) for k in range(4)]
    seen = [_views(image, seed, **_PLAIN | {"flips": True, "turns": True})[0].tobytes() for seed in range(80)]
    assert set(seen) == set(symmetries)
    for mirrored in (0, 1):
        for turn in range(4):
            view = make_view(image, {**_NOTHING, "side": 64, "mirrored": mirrored, "turn": turn}, 64)
            assert view.tobytes() == symmetries[4 * mirrored + turn]
    only_flips = {v.tobytes() for s in range(20) for v in _views(image, s, **_PLAIN | {"flips": True})}
    assert only_flips == {symmetries[0], symmetries[4]}  # so that RotationPred's question keeps one answer


@pytest.mark.parametrize("side", [51, 64, 80])
def test_zoom_is_linear_interpolation_at_pixel_centres(tissue, side):
    view = make_view(tissue, {**_NOTHING, "side": side, "left": 20, "top": 10}, 64)
    crop = tissue[10 : 10 + side, 20 : 20 + side].astype(float)
    places = (np.arange(64) + 0.5) * side / 64 - 0.5
    grid = np.meshgrid(places, places, indexing="ij")
    expected = [ndimage.map_coordinates(crop[..., c], grid, order=1, mode="nearest") for c in range(3)]
    assert np.abs(view - np.stack(expected, -1)).max() <= 1


@pytest.mark.parametrize("factors", [(0.8, 1, 1), (1, 1.3, 1), (1, 1, 1.4), (1.1, 0.8, 0.7)])
def test_colour_is_torchvisions(tissue, factors):
    picture = torch.from_numpy(np.array(tissue)).permute(2, 0, 1).double() / 255
    steps = (reference.adjust_brightness, reference.adjust_contrast, reference.adjust_saturation)
    for step, factor in zip(steps, factors, strict=True):
        picture = step(picture, factor)
    expected = picture.permute(1, 2, 0).numpy() * 255
    kept = ((expected > 1) & (expected < 254)).all(-1)  # theirs cuts between the steps
    assert kept.mean() > 0.5
    assert np.abs(adjust_colour(tissue, *factors) - expected)[kept].max() <= 1.01


def test_stains_and_blur_are_those_of_their_functions(tissue):
    image = np.array(tissue[:64, :64])
    alpha, beta = np.array([1.2, 0.9, 1.1]), np.array([0.03, -0.02, 0.01])
    view = make_view(image, {**_NOTHING, "side": 64, "alpha": alpha, "beta": beta}, 64)
    np.testing.assert_array_equal(view, jitter_stains(image, alpha, beta))
    for sigma in (0.3, 1.0, 1.4):
        view = make_view(image, {**_NOTHING, "side": 64, "sigma": np.float64(sigma)}, 64)
        reach = math.ceil(3 * sigma)
        expected = ndimage.gaussian_filter(
            image.astype(float), (sigma, sigma, 0), mode="mirror", radius=(reach, reach, 0)
        )
        assert np.abs(view - expected).max() <= 1.01


def test_draws_depend_on_seed_view_and_stream_alone(tissue):
    before = np.array(tissue)
    three = _views(tissue, 5, n_views=3)
    np.testing.assert_array_equal(tissue, before)
    assert len({view.tobytes() for view in three}) == 3
    for view, again in zip(_views(tissue, 5, n_views=1), three, strict=False):
        np.testing.assert_array_equal(view, again)
    assert _views(tissue, 6)[0].tobytes() != three[0].tobytes()
    assert _views(tissue, 5, stream=1)[0].tobytes() != three[0].tobytes()


def _in_another_process(queue, transform, image, seed):
    queue.put(transform({"img": image, **({} if seed is None else {"sample_seed": seed})})["img"])


def test_processes_agree_by_seed_and_differ_without_one(tissue):
    transform, found = HistologyViews(size=64), []
    context = multiprocessing.get_context("fork")
    for seed in (3, None, None):
        queue = context.Queue()
        process = context.Process(target=_in_another_process, args=(queue, transform, np.array(tissue), seed))
        process.start()
        found.append(queue.get(timeout=60))
        process.join()
    np.testing.assert_array_equal(found[0], transform({"img": tissue, "sample_seed": 3})["img"])
    assert not np.array_equal(found[1], found[2])
    np.random.seed(7)
    one = HistologyViews(size=64)({"img": tissue})["img"]
    np.random.seed(7)
    np.testing.assert_array_equal(HistologyViews(size=64)({"img": tissue})["img"], one)


def test_packed_and_collated_they_reach_the_model_as_batches_of_views(tissue):
    views, pack = HistologyViews(size=64, n_views=2), PackInputs(meta_keys=("item", "img_shape"))
    samples = [pack(views({"img": tissue, "sample_seed": seed, "item": f"{seed}"})) for seed in range(3)]
    batch = default_collate(samples)
    assert [tuple(part.shape) for part in batch["inputs"]] == [(3, 3, 64, 64)] * 2
    assert batch["inputs"][0].dtype == torch.uint8
    again = views({"img": tissue, "sample_seed": 2, "item": "2"})
    for part, expected in zip(batch["inputs"], again["img"], strict=True):
        np.testing.assert_array_equal(part[2].permute(1, 2, 0), expected)
    out = SelfSupDataPreprocessor(mean=[100.0, 110, 120], std=[50.0, 51, 52])(batch)
    assert [sample.img_shape for sample in out["data_samples"]] == [(64, 64)] * 3
    expected = (batch["inputs"][1].float() - torch.tensor([100.0, 110, 120])[:, None, None]) / torch.tensor(
        [50.0, 51, 52]
    )[:, None, None]
    torch.testing.assert_close(out["inputs"][1], expected)
    red = np.zeros((80, 80, 3), np.uint8)
    red[..., 0] = 250
    packed = pack(HistologyViews(size=64, n_views=1)({"img": red, "sample_seed": 0}))
    assert isinstance(packed["inputs"], list) and len(packed["inputs"]) == 1
    channels = packed["inputs"][0].float().mean((1, 2))
    assert channels[0] > 150 and channels[0] > 2 * channels[1:].max()


def test_pictures_that_do_not_serve_are_named(tissue):
    with pytest.raises(DataError, match=r"t\.png: 79 x 100 px is smaller .* crop, 80 px.*at most 63, zoom from 1"):
        _views(np.zeros((100, 79, 3), np.uint8))
    assert _views(np.zeros((80, 80, 3), np.uint8))[0].shape == (64, 64, 3)
    assert _views(np.zeros((79, 79, 3), np.uint8), size=63)[0].shape == (63, 63, 3)
    with pytest.raises(DataError, match=r"at most 40, or larger"):
        _views(np.zeros((50, 50, 3), np.uint8))
    for image in (np.zeros((90, 90), np.uint8), np.zeros((90, 90, 4), np.uint8), np.zeros((90, 90, 3), np.float32)):
        with pytest.raises(DataError, match=r"t\.png: .* where RGB uint8"):
            _views(image)
    with pytest.raises(ConfigError, match="gt_seg_map"):
        HistologyViews(size=64)({"img": tissue, "gt_seg_map": np.zeros((192, 256), np.uint8)})


@pytest.mark.parametrize(
    "arguments",
    [
        {"n_views": 0},
        {"zoom": (1.2, 0.8)},
        {"zoom": (0.08, 1)},
        {"zoom": 0.8},
        {"stain_alpha": 1},
        {"stain_beta": -0.1},
        {"contrast": float("nan")},
        {"jitter_p": 1.1},
        {"blur_p": -0.1},
        {"blur_sigma": (0, 1)},
        {"blur_sigma": (0.1, 30)},
        {"size": 0},
    ],
)
def test_arguments_out_of_range_are_refused(arguments):
    (name, _), *_ = arguments.items()
    with pytest.raises(ConfigError, match=name) as error:
        HistologyViews(**{"size": 64, **arguments})
    assert "needs" in str(error.value) and "\n" not in str(error.value)


def test_it_prints_what_it_does():
    assert "size=64" in repr(HistologyViews(64)) and "zoom=(0.8, 1.25)" in repr(HistologyViews(64))
