import numpy as np
import pytest

from pathzoo.wsi.colors import class_colors
from pathzoo.wsi.overlay import blend, cell_colors, overlay, overlay_boxes, overlay_mask
from pathzoo.wsi.overlay_page import fitted, ramp, scale_bar_length
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


REGION = (100, 60, 4000, 3000)
LEFT, TOP = 28, 28  # margins of a page without titles


def bare(picture, width, height):
    """The slide's part of a page without titles."""
    return picture[TOP : TOP + height, LEFT : LEFT + width]


def near(pixels, color, tolerance=3):
    return np.abs(pixels.astype(int) - np.array(color)).max(axis=-1) <= tolerance


def test_mask_regions_are_tinted_and_outlined_where_they_lie():
    classes = ("background", "tumour", "stroma")
    colors = class_colors(classes)
    labels = np.full((30, 40), -1)
    labels[5:20, 5:25], labels[10:15, 10:15], labels[22:28, 30:38] = 1, 0, 2
    labels[0, 0] = 7  # no class
    thumbnail = np.full((600, 800, 3), 200, np.uint8)
    page = overlay_mask(thumbnail, REGION, labels, classes, 0.5, hidden=("background",))
    out = bare(page, 800, 600)
    for row, column in np.random.default_rng(0).integers(0, (30, 40), (200, 2)):
        pixel = out[row * 20 + 10, column * 20 + 10]  # the middle of a cell, off the lines
        name = classes[labels[row, column]] if 0 < labels[row, column] < 3 else None
        expected = 200 if name is None else 200 * 0.6 + np.array(colors[name]) * 0.4
        if not (row > 25 and column < 12):  # the scale bar
            assert near(pixel, expected, 1), (row, column)
    assert near(out[100:400, 100], colors["tumour"]).mean() > 0.9  # the outline's left side
    assert near(out[200:300, 200 - 1], colors["tumour"], 60).mean() > 0.9  # that of the hole
    legend = page[:, LEFT + 800 + 14 :]
    assert near(legend, colors["tumour"]).any() and not near(legend, colors["background"]).any()


def test_mask_takes_any_size_and_type_and_leaves_its_input():
    thumbnail = np.random.default_rng(0).integers(0, 256, (600, 800, 3)).astype(np.uint8)
    kept = thumbnail.copy()
    labels = np.random.default_rng(1).integers(0, 3, (6, 8))
    fine = np.kron(labels, np.ones((700, 450), int)).astype(np.int32)
    pages = [overlay_mask(thumbnail, REGION, given, "abc", 0.5) for given in (labels, fine)]
    assert np.array_equal(*pages) and np.array_equal(thumbnail, kept)
    nothing = overlay_mask(thumbnail, REGION, np.full((2, 2), -1), "abc", 0.5)
    assert np.array_equal(bare(nothing, 800, 500), thumbnail[:500])


def test_frames_lie_where_the_boxes_do_and_are_counted():
    boxes = np.array([[600, 560, 1600, 1060, 0.9, 0], [2100, 1560, 3100, 2060, 0.8, 1], [110, 70, 130, 90, 0.5, 1]])
    colors = class_colors("ab")
    thumbnail = np.full((600, 800, 3), 200, np.uint8)
    out = bare(overlay_boxes(thumbnail, REGION, boxes, "ab", 0.5), 800, 600)
    for x0, y0, x1, y1, _, index in boxes[:2]:
        x0, x1, y0, y1 = ((np.array([x0, x1, y0, y1]) - [100, 100, 60, 60]) / 5).astype(int)
        ink = colors["ab"[int(index)]]
        assert near(out[y0, x0:x1], ink).all() and near(out[y1, x0:x1], ink).all()
        assert near(out[y0:y1, x0], ink).all() and near(out[y0:y1, x1], ink).all()
        assert near(out[y0 + 5 : y1 - 4, x0 + 5 : x1 - 4], 200).all()
    assert near(out[2:6, 2:6], colors["b"]).any()  # the small one is there too


@pytest.mark.parametrize(("n", "side"), [(2001, 100), (5, 10)])
def test_many_or_tiny_boxes_are_dots_at_their_centres(n, side):
    rng = np.random.default_rng(n)
    middle = rng.uniform((200, 160), (4000, 2400), (n, 2))
    boxes = np.hstack([middle - side / 2, middle + side / 2, np.full((n, 2), (0.5, 0))])
    thumbnail = np.full((600, 800, 3), 200, np.uint8)
    out = bare(overlay_boxes(thumbnail, REGION, boxes, "ab", 0.5), 800, 600)
    x, y = ((middle - (100, 60)) / 5).astype(int).T
    assert near(out[y, x], class_colors("ab")["a"], 60).all()
    assert not (out == 255).all(axis=2)[:500].any()  # no frames


def test_the_surest_lies_on_top():
    box = [600, 560, 1600, 1060]
    thumbnail = np.full((600, 800, 3), 200, np.uint8)
    for first, second in ((0.9, 0.8), (0.8, 0.9)):
        page = overlay_boxes(thumbnail, REGION, np.array([[*box, first, 0], [*box, second, 1]]), "ab", 0.5)
        top = "a" if first > second else "b"
        assert near(bare(page, 800, 600)[100, 150], class_colors("ab")[top]).all()


@pytest.mark.parametrize("draw", ["mask", "boxes", "heat"])
def test_pages_share_their_layout(draw):
    """Tissue is outlined, nothing is cut off at the margins, long names are fitted, whatever is drawn."""
    tissue = np.zeros((30, 40), bool)
    tissue[5:20, 5:30] = True
    thumbnail, names = np.full((600, 800, 3), 255, np.uint8), ["w" * 200, "β-class", *"cdefghijklmnopqrstuvwxyz"]
    given = {
        "mask": (overlay_mask, np.zeros((3, 4), int)),
        "boxes": (overlay_boxes, np.array([[600, 560, 1600, 1060, 0.9, 3]])),
        "heat": (overlay, heat_on(REGION, n=len(names))),
    }
    function, what = given[draw]
    options = {"title": "t" * 300, "subtitle": "s" * 300, "notes": ["n" * 200, "n"]}
    page = function(thumbnail, REGION, what, names, 0.5, tissue=tissue, **options)
    ink = (page < 200).any(axis=2)
    assert not ink[:10].any() and not ink[-20:].any() and not ink[:, :20].any() and not ink[:, -20:].any()
    assert page.shape[1] == 3 * 28 + 800 + 400
    assert near(page[:700, : 28 + 800], (30, 45, 90)).sum() > 500
    without = function(thumbnail, REGION, what, names, 0.5, **options)
    assert without.shape[0] == page.shape[0] - 40  # the line of the legend that names the outline


def test_text_is_shortened_in_its_middle():
    assert fitted("short", 16, 200) == "short"
    assert fitted("abcdefghij" * 20, 16, 100).startswith("abc") and fitted("abcdefghij" * 20, 16, 100).endswith("hij")


def test_no_boxes_and_no_classes_shown():
    thumbnail = np.full((75, 100, 3), 255, np.uint8)
    assert overlay_boxes(thumbnail, (0, 0, 100, 75), np.zeros((0, 6)), ("a",), 0.5).shape[1] > 560
    assert overlay_mask(thumbnail, (0, 0, 100, 75), np.zeros((5, 5), int), ("a",), 0.5, hidden=("a",)).shape[1] > 560
