"""The plot of vectors shows every point once, where the components put it."""

import numpy as np
import pytest
from matplotlib.collections import PathCollection

from pathzoo.visualization.curves import save_figure
from pathzoo.visualization.embedding import plot_embedding


def points(plot):
    found = [np.asarray(part.get_offsets()) for part in plot.collections if isinstance(part, PathCollection)]
    return np.concatenate(found)


@pytest.fixture
def vectors():
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 3
    return rng.normal(size=(120, 6)).astype(np.float32) + 3 * np.eye(6, dtype=np.float32)[labels], labels


def test_all_on_the_left_and_the_tested_by_patient_on_the_right(vectors, tmp_path):
    data, labels = vectors
    tested = np.arange(120) >= 90
    patients = [f"SMITH_{number // 10}" for number in range(115)] + [None] * 5
    figure = plot_embedding(data, labels, ["a", "b", "c"], tested, patients, title="random")
    left, right = figure.axes
    train = data[~tested].astype(float)
    _, scale, axes = np.linalg.svd(train - train.mean(axis=0), full_matrices=False)
    expected = np.abs((data - train.mean(axis=0)) @ axes[:2].T)
    for plot, rows in ((left, np.arange(120)), (right, np.flatnonzero(tested))):
        shown = np.abs(points(plot))
        assert len(shown) == len(rows)
        order = np.lexsort(shown.T), np.lexsort(expected[rows].T)
        np.testing.assert_allclose(shown[order[0]], expected[rows][order[1]], atol=1e-4)
    assert f"{scale[0] ** 2 / (scale**2).sum():.0%} of variance" in left.get_xlabel()
    assert right.get_title() == "test, n = 30\na marker for each of 3 patients"
    assert len([c for c in right.collections if isinstance(c, PathCollection)]) == 4, "three, and the unknown"
    save_figure(figure, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 10_000
    texts = [text.get_text() for plot in figure.axes for text in plot.texts] + [left.get_title(), right.get_title()]
    assert not any("SMITH" in text for text in texts)


def test_without_a_test_part_there_is_one_plot(vectors):
    data, labels = vectors
    [plot] = plot_embedding(data, labels, ["a", "b", "c"]).axes
    assert len(points(plot)) == 120
    [plot] = plot_embedding(data, labels, ["a", "b", "c"], np.ones(120, bool)).axes
    assert plot.get_title() == "test, n = 120, patients unknown"
    assert len(points(plot)) == 120


@pytest.mark.parametrize("n_tested", [60, 120])
def test_no_text_covers_another(vectors, n_tested):
    data, labels = vectors
    patients = [str(number % 21) for number in range(120)]
    figure = plot_embedding(data, labels, ["benign", "malignant", "c"], np.arange(120) < n_tested, patients, title="x")
    figure.draw_without_rendering()
    texts = [*figure.legends, *(plot.title for plot in figure.axes), figure._suptitle]
    boxes = [text.get_window_extent() for text in texts]
    for number, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:number]), texts[number]
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1
