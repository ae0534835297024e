"""Augmented label maps: what changes, by how much, and what never does."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from pathzoo.datasets.label_augmentation import LabelAugmentation, augment_labels
from pathzoo.errors import ConfigError, DataError

EIGHT = np.ones((3, 3))
EVERYTHING = LabelAugmentation(
    shift=8, scale=(0.85, 1.15), rotation=15, flip=True, tumour_scale=(0.6, 1.6), tumour_shift=6
)


def disc(side, row, column, radius, stretch=1.0):
    rows, columns = np.mgrid[:side, :side]
    return ((rows - row) / stretch) ** 2 + (columns - column) ** 2 <= radius**2


def kidneys(seed, side=128, tumours=(0, 3)):
    """Two kidneys, each a stretched disc, with tumours within and at their borders."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((side, side), np.uint8)
    for column in (36, 92):
        row, radius, stretch = rng.uniform(55, 75), rng.uniform(9, 14), rng.uniform(1.2, 1.7)
        labels[disc(side, row, column, radius, stretch)] = 1
        for _ in range(rng.integers(*tumours)):
            angle, far = rng.uniform(0, 2 * np.pi), rng.uniform(0, 1.1)
            place = (row + far * radius * stretch * np.sin(angle), column + far * radius * np.cos(angle))
            labels[disc(side, *place, rng.uniform(2, 7))] = 2
    return labels


def off_kidney(labels):
    numbered, count = ndimage.label(labels == 2, EIGHT)
    kidney = labels == 1
    return sum(not (ndimage.binary_dilation(numbered == k, EIGHT) & kidney).any() for k in range(1, count + 1))


@given(seed=st.integers(0, 10_000), draw=st.integers(0, 10_000))
@settings(max_examples=80, deadline=None)
def test_a_map_keeps_its_classes_and_its_contacts(seed, draw):
    labels = kidneys(seed)
    before = labels.copy()
    changed = augment_labels(labels, np.random.default_rng(draw), EVERYTHING)
    assert np.array_equal(labels, before)
    assert changed.dtype == np.uint8 and changed.shape == labels.shape
    assert set(np.unique(changed)) == set(np.unique(labels))
    assert off_kidney(changed) <= off_kidney(labels)
    for value in np.unique(labels)[1:]:
        assert (changed == value).sum() > 0.1 * (labels == value).sum()


@given(seed=st.integers(0, 10_000), draw=st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_what_a_tumour_leaves_is_no_hole(seed, draw):
    labels = kidneys(seed, tumours=(1, 2))
    alone = LabelAugmentation(tumour_scale=(0.4, 1.0), tumour_shift=4)
    changed = augment_labels(labels, np.random.default_rng(draw), alone)
    left = (labels == 2) & (changed != 2)
    enclosed = ndimage.binary_fill_holes(changed > 0) & (changed == 0)
    assert not (enclosed & left).any()
    assert np.array_equal(changed[labels == 0] == 1, np.zeros((labels == 0).sum(), bool))  # no kidney from nowhere


def test_most_draws_change_the_map():
    changed = [augment_labels(kidneys(k), np.random.default_rng(k), EVERYTHING) for k in range(40)]
    assert np.mean([not np.array_equal(new, kidneys(k)) for k, new in enumerate(changed)]) > 0.95


@pytest.mark.parametrize("seed", range(5))
def test_empty_ranges_change_nothing_and_equal_generators_do_the_same(seed):
    labels = kidneys(seed)
    same = augment_labels(labels, np.random.default_rng(seed), LabelAugmentation())
    assert np.array_equal(same, labels) and same is not labels
    hair = LabelAugmentation(tumour_scale=(1.0, 1.0 + 1e-12))  # takes the tumours' way, and ends where it began
    assert np.array_equal(augment_labels(labels, np.random.default_rng(seed), hair), labels)
    one, two, other = (augment_labels(labels, np.random.default_rng(k), EVERYTHING) for k in (seed, seed, seed + 99))
    assert np.array_equal(one, two) and not np.array_equal(one, other)


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.25, 1.5])
def test_areas_grow_with_the_square_of_the_scale(factor):
    labels = np.zeros((160, 160), np.uint8)
    labels[disc(160, 80, 80, 45)] = 1
    labels[disc(160, 75, 85, 20)] = 2
    rng = np.random.default_rng(0)
    tumour = augment_labels(labels, rng, LabelAugmentation(tumour_scale=(factor, factor)))
    assert (tumour == 2).sum() == pytest.approx(factor**2 * (labels == 2).sum(), rel=0.03)
    assert (tumour > 0).sum() == (labels > 0).sum()  # enclosed: kidney fills what it leaves
    whole = augment_labels(labels, rng, LabelAugmentation(scale=(factor, factor)))
    for value in (1, 2):
        assert (whole == value).sum() == pytest.approx(factor**2 * (labels == value).sum(), rel=0.03)


def test_a_map_moves_and_turns_about_the_middle_of_its_labels():
    labels = np.zeros((64, 64), np.uint8)
    labels[20:31, 30:41] = 1
    seen = [augment_labels(labels, np.random.default_rng(k), LabelAugmentation(shift=9)) for k in range(200)]
    middles = np.array([np.argwhere(one).mean(axis=0) for one in seen]) - (25, 35)
    assert all(one.sum() == 121 for one in seen)
    assert (np.abs(middles) <= 9).all() and (np.ptp(middles, axis=0) > 16).all()
    bar = np.zeros((65, 65), np.uint8)
    bar[30:35, 12:53] = 1
    angles = []
    for seed in range(100):
        rows, columns = np.nonzero(augment_labels(bar, np.random.default_rng(seed), LabelAugmentation(rotation=30)))
        axis = np.linalg.eigh(np.cov(columns, rows))[1][:, 1]  # the long one
        angles.append(np.rad2deg(np.arctan(axis[1] / axis[0])))
        np.testing.assert_allclose([rows.mean(), columns.mean()], [32, 32], atol=0.3)
    assert np.abs(angles).max() < 30.5 and np.ptp(angles) > 50


def test_a_tumour_that_bulges_out_leaves_background_where_that_is_nearer():
    labels = np.zeros((100, 100), np.uint8)
    labels[disc(100, 50, 40, 20)] = 1
    labels[disc(100, 50, 66, 12)] = 2
    small = augment_labels(labels, np.random.default_rng(0), LabelAugmentation(tumour_scale=(0.5, 0.5)))
    assert small[50, 77] == 0 and small[50, 57] == 1 and off_kidney(small) == 0
    far = LabelAugmentation(tumour_scale=(0.5, 0.5), tumour_shift=25)
    for seed in range(20):
        assert off_kidney(augment_labels(labels, np.random.default_rng(seed), far)) == 0


def test_a_tumour_without_a_kidney_needs_none():
    labels = np.zeros((64, 64), np.uint8)
    labels[disc(64, 30, 30, 8)] = 2
    changed = augment_labels(labels, np.random.default_rng(0), LabelAugmentation(tumour_scale=(0.5, 0.5)))
    assert set(np.unique(changed)) == {0, 2} and (changed == 2).sum() < 0.4 * (labels == 2).sum()
    ring = np.where(disc(64, 30, 30, 12) & ~disc(64, 30, 30, 4), 2, 0).astype(np.uint8)
    shrunk = augment_labels(ring, np.random.default_rng(0), LabelAugmentation(tumour_scale=(0.5, 0.5)))
    assert set(np.unique(shrunk)) == {0, 2}


def test_a_map_that_cannot_keep_its_classes_comes_back_as_it_was():
    labels = np.zeros((40, 40), np.uint8)
    labels[disc(40, 20, 20, 5)] = 1
    labels[disc(40, 20, 20, 4)] = 2
    swallows = LabelAugmentation(tumour_scale=(3, 3))
    assert np.array_equal(augment_labels(labels, np.random.default_rng(0), swallows), labels)
    assert np.array_equal(
        augment_labels(labels, np.random.default_rng(0), LabelAugmentation(scale=(1e-3, 1e-3))), labels
    )
    for empty in (np.zeros((8, 8), np.uint8), np.full((8, 8), 2, np.uint8)):
        assert np.array_equal(augment_labels(empty, np.random.default_rng(0), swallows), empty)


def test_tissue_maps_take_the_affine_alone_and_are_not_labelled_beyond_their_border():
    rng = np.random.default_rng(3)
    labels = np.kron(rng.integers(0, 3, (4, 4)), np.ones((16, 16))).astype(np.uint8)
    tissue = LabelAugmentation(shift=6, scale=(0.8, 1.2), rotation=30, flip=True, lesion=None, outside=255)
    for seed in range(20):
        changed = augment_labels(labels, np.random.default_rng(seed), tissue)
        assert set(np.unique(changed)) - {255} == set(np.unique(labels))
    smaller = augment_labels(labels, rng, LabelAugmentation(scale=(0.5, 0.5), lesion=None, outside=255))
    assert (smaller == 255).sum() == pytest.approx(0.75 * 64**2, rel=0.03)
    assert (smaller[0] == 255).all()


def test_flips_are_drawn_for_half_of_the_maps():
    labels = kidneys(5)
    seen = [augment_labels(labels, np.random.default_rng(k), LabelAugmentation(flip=True)) for k in range(60)]
    flipped = [np.array_equal(one, labels[:, ::-1]) for one in seen]
    assert all(turned or np.array_equal(one, labels) for turned, one in zip(flipped, seen, strict=True))
    assert 15 < sum(flipped) < 45


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"shift": -1}, "shift=-1"),
        ({"rotation": float("nan")}, "rotation=nan"),
        ({"scale": (1.2, 0.8)}, r"scale=\(1\.2, 0\.8\)"),
        ({"tumour_scale": (0, 1)}, r"tumour_scale=\(0, 1\)"),
        ({"lesion": None, "tumour_shift": 3}, "need lesion="),
        ({"lesion": 1}, "lesion=1, organ=1"),
        ({"outside": 300}, "outside=300"),
    ],
)
def test_ranges_that_are_none_are_refused(arguments, match):
    with pytest.raises(ConfigError, match=match):
        LabelAugmentation(**arguments)


def test_maps_of_another_form_are_refused():
    with pytest.raises(DataError, match=r"int64 \(4, 4\)"):
        augment_labels(np.zeros((4, 4), np.int64), np.random.default_rng(0), LabelAugmentation())
