"""The plot of a pretext run's embeddings: what is drawn of which numbers."""

import math

import numpy as np
from PIL import Image

from pathzoo.visualization.collapse import plot_collapse
from pathzoo.visualization.curves import save_figure


def rows(n=12, alignment=True):
    return [
        {
            "iteration": 50 * (k + 1),
            "spread": 0.2 + 0.06 * k,
            "effective_rank": 3.0 + 4 * k,
            "alignment": 1.5 / (k + 1) if alignment else math.nan,
            "uniformity": -0.3 * k,
        }
        for k in range(n)
    ]


def lines(figure):
    return [axes.lines[0].get_data() for axes in figure.axes]


def test_each_number_has_a_panel_over_the_iterations():
    figure = plot_collapse(rows(), spread_below=0.1, rank_below=2.0)
    assert len(figure.axes) == 4
    for name, (x, y) in zip(("spread", "effective_rank", "alignment", "uniformity"), lines(figure), strict=True):
        np.testing.assert_array_equal(x, [row["iteration"] for row in rows()])
        np.testing.assert_array_equal(y, [row[name] for row in rows()])
    assert [axes.lines[1].get_ydata()[0] for axes in figure.axes[:2]] == [0.1, 2.0]
    assert all(axes.get_ylim()[0] <= 0 for axes in figure.axes[:3])


def test_what_is_not_defined_has_no_panel():
    labels = [axes.get_ylabel().split("\n")[0] for axes in plot_collapse(rows(alignment=False)).axes]
    assert labels == ["Spread", "Effective rank", "Uniformity"]


def test_no_rows_and_a_single_one(tmp_path):
    assert len(plot_collapse([]).axes) == 1
    figure = plot_collapse(rows(1))
    assert figure.axes[0].lines[0].get_marker() == "o", "a line through one point is not seen"
    save_figure(figure, tmp_path / "collapse.png")
    assert np.asarray(Image.open(tmp_path / "collapse.png")).std() > 1
