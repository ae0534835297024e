"""The plot of a pretext run's embeddings over its iterations."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pathzoo.visualization.curves import PALETTE

_BLUE, _ALARM, _GREY = PALETTE[0], PALETTE[1], "#767676"
_BROKEN = (0, (4, 3))
#: Column -> (label of its axis, smallest room of that axis). All that is drawn, from the top.
_PANELS = {
    "spread": ("Spread\n(1: over the sphere)", (0.0, 1.05)),
    "effective_rank": ("Effective rank", (0.0, None)),
    "alignment": ("Alignment\n(0: views alike)", (0.0, None)),
    "uniformity": ("Uniformity\n(lower: more even)", (None, 0.1)),
}


def plot_collapse(
    rows: Sequence[Mapping[str, float]], spread_below: float | None = None, rank_below: float | None = None
) -> Figure:
    """Spread, effective rank, alignment and uniformity over the iterations, each in a panel of its own.

    Args:
        rows: `iteration` and the four numbers, NaN where there is none; a panel without any is left out.
        spread_below, rank_below: limits, drawn as broken lines; None for none.

    Returns:
        A figure with at least the panel of the spread; empty axes where there are no rows.
    """
    iterations = np.array([row["iteration"] for row in rows], dtype=np.float64)
    columns = {name: np.array([row[name] for row in rows], dtype=np.float64) for name in _PANELS}
    shown = [name for name, values in columns.items() if np.isfinite(values).any()] or ["spread"]
    figure = Figure(figsize=(4.8, 0.6 + 1.3 * len(shown)), layout="constrained")
    panels: list[Axes] = list(np.atleast_1d(figure.subplots(len(shown), 1, sharex=True)))
    limits = {"spread": spread_below, "effective_rank": rank_below}
    for axes, name in zip(panels, shown, strict=True):
        label, (low, high) = _PANELS[name]
        alone = np.isfinite(columns[name]).sum() == 1
        axes.plot(iterations, columns[name], color=_BLUE, linewidth=1.4, marker="o" if alone else None, markersize=4)
        if limits.get(name) is not None:
            axes.axhline(limits[name], color=_ALARM, linewidth=0.9, linestyle=_BROKEN)
            axes.annotate(
                "warns below",
                (0, limits[name]),
                xycoords=("axes fraction", "data"),
                xytext=(3, 2),
                textcoords="offset points",
                ha="left",
                fontsize=7,
                color=_ALARM,
            )
        bottom, top = axes.get_ylim()
        axes.set_ylim(bottom if low is None else min(low, bottom), top if high is None else max(high, top))
        axes.set_ylabel(label, fontsize=8)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color=_GREY, alpha=0.2, linewidth=0.6)
    panels[-1].set_xlabel("Iteration", fontsize=9)
    figure.align_ylabels()
    return figure
