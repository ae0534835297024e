"""Spread, alignment, uniformity and effective rank against closed forms and loops."""

import math

import numpy as np
import pytest
from scipy import special
from scipy.spatial.distance import pdist

from pathzoo.evaluation.functional.embedding_spread import (
    alignment,
    effective_rank,
    embedding_spread,
    spread,
    uniformity,
    unit_rows,
)


def sphere(n, d, seed=0):
    """Uniform over the sphere: normal vectors have no preferred direction."""
    return unit_rows(np.random.default_rng(seed).normal(size=(n, d)))


@pytest.mark.parametrize("d", [2, 16, 128])
def test_the_uniform_sphere_is_where_theory_has_it(d):
    rows, others = sphere(3000, d), sphere(3000, d, seed=1)
    assert spread(rows) == pytest.approx(1, abs=0.02)
    assert alignment(rows, others) == pytest.approx(2, abs=0.1)
    # E exp(2 t u.v) of a fixed u is 0F1(; D/2; t²), here t = 2.
    assert uniformity(rows) == pytest.approx(math.log(special.hyp0f1(d / 2, 4)) - 4, abs=0.03)
    assert effective_rank(sphere(60 * d, d)) == pytest.approx(d, rel=0.02)


def test_constant_vectors_have_collapsed():
    found = embedding_spread(np.tile([3.0, 4.0, 12.0], (50, 1)), np.tile([3.0, 4.0, 12.0], (50, 1)))
    assert found.n == 50 and found.dimensions == 3
    assert found.spread == pytest.approx(0, abs=1e-12)
    assert found.effective_rank == 0
    assert found.alignment == 0
    assert found.uniformity == pytest.approx(0, abs=1e-12)


def test_opposite_views_are_as_far_apart_as_can_be():
    rows = sphere(10, 5)
    assert alignment(rows, -rows) == pytest.approx(4)


def test_two_points_by_hand():
    """Half of the rows at (1, 0), half at (0, 1): each dimension is 0 or 1, with a deviation of a half."""
    rows = np.repeat(np.eye(2), 10, axis=0)
    assert spread(rows) == pytest.approx(0.5 * math.sqrt(2))
    same, different = 2 * 10 * 9, 2 * 10 * 10  # ordered pairs
    assert uniformity(rows) == pytest.approx(math.log((same + different * math.exp(-4)) / (same + different)))
    assert effective_rank(rows - rows.mean(axis=0)) == pytest.approx(1)


@pytest.mark.parametrize("n", [2, 23, 1500])
def test_uniformity_is_its_mean_over_pairs(n):
    """Also where distances are taken in several blocks of 1024 rows."""
    rows = sphere(n, 4)
    assert uniformity(rows) == pytest.approx(math.log(np.exp(-2 * pdist(rows, "sqeuclidean")).mean()))


@pytest.mark.parametrize("k", [1, 3, 6])
def test_k_equal_directions_are_rank_k(k):
    matrix = np.zeros((20, 6))
    matrix[:k, :k] = 7 * np.linalg.qr(np.random.default_rng(0).normal(size=(k, k)))[0]
    assert effective_rank(matrix) == pytest.approx(k)


def test_rank_of_unequal_directions_by_hand():
    shares = np.array([0.5, 0.25, 0.25])
    assert effective_rank(np.diag(shares * 8)) == pytest.approx(2**1.5)  # entropy of 1.5 bits


def test_length_does_not_count_and_views_are_taken_together():
    rows, others = sphere(40, 6), sphere(40, 6, seed=1)
    lengths = np.random.default_rng(2).uniform(0.1, 9, (40, 1))
    one, other = embedding_spread(rows, others), embedding_spread(rows * lengths, others / lengths)
    np.testing.assert_allclose(one, other)
    both = np.concatenate([rows, others])
    assert one.spread == pytest.approx(spread(both))
    assert one.effective_rank == pytest.approx(effective_rank(both - both.mean(axis=0)))
    assert one.uniformity == pytest.approx((uniformity(rows) + uniformity(others)) / 2)


def test_without_a_second_view_there_is_no_alignment():
    found = embedding_spread(sphere(30, 4).astype(np.float32))
    assert math.isnan(found.alignment)
    assert all(math.isfinite(value) for value in (found.spread, found.effective_rank, found.uniformity))


def test_nan_stays_nan_and_zeros_stay_zero():
    rows = sphere(5, 3)
    rows[1] = np.nan
    found = embedding_spread(rows, rows)
    assert all(math.isnan(value) for value in found[2:])
    assert not unit_rows(np.zeros((2, 3))).any()
    assert math.isnan(uniformity(np.ones((1, 4))))


@pytest.mark.parametrize(
    ("views", "words"),
    [
        ((np.ones((3, 2)), np.ones((4, 2))), r"\(3, 2\) and \(4, 2\)"),
        ((np.ones(3),), r"shape \(3,\)"),
        ((np.ones((0, 3)),), r"shape \(0, 3\)"),
    ],
)
def test_bad_shapes_are_refused(views, words):
    with pytest.raises(ValueError, match=words):
        embedding_spread(*views)
