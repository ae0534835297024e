"""The audit of all rounds as one picture."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pathzoo.engine.self_training.audit import ALL
from pathzoo.wsi.colors import is_background, segment_colors

_BLACK, _GREY, _BACKGROUND = "#000000", "#767676", "#9a9a9a"
_SOLID = {"linestyle": "solid"}
_BROKEN = {"linestyle": (0, (4, 2)), "markerfacecolor": "white"}
_MARKS: dict[str, Any] = {"marker": "o", "markersize": 4, "linewidth": 1.4, "clip_on": False}
#: Rounds between a class and the next.
_ASIDE = 0.05


def plot_audit(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Four panels over the rounds: share kept, class mix, confidence and agreement, precision and recall.

    Classes stand a little beside each other, so that points of one value are all seen. The two lower panels begin where
    their values do.

    Args:
        rows: of `audit_rows`, of one round or more, in order.
    """
    figure = Figure(figsize=(7.4, 5.6), layout="constrained")
    panels = figure.subplots(2, 2)
    rounds = sorted({row["round"] for row in rows})
    names = [row["class"] for row in rows if row["round"] == rounds[0] and row["class"] != ALL]
    colors = _colors(names)
    all_too = {**colors, ALL: _BLACK}
    _lines(panels[0, 0], "Share of predicted pixels kept", rows, rounds, all_too, ["kept_share"], whole=True)
    _bars(panels[0, 1], "Class mix: labels, and kept pixels by round", rows, rounds, colors)
    title = "Confidence; broken: agreement with last round"
    _lines(panels[1, 0], title, rows, rounds, all_too, ["mean_confidence", "agreement"])
    _lines(panels[1, 1], "Precision of kept pixels; broken: recall", rows, rounds, colors, ["precision", "recall"])
    handles = [Line2D([], [], color=color, marker="o", markersize=4, label=name) for name, color in colors.items()]
    handles.append(Line2D([], [], color=_BLACK, marker="o", markersize=4, label="all classes"))
    figure.legend(handles=handles, loc="outside lower center", ncols=min(5, len(handles)), frameon=False, fontsize=9)
    return figure


def _colors(names: Sequence[str]) -> dict[str, str]:
    """Those of pictures and slides; a background's pale grey, too faint for a line, is darker."""
    own = {name: "#{:02x}{:02x}{:02x}".format(*color) for name, color in segment_colors(names).items()}
    return {name: _BACKGROUND if is_background(name) else color for name, color in own.items()}


def _lines(
    axes: Axes,
    title: str,
    rows: Sequence[Mapping],
    rounds: list[int],
    colors: Mapping[str, str],
    columns: list[str],
    whole: bool = False,
) -> None:
    """One line by class for the first column, a broken one for the second."""
    _style(axes, title, rounds)
    lowest = None
    for column, stroke in zip(columns, (_SOLID, _BROKEN), strict=False):
        for place, (name, color) in enumerate(colors.items()):
            points = {row["round"]: row[column] for row in rows if row["class"] == name and row[column] is not None}
            if points:
                aside = _ASIDE * (place - (len(colors) - 1) / 2)
                axes.plot([n + aside for n in points], points.values(), color=color, **_MARKS, **stroke)
                lowest = min(points.values()) if lowest is None else min(lowest, *points.values())
    if lowest is None:
        axes.text(0.5, 0.5, "not known", ha="center", va="center", transform=axes.transAxes, color=_GREY)
    elif not whole:
        axes.set_ylim(max(0, math.floor(10 * lowest - 0.5) / 10), 1)


def _bars(axes: Axes, title: str, rows: Sequence[Mapping], rounds: list[int], colors: Mapping[str, str]) -> None:
    """The mix of the kept pixels, beside that of the labelled ones."""
    _style(axes, title, rounds)
    first = [row for row in rows if row["round"] == rounds[0]]
    bars = [("labels", {row["class"]: row["labelled_mix"] for row in first})]
    for number in rounds:
        bars.append((str(number), {row["class"]: row["kept_mix"] for row in rows if row["round"] == number}))
    for place, (_, mix) in enumerate(bars):
        bottom = 0.0
        for name, color in colors.items():
            height = mix.get(name) or 0.0
            axes.bar(place, height, bottom=bottom, color=color, width=0.7, alpha=0.55 if place == 0 else 1.0)
            bottom += height
    axes.set_xlim(-0.6, len(bars) - 0.4)
    axes.set_xticks(range(len(bars)), [label for label, _ in bars])


def _style(axes: Axes, title: str, rounds: list[int]) -> None:
    axes.set_title(title, fontsize=9.5, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)
    axes.set_ylim(0, 1)
    axes.set_xlim(rounds[0] - 0.5, rounds[-1] + 0.5)
    axes.set_xticks(rounds)
    axes.set_xlabel("Round", fontsize=9)
