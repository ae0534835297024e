"""Label noise does what it says: exact shares, outlines off by the pixels asked for, nothing else touched."""

import json

import numpy as np
import pytest
from scipy import ndimage

from pathzoo.datasets.label_noise import (
    LabelNoise,
    RegionNoise,
    bend_outlines,
    corrupt,
    noise_rows,
    plan_noise,
    swap_classes,
    widen,
    write_noise,
)
from pathzoo.errors import ConfigError

CLASSES = ("normal", "benign", "malignant")


def disc(radius, size=200, value=1):
    y, x = np.mgrid[:size, :size]
    return np.where(np.hypot(x - size / 2, y - size / 2) < radius, value, 0).astype(np.uint8)


def two_kinds():
    labels = disc(45) + np.roll(disc(20, value=2), 70, axis=1)
    labels[:20] = 255
    return labels


def test_swapping_twice_is_nothing():
    labels = two_kinds()
    once = swap_classes(labels, 1, 2)
    assert np.array_equal(once == 1, labels == 2) and np.array_equal(once == 2, labels == 1)
    assert np.array_equal(once == 255, labels == 255)
    assert np.array_equal(swap_classes(once, 1, 2), labels)


@pytest.mark.parametrize("pixels", [3, 8])
def test_widening_and_tightening_move_the_outline_by_that_many_pixels(pixels):
    labels = disc(50)
    away = ndimage.distance_transform_edt(labels == 0)  # an exact distance, from elsewhere
    wide = widen(labels, pixels)
    assert (wide[away <= pixels - 0.5] == 1).all() and (wide[away > pixels + 0.5] == 0).all()
    inward = ndimage.distance_transform_edt(labels == 1)
    tight = widen(labels, -pixels)
    assert (tight[inward > pixels + 0.5] == 1).all() and (tight[inward <= pixels - 0.5] == 0).all()


def test_each_class_widens_into_the_background_only():
    labels = two_kinds()
    wide = widen(labels, 6)
    assert np.array_equal(wide[labels != 0], labels[labels != 0])
    nearest = ndimage.distance_transform_edt((labels == 0) | (labels == 255), return_indices=True)[1]
    changed = (wide != labels) & (labels == 0)
    agree = wide[changed] == labels[tuple(nearest)][changed]
    assert changed.sum() > 1000 and agree.mean() > 0.99  # the nearest lesion's class, ties apart
    assert np.array_equal(widen(labels, -6) == 255, labels == 255)
    everything, nothing = np.ones((9, 9), np.uint8), np.zeros((9, 9), np.uint8)
    for plain in (everything, nothing):
        assert np.array_equal(widen(plain, 3), plain) and np.array_equal(widen(plain, -3), plain)


def test_bent_outlines_are_off_by_the_root_mean_square_asked_for():
    offsets = []
    for seed in range(1000, 1120):
        bent = bend_outlines(disc(60, 260), 6.0, seed * 2**33 + seed)
        angles = np.linspace(0, 2 * np.pi, 12, endpoint=False)
        for angle in angles:
            along = np.arange(0, 125, 0.5)
            x, y = 130 + along * np.cos(angle), 130 + along * np.sin(angle)
            inside = bent[y.astype(int), x.astype(int)] == 1
            offsets.append(along[inside].max() - 60)
    assert abs(np.sqrt(np.mean(np.square(offsets))) - 6) < 1.2
    # Sampled outwards in half pixels: -0.25; a sideways shift on a circle: -36 / (2 * 60). Standard error 0.25.
    assert abs(np.mean(offsets) + 0.55) < 0.75


def test_bending_leaves_what_is_ignored_and_depends_on_its_seed_alone():
    labels = two_kinds()
    bent = bend_outlines(labels, 8, 5)
    assert np.array_equal(bent == 255, labels == 255)
    assert set(np.unique(bent)) <= set(np.unique(labels))
    assert np.array_equal(bent, bend_outlines(labels, 8, 5))
    assert not np.array_equal(bent, bend_outlines(labels, 8, 6))


def test_exactly_the_share_of_regions_with_either_class_is_flipped():
    pixels = {f"r{n}": (100, 0, 0) if n % 4 == 0 else (50, n % 3, 7) for n in range(40)}  # every fourth shows neither
    plans = {
        flip: {
            item for item, what in plan_noise(LabelNoise(flip=flip, seed=2), pixels, CLASSES).items() if what.swapped
        }
        for flip in (0.0, 0.1, 0.2, 1.0)
    }
    assert [len(plans[flip]) for flip in (0.0, 0.1, 0.2, 1.0)] == [0, 3, 6, 30]
    assert plans[0.1] < plans[0.2]
    assert not any(pixels[item] == (100, 0, 0) for item in plans[1.0])
    again = plan_noise(LabelNoise(flip=0.2, seed=2), dict(reversed(pixels.items())), CLASSES)
    assert {item for item, what in again.items() if what.swapped} == plans[0.2]
    other = plan_noise(LabelNoise(flip=0.2, seed=3), pixels, CLASSES)
    assert {item for item, what in other.items() if what.swapped} != plans[0.2]


def test_every_region_is_off_in_one_of_three_ways():
    plan = plan_noise(LabelNoise(boundary=5), {f"r{n}": (9, 9, 9) for n in range(300)}, CLASSES)
    counts = {shift: sum(what.shift == shift for what in plan.values()) for shift in ("bent", "wide", "tight")}
    assert sum(counts.values()) == 300 and min(counts.values()) > 70
    assert all(what.swapped is None and what.pixels == 5 for what in plan.values())


def test_mistakes_add_up():
    labels = two_kinds()
    both = corrupt(labels, RegionNoise(swapped=(1, 2), shift="wide", pixels=4))
    assert np.array_equal(both, swap_classes(widen(labels, 4), 1, 2))
    assert np.array_equal(corrupt(labels, RegionNoise(shift="tight", pixels=4)), widen(labels, -4))
    assert np.array_equal(corrupt(labels, RegionNoise(shift="bent", pixels=4, seed=9)), bend_outlines(labels, 4, 9))
    assert np.array_equal(corrupt(labels, RegionNoise()), labels)


def test_the_record_says_what_was_made_wrong_where(tmp_path):
    noise = LabelNoise.of({"flip": 0.5, "swap": ["malignant", "normal"], "boundary": 2, "seed": 1})
    plan = plan_noise(noise, {"b.png": (1, 1, 1), "a.png": (1, 1, 1)}, CLASSES)
    write_noise(tmp_path / "noise.json", noise, plan)
    content = json.loads((tmp_path / "noise.json").read_text())
    assert content["label_noise"] == {"flip": 0.5, "swap": ["malignant", "normal"], "boundary": 2, "seed": 1}
    assert content["regions"] == noise_rows(plan)
    assert [row["item"] for row in content["regions"]] == ["a.png", "b.png"]
    assert sum(row["swapped"] for row in content["regions"]) == 1
    assert next(what.swapped for what in plan.values() if what.swapped) == (2, 0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"flip": -0.1}, "flip=-0.1: give a share of the regions, 0 to 1"),
        ({"flip": True}, "flip=True"),
        ({"boundary": -1}, "boundary=-1: give pixels"),
        ({"boundary": float("nan")}, "boundary=nan"),
        ({"seed": 1.0}, "seed=1.0: give a whole number"),
        ({"swap": "benign"}, "swap='benign': give the names of two classes"),
        ({"swap": ("benign", "benign")}, "give the names of two classes"),
        ({"boundry": 3}, "label_noise has no key 'boundry'; did you mean 'boundary'"),
    ],
)
def test_noise_that_cannot_be(values, message):
    with pytest.raises(ConfigError, match=message):
        LabelNoise.of(values)
