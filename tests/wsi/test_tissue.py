import cv2
import numpy as np
import pytest

from pathzoo.wsi.slide import Slide
from pathzoo.wsi.tissue import otsu_threshold, tissue_mask, without_small


def test_otsu_against_opencv_and_a_loop():
    rng = np.random.default_rng(0)
    for _ in range(5):
        grey = np.concatenate([rng.normal(40, 12, 4000), rng.normal(rng.uniform(90, 200), 20, 2500)])
        grey = grey.clip(0, 255).astype(np.uint8).reshape(100, 65)
        expected = cv2.threshold(grey, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)[0]
        assert otsu_threshold(grey) == expected
        within = [
            sum(part.var() * part.size for part in (grey[grey <= t], grey[grey > t]) if part.size) for t in range(255)
        ]
        assert within[otsu_threshold(grey)] == pytest.approx(min(within))
    assert otsu_threshold(np.full((9, 9), 7, np.uint8)) == 0


def test_finds_the_disc_and_fills_small_holes_only(tissue_image):
    small = cv2.resize(tissue_image, (250, 200), interpolation=cv2.INTER_AREA)
    y, x = np.mgrid[:200, :250]
    distance = np.hypot(x - 112.5, y - 100)
    ring, disc = (distance < 75) & (distance > 15), distance < 75
    closed, open_ = tissue_mask(small, max_hole=2000), tissue_mask(small, max_hole=100)
    for mask, truth in [(closed, disc), (open_, ring)]:
        assert mask.dtype == bool and mask.shape == (200, 250)
        assert (mask & truth).sum() / (mask | truth).sum() > 0.97


def test_blank_glass_has_no_tissue():
    rng = np.random.default_rng(0)
    assert not tissue_mask(np.full((100, 100, 3), 255, np.uint8)).any()
    assert not tissue_mask(rng.integers(236, 246, (100, 100, 3)).astype(np.uint8)).any()
    assert not tissue_mask(np.zeros((50, 50, 3), np.uint8)).any()  # a black border is no tissue either


def test_a_picture_full_of_tissue_is_all_tissue():
    rng = np.random.default_rng(0)
    image = np.array([[220, 150, 190]]) + rng.integers(-25, 26, (120 * 90, 1))
    image[::3] = (120, 60, 150)  # nuclei: Otsu alone would take only them
    assert tissue_mask(image.reshape(120, 90, 3).astype(np.uint8)).all()


def test_dust_is_dropped():
    mask = np.zeros((40, 40), bool)
    mask[3:5, 3:5] = True
    mask[20:30, 20:30] = True
    assert without_small(mask, 5).sum() == 100
    assert without_small(mask, 4).sum() == 104
    assert not without_small(np.zeros((5, 5), bool), 1).any()
    assert tissue_mask(np.full((1, 2, 3), 255, np.uint8)).shape == (1, 2)


@pytest.mark.real
def test_real_slide(real_data):
    with Slide(real_data / "slides" / "cmu_small_region.svs") as slide:
        thumbnail = slide.thumbnail(371)
    mask = tissue_mask(thumbnail)
    assert 0.3 < mask.mean() < 0.6
    assert mask[200, 140] and not mask[40, 30] and not mask[300, 260]
