"""Plots of a detector are drawn from the right numbers."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from pathzoo.evaluation.functional.detection import Outcomes, confidence_curve
from pathzoo.evaluation.functional.detection_rows import choose_points
from pathzoo.evaluation.functional.froc import froc_curve
from pathzoo.visualization.detection import plot_confidence, plot_detection_recall, plot_froc


@pytest.fixture
def outcomes():
    rng = np.random.default_rng(0)
    scores = np.sort(rng.random(80))[::-1]
    return Outcomes(scores, rng.random(80) < scores, rng.integers(0, 4, 80), np.array([12, 10, 14, 11]))


def legend(figure):
    box = figure.axes[0].get_legend()
    return [box.get_title().get_text(), *(text.get_text() for text in box.get_texts())]


def test_precision_over_recall(outcomes):
    curve = confidence_curve(outcomes)
    points = choose_points(curve, 0.5)
    figure = plot_detection_recall({"glomerulus": curve}, {"glomerulus": 0.5}, points, (0.4, 0.6), "47 objects")
    assert isinstance(figure, Figure)
    line, best, target = figure.axes[0].lines
    np.testing.assert_array_equal(line.get_xdata()[1:], curve.recall)
    np.testing.assert_array_equal(line.get_ydata()[1:], curve.precision)
    index = int(np.flatnonzero(curve.thresholds == points[0].threshold)[0])
    assert (best.get_xdata()[0], best.get_ydata()[0]) == (curve.recall[index], curve.precision[index])
    assert target.get_xdata()[0] >= 0.5
    assert legend(figure)[:2] == ["47 objects", "glomerulus: AP 0.500 [0.400, 0.600]"]


def test_confidence_begins_at_the_least_score(outcomes):
    curve = confidence_curve(outcomes)
    figure = plot_confidence(curve, choose_points(curve, 2 / 3, 0.25))
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert list(lines)[:3] == ["precision", "recall", "F1"]
    x, y = lines["recall"].get_data()
    assert x[0] == curve.thresholds[-1] and x[-1] == 1 and y[-1] == 0
    # A step up to each score holds the value of that score.
    assert lines["recall"].get_drawstyle() == "steps-pre"
    np.testing.assert_array_equal(y[:-1][::-1], curve.recall)
    assert np.isnan(lines["precision"].get_ydata()[-1])  # nothing is detected there
    assert "given threshold: 0.250" in lines and len(lines) == 6


def test_froc_and_several_classes(outcomes):
    curve = froc_curve(outcomes)
    figure = plot_froc({"a": curve, "b": curve}, "mm²", choose_points(confidence_curve(outcomes), 0.5))
    first, second = figure.axes[0].lines  # no marks among several lines
    np.testing.assert_array_equal(first.get_xdata()[1:], curve.false_positives)
    assert first.get_color() != second.get_color()
    assert figure.axes[0].get_xlabel() == "False detections per mm²"
    assert figure.axes[0].get_xlim()[1] >= curve.false_positives[-1]


def test_nothing_found_is_drawn_too():
    nothing = Outcomes(np.zeros(0), np.zeros(0, bool), np.zeros(0, int), np.array([3]))
    curve = confidence_curve(nothing)
    points = choose_points(curve, 0.9)
    for figure in (
        plot_detection_recall({"a": curve}, {"a": float("nan")}, points),
        plot_confidence(curve, points),
        plot_froc({"a": froc_curve(nothing)}, "slide", points),
    ):
        figure.canvas.draw()
    assert "undefined" in legend(plot_detection_recall({"a": curve}, {"a": float("nan")}, points))[1]
