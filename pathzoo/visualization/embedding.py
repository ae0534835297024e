"""Vectors of pictures as points: the plane in which they differ most."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pathzoo.visualization.curves import PALETTE
from pathzoo.wsi.principal import principal_components

#: Of the patients that are tested on, in the order of their names; a ninth begins anew.
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
#: Vectors that the components are fitted to at most, spread evenly over all.
_FITTED = 4096


def plot_embedding(
    vectors: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    tested: np.ndarray | None = None,
    patients: Sequence[str | None] | None = None,
    title: str = "",
) -> Figure:
    """The first two principal components, by class; pictures that are tested on stand out, with a marker by patient.

    Two plots side by side, on the same axes: all pictures by class, and those tested on alone, where each marker is one
    patient: a class that falls apart by markers is told by who the patient is. Where all are tested on, the second.

    Args:
        vectors: (N, D), N >= 1.
        labels: (N,) class indices.
        classes: Names.
        tested: (N,) bool; None for none, and then there is one plot.
        patients: Of each picture, None where unknown; no name is written into the picture.
        title: Above the plots.

    Returns:
        A figure; the components are those of the pictures that are not tested on, where there are such.
    """
    out = np.zeros(len(vectors), bool) if tested is None else np.asarray(tested, bool)
    fitted = vectors if out.all() else vectors[~out]
    components = principal_components(fitted[:: -(-len(fitted) // _FITTED)], 2)
    points = components.project(vectors)
    colors = np.array([PALETTE[k % len(PALETTE)] for k in range(len(classes))])
    n_plots = 2 if out.any() and not out.all() else 1
    figure = Figure(figsize=(0.6 + 3.7 * n_plots + 1.4, 4.1), layout="constrained")
    plots = figure.subplots(1, n_plots, sharex=True, sharey=True, squeeze=False)[0]
    size = 14 if len(vectors) < 2000 else 6
    if not out.all():
        order = np.random.default_rng(0).permutation(len(vectors))  # no class covers another by its place in the list
        plots[0].scatter(*points[order].T, s=size, c=colors[labels[order]], alpha=0.6, linewidths=0)
        plots[0].set_title(f"all, n = {len(vectors):,}", fontsize=10)
    if out.any():
        _by_patient(plots[-1], points[out], labels[out], colors, _numbers(patients, out), size)
    for plot in plots:
        plot.set_xlabel(f"1st component, {components.share[0]:.0%} of variance", fontsize=9)
        plot.tick_params(labelsize=8)
        plot.spines[["top", "right"]].set_visible(False)
    plots[0].set_ylabel(f"2nd component, {components.share[1]:.0%} of variance", fontsize=9)
    shown = [k for k in range(len(classes)) if (labels == k).any()]
    handles = [Line2D([], [], marker="o", linestyle="", color=colors[k], label=classes[k]) for k in shown]
    figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize=9)
    if title:
        figure.suptitle(title, fontsize=11)
    return figure


def _numbers(patients: Sequence[str | None] | None, out: np.ndarray) -> np.ndarray | None:
    """The number of each tested picture's patient by name, -1 where unknown; None where no patient is known."""
    if patients is None:
        return None
    chosen = [patient for patient, there in zip(patients, out, strict=True) if there]
    names = sorted({patient for patient in chosen if patient is not None})
    if not names:
        return None
    return np.array([-1 if patient is None else names.index(patient) for patient in chosen])


def _by_patient(
    plot: Axes, points: np.ndarray, labels: np.ndarray, colors: np.ndarray, numbers: np.ndarray | None, size: int
) -> None:
    n = f"n = {len(points):,}"
    if numbers is None:
        plot.scatter(*points.T, s=2 * size, c=colors[labels], linewidths=0.4, edgecolors="black")
        plot.set_title(f"test, {n}, patients unknown", fontsize=10)
        return
    for number in np.unique(numbers):
        own = numbers == number
        marker = "." if number < 0 else _MARKERS[number % len(_MARKERS)]
        style = {"s": 2 * size, "linewidths": 0.4, "edgecolors": "black"}
        plot.scatter(*points[own].T, marker=marker, c=colors[labels[own]], **style)
    known = len(np.unique(numbers[numbers >= 0]))
    again = f", recurring after {len(_MARKERS)}" if known > len(_MARKERS) else ""
    plot.set_title(f"test, {n}\na marker for each of {known} patients{again}", fontsize=10)
