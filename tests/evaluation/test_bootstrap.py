"""The bootstrap over patients against a loop that really repeats the images, and against known coverage."""

import time

import numpy as np
import pytest
from sklearn import metrics as sk

from pathzoo.evaluation import functional as F  # noqa: N812
from pathzoo.evaluation.functional.bootstrap import MAX_UNDEFINED


def cohort(n_patients=12, per_patient=7, seed=0):
    """Scores (N,), labels (N,), patients (N,): a patient has one label, and images that resemble each other."""
    generator = np.random.default_rng(seed)
    patient = np.repeat(np.arange(n_patients), per_patient)
    labels = patient % 2
    effect = generator.normal(size=n_patients)[patient]
    scores = 1 / (1 + np.exp(-(2 * labels - 1 + effect + generator.normal(size=len(patient)))))
    return scores, labels, [f"p{index}" for index in patient]


def test_equals_a_loop_that_repeats_images():
    scores, labels, patients = cohort()
    replicates = F.bootstrap_replicates(
        lambda weights: F.roc_auc(scores, labels, weights), F.cluster_index(patients), 50, seed=3
    )
    counts = F.resample_counts(12, 50, seed=3)
    assert (counts.sum(axis=1) == 12).all()
    names = sorted(set(patients))  # clusters are numbered in the order of the names
    for row, value in zip(counts, replicates, strict=True):
        images = [
            image
            for name, times in zip(names, row, strict=True)
            for image in [i for i, patient in enumerate(patients) if patient == name] * times
        ]
        assert value == pytest.approx(sk.roc_auc_score(labels[images], scores[images]))
    interval = F.percentile_interval(replicates)
    assert interval[:2] == pytest.approx(np.percentile(replicates, [2.5, 97.5]))
    assert interval.undefined == 0


def test_same_seed_same_interval_and_blocks_do_not_matter(monkeypatch):
    scores, labels, patients = cohort()

    def interval(seed):
        return F.bootstrap_interval(lambda weights: F.roc_auc(scores, labels, weights), patients, 200, seed)

    whole = interval(1)
    assert whole == interval(1) != interval(2)
    monkeypatch.setattr("pathzoo.evaluation.functional.bootstrap._BLOCK", 10 * len(patients))
    assert interval(1) == whole


def test_no_interval_without_two_known_patients():
    def statistic(weights):
        return weights.mean(axis=1)

    assert F.bootstrap_interval(statistic, [None, None, None]) is None
    assert F.bootstrap_interval(statistic, ["a", "a", None]) is None
    assert F.bootstrap_interval(statistic, ["a", "b", None]) is not None


def test_unknown_patients_are_drawn_as_one():
    np.testing.assert_array_equal(F.cluster_index(["b", None, "a", "b", None]), [1, 2, 0, 1, 2])


def test_undefined_replicates_are_dropped_and_limited():
    kept = F.percentile_interval(np.append(np.linspace(0, 1, 90), np.full(10, np.nan)))
    assert kept.undefined == pytest.approx(0.1)
    assert kept[:2] == pytest.approx((0.025, 0.975))
    lost = F.percentile_interval(np.append(np.linspace(0, 1, 75), np.full(25, np.nan)))
    assert lost.low is lost.high is None
    assert lost.undefined == pytest.approx(0.25)


@pytest.mark.parametrize("n_patients", [3, 10, 80])
def test_a_class_seen_in_one_patient_has_no_interval_and_in_two_it_has(n_patients):
    for n_positive, there in ((1, False), (2, True)):
        labels = (np.arange(n_patients) < n_positive).astype(int)
        interval = F.bootstrap_interval(
            lambda weights, labels=labels: F.sensitivity(F.confusion_matrix(labels, labels, 2, weights)),
            [f"p{index}" for index in range(n_patients)],
        )
        assert (interval.low is not None) == there
        assert (interval.undefined <= MAX_UNDEFINED) == there


def test_images_of_one_patient_are_not_independent():
    """Copies of an image add no certainty: with 20 patients of 50 equal images the interval is that of 20 images."""
    correct = np.repeat(np.arange(20) < 14, 50).astype(float)
    patients = [f"p{index}" for index in np.repeat(np.arange(20), 50)]
    low, high, _ = F.bootstrap_interval(lambda weights: weights @ correct / weights.sum(axis=1), patients, 4000)
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.7 * 0.3 / 20), rel=0.1)


def test_interval_of_a_fair_coin_covers_one_half():
    generator = np.random.default_rng(5)
    patients = [f"p{index}" for index in np.repeat(np.arange(60), 5)]
    hits = 0
    for trial in range(400):
        chance = generator.beta(2, 2, 60)[np.repeat(np.arange(60), 5)]  # a patient's images resemble each other
        correct = (generator.random(300) < chance).astype(float)
        low, high, _ = F.bootstrap_interval(lambda w, c=correct: w @ c / w.sum(axis=1), patients, 400, seed=trial)
        hits += low <= 0.5 <= high
    # Binomial(400, 0.95) has a standard deviation of 0.011; the percentile interval is known to be a little narrow.
    assert 0.91 <= hits / 400 <= 0.98


def test_report_of_2000_images_is_fast():
    generator = np.random.default_rng(0)
    positive = generator.random(2000)
    labels = (positive + 0.3 * generator.normal(size=2000) > 0.5).astype(int)
    patients = [f"p{index}" for index in generator.integers(0, 82, 2000)]
    start = time.process_time()
    rows = F.classification_report(np.stack([1 - positive, positive], 1), labels, patients, patients, ["no", "yes"])
    assert time.process_time() - start < 2
    assert len(rows) >= 12
