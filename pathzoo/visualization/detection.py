"""Plots of a detector: precision over recall, both and F1 over confidence, and FROC.

Every function returns a matplotlib `Figure` of its own, in the manner of `pathzoo.visualization.curves`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pathzoo.evaluation.functional.detection import ConfidenceCurve
from pathzoo.evaluation.functional.detection_rows import Point
from pathzoo.evaluation.functional.froc import FrocCurve
from pathzoo.visualization.curves import PALETTE

_GREY = "#767676"
_BROKEN = (0, (4, 3))
_STROKES = ("solid", "dashed", "dotted")
_SIDE = 3.6  # inches
#: Point of `choose_points` -> what a legend calls it, its marker and colour.
_POINTS = {
    "best_f1": ("best F1", "o", PALETTE[1]),
    "target_recall": ("target recall", "D", PALETTE[3]),
    "given_threshold": ("given threshold", "s", PALETTE[4]),
}
#: False detections per slide up to which the axis of FROC is linear; beyond, it is logarithmic.
_LINEAR = 0.25


def plot_detection_recall(
    curves: Mapping[str, ConfidenceCurve],
    areas: Mapping[str, float],
    points: Sequence[Point] = (),
    interval: tuple[float, float] | None = None,
    note: str = "",
) -> Figure:
    """Precision over recall, a line for each class.

    The lines are the values at each threshold as they are. The area in the legend is that under the highest precision
    at each recall or beyond.

    Args:
        curves: class -> its curve.
        areas: class -> average precision; NaN where undefined.
        points: thresholds to mark; drawn where there is one class.
        interval: of the area, where there is one class.
        note: a line below the legend, such as how many objects there are.
    """
    figure, axes = _figure()
    for k, (name, curve) in enumerate(curves.items()):
        label = f"{name}: AP {_number(areas[name])}"
        label += f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval and len(curves) == 1 else ""
        recall, precision = np.append(0.0, curve.recall), np.append(curve.precision[:1], curve.precision)
        axes.plot(recall[: len(precision)], precision, **_stroke(k), linewidth=1.6, label=label, clip_on=False)
    if len(curves) == 1:
        curve = next(iter(curves.values()))
        _mark(axes, points, curve, curve.recall, curve.precision)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_xlabel("Recall")
    axes.set_ylabel("Precision")
    _legend(axes, note)
    return figure


def plot_confidence(curve: ConfidenceCurve, points: Sequence[Point] = (), note: str = "") -> Figure:
    """Precision, recall and F1 of all detections from a confidence up, over that confidence.

    The lines begin at the least score that was given, below which nothing is known.

    Args:
        curve: of all classes together.
        points: thresholds to mark by upright lines.
        note: a line below the legend.
    """
    figure, axes = _figure(_SIDE * 1.25)
    order = slice(None, None, -1)
    # From the highest score up nothing is detected: recall and F1 fall to 0, precision has no value.
    scores = np.append(curve.thresholds[order], 1.0)
    for k, (name, values, end) in enumerate(
        (("precision", curve.precision, np.nan), ("recall", curve.recall, 0.0), ("F1", curve.f1, 0.0))
    ):
        line = np.append(values[order], end)
        axes.plot(scores, line, color=PALETTE[(0, 2, 6)[k]], drawstyle="steps-pre", linewidth=1.6, label=name)
    for point in points:
        if point.threshold is not None:
            name, _, color = _POINTS[point.name]
            label = f"{name}: {point.threshold:.3f}"
            axes.axvline(point.threshold, color=color, linewidth=1.0, linestyle=_BROKEN, label=label)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("Confidence threshold")
    axes.set_ylabel("Precision, recall, F1")
    _legend(axes, note, columns=2)
    return figure


def plot_froc(
    curves: Mapping[str, FrocCurve], unit: str = "slide", points: Sequence[Point] = (), note: str = ""
) -> Figure:
    """Sensitivity over false detections per slide, a line for each class; the axis is linear to 0.25, then logarithmic.

    Args:
        curves: class -> its curve.
        unit: what false detections are counted by: "slide" or "mm²".
        points: thresholds to mark; drawn where there is one class.
        note: a line below the legend.
    """
    figure, axes = _figure(_SIDE * 1.25)
    for k, (name, curve) in enumerate(curves.items()):
        false, found = np.append(0.0, curve.false_positives), np.append(0.0, curve.sensitivity)
        axes.plot(false, found, **_stroke(k), drawstyle="steps-post", linewidth=1.6, label=name, clip_on=False)
    if len(curves) == 1:
        curve = next(iter(curves.values()))
        _mark(axes, points, curve, curve.false_positives, curve.sensitivity)
    highest = max([8.0, *(curve.false_positives[-1] for curve in curves.values() if len(curve.false_positives))])
    axes.set_xscale("symlog", linthresh=_LINEAR, linscale=0.5, base=2)
    ticks = [0.0, *(2.0**k for k in range(-2, int(np.ceil(np.log2(highest))) + 1))]
    ticks = ticks if len(ticks) <= 8 else [0.0, *(tick for k, tick in enumerate(ticks[1:]) if k % 2 == 0)]
    axes.set_xlim(0, highest)
    axes.set_xticks([tick for tick in ticks if tick <= highest])
    axes.set_xticklabels([f"{tick:g}" for tick in ticks if tick <= highest])
    axes.minorticks_off()
    axes.set_ylim(0, 1)
    axes.set_xlabel(f"False detections per {unit}")
    axes.set_ylabel("Sensitivity (recall)")
    _legend(axes, note)
    return figure


def _figure(width: float = _SIDE) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, _SIDE * 1.2), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)
    axes.xaxis.label.set_fontsize(10)
    axes.yaxis.label.set_fontsize(10)
    axes.grid(color=_GREY, alpha=0.2, linewidth=0.6)
    return figure, axes


def _stroke(k: int) -> dict[str, Any]:
    return {"color": PALETTE[k % len(PALETTE)], "linestyle": _STROKES[k // len(PALETTE) % len(_STROKES)]}


def _mark(
    axes: Axes, points: Sequence[Point], curve: ConfidenceCurve | FrocCurve, x: np.ndarray, y: np.ndarray
) -> None:
    """Marks on a curve the points whose thresholds are given: where the last of the scores from it up lies."""
    for point in points:
        above = 0 if point.threshold is None else int((curve.thresholds >= point.threshold).sum())
        if above:
            name, marker, color = _POINTS[point.name]
            axes.plot(
                x[above - 1],
                y[above - 1],
                linestyle="none",
                marker=marker,
                markersize=6,
                color=color,
                markeredgecolor="white",
                label=f"{name}: threshold {point.threshold:.3f}",
                zorder=3,
                clip_on=False,
            )


def _legend(axes: Axes, note: str, columns: int = 1) -> None:
    """Above the axes, where it hides no curve."""
    axes.legend(
        title=note or None,
        loc="lower left",
        bbox_to_anchor=(0, 1.01),
        fontsize=8,
        title_fontsize=8,
        alignment="left",
        frameon=False,
        handlelength=1.6,
        ncols=columns,
        borderaxespad=0,
    )


def _number(value: float) -> str:
    return "undefined" if np.isnan(value) else f"{value:.3f}"
