"""Plots of a classifier's decisions and probabilities.

Every function returns a matplotlib `Figure` of its own (no pyplot, no display needed). Colours are those of Okabe and
Ito (2008), told apart with any colour vision; the size suits one column of a paper, 300 dpi when saved.
"""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from pathzoo.evaluation.functional import (
    average_precision,
    expected_calibration_error,
    one_vs_rest,
    precision_recall_curve,
    reliability_curve,
    roc_auc,
    roc_curve,
    top_confidence,
)
from pathzoo.fileio import atomic_path

#: Okabe and Ito without their yellow, which is hardly seen on white; the eighth class starts over with broken lines.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_BLUE, _GREY = PALETTE[0], "#767676"
_STROKES = ("solid", "dashed", "dotted")
_BROKEN = (0, (4, 3))
_DPI = 300
_SIDE = 3.6  # inches


def plot_confusion_matrix(confusion: ArrayLike, classes: Sequence[str]) -> Figure:
    """Counts and row percentages: (C, C), rows the true class. The shade is the share of the row."""
    counts = np.asarray(confusion, dtype=np.float64)
    totals = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    side = max(_SIDE, 1.0 + 0.8 * len(classes))
    figure, axes = _figure(side, side)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    small = len(classes) > 4
    for row, column in np.ndindex(*counts.shape):
        percent = f"{share[row, column]:.0%}" if totals[row] else "–"
        axes.text(
            column,
            row,
            f"{counts[row, column]:g}\n{percent}",
            ha="center",
            va="center",
            fontsize=8 if small else 11,
            color="white" if share[row, column] > 0.65 else "black",
        )
    names = [f"{name}\nn = {total:g}" for name, total in zip(classes, totals[:, 0], strict=True)]
    axes.set_xticks(range(len(classes)), classes, rotation=45 if small else 0, ha="right" if small else "center")
    axes.set_yticks(range(len(classes)), names)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("Predicted")
    axes.set_ylabel("True")
    return figure


def plot_roc(
    probs: ArrayLike,
    labels: ArrayLike,
    classes: Sequence[str],
    positive: int = 1,
    interval: tuple[float, float] | None = None,
) -> Figure:
    """ROC of the positive class (C = 2), or of each class against the rest.

    Args:
        probs: (N, C).
        labels: class indices (N,).
        classes: C names.
        positive: index of the positive class; used with two classes only.
        interval: of the area under the curve (of the mean area, C > 2), printed beside it.
    """
    matrix, truth = np.asarray(probs), np.asarray(labels)
    figure, axes = _curve_figure(classes)
    axes.plot([0, 1], [0, 1], color=_GREY, linewidth=0.8, linestyle=_BROKEN)
    for k in _shown_classes(truth, len(classes), positive):
        curve = roc_curve(matrix[:, k], truth == k)
        label = f"{classes[k]}: {_number(roc_auc(matrix[:, k], truth == k))}"
        rates = (curve.false_positive_rate, curve.true_positive_rate)
        axes.plot(*rates, **_stroke(k, len(classes)), linewidth=1.6, label=label, clip_on=False)
    if len(classes) == 2:
        n_positive = int((truth == positive).sum())
        text = _with_interval("AUC", roc_auc(matrix[:, positive], truth == positive), interval)
        text += f"\n{n_positive} {classes[positive]}, {len(truth) - n_positive} {classes[1 - positive]}"
        _annotate(axes, text, 0.97, 0.05)
    else:
        _legend(axes, _with_interval("mean AUC", one_vs_rest(roc_auc, matrix, truth), interval), len(truth))
    _unit_square(axes)
    axes.set_xlabel("False positive rate (1 − specificity)")
    axes.set_ylabel("True positive rate (sensitivity)")
    return figure


def plot_precision_recall(
    probs: ArrayLike,
    labels: ArrayLike,
    classes: Sequence[str],
    positive: int = 1,
    interval: tuple[float, float] | None = None,
) -> Figure:
    """Precision over recall, with a line at the share of positives, which a score without skill reaches.

    Arguments as `plot_roc`; `interval` is that of the average precision.
    """
    matrix, truth = np.asarray(probs), np.asarray(labels)
    figure, axes = _curve_figure(classes)
    for k in _shown_classes(truth, len(classes), positive):
        curve = precision_recall_curve(matrix[:, k], truth == k)
        area, stroke = average_precision(matrix[:, k], truth == k), _stroke(k, len(classes))
        # Drawn as the steps that the average precision sums: precision holds from the last recall to this one.
        recall, precision = np.append(0.0, curve.recall), np.append(curve.precision[0], curve.precision)
        label = f"{classes[k]}: {_number(area)} (no skill {(truth == k).mean():.3f})"
        axes.plot(recall, precision, **stroke, drawstyle="steps-pre", linewidth=1.6, label=label, clip_on=False)
    if len(classes) == 2:
        is_positive = truth == positive
        no_skill = float(is_positive.mean())
        axes.axhline(no_skill, color=_GREY, linewidth=0.8, linestyle=_BROKEN)
        text = _with_interval("AP", average_precision(matrix[:, positive], is_positive), interval)
        text += f"\nno skill {no_skill:.3f} ({is_positive.sum()} of {len(truth)} {classes[positive]})"
        _annotate(axes, text, 0.04, no_skill + 0.04 if no_skill < 0.25 else 0.05)
    else:
        _legend(axes, _with_interval("mean AP", one_vs_rest(average_precision, matrix, truth), interval), len(truth))
    _unit_square(axes)
    axes.set_xlabel("Recall (sensitivity)")
    axes.set_ylabel("Precision")
    return figure


def plot_reliability(probs: ArrayLike, labels: ArrayLike, n_bins: int = 15) -> Figure:
    """Accuracy over the confidence of the predicted class in bins of equal width, and below the images per bin.

    Args:
        probs: (N, C).
        labels: class indices (N,).
        n_bins: bins over 0..1.
    """
    matrix, truth = np.asarray(probs, dtype=np.float64), np.asarray(labels)
    confidence, correct = top_confidence(matrix), matrix.argmax(axis=1) == truth
    curve = reliability_curve(confidence, correct, n_bins)
    error = float(expected_calibration_error(confidence, correct, n_bins))
    figure = Figure(figsize=(_SIDE, _SIDE * 1.25), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3.2, 1])
    for axes in (upper, lower):
        _style(axes)
    used = curve.counts > 0
    middle, width = (curve.edges[:-1] + curve.edges[1:]) / 2, 1 / n_bins
    upper.plot([0, 1], [0, 1], color=_GREY, linewidth=0.8, linestyle=_BROKEN)
    points = (curve.confidence[used], curve.accuracy[used])
    upper.plot(*points, color=_BLUE, alpha=0.4, linewidth=0.8)
    upper.plot(*points, color=_BLUE, linestyle="none", marker="o", markersize=5, clip_on=False)
    lower.bar(middle, curve.counts, width=width * 0.9, color=_BLUE)
    start = np.floor(1 / matrix.shape[1] * n_bins) / n_bins  # the largest of C probabilities is at least 1/C
    upper.set_xlim(start, 1)
    upper.set_ylim(0, 1)
    _annotate(upper, f"ECE {error:.3f}\nn = {len(truth)}", 0.04, 0.96)
    upper.set_ylabel("Accuracy")
    lower.set_xlabel("Confidence of the predicted class")
    lower.set_ylabel("Images")
    figure.align_ylabels()
    return figure


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Writes `figure` as PNG at 300 dpi, whole or not at all. Equal figures give equal bytes."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=_DPI, metadata={"Software": None})


def _figure(width: float = _SIDE, height: float = _SIDE) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    _style(axes)
    return figure, axes


def _curve_figure(classes: Sequence[str]) -> tuple[Figure, Axes]:
    """Square for two classes; for more, with room for a legend that holds the longest name and two numbers."""
    if len(classes) == 2:
        return _figure()
    return _figure(_SIDE + 0.6 + 0.08 * (24 + max(map(len, classes))))


def _style(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)
    axes.xaxis.label.set_fontsize(10)
    axes.yaxis.label.set_fontsize(10)


def _unit_square(axes: Axes) -> None:
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_aspect("equal", anchor="W")  # what room is over goes to the right, where a legend may stand
    ticks = [0, 0.2, 0.4, 0.6, 0.8, 1]
    axes.set_xticks(ticks)
    axes.set_yticks(ticks)


def _shown_classes(labels: np.ndarray, n_classes: int, positive: int) -> list[int]:
    return [positive] if n_classes == 2 else [k for k in range(n_classes) if (labels == k).any()]


def _stroke(k: int, n_classes: int) -> dict[str, Any]:
    if n_classes == 2:
        return {"color": _BLUE, "linestyle": "solid"}
    return {"color": PALETTE[k % len(PALETTE)], "linestyle": _STROKES[k // len(PALETTE) % len(_STROKES)]}


def _number(value: ArrayLike) -> str:
    number = float(np.asarray(value))
    return "undefined" if np.isnan(number) else f"{number:.3f}"


def _with_interval(name: str, value: ArrayLike, interval: tuple[float, float] | None) -> str:
    return f"{name} {_number(value)}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")


def _annotate(axes: Axes, text: str, x: float, y: float) -> None:
    """Text whose nearest corner stands at (x, y) of the axes, both in 0..1."""
    axes.text(
        x,
        y,
        text,
        transform=axes.transAxes,
        ha="left" if x < 0.5 else "right",
        va="bottom" if y < 0.5 else "top",
        fontsize=9,
        linespacing=1.4,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 2},
    )


def _legend(axes: Axes, title: str, n: int) -> None:
    """Beside the axes, where it hides no curve."""
    axes.legend(
        title=f"{title}\nn = {n}; each class against the rest",
        loc="upper left",
        bbox_to_anchor=(1.02, 1),
        fontsize=9,
        title_fontsize=9,
        alignment="left",
        frameon=False,
        handlelength=1.6,
    )
