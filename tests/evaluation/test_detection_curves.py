"""Curves, thresholds, average precision and FROC, against counting by hand at every threshold."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score
from test_detection_matching import picture

from pathzoo.errors import DataError
from pathzoo.evaluation.functional.detection import (
    Outcomes,
    at_recall,
    average_precision_101,
    average_precision_area,
    best_f1,
    confidence_curve,
    highest_recall,
    operate,
    outcomes_at,
    told_points,
)
from pathzoo.evaluation.functional.detection_matching import match_pictures
from pathzoo.evaluation.functional.detection_rows import Resampling, choose_points, detection_report, froc_report
from pathzoo.evaluation.functional.froc import froc_curve, sensitivity_at


def draw(seed, n=60, units=8, ties=True):
    rng = np.random.default_rng(seed)
    scores = rng.random(n)
    scores = np.sort(np.round(scores, 1) if ties else scores)[::-1]
    found, unit = rng.random(n) < 0.3 + 0.5 * scores, rng.integers(0, units, n)
    return Outcomes(scores, found, unit, np.bincount(unit[found], minlength=units) + rng.integers(0, 3, units))


def repeated(outcomes, times):
    """The same with unit u there times[u] times: what weights must equal."""
    rows = [(s, f, u) for s, f, u in zip(*outcomes[:3], strict=True) for _ in range(times[u])]
    scores, found, unit = (np.array(column) for column in zip(*rows, strict=True))
    return Outcomes(scores, found, unit, outcomes.n_objects * times)


@pytest.mark.parametrize("seed", range(5))
def test_the_curve_counts_what_each_threshold_keeps(seed):
    outcomes = draw(seed)
    curve = confidence_curve(outcomes)
    assert curve.thresholds.tolist() == sorted(set(outcomes.scores.tolist()), reverse=True)
    for k, threshold in enumerate(curve.thresholds):
        kept = [f for s, f in zip(outcomes.scores, outcomes.found, strict=True) if s >= threshold]
        precision, recall = sum(kept) / len(kept), sum(kept) / sum(outcomes.n_objects)
        assert curve.precision[k] == pytest.approx(precision)
        assert curve.recall[k] == pytest.approx(recall)
        assert curve.f1[k] == pytest.approx(2 * precision * recall / (precision + recall) if sum(kept) else 0)
        assert (curve.found[k], curve.false[k]) == (sum(kept), len(kept) - sum(kept))
        one = operate(outcomes, threshold)
        assert [float(v) for v in one[:3]] == pytest.approx([curve.precision[k], curve.recall[k], curve.f1[k]])
        assert float(one.false_positives) == pytest.approx(curve.false[k] / 8)


@pytest.mark.parametrize("seed", range(5))
def test_the_thresholds_that_are_chosen(seed):
    curve = confidence_curve(draw(seed))
    best = best_f1(curve)
    assert curve.f1[best] == max(curve.f1) and all(curve.f1[best + 1 :] < curve.f1[best])
    for target in (0.2, 0.5, float(curve.recall[-1])):
        k = at_recall(curve, target)
        assert curve.recall[k] >= target - 1e-9 and all(curve.recall[:k] < target)
    assert at_recall(curve, float(curve.recall[-1]) + 0.001) is None


@pytest.mark.parametrize("seed", range(5))
def test_a_curve_is_told_by_its_best_f1_its_end_and_the_highest_threshold_for_each_recall(seed):
    curve = confidence_curve(draw(seed))
    told = told_points(curve, (0.3, 0.6, 1.0)).tolist()
    wanted = {best_f1(curve), len(curve.recall) - 1}
    for target in (0.3, 0.6, 1.0):
        reached = [k for k, recall in enumerate(curve.recall) if recall >= target]
        wanted |= {min(reached)} if reached else set()
    assert told == sorted(wanted)
    assert told_points(confidence_curve(draw(seed)._replace(n_objects=np.zeros(8, int)))).tolist() == []


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_by_its_definition(seed):
    outcomes = draw(seed)
    curve = confidence_curve(outcomes)
    area = last = 0.0
    for k in range(len(curve.recall)):
        area += max(curve.precision[k:]) * (curve.recall[k] - last)
        last = curve.recall[k]
    assert float(average_precision_area(outcomes)) == pytest.approx(area)
    # COCO's counts equal scores one by one
    found, total = np.cumsum(outcomes.found), outcomes.n_objects.sum()
    precision, recall = found / np.arange(1, len(found) + 1), found / total
    mean = np.mean([max(precision[recall >= t], default=0.0) for t in np.linspace(0, 1, 101)])
    assert float(average_precision_101(outcomes)) == pytest.approx(mean)
    assert float(highest_recall(outcomes)) == pytest.approx(recall[-1])


def test_the_area_is_that_of_classification_where_precision_only_falls():
    found = np.array([1, 1, 1, 0, 1, 0, 0, 0], bool)  # precision falls at each found one
    outcomes = Outcomes(np.linspace(1, 0.1, 8), found, np.zeros(8, int), np.array([4]))
    expected = average_precision_score(found, outcomes.scores)
    assert float(average_precision_area(outcomes)) == pytest.approx(expected)


@pytest.mark.parametrize("ties", [True, False])
def test_weights_are_repetitions(ties, monkeypatch):
    monkeypatch.setattr("pathzoo.evaluation.functional.detection._BLOCK", 300)
    outcomes = draw(1, ties=ties)
    rng = np.random.default_rng(0)
    times = rng.integers(0, 4, (12, 8))
    weights = times.astype(float)
    results = {
        "area": average_precision_area(outcomes, weights),
        "101": average_precision_101(outcomes, weights),
        "highest": highest_recall(outcomes, weights),
        "sensitivity": sensitivity_at(outcomes, (0.5, 1, 2), weights=weights),
        "operate": np.stack(operate(outcomes, 0.5, weights), axis=-1),
    }
    for row, count in enumerate(times):
        same = repeated(outcomes, count)
        assert results["area"][row] == pytest.approx(float(average_precision_area(same)))
        assert results["highest"][row] == pytest.approx(float(highest_recall(same)))
        assert results["101"][row] == pytest.approx(float(average_precision_101(same)))
        exposure = count.astype(float)  # a slide that is drawn twice is two slides
        assert results["sensitivity"][row] == pytest.approx(
            sensitivity_at(same._replace(exposure=exposure), (0.5, 1, 2))
        )
        kept = same.scores >= 0.5
        expected = [same.found[kept].mean(), same.found[kept].sum() / same.n_objects.sum()]
        assert results["operate"][row, :2] == pytest.approx(expected)
        assert results["operate"][row, 3] == pytest.approx((~same.found[kept]).sum() / count.sum())


@pytest.mark.parametrize("area", [None, np.linspace(1, 3, 8)])
def test_froc_by_counting(area):
    outcomes = draw(2)
    amount = 8 if area is None else area.sum()
    points = [(0.0, 0.0)]
    for threshold in sorted(set(outcomes.scores.tolist()), reverse=True):
        kept = outcomes.scores >= threshold
        found = outcomes.found[kept].sum()
        points.append(((kept.sum() - found) / amount, found / outcomes.n_objects.sum()))
    outcomes = outcomes._replace(exposure=area)
    curve = froc_curve(outcomes)
    np.testing.assert_allclose(np.stack(curve[1:], axis=1), points[1:])
    rates = (0.0, 0.1, 0.25, 0.5, 1.0, points[-1][0], 100.0)
    expected = [max(s for false, s in points if false <= rate + 1e-9) for rate in rates]
    np.testing.assert_allclose(sensitivity_at(outcomes, rates), expected)


def test_without_objects_or_detections():
    nothing = Outcomes(np.zeros(0), np.zeros(0, bool), np.zeros(0, int), np.array([2, 1]))
    curve = confidence_curve(nothing)
    assert len(curve.recall) == 0 and best_f1(curve) is None and at_recall(curve, 0.5) is None
    assert float(average_precision_area(nothing)) == float(average_precision_101(nothing)) == 0
    assert sensitivity_at(nothing, (1.0,)).tolist() == [0]
    alone = Outcomes(np.array([0.5]), np.array([False]), np.array([0]), np.array([0]))
    assert best_f1(confidence_curve(alone)) is None
    for value in (average_precision_area(alone), average_precision_101(alone), highest_recall(alone)):
        assert np.isnan(float(value))
    assert np.isnan(sensitivity_at(alone, (1.0,))).all()


def test_classes_together_are_their_sum():
    pictures = [picture(seed) for seed in range(10)]
    matches = match_pictures(pictures, 2, (0.5, 0.75))
    together = outcomes_at(matches, 1)
    each = [outcomes_at([match], 1) for match in matches]
    assert together.found.sum() == sum(one.found.sum() for one in each)
    assert len(together.scores) == sum((match.outcome[1] >= 0).sum() for match in matches)
    assert (np.diff(together.scores) <= 0).all()
    assert together.n_objects.tolist() == sum(one.n_objects for one in each).tolist()


def by_name(rows):
    return {row["metric"]: row for row in rows}


def test_rows_hold_the_numbers_with_their_doubt():
    outcomes = draw(4, n=200)
    patients = ["a", "a", "b", "b", "c", "c", "d", "d"]
    curve = confidence_curve(outcomes)
    points = choose_points(curve, 0.5, 0.3)
    resampling = Resampling(patients, None, 200)
    rows = by_name(detection_report(outcomes, "slide", resampling, points) + froc_report(outcomes, resampling))
    best = best_f1(curve)
    assert rows["best_f1"]["value"] == pytest.approx(curve.f1[best])
    assert rows["threshold_at_best_f1"]["value"] == curve.thresholds[best]
    assert rows["recall_at_target_recall"]["value"] >= 0.5
    assert rows["given_threshold"]["value"] == 0.3
    assert rows["false_positives_per_slide_at_given_threshold"]["value"] == pytest.approx(
        curve.false[(curve.thresholds >= 0.3).sum() - 1] / 8
    )
    assert rows["sensitivity_at_2_fp_per_slide"]["value"] == pytest.approx(sensitivity_at(outcomes, (2,))[0])
    assert "very set" in rows["precision_at_best_f1"]["note"] and "note" not in rows["f1_at_given_threshold"]
    for name, row in rows.items():
        assert row["level"] == "slide" and row["n"] == 8
        if "threshold_at" not in name and name != "given_threshold":
            assert row["low"] <= row["high"]


def test_a_target_that_cannot_be_reached_is_said():
    points = choose_points(confidence_curve(draw(0)), 1.0)
    assert points[1].threshold is None and "no threshold reaches recall 1: all detections" in points[1].note
    rows = by_name(detection_report(draw(0), "tile", Resampling(None, None, 0), points))
    assert rows["precision_at_target_recall"]["value"] is None
    assert "no threshold reaches" in rows["precision_at_target_recall"]["note"]
    with pytest.raises(DataError, match=r"target recall 1\.5"):
        choose_points(confidence_curve(draw(0)), 1.5)


def test_what_is_resampled():
    assert Resampling(["a", "b", None], None, 10).by == "patient"
    assert "1 pictures without" in Resampling(["a", "b", None], None, 10).note
    by_slide = Resampling([None] * 3, ["x", "y", "y"], 10)
    assert by_slide.by == "slide" and by_slide.clusters.tolist() == [0, 1, 1] and "over slides" in by_slide.note
    for none in (Resampling(["a", "a"], ["x", "y"], 10), Resampling([None, None], ["x", "x"], 10)):
        assert none.clusters is None and "no interval" in none.note
    off = Resampling(["a", "b"], None, 0)
    assert off.clusters is None and off.note == ""
