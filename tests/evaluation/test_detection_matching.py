"""Matching of detections and objects, against the rule written out in loops."""

import time

import numpy as np
import pytest

from pathzoo.errors import DataError
from pathzoo.evaluation.functional import detection_matching
from pathzoo.evaluation.functional.detection_matching import Picture, box_iou, match_boxes, match_pictures


def random_boxes(rng, n, side=200, least=20, most=90):
    corner = rng.uniform(0, side, (n, 2))
    return np.hstack([corner, corner + rng.uniform(least, most, (n, 2))])


def picture(seed, n_classes=2, ignored=0.2):
    """Objects, detections near most of them and others anywhere, scores with ties."""
    rng = np.random.default_rng(seed)
    m = int(rng.integers(0, 7))
    objects, labels = random_boxes(rng, m), rng.integers(0, n_classes, m)
    near = np.repeat(np.arange(m), rng.integers(0, 3, m))
    boxes = np.vstack([objects[near] + rng.normal(0, 4, (len(near), 4)), random_boxes(rng, int(rng.integers(0, 8)))])
    of_boxes = np.append(labels[near], rng.integers(0, n_classes, len(boxes) - len(near)))
    scores = rng.integers(0, 10, len(boxes)) / 10
    return Picture(boxes, scores, of_boxes, objects, labels, rng.random(m) < ignored)


def shared(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0) * max(height, 0)


def area(a):
    return (a[2] - a[0]) * (a[3] - a[1])


def by_loops(boxes, scores, objects, ignored, threshold):
    """The rule of `match_boxes`, one detection after the other."""
    outcome, number, taken = {}, {}, set()
    for i in sorted(range(len(boxes)), key=lambda i: (-scores[i], i)):
        best, choice, before = threshold, None, []
        for j in range(len(objects)):
            both = shared(boxes[i], objects[j])
            iou = both / (area(boxes[i]) + area(objects[j]) - both)
            if not ignored[j] and iou >= threshold:
                before.append((iou, -j))
            if not ignored[j] and j not in taken and iou >= best:
                best, choice = iou, j
        inside = [
            j for j in range(len(objects)) if ignored[j] and shared(boxes[i], objects[j]) >= threshold * area(boxes[i])
        ]
        if choice is not None:
            taken.add(choice)
            outcome[i], number[i] = 1, choice
        elif inside:
            outcome[i], number[i] = -1, -1
        else:
            outcome[i], number[i] = 0, -max(before)[1] if before else -1
    return [outcome[i] for i in range(len(boxes))], [number[i] for i in range(len(boxes))]


@pytest.mark.parametrize("seed", range(40))
def test_equals_the_rule_in_loops(seed):
    one = picture(seed)
    matching = match_boxes(one.boxes, one.scores, one.objects, one.ignored, (0.3, 0.5, 0.75))
    for row, threshold in enumerate((0.3, 0.5, 0.75)):
        outcome, number = by_loops(one.boxes, one.scores, one.objects, one.ignored, threshold)
        assert matching.outcome[row].tolist() == outcome
        assert matching.object[row].tolist() == number


def test_an_object_is_found_once_and_by_the_surest():
    objects = [[0, 0, 10, 10]]
    matching = match_boxes([[0, 0, 10, 9], [0, 0, 10, 10]], [0.9, 0.8], objects)
    assert matching.outcome.tolist() == [[1, 0]]  # the better box comes too late
    assert matching.object.tolist() == [[0, 0]]


def test_the_threshold_itself_is_enough():
    assert match_boxes([[0, 0, 10, 5]], [1], [[0, 0, 10, 10]], thresholds=(0.5,)).outcome.tolist() == [[1]]
    assert match_boxes([[0, 0, 10, 10]], [1], [[0, 0, 10, 10]], thresholds=(1.0,)).outcome.tolist() == [[1]]


def test_ignored_objects_excuse_any_number_of_detections_inside():
    boxes = [[10, 10, 20, 20], [30, 30, 40, 40], [90, 90, 110, 110]]
    matching = match_boxes(boxes, [0.9, 0.8, 0.7], [[0, 0, 100, 100]], [True])
    assert matching.outcome.tolist() == [[-1, -1, 0]]  # a quarter of the last lies inside


def test_an_object_is_preferred_to_an_ignored_one():
    box = [[0, 0, 10, 10]]
    assert match_boxes(box, [1], [[0, 0, 10, 12], [0, 0, 10, 10]], [False, True]).object.tolist() == [[0]]


def test_nothing_at_all():
    nothing = np.zeros((0, 4))
    assert match_boxes(nothing, [], nothing).outcome.shape == (1, 0)
    assert match_boxes([[0, 0, 1, 1]], [0.5], nothing).outcome.tolist() == [[0]]
    empty = Picture(nothing, np.zeros(0), np.zeros(0, int), nothing, np.zeros(0, int), np.zeros(0, bool))
    [match] = match_pictures([empty], 1)
    assert match.scores.shape == (0,) and match.n_objects.tolist() == [0]


def test_pictures_and_classes_are_apart():
    pictures = [picture(seed, ignored=0) for seed in range(12)]
    matches = match_pictures(pictures, 2, (0.5,), max_detections=3)
    for label, match in enumerate(matches):
        for unit, one in enumerate(pictures):
            of_class = np.flatnonzero(one.labels == label)
            kept = sorted(of_class, key=lambda i: (-one.scores[i], i))[:3]
            here = match.unit == unit
            assert match.place[here].tolist() == kept
            objects = np.flatnonzero(one.object_labels == label)
            outcome, number = by_loops(
                one.boxes[kept], one.scores[kept], one.objects[objects], np.zeros(len(objects)), 0.5
            )
            assert match.outcome[0, here].tolist() == outcome
            assert match.object[0, here].tolist() == [objects[n] if n >= 0 else -1 for n in number]
            assert match.n_objects[unit] == len(objects)


def test_blocks_change_nothing(monkeypatch):
    rng = np.random.default_rng(3)
    boxes, objects = random_boxes(rng, 300, 900), random_boxes(rng, 60, 900)
    whole = match_boxes(boxes, rng.random(300), objects)
    monkeypatch.setattr(detection_matching, "_BLOCK", 200)
    rng = np.random.default_rng(3)
    random_boxes(rng, 300, 900), random_boxes(rng, 60, 900)
    parts = match_boxes(boxes, rng.random(300), objects)
    assert (whole.outcome == parts.outcome).all() and (whole.object == parts.object).all()


def test_twenty_thousand_detections_take_no_time():
    rng = np.random.default_rng(0)
    objects = random_boxes(rng, 1000, 100_000, 100, 500)
    boxes = np.vstack([random_boxes(rng, 19_000, 100_000, 100, 500), objects + 5])
    start = time.perf_counter()
    assert (match_boxes(boxes, rng.random(len(boxes)), objects).outcome == 1).sum() == 1000
    assert time.perf_counter() - start < 5


def test_iou_of_boxes():
    rng = np.random.default_rng(1)
    first, second = random_boxes(rng, 5), random_boxes(rng, 7)
    expected = [[shared(a, b) / (area(a) + area(b) - shared(a, b)) for b in second] for a in first]
    np.testing.assert_allclose(box_iou(first, second), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boxes": [[5, 5, 5, 9]]}, r"picture 0: detection 0 \(5, 5, 5, 9; class 0\) has no area"),
        ({"boxes": [[0, 0, np.nan, 9]]}, "detection 0 .* not finite"),
        ({"objects": [[0, 9, 5, 5]]}, "object 0 .* no area"),
        ({"labels": [1]}, "detection 0 .*class 1.* none of 0..0"),
        ({"object_labels": [-1]}, "object 0 .* none of 0..0"),
        ({"scores": [np.nan]}, "detection 0 .* a score that is no number"),
    ],
)
def test_what_cannot_be_is_named(change, message):
    good = {"boxes": [[0, 0, 9, 9]], "scores": [0.5], "labels": [0], "objects": [[0, 0, 9, 9]], "object_labels": [0]}
    values = {key: np.array(value) for key, value in {**good, **change}.items()}
    with pytest.raises(DataError, match=message):
        match_pictures([Picture(**values, ignored=np.array([False]))], 1)
