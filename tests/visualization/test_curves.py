"""Plots are drawn from the right numbers, without a display and without pyplot."""

import subprocess
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from sklearn import metrics as sk

from pathzoo.evaluation.functional import confusion_matrix
from pathzoo.visualization.curves import (
    PALETTE,
    plot_confusion_matrix,
    plot_precision_recall,
    plot_reliability,
    plot_roc,
    save_figure,
)


def scores(n_classes, n=200):
    generator = np.random.default_rng(0)
    labels = generator.integers(0, n_classes, n)
    logits = generator.normal(size=(n, n_classes)) + 1.5 * np.eye(n_classes)[labels]
    probs = np.exp(logits)
    return probs / probs.sum(axis=1, keepdims=True), labels, [f"class {k}" for k in range(n_classes)]


def texts(figure):
    axes = figure.axes[0]
    found = [text.get_text() for text in axes.texts]
    if legend := axes.get_legend():
        found += [legend.get_title().get_text(), *(text.get_text() for text in legend.get_texts())]
    return "\n".join(found)


def test_confusion_matrix_shows_counts_and_row_percentages():
    figure = plot_confusion_matrix([[30, 10], [0, 0]], ["a", "b"])
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.texts] == ["30\n75%", "10\n25%", "0\n–", "0\n–"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a\nn = 40", "b\nn = 0"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Predicted", "True")


def test_roc_of_two_classes():
    probs, labels, classes = scores(2)
    figure = plot_roc(probs, labels, classes, interval=(0.8, 0.9))
    x, y = figure.axes[0].lines[1].get_data()
    fpr, tpr, _ = sk.roc_curve(labels, probs[:, 1], drop_intermediate=False)
    np.testing.assert_allclose((x, y), (fpr, tpr))
    n_positive = labels.sum()
    assert texts(figure) == (
        f"AUC {sk.roc_auc_score(labels, probs[:, 1]):.3f} [0.800, 0.900]\n"
        f"{n_positive} class 1, {200 - n_positive} class 0"
    )


def test_precision_recall_of_two_classes_has_the_line_of_no_skill():
    probs, labels, classes = scores(2)
    figure = plot_precision_recall(probs, labels, classes, positive=0)
    curve, line = figure.axes[0].lines
    assert set(line.get_ydata()) == {np.mean(labels == 0)}
    x, y = curve.get_data()
    # The area of the drawn steps is the average precision.
    assert np.sum(np.diff(x) * y[1:]) == pytest.approx(sk.average_precision_score(labels == 0, probs[:, 0]))
    assert "no skill" in texts(figure)


def test_reliability_counts_every_image():
    probs, labels, _ = scores(3)
    upper, lower = plot_reliability(probs, labels, n_bins=10).axes
    assert sum(bar.get_height() for bar in lower.patches) == 200
    assert "ECE" in upper.texts[0].get_text()
    confidence, accuracy = upper.lines[1].get_data()
    inside = (probs.max(axis=1) > 0.6) & (probs.max(axis=1) <= 0.7)
    index = np.argmin(np.abs(confidence - probs.max(axis=1)[inside].mean()))
    assert accuracy[index] == pytest.approx((probs.argmax(axis=1) == labels)[inside].mean())


@pytest.mark.parametrize("plot", [plot_roc, plot_precision_recall])
def test_many_classes_are_told_apart_and_fit(plot):
    probs, labels, classes = scores(9)
    labels[labels == 4] = 5
    figure = plot(probs, labels, classes)
    curves = [line for line in figure.axes[0].lines if line.get_label().startswith("class")]
    assert len(curves) == 8  # the class without images has no curve
    assert len({(line.get_color(), line.get_linestyle()) for line in curves}) == 8
    figure.draw_without_rendering()
    legend = figure.axes[0].get_legend().get_window_extent()
    assert legend.x1 <= figure.bbox.x1  # not cut off
    assert "class 4" not in texts(figure)


@pytest.mark.parametrize("plot", [plot_roc, plot_precision_recall])
def test_undefined_is_said(plot):
    probs, labels, classes = scores(2)
    assert "undefined" in texts(plot(probs, np.zeros_like(labels), classes))


def test_saved_picture_is_whole_repeatable_and_of_print_size(tmp_path):
    probs, labels, classes = scores(2)
    for name in ("a.png", "b.png"):
        figure = plot_confusion_matrix(confusion_matrix(labels, probs.argmax(axis=1), 2), classes)
        assert isinstance(figure, Figure)
        save_figure(figure, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (1080, 1080)  # 3.6 inches at 300 dpi
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_no_pyplot():
    code = "import sys, pathzoo.visualization.curves; assert 'matplotlib.pyplot' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def _luminance(colour):
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def test_every_colour_is_seen_on_white():
    for colour in PALETTE:
        assert 1.05 / (_luminance(colour) + 0.05) > 2, colour  # WCAG contrast
