import numpy as np
import pytest

from pathzoo.wsi.colors import class_colors
from pathzoo.wsi.overlay import blend, cell_colors, overlay, ramp, scale_bar_length
from pathzoo.wsi.stitching import heat_map
from pathzoo.wsi.tiling import tile_grid

GREEN, RED = (0, 158, 115), (213, 94, 0)


def heat_on(region=(50, 30, 400, 300), seed=0, n=2):
    rng = np.random.default_rng(seed)
    grid = tile_grid(region, (64, 64), 1.3, mask=rng.random((20, 20)) < 0.1)
    probs = rng.dirichlet(np.ones(n), len(grid)).astype(np.float32)
    return heat_map(grid, probs)


def test_ramp_runs_from_class_to_class():
    colors = ramp(np.array([0, 0.5, 1], np.float32), GREEN, RED)
    assert colors[0].tolist() == list(GREEN) and colors[2].tolist() == list(RED) and colors[1].min() > 180


def test_each_pixel_takes_the_cell_of_its_centre():
    region, heat = (50, 30, 400, 300), heat_on()
    thumbnail = np.random.default_rng(1).integers(0, 256, (75, 100, 3)).astype(np.uint8)
    color, opacity = cell_colors(heat.probs, [GREEN, RED])
    out = blend(thumbnail, color, opacity, region, heat)
    for row, column in np.random.default_rng(2).integers(0, 75, (200, 2)):
        x, y = 50 + (column + 0.5) * 4, 30 + (row + 0.5) * 4
        [c] = [i for i in range(len(heat.x_edges) - 1) if heat.x_edges[i] <= x < heat.x_edges[i + 1]]
        [r] = [i for i in range(len(heat.y_edges) - 1) if heat.y_edges[i] <= y < heat.y_edges[i + 1]]
        if np.isnan(heat.probs[r, c]).any():
            assert np.array_equal(out[row, column], thumbnail[row, column])
        else:
            expected = 0.5 * thumbnail[row, column] + 0.5 * ramp(heat.probs[r, c, 1], GREEN, RED)
            assert np.abs(out[row, column] - expected).max() <= 0.51


def test_many_classes_take_the_colour_of_the_most_probable_the_surer_the_denser():
    probs = np.array([[[0.8, 0.1, 0.1], [0.1, 0.5, 0.4], [np.nan] * 3]], np.float32)
    palette = list(class_colors("abc").values())
    color, opacity = cell_colors(probs, palette)
    assert color[0, 0].tolist() == list(palette[0]) and color[0, 1].tolist() == list(palette[1])
    assert opacity[0, 0] > opacity[0, 1] > opacity[0, 2] == 0


@pytest.mark.parametrize(
    ("across", "length"), [(400, 100), (399, 50), (1000, 200), (2100, 500), (9, 2), (50000, 10000)]
)
def test_scale_bar_is_a_round_number_of_at_most_a_quarter(across, length):
    assert scale_bar_length(across) == pytest.approx(length)


def test_the_drawn_bar_is_as_long_as_it_says():
    thumbnail = np.full((600, 800, 3), 250, np.uint8)
    region = (0, 0, 8000, 6000)
    grid = tile_grid(region, (64, 64), 1.0, mask=np.zeros((10, 10), bool))
    picture = overlay(thumbnail, region, heat_map(grid, np.zeros((0, 2), np.float32)), ("a", "b"), mpp=0.25)
    assert picture.dtype == np.uint8 and picture.shape[0] >= 600 and picture.shape[1] > 800
    left = picture[: 28 + 600, : 28 + 800]  # without the legend
    ink = (left == (35, 38, 45)).all(axis=2)
    longest = max(len(run) for row in ink[-70:] for run in "".join("#" if v else " " for v in row).split())
    # 8000 px of 0.25 µm on 800 px: 2.5 µm a pixel; a quarter of 2000 µm is 500 µm.
    assert longest == pytest.approx(500 / 2.5, abs=1)


def test_draws_titles_classes_and_tissue_without_failing_on_odd_input():
    heat = heat_on(n=9)
    names = ["a" * 80, "β-class", *"cdefghi"]
    tissue = np.zeros((30, 40), bool)
    tissue[5:20, 5:30] = True
    thumbnail = np.full((75, 100, 3), 255, np.uint8)
    bare = overlay(thumbnail, (50, 30, 400, 300), heat, names, 0.5)
    full = overlay(
        thumbnail, (50, 30, 400, 300), heat, names, 0.5, tissue=tissue, title="t" * 300, subtitle="s", notes=["n"]
    )
    assert full.shape[1] == bare.shape[1] and full.shape[0] > bare.shape[0]
