"""Areas in doubt: connected, of one label, inside it, and outlined to the pixel, whatever the label map."""

import cv2
import numpy as np
import pytest
import shapely

from pathzoo.evaluation.review_areas import review_areas


def blocks(rng, height, width, step, values):
    drawn = rng.integers(0, values, (height // step + 1, width // step + 1))
    return np.kron(drawn, np.ones((step, step), int))[:height, :width].astype(np.uint8)


def covered(polygon, shape):
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    return shapely.contains_xy(polygon, x, y)


@pytest.mark.parametrize("seed", range(12))
def test_random_maps(seed):
    rng = np.random.default_rng(seed)
    height, width = (int(length) for length in rng.integers(15, 70, 2))
    labels = blocks(rng, height, width, int(rng.integers(1, 9)), 4)
    labels[labels == 3] = 255
    sure = blocks(rng, height, width, int(rng.integers(3, 12)), 3)
    probs = np.stack([np.where(sure == index, 0.9, 0.05) for index in range(3)]).astype(np.float32)
    least = int(rng.integers(1, 50))
    thresholds = np.array([0.5, 0.6, 0.7])
    areas = review_areas(labels, probs, thresholds, min_pixels=least)
    assert [area.weight for area in areas] == sorted((area.weight for area in areas), reverse=True)
    taken = np.zeros(labels.shape, int)
    for area in areas:
        inside = covered(area.polygon, labels.shape)
        assert area.polygon.is_valid and inside.sum() == area.pixels == area.polygon.area >= least
        assert (labels[inside] == area.given).all() and area.given != area.proposed
        assert cv2.connectedComponents(inside.astype(np.uint8), connectivity=4)[0] == 2
        means = probs[:, inside].mean(axis=1)
        assert area.given_prob == pytest.approx(means[area.given], abs=1e-5)
        assert area.proposed_prob == pytest.approx(means[area.proposed], abs=1e-5)
        margin = (means - thresholds)[area.proposed] - (means - thresholds)[area.given]
        assert area.margin == pytest.approx(margin, abs=1e-5)
        if area.whole:  # all of a connected area of the label
            other = cv2.dilate(inside.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))) > 0
            assert not (labels[other & ~inside] == area.given).any() and area.margin > 0
        else:
            assert (sure[inside] == area.proposed).all()
        taken += inside
    assert taken.max(initial=0) <= 1


def test_a_label_as_thin_as_a_pixel_and_one_with_a_hole():
    labels = np.zeros((60, 80), np.uint8)
    labels[10, 5:75] = 1
    labels[20:50, 20:50] = 1
    labels[30:40, 30:40] = 255
    probs = np.full((3, 60, 80), 0.05, np.float32)
    probs[0] = 0.9
    probs[:, labels == 1] = np.array([[0.05], [0.05], [0.9]], np.float32)
    hole, line = review_areas(labels, probs, np.array([0.5, 0.5, 0.5]))
    assert (line.pixels, hole.pixels) == (70, 800)
    assert line.polygon.equals(shapely.box(5, 10, 75, 11))
    assert hole.polygon.equals(shapely.box(20, 20, 50, 50) - shapely.box(30, 30, 40, 40))
