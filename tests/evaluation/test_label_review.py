"""Doubtful labels: sums against loops over pixels, and planted mistakes against where they are ranked."""

import cv2
import numpy as np
import pytest
import shapely

from pathzoo.evaluation.functional.label_review import (
    class_thresholds,
    confident_classes,
    confident_joint,
    flip_scores,
    found_in_first,
    margins,
    ranking,
    score_regions,
    tally,
)
from pathzoo.evaluation.review_areas import review_areas


def random_region(rng, height=13, width=17, classes=3, ignored=0.2):
    labels = rng.integers(0, classes, (height, width)).astype(np.uint8)
    labels[rng.random(labels.shape) < ignored] = 255
    probs = rng.dirichlet(np.ones(classes), (height, width)).transpose(2, 0, 1).astype(np.float32)
    return labels, probs


def pixels_of(labels, probs):
    """(label, probabilities) of every labelled pixel, in Python."""
    return [
        (int(labels[y, x]), probs[:, y, x].tolist())
        for y in range(labels.shape[0])
        for x in range(labels.shape[1])
        if labels[y, x] != 255
    ]


@pytest.mark.parametrize("seed", range(3))
def test_tally_thresholds_and_joint_against_loops(seed):
    rng = np.random.default_rng(seed)
    regions = [random_region(rng) for _ in range(4)]
    every = [pixel for region in regions for pixel in pixels_of(*region)]
    tallies = [tally(*region) for region in regions]
    pixels, sums = np.stack([t.pixels for t in tallies]), np.stack([t.sums for t in tallies])
    own = {c: [probs[c] for label, probs in every if label == c] for c in range(3)}
    thresholds = class_thresholds(pixels, sums)
    np.testing.assert_allclose(thresholds, [np.mean(own[c]) for c in range(3)], rtol=1e-6)
    for (labels, probs), found in zip(regions, tallies, strict=True):
        pairs = pixels_of(labels, probs)
        joint = np.zeros((3, 3), int)
        for c in range(3):
            assert found.pixels[c] == sum(label == c for label, _ in pairs)
            expected = np.sum([p for label, p in pairs if label == c], axis=0)
            np.testing.assert_allclose(found.sums[c], expected, rtol=1e-5)
        for label, p in pairs:
            sure = [c for c in range(3) if p[c] >= thresholds[c]]
            if sure:
                joint[label, max(sure, key=lambda c: p[c])] += 1
        np.testing.assert_array_equal(confident_joint(labels, probs, thresholds), joint)


def test_parts_of_a_region_add_up_and_bytes_serve_as_well():
    labels, probs = random_region(np.random.default_rng(0), 40, 50)
    whole = tally(labels, probs)
    parts = [tally(labels[rows], probs[:, rows]) for rows in (slice(0, 11), slice(11, 40))]
    np.testing.assert_array_equal(whole.pixels, sum(part.pixels for part in parts))
    np.testing.assert_allclose(whole.sums, sum(part.sums for part in parts))
    levels = np.rint(probs * 255).astype(np.uint8)
    np.testing.assert_allclose(tally(labels, levels).sums, whole.sums, rtol=0.01)
    with pytest.raises(ValueError, match="do not fit"):
        tally(labels, probs[:, 1:])
    with pytest.raises(ValueError, match=r"lie in .*, expected 0\.\.1"):
        tally(labels, probs * 255)


def test_a_class_that_never_occurs_is_never_confident():
    labels = np.zeros((4, 4), np.uint8)
    probs = np.stack([np.full((4, 4), 0.3), np.full((4, 4), 0.7)]).astype(np.float32)
    found = tally(labels, probs)
    thresholds = class_thresholds(found.pixels, found.sums)
    assert thresholds[0] == pytest.approx(0.3) and np.isnan(thresholds[1])
    assert (confident_classes(probs, thresholds) == 0).all()
    scores = score_regions(found.pixels[None], found.sums[None], np.zeros((1, 2, 2), int), thresholds)
    assert np.isnan(scores.flip[0]) and scores.flip_from[0] == scores.flip_to[0] == -1
    assert scores.self_confidence[0] == pytest.approx(0.3) and scores.adjusted_confidence[0] == pytest.approx(0)


def constant_region(label, probs, size=10):
    return np.full((size, size), label, np.uint8), np.tile(np.float32(probs)[:, None, None], (1, size, size))


def scored(regions, exchangeable=None):
    tallies = [tally(*region) for region in regions]
    pixels, sums = np.stack([t.pixels for t in tallies]), np.stack([t.sums for t in tallies])
    thresholds = class_thresholds(pixels, sums)
    joint = np.stack([confident_joint(*region, thresholds) for region in regions])
    return score_regions(pixels, sums, joint, thresholds, exchangeable), thresholds


def test_hard_classes_do_not_come_first():
    """Class 1 gets 0.5 everywhere; a region of class 0 at 0.7 is odd all the same."""
    easy = [constant_region(0, [0.95, 0.03, 0.02]) for _ in range(8)]
    hard = [constant_region(1, [0.3, 0.5, 0.2]) for _ in range(8)]
    odd = [constant_region(0, [0.6, 0.2, 0.2])]
    scores, _ = scored([*easy, *hard, *odd, constant_region(2, [0.1, 0.1, 0.8])])
    assert np.argmin(scores.self_confidence) in range(8, 16)
    assert np.argmin(scores.adjusted_confidence) == 16


def test_margins_and_the_pair_of_a_flip():
    right = [constant_region(c, np.full(3, 0.1) + 0.7 * np.eye(3)[c]) for c in range(3)] * 4
    flipped = constant_region(1, [0.1, 0.1, 0.8])
    scores, thresholds = scored([*right, flipped])
    assert ranking(scores.flip)[0] == 12
    assert (scores.flip_from[12], scores.flip_to[12]) == (1, 2)
    assert scores.flip[12] == pytest.approx((0.8 - thresholds[2]) - (0.1 - thresholds[1]), abs=1e-5)
    assert (scores.flip[:12] < 0).all()
    assert scores.disagreement[12] == 1 and scores.disagreement[:12].max() == 0
    found = tally(*flipped)
    table = margins(found.pixels, found.sums, thresholds)
    assert np.isnan(table[0]).all() and table[1, 1] == 0
    # Where the two may not be taken for each other, nothing is to be exchanged.
    other, *_ = flip_scores(found.pixels[None], found.sums[None], thresholds, [0, 1])
    assert other[0] < 0


def test_exchange_counts_both_classes_of_a_region_and_no_specks():
    probs = np.full((3, 20, 20), 0.1, np.float32)
    labels = np.zeros((20, 20), np.uint8)
    labels[:10], labels[10:15] = 1, 2
    probs[2, :10], probs[1, 10:15], probs[0, 15:] = 0.8, 0.8, 0.8
    right = [constant_region(c, np.full(3, 0.1) + 0.7 * np.eye(3)[c]) for c in range(3)] * 20
    speck = np.zeros((20, 20), np.uint8)
    speck[:1, :3] = 1
    speck_probs = np.full((3, 20, 20), 0.1, np.float32)
    speck_probs[0], speck_probs[2, :1, :3], speck_probs[0, :1, :3] = 0.8, 0.8, 0.1
    scores, _ = scored([*right, (labels, probs), (speck, speck_probs)], [1, 2])
    assert (scores.flip_from[60], scores.flip_to[60]) == (1, 2) and scores.flip[60] > 0.5
    assert np.isnan(scores.flip[61])  # three of 400 pixels


def test_ranking_and_its_measure():
    suspicion = np.array([0.1, np.nan, 0.9, 0.5, 0.9, -2.0, 0, 0, 0, 0])
    assert ranking(suspicion).tolist() == [2, 4, 3, 0, 6, 7, 8, 9, 5, 1]
    wrong = np.zeros(10, bool)
    wrong[[2, 3, 4]] = True
    assert found_in_first(suspicion, wrong) == pytest.approx(2 / 3)
    assert found_in_first(suspicion, wrong, 0.25) == 1  # the first three of ten
    assert np.isnan(found_in_first(suspicion, np.zeros(10, bool)))


def smooth(rng, height, width, scale):
    field = cv2.GaussianBlur(rng.normal(size=(height, width)).astype(np.float32), (0, 0), scale)
    return field / field.std()


def simulate(seed, patients=20, each=2, height=72, width=96, flip=0.2, skill=3.0):
    """Regions with lesions of two kinds, labels with the kinds exchanged in a fifth of them, and what a model says.

    The model finds benign lesions hard, errs in patches, leans to one class or another in each patient, and was itself
    trained on labels of which a fifth is wrong.
    """
    rng = np.random.default_rng(seed)
    truths, lean = [], rng.normal(size=(patients, 3))
    y, x = np.mgrid[:height, :width]
    for _ in range(patients * each):
        truth = np.zeros((height, width), np.uint8)
        for kind in rng.choice([1, 2], size=rng.integers(0, 3)):
            distance = np.hypot(y - rng.uniform(0.2, 0.8) * height, x - rng.uniform(0.2, 0.8) * width)
            truth[distance / rng.uniform(10, 28) + 0.3 * smooth(rng, height, width, 8) < 1] = kind
        truths.append(truth)
    lesions = [number for number, truth in enumerate(truths) if (truth > 0).mean() > 0.01]
    flipped = np.isin(np.arange(len(truths)), rng.choice(lesions, round(flip * len(lesions)), replace=False))
    regions = []
    for number, truth in enumerate(truths):
        labels = np.array([0, 2, 1], np.uint8)[truth] if flipped[number] else truth
        logits = np.stack([1.5 * smooth(rng, height, width, 6) + lean[number // each, c] for c in range(3)])
        for kind, strength in enumerate((1.3 * skill, 0.6 * skill, skill)):
            logits[kind] += strength * (truth == kind)
        probs = np.exp(logits - logits.max(axis=0))
        probs /= probs.sum(axis=0)
        regions.append((labels, ((1 - flip) * probs + flip * probs[[0, 2, 1]]).astype(np.float32)))
    return regions, flipped


def test_flipped_regions_come_in_the_first_fifth():
    found = {"flip": [], "disagreement": [], "confidence": []}
    for seed in range(8):
        regions, flipped = simulate(seed)
        scores, _ = scored(regions, [1, 2])
        found["flip"].append(found_in_first(scores.flip, flipped))
        found["disagreement"].append(found_in_first(scores.disagreement, flipped))
        found["confidence"].append(found_in_first(-scores.self_confidence, flipped))
    means = {name: np.mean(values) for name, values in found.items()}
    assert means["flip"] > 0.9  # chance: 0.2
    assert means["flip"] > means["disagreement"] > 0.4


def test_a_weak_model_still_finds_more_than_chance():
    found = []
    for seed in range(8):
        regions, flipped = simulate(seed, skill=1.2)
        found.append(found_in_first(scored(regions, [1, 2])[0].flip, flipped))
    assert np.mean(found) > 0.4


def test_areas_are_whole_lesions_or_sure_parts_without_seams():
    labels = np.zeros((120, 160), np.uint8)
    labels[20:60, 20:60], labels[20:60, 90:130] = 1, 2
    labels[100:, :40] = 255
    probs = np.full((3, 120, 160), 0.05, np.float32)
    for c in range(3):
        probs[c][labels == c] = 0.9
    probs[:, 100:, :40] = 1 / 3
    changes = (
        (slice(20, 60), slice(20, 60), 2),
        (slice(70, 90), slice(100, 120), 1),
        (slice(20, 23), slice(92, 128), 0),
    )
    for rows, columns, other in changes:
        probs[:, rows, columns], probs[other, rows, columns] = 0.1, 0.8
    thresholds = np.array([0.8, 0.75, 0.75])
    areas = review_areas(labels, probs, thresholds)
    assert [(a.given, a.proposed, a.whole, a.pixels) for a in areas] == [(1, 2, True, 1600), (0, 1, False, 392)]
    assert areas[0].polygon.equals(shapely.box(20, 20, 60, 60))
    assert areas[0].given_prob == pytest.approx(0.1) and areas[0].proposed_prob == pytest.approx(0.8)
    assert areas[0].margin == pytest.approx(0.7, abs=1e-5)
    assert shapely.box(100, 70, 120, 90).covers(areas[1].polygon)
    as_bytes = review_areas(labels, np.rint(probs * 255).astype(np.uint8), thresholds - 0.01)
    assert [(a.given, a.proposed, a.pixels) for a in as_bytes] == [(1, 2, 1600), (0, 1, 392)]
    assert review_areas(labels, probs, thresholds, min_pixels=500)[-1].pixels == 1600
    assert review_areas(np.full_like(labels, 255), probs, thresholds) == []
