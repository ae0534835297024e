"""Stain fits and transforms against plain float64 implementations by the papers, and on stains that are known."""

import json
import pickle
from dataclasses import asdict

import cv2
import numpy as np
import pytest

from pathzoo.wsi.predictor import InputSpec
from pathzoo.wsi.slide import Slide
from pathzoo.wsi.slide_stain import fit_slide
from pathzoo.wsi.stain import FITS, METHODS, StainFit, StainTransform, fit_macenko, fit_reinhard
from pathzoo.zoo.manifest import StainFit as StainBlock

STAINS = np.array([[0.60, 0.71, 0.37], [0.17, 0.86, 0.48]])
STAINS = STAINS / np.linalg.norm(STAINS, axis=1, keepdims=True)
OTHER = np.array([[0.70, 0.63, 0.33], [0.25, 0.90, 0.36]])
OTHER = OTHER / np.linalg.norm(OTHER, axis=1, keepdims=True)


def mixture(stains=STAINS, gains=(0.9, 0.7), n=40_000, seed=0) -> np.ndarray:
    """(n, 3) uint8: amounts of two stains, a tenth of the pixels with one of them alone."""
    rng = np.random.default_rng(seed)
    amounts = rng.uniform(0.15, 1, (n, 2)) * gains
    amounts[: n // 20, 0] = 0
    amounts[n // 20 : n // 10, 1] = 0
    return np.rint(255 * 10 ** -(amounts @ stains)).astype(np.uint8)


def density(pixels: np.ndarray) -> np.ndarray:
    return -np.log10(np.maximum(pixels.astype(np.float64), 1) / 255)


def macenko_by_the_paper(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Stain vectors (2, 3) and the 99th percentiles of their amounts, by singular value decomposition."""
    tissue = density(pixels)
    tissue = tissue[np.sqrt((tissue**2).sum(axis=1)) >= 0.15]
    plane = np.linalg.svd(tissue, full_matrices=False)[2][:2]
    plane[0] *= np.sign(plane[0].sum())
    flat = tissue @ plane.T
    angle = np.arctan2(flat[:, 1], flat[:, 0])
    ends = [np.percentile(angle, 1), np.percentile(angle, 99)]
    vectors = np.array([np.cos(end) * plane[0] + np.sin(end) * plane[1] for end in ends])
    if vectors[0, 0] < vectors[1, 0]:
        vectors = vectors[::-1]
    amounts = np.linalg.lstsq(vectors.T, tissue.T, rcond=None)[0]
    return vectors, np.percentile(amounts, 99, axis=1)


def reinhard_by_the_paper(pixels: np.ndarray, source: StainFit, target: StainFit) -> np.ndarray:
    to_lms = np.array([[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]])
    out = np.empty(pixels.shape)
    for i, pixel in enumerate(pixels.astype(np.float64)):
        L, M, S = np.log10(to_lms @ np.maximum(pixel, 1))
        lab = np.array([(L + M + S) / 3**0.5, (L + M - 2 * S) / 6**0.5, (L - M) / 2**0.5])
        lab = (lab - source.parameters["mean"]) / source.parameters["std"] * target.parameters["std"]
        a, b, c = (lab + target.parameters["mean"]) * [3**0.5 / 3, 6**0.5 / 6, 2**0.5 / 2]
        out[i] = np.linalg.solve(to_lms, 10 ** np.array([a + b + c, a + b - c, a - 2 * b]))
    return out.clip(0, 255)


def grey(pixels: np.ndarray) -> np.ndarray:
    return pixels @ [0.299, 0.587, 0.114]


def degrees(a, b) -> float:
    return float(np.degrees(np.arccos(np.clip(np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b), -1, 1))))


def test_macenko_recovers_known_stains():
    for stains, gains in ((STAINS, (0.9, 0.7)), (OTHER, (0.5, 0.8))):
        fit = fit_macenko(mixture(stains, gains))
        for found, true in zip(fit.parameters["stains"], stains, strict=True):
            assert degrees(found, true) < 1
        np.testing.assert_allclose(fit.parameters["maxima"], gains, rtol=0.05)


def test_macenko_fits_as_the_paper_says(tissue_image):
    for pixels in (mixture(), mixture(OTHER), tissue_image.reshape(-1, 3)):
        vectors, maxima = macenko_by_the_paper(pixels)
        fit = fit_macenko(pixels)
        np.testing.assert_allclose(fit.parameters["stains"], vectors, atol=1e-6)
        np.testing.assert_allclose(fit.parameters["maxima"], maxima, atol=1e-6)


def test_macenko_transforms_as_the_paper_says():
    pixels, target = mixture(), mixture(OTHER, (0.6, 0.9), seed=1)
    (vectors, maxima), (to_vectors, to_maxima) = macenko_by_the_paper(pixels), macenko_by_the_paper(target)
    amounts = np.linalg.lstsq(vectors.T, density(pixels).T, rcond=None)[0]
    expected = 255 * 10 ** -((amounts.T * to_maxima / maxima) @ to_vectors)
    got = StainTransform(fit_macenko(pixels), fit_macenko(target)).apply(pixels)
    inside = (grey(pixels) < 220) & (pixels.min(axis=1) > 0)
    assert inside.mean() > 0.8
    assert np.abs(got[inside] - expected[inside].clip(0, 255)).max() < 2  # the part across the plane is rounding's


def test_macenko_gives_the_targets_stains():
    pixels = mixture()
    target = fit_macenko(mixture(OTHER, (0.6, 0.5)))
    got = StainTransform(fit_macenko(pixels), target).apply(pixels)
    again = fit_macenko(got)
    for found, wanted in zip(again.parameters["stains"], target.parameters["stains"], strict=True):
        assert degrees(found, wanted) < 1.5
    np.testing.assert_allclose(again.parameters["maxima"], target.parameters["maxima"], rtol=0.05)


def test_reinhard_as_the_paper_says():
    pixels, target = mixture(n=4000), fit_reinhard(mixture(OTHER, (0.6, 0.9), seed=1))
    source = fit_reinhard(pixels)
    dark = pixels[grey(pixels) < 220]
    got = StainTransform(source, target).apply(dark)
    assert np.abs(got - reinhard_by_the_paper(dark, source, target)).max() < 1.5
    again = fit_reinhard(got)
    np.testing.assert_allclose(again.parameters["mean"], target.parameters["mean"], atol=0.03)
    np.testing.assert_allclose(again.parameters["std"], target.parameters["std"], rtol=0.15)


@pytest.mark.parametrize("method", METHODS)
def test_to_itself_nothing_changes(method):
    every = np.random.default_rng(0).integers(0, 256, (200_000, 3), dtype=np.uint8)  # colours of no stain, too
    fit = FITS[method](mixture())
    got = StainTransform(fit, fit).apply(every)
    assert np.abs(got.astype(int) - every).max() <= 1


@pytest.mark.parametrize("method", METHODS)
def test_glass_stays_as_it_is(method):
    transform = StainTransform(FITS[method](mixture(gains=(0.3, 0.3))), FITS[method](mixture(OTHER, (1.2, 1.2))))
    assert transform.reason is None
    glass = np.random.default_rng(0).integers(241, 256, (3, 64, 64, 3), dtype=np.uint8)
    np.testing.assert_array_equal(transform.apply(glass), glass)
    half = glass.copy()
    half[:, :, :32] = (150, 90, 160)
    got = transform.apply(half)
    np.testing.assert_array_equal(got[:, :, 32:], half[:, :, 32:])
    assert np.abs(got[:, :, :32].astype(int) - (150, 90, 160)).min(axis=(0, 1, 2)).max() > 10
    steps = np.arange(200, 256, dtype=np.uint8)[:, None].repeat(3, 1)  # no edge where it fades
    assert np.abs(np.diff(transform.apply(steps).astype(int), axis=0)).max() <= 12


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("pixels", "reason"),
    [
        (np.zeros((0, 3), np.uint8), "only 0 stained pixels"),
        (np.full((5000, 3), 255, np.uint8), "only 0 stained pixels"),
        (np.full((5000, 3), 244, np.uint8), "only 0 stained pixels"),
        (np.full((99, 3), (150, 90, 160), np.uint8), "only 99 stained pixels"),
        (np.full((5000, 3), (150, 90, 160), np.uint8), "one"),
        (np.zeros((5000, 3), np.uint8), "one"),
    ],
)
def test_what_cannot_be_fitted_changes_nothing_and_says_why(method, pixels, reason):
    fit = FITS[method](pixels)
    assert reason in fit.reason and fit.parameters == {}
    for transform in (StainTransform(fit, FITS[method](mixture())), StainTransform(FITS[method](mixture()), fit)):
        assert transform.reason == fit.reason
        tile = mixture(n=4096).reshape(64, 64, 3)
        np.testing.assert_array_equal(transform.apply(tile), tile)
    with pytest.raises(ValueError, match=r"no \w+ fit to keep"):
        fit.to_block()


def test_one_stain_in_different_amounts_is_not_two():
    amounts = np.random.default_rng(0).uniform(0.2, 1.5, (5000, 1))
    fit = fit_macenko(np.rint(255 * 10 ** -(amounts * STAINS[0])).astype(np.uint8))
    assert "one stain" in fit.reason


@pytest.mark.parametrize("method", METHODS)
def test_shapes(method):
    transform = StainTransform(FITS[method](mixture()), FITS[method](mixture(OTHER)))
    tiles = mixture(n=4 * 50 * 70).reshape(4, 50, 70, 3)
    got = transform.apply(tiles)
    assert (got.shape, got.dtype) == (tiles.shape, np.uint8)
    for tile, expected in zip(tiles, got, strict=True):
        np.testing.assert_array_equal(transform.apply(tile), expected)  # no tile sees another
    np.testing.assert_array_equal(transform.apply(tiles[:, ::2, 5:]), got[:, ::2, 5:])
    np.testing.assert_array_equal(transform.apply(tiles[0, 3, 4]), got[0, 3, 4])
    assert transform.apply(tiles[:0]).shape == (0, 50, 70, 3)
    again = pickle.loads(pickle.dumps(transform))  # a reader's process gets it so
    np.testing.assert_array_equal(again.apply(tiles), got)
    for wrong in (tiles.astype(np.float32), tiles[..., :2], np.zeros((), np.uint8)):
        with pytest.raises(ValueError, match="RGB uint8"):
            transform.apply(wrong)


@pytest.mark.parametrize("method", METHODS)
def test_to_the_manifest_and_back(method):
    fit = FITS[method](mixture())
    block = StainBlock.model_validate_json(json.dumps(fit.to_block()))
    assert StainFit(block.method, block.parameters) == fit
    assert json.loads(json.dumps(asdict(InputSpec((64, 64), 0.5, stain=fit))))["stain"]["method"] == method


@pytest.mark.parametrize(
    ("method", "parameters", "match"),
    [
        ("vahadane", {}, "'vahadane' is not one of macenko, reinhard"),
        ("macenko", {}, "holds stains, maxima, not -"),
        ("macenko", {"mean": [1, 2, 3], "std": [1, 1, 1]}, "not mean, std"),
        ("macenko", {"stains": [[1, 0, 0], [0, 1, 0], [0, 0, 1]], "maxima": [1, 1]}, r"stains must be \(2, 3\)"),
        ("macenko", {"stains": STAINS, "maxima": [1, 0]}, "maxima must be above 0"),
        ("macenko", {"stains": [STAINS[0], STAINS[0] * 2], "maxima": [1, 1]}, "two stains are one"),
        ("macenko", {"stains": [STAINS[0], [0, 0, 0]], "maxima": [1, 1]}, "two stains are one"),
        ("reinhard", {"mean": [1, 2, np.nan], "std": [1, 1, 1]}, "finite"),
        ("reinhard", {"mean": [1, 2, 3], "std": [1, -1, 1]}, "std must be above 0"),
    ],
)
def test_parameters_that_are_no_fit(method, parameters, match):
    with pytest.raises(ValueError, match=match):
        StainFit(method, parameters)


def test_two_methods_do_not_mix():
    with pytest.raises(ValueError, match="a macenko fit is not turned into a reinhard fit"):
        StainTransform(fit_macenko(mixture()), fit_reinhard(mixture()))


def stained_slide() -> np.ndarray:
    """(800, 1000, 3): glass, and a block of tissue with known stains and structures of some pixels."""
    rng = np.random.default_rng(0)
    image = rng.integers(240, 248, (800, 1000, 3)).astype(np.uint8)
    coarse = mixture(n=100 * 100).reshape(100, 100, 3)
    rng.shuffle(coarse.reshape(-1, 3))
    image[200:600, 300:700] = cv2.resize(coarse, (400, 400), interpolation=cv2.INTER_NEAREST)
    return image


@pytest.mark.parametrize("method", METHODS)
def test_a_slides_fit_is_that_of_its_tissue(make_slide, method):
    image = stained_slide()
    truth = FITS[method](image[200:600, 300:700].reshape(-1, 3))
    mask = np.zeros((80, 100), bool)
    mask[20:60, 30:70] = True
    with Slide(make_slide(image)) as slide:
        fits = [fit_slide(slide, tissue, method, n_pixels=50_000) for tissue in (mask, mask, None)]
        assert fits[0] == fits[1]
        assert fit_slide(slide, mask, method, seed=1) != fits[0]
        assert fit_slide(slide, np.zeros((8, 8), bool), method).reason == "no tissue"
        coarser = fit_slide(slide, mask, method, mpp=1.0)
    for fit in (fits[0], fits[2], coarser):
        for name, values in truth.parameters.items():
            np.testing.assert_allclose(fit.parameters[name], values, atol=0.08)
    with Slide(make_slide(image, mpp=None, name="unknown.tif")) as slide:
        assert fit_slide(slide, mask, method).reason is None


def test_what_lies_outside_the_mask_does_not_count(make_slide):
    image = stained_slide()
    image[:, 640:] = (30, 60, 200)  # ink, over the tissue's edge
    mask = np.zeros((80, 100), bool)
    mask[20:60, 30:64] = True
    with Slide(make_slide(image)) as slide:
        fit = fit_slide(slide, mask, "macenko", mpp=0.5)
    for found, true in zip(fit.parameters["stains"], STAINS, strict=True):
        assert degrees(found, true) < 2


def test_fine_ink_on_the_specimen_does_not_move_the_fit(make_slide):
    """Specks of cyan dye, too fine for the tissue mask, on 4 % of the tissue; the plain fit follows them."""
    image = stained_slide()
    specks = np.random.default_rng(1).random(image.shape[:2]) < 0.04
    specks[:, :300] = specks[:, 700:] = specks[:200] = specks[600:] = False
    image[specks] = (44, 127, 156)
    mask = np.zeros((80, 100), bool)
    mask[20:60, 30:70] = True
    with Slide(make_slide(image)) as slide:
        found = fit_slide(slide, mask, "macenko").parameters["stains"]
        assert max(degrees(a, b) for a, b in zip(found, STAINS, strict=True)) < 2
    naive = fit_macenko(image[200:600, 300:700].reshape(-1, 3)).parameters["stains"]
    assert max(degrees(a, b) for a, b in zip(naive, STAINS, strict=True)) > 10
    image[200:600, 300:700:3] = (44, 127, 156)  # a third of it is no speck but how this slide looks
    with Slide(make_slide(image, name="cyan.tif")) as slide:
        assert degrees(fit_slide(slide, mask, "macenko").parameters["stains"][0], STAINS[0]) > 10


def test_an_unknown_method(make_slide):
    with Slide(make_slide()) as slide, pytest.raises(ValueError, match="'vahadane'"):
        fit_slide(slide, None, "vahadane")


def test_a_blank_slide_and_one_that_cannot_be_decoded(make_slide, monkeypatch):
    from pathzoo.errors import SlideError

    with Slide(make_slide(np.full((300, 300, 3), 250, np.uint8))) as slide:
        assert "only 0 stained pixels" in fit_slide(slide, None, "macenko").reason
    with Slide(make_slide(name="broken.tif")) as slide:

        def fail(*arguments, **more):
            raise SlideError("corrupt")

        monkeypatch.setattr(slide, "read", fail)
        assert fit_slide(slide, None, "macenko").reason == "no place of the tissue could be decoded"


@pytest.mark.real
@pytest.mark.parametrize("method", METHODS)
def test_real_slides_become_alike(real_data, method):
    """H&E made like the PAS region: nothing turns black or white, glass stays, the fit becomes the target's."""
    with Slide(real_data / "slides" / "cmu_small_region.svs") as slide:
        source = fit_slide(slide, None, method)
        tile = slide.read(700, 600, 512, 512)
    with Slide(real_data / "glomeruli" / "aidpath_regions" / "region_A_2048x2048.tiff", mpp=0.5) as slide:
        target = fit_slide(slide, None, method)
    assert source.reason is None and target.reason is None
    got = StainTransform(source, target).apply(tile)
    np.testing.assert_array_equal(got[tile.min(axis=2) > 240], tile[tile.min(axis=2) > 240])
    tissue = grey(tile) < 200
    assert (got[tissue].max(axis=1) < 5).mean() < 0.001 and (got[tissue].min(axis=1) > 250).mean() < 0.01
    key = {"macenko": "maxima", "reinhard": "mean"}[method]
    wanted = np.array(target.parameters[key])
    before = np.abs(np.array(FITS[method](tile.reshape(-1, 3)).parameters[key]) - wanted).sum()
    after = np.abs(np.array(FITS[method](got.reshape(-1, 3)).parameters[key]) - wanted).sum()
    assert after < 0.5 * before
