"""COCO's numbers three ways: faster-coco-eval, pycocotools, and ours, which has the intervals."""

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from test_detection_matching import picture

from pathzoo.evaluation.coco_summary import coco_detections, coco_summary, coco_truth
from pathzoo.evaluation.detection_report import DetectionRules, DetectionSet, evaluate_detection
from pathzoo.evaluation.functional.detection_matching import Picture
from pathzoo.evaluation.functional.detection_rows import Resampling, coco_report


def by_pycocotools(pictures, classes):
    truth = COCO()
    truth.dataset = coco_truth(pictures, classes)
    truth.createIndex()
    evaluation = COCOeval(truth, truth.loadRes(coco_detections(pictures)), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    per_class = evaluation.eval["precision"][:, :, :, 0, 2].mean(axis=(0, 1))
    return dict(zip(("ap", "ap50", "ap75", "ar100"), evaluation.stats[[0, 1, 2, 8]], strict=True)), per_class


@pytest.mark.parametrize(("first", "ignored"), [(0, 0.0), (100, 0.2), (200, 0.5)])
def test_all_three_agree(first, ignored):
    pictures, classes = [picture(first + k, 2, ignored) for k in range(30)], ["open", "sclerosed"]
    expected, per_class = by_pycocotools(pictures, classes)
    assert coco_summary(pictures, classes) == pytest.approx(expected, abs=1e-12)
    rows = {row["metric"]: row["value"] for row in coco_report(pictures, classes, Resampling(None, None, 0), "tile")}
    expected |= {f"ap_{name}": value for name, value in zip(classes, per_class, strict=True)}
    assert rows == pytest.approx(expected, abs=1e-12)
    assert 0.02 < rows["ap"] < 0.9


def test_only_the_hundred_surest_of_a_picture_count():
    rng = np.random.default_rng(0)
    objects = np.array([[i * 20, 0, i * 20 + 15, 15] for i in range(150)], float)
    zeros = np.zeros(150, int)
    one = Picture(objects + rng.normal(0, 1, (150, 4)), rng.random(150), zeros, objects, zeros, zeros.astype(bool))
    expected, _ = by_pycocotools([one], ["a"])
    assert coco_summary([one], ["a"]) == pytest.approx(expected)
    rows = {row["metric"]: row["value"] for row in coco_report([one], ["a"], Resampling(None, None, 0), "tile")}
    assert rows == pytest.approx(expected) and rows["ar100"] < 100 / 150


def test_intervals_hold_the_value_and_move_with_the_patients():
    pictures = [picture(k) for k in range(30)]
    rows = coco_report(pictures, ["a", "b"], Resampling([f"p{k // 3}" for k in range(30)], None, 300), "tile")
    for row in rows:
        assert row["low"] < row["value"] < row["high"] or "biased" in row["note"]
    alike = coco_report(pictures * 2, ["a"] * 2, Resampling(["p"] * 30 + ["q"] * 30, None, 50), "tile")
    assert alike[0]["high"] - alike[0]["low"] < 0.01  # both patients have the same tiles; equal scores make the rest


def test_without_objects_or_detections():
    none, box = np.zeros((0, 4)), np.array([[0.0, 0, 9, 9]])
    no_labels, no_flags = np.zeros(0, int), np.zeros(0, bool)
    found_nothing = Picture(none, np.zeros(0), no_labels, box, np.zeros(1, int), np.zeros(1, bool))
    nothing_there = Picture(box, np.ones(1), np.zeros(1, int), none, no_labels, no_flags)
    only_ignored = Picture(box, np.ones(1), np.zeros(1, int), box, np.zeros(1, int), np.ones(1, bool))
    assert set(coco_summary([found_nothing], ["a"]).values()) == {0.0}
    for one in (nothing_there, only_ignored):
        assert np.isnan(list(coco_summary([one], ["a"]).values())).all()
        rows = coco_report([one], ["a"], Resampling(["p"], None, 10), "tile")
        assert {row["value"] for row in rows} == {None} and "no objects of class a" in rows[0]["note"]
        result = evaluate_detection(DetectionSet([one], ["t"], ["p"], [None], ["a"]), DetectionRules(n_bootstrap=0))
        assert {row["value"] for row in result.rows if row["metric"] != "x"} == {None}
