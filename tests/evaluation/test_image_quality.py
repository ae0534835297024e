"""SSIM, KID, nearest neighbours and the check for copies, each against a second derivation."""

import builtins

import numpy as np
import pytest
from scipy import ndimage

from pathzoo.errors import DataError
from pathzoo.evaluation.functional import image_quality
from pathzoo.evaluation.functional.image_quality import kid, memorised, nearest, shrink, ssim


def plain_ssim(a, b, data_range):
    """Equation 13 of the paper, from five blurred pictures."""

    def blurred(picture):
        return ndimage.gaussian_filter(picture, 1.5, radius=5)[5:-5, 5:-5]

    mean_a, mean_b = blurred(a), blurred(b)
    var_a, var_b = blurred(a * a) - mean_a**2, blurred(b * b) - mean_b**2
    both = blurred(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    upper = (2 * mean_a * mean_b + c1) * (2 * both + c2)
    return (upper / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).mean()


def test_ssim_is_that_of_the_paper():
    rng = np.random.default_rng(0)
    a = ndimage.gaussian_filter(rng.uniform(0, 255, (40, 50, 3)), (2, 2, 0))
    b = a + rng.normal(0, 10, a.shape)
    assert ssim(a[..., 0], b[..., 0], 255) == pytest.approx(plain_ssim(a[..., 0], b[..., 0], 255), abs=1e-9)
    each = [plain_ssim(a[..., k], b[..., k], 255) for k in range(3)]
    assert ssim(a, b, 255) == pytest.approx(np.mean(each), abs=1e-9)
    assert ssim(a, a, 255) == pytest.approx(1)
    assert ssim(a, b + rng.normal(0, 20, a.shape), 255) < ssim(a, b, 255)
    assert ssim(a[..., :1], b[..., :1], 255) == ssim(a[..., 0], b[..., 0], 255)
    assert isinstance(ssim(a.astype(np.float32), b.astype(np.float32), 255), float)


def test_ssim_refuses_what_it_cannot_compare():
    picture = np.zeros((20, 20))
    for other in (np.zeros((20, 21)), np.zeros((20, 20, 1))):
        with pytest.raises(DataError, match=r"\(20, 20\)"):
            ssim(picture, other, 255)
    with pytest.raises(DataError, match="11 pixels or more"):
        ssim(picture[:10], picture[:10], 255)
    with pytest.raises(DataError, match="data_range 0"):
        ssim(picture, picture, 0)
    with pytest.raises(DataError, match="NaN"):
        ssim(picture, np.full((20, 20), np.nan), 255)


def test_without_scikit_image_the_command_is_named(monkeypatch):
    real_import = builtins.__import__

    def without(name, *arguments, **keywords):
        if name.startswith("skimage"):
            raise ImportError(name)
        return real_import(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install pathzoo\[translation\]"):
        ssim(np.zeros((20, 20)), np.zeros((20, 20)), 255)


def plain_mmd(x, y):
    def k(a, b):
        return (a @ b / len(a) + 1) ** 3

    n, m = len(x), len(y)
    within_x = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    within_y = sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return within_x + within_y - 2 * sum(k(a, b) for a in x for b in y) / (n * m)


def test_kid_is_the_unbiased_estimate():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(12, 5)), rng.normal(0.5, 1, (12, 5))
    mean, deviation = kid(x, y)
    assert mean == pytest.approx(plain_mmd(x, y), rel=1e-10)
    assert deviation == pytest.approx(0, abs=1e-12)  # each subset is the whole
    # Over many subsets, the mean is the estimate that uses all pairs, although it sees few at a time.
    long = rng.normal(0.5, 1, (20, 5))
    mean, deviation = kid(x, long, subsets=4000, subset_size=6, seed=3)
    assert mean == pytest.approx(plain_mmd(x, long), abs=4 * deviation / np.sqrt(4000))
    assert deviation > 0


def test_kid_is_about_0_for_one_distribution_and_grows_with_a_shift():
    rng = np.random.default_rng(2)
    draws = [kid(rng.normal(size=(60, 8)), rng.normal(size=(60, 8)), subsets=1)[0] for _ in range(200)]
    assert abs(np.mean(draws)) < 4 * np.std(draws) / np.sqrt(200)  # unbiased: below 0 as often as above
    assert min(draws) < 0 < max(draws)
    real = rng.normal(size=(300, 8))
    shifted = [kid(real, rng.normal(shift, 1, (300, 8)), subset_size=100, seed=5)[0] for shift in (0, 0.3, 0.6, 1.2)]
    assert shifted == sorted(shifted) and shifted[1] > 5 * abs(shifted[0])
    assert kid(real, real[:50], seed=5) == kid(real, real[:50], seed=5)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((np.zeros((5, 3)), np.zeros((5, 4))), r"\(5, 3\) and \(5, 4\)"),
        ((np.zeros((5, 3)), np.zeros((1, 3))), r"drawn features \(1, 3\)"),
        ((np.zeros((5, 3)), np.full((5, 3), np.inf)), "drawn features hold NaN"),
        ((np.zeros((5, 3)), np.zeros((5, 3)), 100, 6), "100 subsets of 6 of 5 and 5"),
        ((np.zeros((5, 3)), np.zeros((5, 3)), 0), "0 subsets"),
    ],
)
def test_kid_refuses_features_that_do_not_fit(arguments, match):
    with pytest.raises(DataError, match=match):
        kid(*arguments)


@pytest.mark.parametrize("block", [1, 40, 2_000_000])
def test_nearest_is_that_of_all_pairs_whatever_the_blocks(block, monkeypatch):
    monkeypatch.setattr(image_quality, "_BLOCK", block)
    rng = np.random.default_rng(3)
    drawn, real = rng.uniform(0, 255, (17, 6)).astype(np.float32), rng.uniform(0, 255, (23, 6)).astype(np.float32)
    drawn[4] = real[9]
    index, distance = nearest(drawn, real)
    pairs = np.sqrt(((drawn[:, None].astype(float) - real[None]) ** 2).mean(axis=2))  # (17, 23)
    assert np.array_equal(index, pairs.argmin(axis=1))
    np.testing.assert_allclose(distance, pairs.min(axis=1), rtol=1e-12)
    assert (index[4], distance[4]) == (9, 0.0)


def test_nearest_takes_whole_numbers_and_refuses_what_does_not_fit():
    drawn, real = np.array([[0, 255]], np.uint8), np.array([[255, 0], [10, 255]], np.uint8)
    assert nearest(drawn, real)[1] == pytest.approx(np.sqrt(50))
    with pytest.raises(DataError, match=r"\(2, 2\) to each of \(1, 3\)"):
        nearest(np.zeros((1, 3)), real)
    with pytest.raises(DataError, match="drawn pictures hold NaN"):
        nearest(np.array([[np.nan, 0]]), real)
    with pytest.raises(DataError, match="real pictures hold NaN"):
        nearest(np.zeros((1, 2)), np.array([[np.inf, 0]]))


def cohort(rng, patients, each=4, dimension=12):
    """Pictures of one patient resemble each other: a place of the patient's own, and a little round it."""
    middles = rng.normal(size=(patients, dimension))
    pictures = middles[:, None] + 0.1 * rng.normal(size=(patients, each, dimension))
    return pictures.reshape(-1, dimension), [f"p{k // each}" for k in range(patients * each)]


def test_copies_are_flagged_and_so_are_copies_with_a_little_noise():
    rng = np.random.default_rng(4)
    real, patients = cohort(rng, 30)
    copies = real[::7]
    for drawn in (copies, copies + rng.normal(0, 0.01, copies.shape)):
        found = memorised(drawn, real, patients)
        assert found.flagged.all() and (found.ratio < 0.05).all()
        assert np.array_equal(found.neighbour, np.arange(0, len(real), 7))
    pairs = np.sqrt(((real[:, None] - real[None]) ** 2).mean(axis=2))
    pairs[np.arange(len(real))[:, None] // 4 == np.arange(len(real)) // 4] = np.inf  # a patient's own are nearest
    np.testing.assert_allclose(found.baseline, pairs.min(axis=1))
    near = cohort(rng, 1, 1)[0]
    assert memorised(near, real, patients).ratio == nearest(near, real)[1] / np.median(found.baseline)


@pytest.mark.parametrize(("patients", "k", "each"), [(20, 1, 1), (150, 1, 1), (400, 4, 1), (50, 1, 4)])
def test_pictures_of_new_patients_are_flagged_at_the_stated_rate(patients, k, each):
    rng = np.random.default_rng(patients)
    flagged = []
    for _ in range(40):
        real, names = cohort(rng, patients, each)
        flagged.append(memorised(cohort(rng, 200, each=1)[0], real, names).flagged.mean())
    expected = (k + 1) / (patients + 1)
    assert np.mean(flagged) == pytest.approx(expected, rel=0.5, abs=0.001)


def test_pictures_of_unknown_patients_count_as_of_one():
    real, _ = cohort(np.random.default_rng(5), 3, each=2)
    found = memorised(real, real, ["a", "a", None, None, None, None])
    pairs = np.sqrt(((real[:, None] - real[None]) ** 2).mean(axis=2))
    np.testing.assert_allclose(found.baseline[2:], pairs[2:, :2].min(axis=1))
    twice = memorised(np.ones((1, 2)), np.ones((2, 2)), ["a", "b"])  # the real ones are copies of each other
    assert twice.flagged.all() and np.isnan(twice.ratio).all()


def test_no_baseline_without_a_second_patient():
    with pytest.raises(DataError, match="two patients or more"):
        memorised(np.zeros((1, 2)), np.zeros((3, 2)), [None] * 3)
    with pytest.raises(DataError, match="2 patients for 3 real"):
        memorised(np.zeros((1, 2)), np.zeros((3, 2)), ["a", "b"])
    with pytest.raises(DataError, match="quantile 3"):
        memorised(np.zeros((1, 2)), np.zeros((2, 2)), ["a", "b"], 3)


def test_shrink_takes_area_averages():
    rng = np.random.default_rng(6)
    pictures = rng.uniform(0, 255, (2, 12, 18, 3))
    small = shrink(pictures, 6)
    expected = pictures.reshape(2, 6, 2, 6, 3, 3).mean(axis=(2, 4))
    assert small.dtype == np.float32 and small.shape == (2, 6 * 6 * 3)
    np.testing.assert_allclose(small, expected.reshape(2, -1), rtol=1e-6)
    # Sides that are no multiples: as if each pixel were made of 5 x 5, and those were averaged.
    fine = np.kron(pictures[0, :, :, 0], np.ones((5, 5)))
    uneven = shrink(pictures[:1, :, :, 0], 5)
    np.testing.assert_allclose(uneven[0], fine.reshape(5, 12, 5, 18).mean(axis=(1, 3)).reshape(-1), rtol=1e-6)
    np.testing.assert_allclose(shrink(pictures, 1).mean(axis=1), pictures.mean(axis=(1, 2, 3)), rtol=1e-6)
    with pytest.raises(DataError, match="13 pixels"):
        shrink(pictures, 13)
