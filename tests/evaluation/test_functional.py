"""Every metric against scikit-learn or a loop that follows its definition."""

import math
import subprocess
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from pathzoo.evaluation import functional as F  # noqa: N812


def draw(n=300, n_classes=2, seed=0, digits=None):
    """Probabilities (n, C) and labels; `digits` rounds the scores, which makes ties."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, n_classes, n)
    labels[:n_classes] = np.arange(n_classes)
    logits = generator.normal(size=(n, n_classes))
    logits[np.arange(n), labels] += 1
    if digits is not None:
        logits = logits.round(digits)
    probs = np.exp(logits)
    return probs / probs.sum(axis=1, keepdims=True), labels


@st.composite
def scored_binary(draw_from):
    """Few distinct scores, so ties abound; a class may be absent."""
    n = draw_from(st.integers(1, 25))
    scores = draw_from(st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.8, 1.0]), min_size=n, max_size=n))
    truth = draw_from(st.lists(st.booleans(), min_size=n, max_size=n))
    return np.array(scores), np.array(truth)


def test_functional_loads_neither_torch_nor_matplotlib():
    code = (
        "import sys, pathzoo.evaluation.functional, pathzoo.evaluation.report\n"
        "bad = [m for m in ('torch', 'mmengine', 'matplotlib', 'sklearn') if m in sys.modules]\n"
        "assert not bad, bad"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("n_classes", [2, 3, 8])
@pytest.mark.parametrize("weighted", [False, True])
def test_counting_metrics_equal_sklearn(n_classes, weighted):
    probs, labels = draw(n_classes=n_classes)
    predicted = probs.argmax(axis=1)
    weights = np.random.default_rng(1).integers(0, 4, len(labels)).astype(float) if weighted else None
    confusion = F.confusion_matrix(labels, predicted, n_classes, weights)
    given = {"sample_weight": weights}
    average = "binary" if n_classes == 2 else "macro"
    np.testing.assert_array_equal(confusion, sk.confusion_matrix(labels, predicted, **given))
    assert F.accuracy(confusion) == pytest.approx(sk.accuracy_score(labels, predicted, **given))
    assert F.balanced_accuracy(confusion) == pytest.approx(sk.balanced_accuracy_score(labels, predicted, **given))
    assert F.f1(confusion) == pytest.approx(sk.f1_score(labels, predicted, average=average, **given))
    assert F.sensitivity(confusion) == pytest.approx(sk.recall_score(labels, predicted, average=average, **given))
    per_class = [  # specificity of a class is the recall of "not the class"
        sk.recall_score(labels != k, predicted != k, **given) for k in range(n_classes)
    ]
    np.testing.assert_allclose(F.specificity_per_class(confusion), per_class)
    assert F.specificity(confusion) == pytest.approx(per_class[1] if n_classes == 2 else np.mean(per_class))


def test_positive_class_is_a_choice():
    labels, predicted = [0, 0, 0, 1, 1], [0, 0, 1, 1, 0]
    confusion = F.confusion_matrix(labels, predicted, 2)
    assert F.sensitivity(confusion, positive=0) == F.specificity(confusion, positive=1) == pytest.approx(2 / 3)
    assert F.f1(confusion, positive=0) == pytest.approx(sk.f1_score(labels, predicted, pos_label=0))


def test_absent_class_is_undefined_never_a_number():
    only_negative = F.confusion_matrix([0, 0, 0], [0, 1, 0], 2)
    assert F.accuracy(only_negative) == pytest.approx(2 / 3)
    assert F.specificity(only_negative) == pytest.approx(2 / 3)
    for metric in (F.sensitivity, F.balanced_accuracy, F.f1):
        assert np.isnan(metric(only_negative)), metric.__name__
    # Three classes, the last one absent: the mean over the two that have images, also where the third is predicted.
    confusion = F.confusion_matrix([0, 0, 1, 1], [0, 2, 1, 1], 3)
    assert F.balanced_accuracy(confusion) == pytest.approx((0.5 + 1) / 2)
    assert F.f1(confusion) == pytest.approx((2 / 3 + 1) / 2)
    assert F.f1(confusion) == pytest.approx(sk.f1_score([0, 0, 1, 1], [0, 2, 1, 1], labels=[0, 1], average="macro"))
    assert np.isnan(F.balanced_accuracy(confusion, present=np.array([True, True, True])))


def test_confusion_matrix_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.1, got 0\.\.2"):
        F.confusion_matrix([0, 2], [0, 1], 2)
    with pytest.raises(ValueError, match=r"must both be \(N,\)"):
        F.confusion_matrix([0, 1], [0], 2)


@given(scored_binary())
@settings(max_examples=200, deadline=None)
def test_auc_is_the_share_of_pairs_in_the_right_order(case):
    scores, truth = case
    pairs = [(p > n) + 0.5 * (p == n) for p in scores[truth] for n in scores[~truth]]
    area = float(F.roc_auc(scores, truth))
    if pairs:
        assert area == pytest.approx(np.mean(pairs), abs=1e-12)
        assert area == pytest.approx(sk.roc_auc_score(truth, scores), abs=1e-12)
    else:
        assert math.isnan(area)


@given(scored_binary())
@settings(max_examples=200, deadline=None)
def test_average_precision_and_curves_equal_sklearn(case):
    scores, truth = case
    if truth.all() or not truth.any():
        assert math.isnan(float(F.average_precision(scores, truth)))
        return
    assert float(F.average_precision(scores, truth)) == pytest.approx(sk.average_precision_score(truth, scores))
    curve = F.roc_curve(scores, truth)
    for ours, theirs in zip(curve, sk.roc_curve(truth, scores, drop_intermediate=False), strict=True):
        np.testing.assert_allclose(ours, theirs)
    assert np.trapezoid(curve.true_positive_rate, curve.false_positive_rate) == pytest.approx(
        float(F.roc_auc(scores, truth))
    )
    precision, recall, thresholds = sk.precision_recall_curve(truth, scores)
    ours = F.precision_recall_curve(scores, truth)
    np.testing.assert_allclose(ours.precision, precision[-2::-1])  # theirs rises, and ends in the invented (0, 1)
    np.testing.assert_allclose(ours.recall, recall[-2::-1])
    np.testing.assert_allclose(ours.thresholds, thresholds[::-1])


@pytest.mark.parametrize("digits", [None, 1])
def test_weighted_ranking_equals_sklearn_for_each_row_of_weights(digits):
    probs, labels = draw(digits=digits)
    weights = np.random.default_rng(2).integers(0, 3, (5, len(labels))).astype(float)
    areas, precisions = F.roc_auc(probs[:, 1], labels, weights), F.average_precision(probs[:, 1], labels, weights)
    assert areas.shape == precisions.shape == (5,)
    for row, area, precision in zip(weights, areas, precisions, strict=True):
        assert area == pytest.approx(sk.roc_auc_score(labels, probs[:, 1], sample_weight=row))
        assert precision == pytest.approx(sk.average_precision_score(labels, probs[:, 1], sample_weight=row))


def test_ranking_of_several_classes_is_the_mean_of_one_against_the_rest():
    probs, labels = draw(n_classes=4)
    assert F.one_vs_rest(F.roc_auc, probs, labels) == pytest.approx(sk.roc_auc_score(labels, probs, multi_class="ovr"))
    assert F.one_vs_rest(F.average_precision, probs, labels) == pytest.approx(
        sk.average_precision_score(np.eye(4)[labels], probs, average="macro")
    )
    kept = labels != 3  # a class without images is left out of the mean
    expected = np.mean([sk.roc_auc_score(labels[kept] == k, probs[kept, k]) for k in range(3)])
    assert F.one_vs_rest(F.roc_auc, probs[kept], labels[kept]) == pytest.approx(expected)
    assert np.isnan(F.one_vs_rest(F.roc_auc, probs[labels == 3], labels[labels == 3]))


@pytest.mark.parametrize("n_classes", [2, 5])
def test_likelihood_and_brier_equal_sklearn(n_classes):
    probs, labels = draw(n_classes=n_classes)
    weights = np.random.default_rng(3).integers(0, 3, len(labels)).astype(float)
    for row in (None, weights):
        given = {"sample_weight": row}
        assert F.negative_log_likelihood(probs, labels, row) == pytest.approx(sk.log_loss(labels, probs, **given))
        if n_classes == 2:
            expected = sk.brier_score_loss(labels, probs[:, 1], **given)
        else:
            expected = np.average(((probs - np.eye(n_classes)[labels]) ** 2).sum(axis=1), weights=row)
        assert F.brier_score(probs, labels, row) == pytest.approx(expected)
    assert F.negative_log_likelihood(np.array([[1.0, 0.0]]), [1]) == pytest.approx(-math.log(np.finfo(float).eps))


def _ece_by_loop(confidence, correct, n_bins, weights):
    error = 0.0
    for m in range(n_bins):
        low, high = m / n_bins, (m + 1) / n_bins
        inside = [i for i, c in enumerate(confidence) if low < c <= high or (m == 0 and c == 0)]
        total = sum(weights[i] for i in inside)
        if total:
            accuracy = sum(weights[i] * correct[i] for i in inside) / total
            mean = sum(weights[i] * confidence[i] for i in inside) / total
            error += total / sum(weights) * abs(accuracy - mean)
    return error


@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans(), st.integers(0, 3)), min_size=1, max_size=30),
    st.sampled_from([1, 4, 8, 16]),  # powers of two: the edges are exact, so "on the edge" is decided the same way
)
@settings(max_examples=200, deadline=None)
def test_calibration_error_equals_a_loop_over_bins(samples, n_bins):
    confidence, correct, weights = (np.array(column, dtype=float) for column in zip(*samples, strict=True))
    value = float(F.expected_calibration_error(confidence, correct, n_bins, weights))
    if weights.sum():
        assert value == pytest.approx(_ece_by_loop(confidence, correct, n_bins, weights), abs=1e-9)
    else:
        assert math.isnan(value)
    once = _ece_by_loop(confidence, correct, n_bins, np.ones(len(confidence)))
    assert float(F.expected_calibration_error(confidence, correct, n_bins)) == pytest.approx(once, abs=1e-9)


def test_calibration_edges_and_confidence():
    # 0.5 belongs to the lower of two bins, 0 to the first.
    curve = F.reliability_curve([0.0, 0.5, 0.51, 1.0], [0, 1, 1, 1], n_bins=2)
    np.testing.assert_array_equal(curve.counts, [2, 2])
    np.testing.assert_allclose(curve.confidence, [0.25, 0.755])
    np.testing.assert_allclose(curve.accuracy, [0.5, 1.0])
    assert np.isnan(F.reliability_curve([0.9], [1], n_bins=2).accuracy[0])
    np.testing.assert_array_equal(F.top_confidence(np.array([[0.2, 0.8], [0.7, 0.3]])), [0.8, 0.7])
    assert F.expected_calibration_error(np.full(100, 0.9), np.arange(100) < 90) == pytest.approx(0)
    assert F.expected_calibration_error(np.full(100, 0.9), np.arange(100) < 50) == pytest.approx(0.4)


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "c", None]), st.booleans()), min_size=1, max_size=20))
@settings(max_examples=200, deadline=None)
def test_recognition_rate_equals_a_loop_over_groups(samples):
    groups, correct = zip(*samples, strict=True)
    shares = []
    for name in {group for group in groups if group is not None}:
        own = [right for group, right in zip(groups, correct, strict=True) if group == name]
        shares.append(sum(own) / len(own))
    value = float(F.recognition_rate(correct, groups))
    assert value == pytest.approx(sum(shares) / len(shares)) if shares else math.isnan(value)


def test_recognition_rate_counts_a_patient_drawn_twice_twice():
    correct, groups = [1, 0, 1, 1, 1], ["a", "a", "b", "b", "b"]
    assert F.recognition_rate(correct, groups) == pytest.approx((0.5 + 1) / 2)  # image accuracy would be 0.8
    weights = np.array([[2.0, 2.0, 1.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0, 1.0]])
    np.testing.assert_allclose(F.recognition_rate(correct, groups, weights), [(0.5 + 0.5 + 1) / 3, 1.0])


def test_nothing_warns_about_division():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        F.accuracy(np.zeros((2, 2)))
        F.roc_auc([0.5], [True])
        F.roc_curve([0.5], [True])
        F.precision_recall_curve([0.5], [False])
