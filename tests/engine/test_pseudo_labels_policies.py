"""Which pixels are kept, against numpy on all pixels pooled."""

import numpy as np
import pytest
import torch

from pathzoo.engine.self_training.confidence import (
    LEVELS,
    level_of,
    levels_of,
    lowest_probability,
    probability_of,
)
from pathzoo.engine.self_training.policies import NOT_KEPT, checked_policy, keep, lowest_levels
from pathzoo.engine.self_training.records import count_levels
from pathzoo.errors import ConfigError


def _maps(seed: int, n: int = 4, classes: int = 3) -> list[tuple[np.ndarray, np.ndarray]]:
    """Predictions of several regions: class 2 is rare and of low confidence, and levels repeat."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        shape = tuple(rng.integers(20, 60, 2))
        predicted = rng.choice(classes, shape, p=[0.8, 0.19, 0.01]).astype(np.uint8)
        center = np.array([200, 150, 80])[predicted]
        found.append((predicted, rng.normal(center, 25).clip(0, 255).astype(np.uint8)))
    return found


def _histogram(maps: list) -> np.ndarray:
    return sum(count_levels(predicted, confidence, 3) for predicted, confidence in maps)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_quantile_is_that_of_all_pixels_of_a_class_pooled(seed, share):
    maps = _maps(seed)
    policy = checked_policy({"type": "quantile", "keep": share})
    lowest = lowest_levels(policy, _histogram(maps))
    labels = np.concatenate([keep(*pair, lowest).ravel() for pair in maps])
    predicted, confidence = (np.concatenate([pair[i].ravel() for pair in maps]) for i in (0, 1))
    for label in range(3):
        own = np.sort(confidence[predicted == label])[::-1]
        cut = own[int(np.ceil(share * len(own))) - 1]  # the least confident of the share that has to stay
        kept = (predicted == label) & (confidence >= cut)
        np.testing.assert_array_equal(labels == label, kept)
        assert kept.sum() >= share * len(own)
        assert (own > cut).sum() < share * len(own)  # one level less would be too few
    assert set(np.unique(labels)) <= {0, 1, 2, NOT_KEPT}


def test_rare_class_survives_a_quantile_and_not_one_threshold():
    maps = _maps(3)
    for policy, survives in (({"type": "quantile", "keep": 0.5}, True), ({"type": "fixed", "threshold": 0.999}, False)):
        lowest = lowest_levels(checked_policy(policy), _histogram(maps))
        assert any((keep(*pair, lowest) == 2).any() for pair in maps) is survives


def test_ties_all_stay_and_a_class_without_a_pixel_is_no_matter():
    histogram = np.zeros((3, LEVELS), np.int64)
    histogram[0, [100, 200]] = 70, 30  # the 70 are not told apart: with 0.3 they go, with 0.31 all stay
    histogram[1, 255] = 1
    for share, expected in ((0.3, 200), (0.31, 100), (1.0, 100)):
        lowest = lowest_levels({"type": "quantile", "keep": share}, histogram)
        assert lowest.tolist() == [expected, 255, 0]


def test_share_is_not_rounded_up_by_floating_point():
    histogram = np.zeros((1, LEVELS), np.int64)
    histogram[0, 50:80] = 1
    for tenth in range(1, 11):
        lowest = lowest_levels({"type": "quantile", "keep": tenth / 10}, histogram)
        assert lowest[0] == 80 - 3 * tenth


@pytest.mark.parametrize("threshold", [0.34, 0.5, 0.9, 0.95, 0.999])
def test_fixed_threshold_keeps_every_pixel_at_or_above_and_hardly_any_below(threshold):
    probs = torch.linspace(1 / 3, 1, 20_001, dtype=torch.float32)[:-1]
    lowest = lowest_levels(checked_policy({"type": "fixed", "threshold": threshold}), np.zeros((1, LEVELS), np.int64))
    labels = keep(np.zeros(20_000, np.uint8), levels_of(probs).numpy(), lowest)
    kept = probs.numpy()[labels == 0]
    assert (labels[probs.numpy() >= threshold] == 0).all()
    assert kept.min() >= lowest_probability(int(lowest[0])) - 1e-4
    assert threshold - kept.min() < 0.0625 * threshold * (1 - threshold) + 1e-4  # one level of log-odds


def test_all_keeps_all():
    maps = _maps(4)
    lowest = lowest_levels(checked_policy("all"), _histogram(maps))
    for predicted, confidence in maps:
        np.testing.assert_array_equal(keep(predicted, confidence, lowest), predicted)


def test_levels_rise_with_probability_and_come_back():
    probs = torch.linspace(0, 1, 100_001)
    levels = levels_of(probs).numpy().astype(int)
    assert (np.diff(levels) >= 0).all()
    assert levels[0] == 0 and levels[-1] == LEVELS - 1
    assert [level_of(float(p)) for p in probs[::997]] == levels[::997].tolist()
    inside = (levels > 0) & (levels < LEVELS - 1)
    assert np.abs(probability_of(levels) - probs.numpy())[inside].max() < 0.008
    for level in (1, 64, 99, 200, 255):
        edge = lowest_probability(level)
        assert level_of(edge + 1e-9) == level and level_of(edge - 1e-7) == level - 1


def test_a_saturated_network_is_still_told_apart():
    """Nine tenths over 0.998, as after some training: 8 bits of the probability itself could not cut it in half."""
    rng = np.random.default_rng(0)
    probs = torch.from_numpy(1 / (1 + np.exp(-rng.normal(8.5, 1.5, 50_000)))).float()
    linear = (probs * 255).round().numpy()
    assert (linear == 255).mean() > 0.9
    levels = levels_of(probs).numpy()
    histogram = count_levels(np.zeros_like(levels), levels, 1)
    lowest = lowest_levels({"type": "quantile", "keep": 0.5}, histogram)
    assert 0.5 <= (levels >= lowest[0]).mean() < 0.52


@pytest.mark.parametrize(
    ("policy", "named"),
    [
        ("quantil", "quantile"),
        ({"type": "fixed"}, "threshold=None"),
        ({"type": "fixed", "threshold": 1.2}, "1.2"),
        ({"type": "quantile", "keep": 0}, "keep=0"),
        ({"type": "quantile", "threshold": 0.5}, "keep"),
        ({"type": "all", "keep": 0.5}, "takes no 'keep'"),
        ({}, "None"),
    ],
)
def test_bad_policy_is_named(policy, named):
    with pytest.raises(ConfigError, match=named):
        checked_policy(policy)
