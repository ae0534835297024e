"""Nearest neighbours and the linear classifier against loops, scikit-learn, and what must come out by hand."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pathzoo.errors import DataError
from pathzoo.evaluation.functional import knn_probs, linear_probe, negative_log_likelihood


def clouds(n=60, d=5, n_classes=3, spread=1.0, seed=0):
    """n vectors around a centre for each class."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % n_classes
    centres = np.random.default_rng(99).normal(size=(n_classes, d)) * 2
    return (centres[labels] + spread * rng.normal(size=(n, d))).astype(np.float32), labels


def by_loops(train, labels, queries, n_classes, k, temperature):
    """Wu et al. (2018), section 3.4, word by word."""
    probs = np.zeros((len(queries), n_classes))
    for row, query in enumerate(np.asarray(queries, float)):
        similar = [float(v @ query / (np.linalg.norm(v) * np.linalg.norm(query))) for v in np.asarray(train, float)]
        for index in sorted(range(len(train)), key=lambda i: -similar[i])[:k]:
            probs[row, labels[index]] += np.exp(similar[index] / temperature)
        probs[row] /= probs[row].sum()
    return probs


@pytest.mark.parametrize(("k", "temperature", "chunk"), [(1, 0.07, 1024), (7, 0.07, 4), (20, 1.0, 1), (500, 0.3, 1024)])
def test_votes_are_those_of_the_definition(k, temperature, chunk):
    (train, labels), (queries, _) = clouds(), clouds(13, seed=1)
    found = knn_probs(train, labels, queries, 4, k, temperature, chunk)
    np.testing.assert_allclose(found, by_loops(train, labels, queries, 4, k, temperature), atol=1e-10)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert (found[:, 3] == 0).all(), "a class that nobody showed gets no vote"


def test_the_nearest_one_decides_as_sklearns():
    (train, labels), (queries, _) = clouds(90), clouds(40, seed=1)
    expected = KNeighborsClassifier(1, metric="cosine").fit(train, labels).predict(queries)
    np.testing.assert_array_equal(knn_probs(train, labels, queries, 3, k=1).argmax(axis=1), expected)


def test_tiny_temperatures_and_zero_vectors_give_numbers():
    (train, labels), (queries, _) = clouds(), clouds(5, seed=1)
    assert np.isfinite(knn_probs(train, labels, queries, 3, temperature=1e-6)).all()
    zeros = knn_probs(train, labels, np.zeros((1, 5)), 3, k=60)
    np.testing.assert_allclose(zeros, [[1 / 3] * 3])
    assert knn_probs(train, labels, queries[:0], 3).shape == (0, 3)


def test_neighbours_refuse_what_does_not_fit():
    train, labels = clouds()
    bad = train.copy()
    bad[4, 2] = np.nan
    for arguments, match in (
        ((train, labels[:-1], train, 3), "do not fit"),
        ((train, labels, train[:, :3], 3), "do not fit"),
        ((train, labels, train, 2), r"labels 0\.\.2 for 2 classes"),
        ((train[:0], labels[:0], train, 3), "the training set is empty"),
        ((bad, labels, train, 3), "training vectors: row 4 holds NaN"),
        ((train, labels, bad, 3), "vectors to judge: row 4 holds NaN"),
        ((train, labels, train, 3, 0), "k is 0"),
        ((train, labels, train, 3, 5, 0.0), "temperature 0.0"),
    ):
        with pytest.raises(DataError, match=match):
            knn_probs(*arguments)


def test_the_linear_classifier_is_sklearns_on_standardised_vectors():
    (train, labels), (queries, _) = clouds(), clouds(30, seed=1)
    found = linear_probe(
        train * [1, 1e3, 1, 1e-3, 1] + 7, labels, queries * [1, 1e3, 1, 1e-3, 1] + 7, 3, strengths=[0.1]
    )
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=5000)).fit(train.astype(float), labels)
    np.testing.assert_allclose(found.probs, model.predict_proba(queries.astype(float)), atol=1e-3)
    assert found.strength == 0.1


def test_validation_chooses_the_penalty():
    """Twenty numbers of noise around one that tells: a strong penalty is right, as a plain search finds."""
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2
    train, val = (np.column_stack([labels + rng.normal(size=40), rng.normal(size=(40, 20))]) for _ in range(2))
    found = linear_probe(train, labels, val, 2, validation=(val, labels))
    losses = {}
    for strength in (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=5000)).fit(train, labels)
        losses[strength] = float(negative_log_likelihood(model.predict_proba(val), labels))
    assert found.strength == min(losses, key=losses.get) and found.chosen_by == "validation"
    assert losses[found.strength] < losses[100.0]


def test_without_validation_patients_are_kept_together():
    """A number that names the patient is worth nothing on others: only folds of patients find that out."""
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(12), 8)
    labels = patients % 2
    who = np.eye(12)[patients] * 3 + 0.1 * rng.normal(size=(96, 12))
    tells = (labels + 1.5 * rng.normal(size=96))[:, None]
    train = np.column_stack([who, tells])
    names = [f"p{number}" for number in patients]
    together = linear_probe(train, labels, train, 2, patients=names)
    apart = linear_probe(train, labels, train, 2)
    assert together.chosen_by == "5 folds of patients" and apart.chosen_by == "5 folds of tiles, patients unknown"
    assert together.strength < apart.strength
    assert linear_probe(train, labels, train, 2, patients=[None] * 96).strength == apart.strength


def test_few_labels_are_enough_to_answer():
    (train, labels), (queries, _) = clouds(4, n_classes=2), clouds(6, seed=1)
    assert linear_probe(train, labels, queries, 2).chosen_by.startswith("2 folds of tiles")
    two = linear_probe(train[:2], labels[:2], queries, 3)
    assert two.chosen_by.startswith("nothing: too few tiles") and two.strength == 1.0
    assert (two.probs[:, 2] == 0).all() and np.allclose(two.probs.sum(axis=1), 1)
    alone = linear_probe(train, labels, queries, 2, patients=["a", "b", "a", "b"])
    assert alone.chosen_by.startswith("nothing: each fold would show one class")
    constant = linear_probe(np.column_stack([train, np.ones(4)]), labels, np.column_stack([queries, np.ones(6)]), 2)
    assert np.isfinite(constant.probs).all()
    assert linear_probe(train, labels, queries[:0], 2).probs.shape == (0, 2)


def test_the_linear_classifier_refuses_what_does_not_fit():
    train, labels = clouds()
    for arguments, options, match in (
        ((train, np.ones(60, int), train, 3), {}, "shows class 1 alone"),
        ((train, labels, train, 3), {"patients": ["a"]}, "1 patients for 60 vectors"),
        ((train, labels, train, 3), {"validation": (train, labels[:3])}, "do not fit"),
    ):
        with pytest.raises(DataError, match=match):
            linear_probe(*arguments, **options)
