"""What of an object lies in which tile, against counting pixels."""

import numpy as np
import pytest
import shapely

from pathzoo.errors import DataError
from pathzoo.wsi.box_report import count_document
from pathzoo.wsi.box_rules import BoxRules, place_boxes
from pathzoo.wsi.slide_objects import SlideObject
from pathzoo.wsi.tiling import tile_grid

WIDTH, HEIGHT = 200, 150


def random_object(rng, number):
    """Two rectangles on whole pixels that overlap, as a picture and as an outline."""
    x, y = int(rng.integers(0, WIDTH - 60)), int(rng.integers(0, HEIGHT - 60))
    w, h = rng.integers(10, 40, 2).tolist()
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y : y + h, x : x + w] = True
    mask[y + h // 2 : y + h + 15, x + w // 2 : x + w + 15] = True
    outline = shapely.box(x, y, x + w, y + h) | shapely.box(x + w // 2, y + h // 2, x + w + 15, y + h + 15)
    assert outline.area == mask.sum()
    return mask, SlideObject(f"s:{number}", "glomerulus", outline)


@pytest.mark.parametrize("downsample", [1, 2])
def test_boxes_are_the_pixels_of_the_object_in_the_tile(downsample):
    rng = np.random.default_rng(downsample)
    pairs = [random_object(rng, number) for number in range(12)]
    grid = tile_grid((0, 0, WIDTH, HEIGHT), (64 // downsample, 48 // downsample), downsample, 1 / 3)
    found = {(part.tile, part.object): part for part in place_boxes([one for _, one in pairs], grid)}
    expected = {}
    for tile, (x, y) in enumerate(grid.corners.tolist()):
        for number, (mask, _) in enumerate(pairs):
            inside = mask[y : y + 48, x : x + 64]
            rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
            if not len(rows) or min(np.ptp(rows), np.ptp(columns)) + 1 < downsample:
                continue
            box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) / downsample
            expected[tile, number] = box, inside.sum() / mask.sum()
    assert set(found) == set(expected) and len(found) > 30
    assert any(part.share == 1 for part in found.values()) and any(part.share < 0.2 for part in found.values())
    for key, (box, share) in expected.items():
        np.testing.assert_allclose(found[key].box, box)
        assert found[key].share == pytest.approx(share)


def test_objects_up_to_the_size_of_the_overlap_stand_whole_in_a_tile():
    grid = tile_grid((0, 0, 8000, 6000), (1600, 1200), 1.0, 1 / 3)
    rng = np.random.default_rng(0)
    corners = rng.integers(0, (8000 - 532, 6000 - 399), (200, 2))
    objects = [SlideObject(str(n), "g", shapely.box(x, y, x + 532, y + 399)) for n, (x, y) in enumerate(corners)]
    whole = {part.object for part in place_boxes(objects, grid) if part.share == 1}
    assert whole == set(range(200))


@pytest.mark.parametrize(
    "bad",
    [
        {"classes": ()},
        {"classes": ("a", "a")},
        {"tile": (16, 600)},
        {"overlap": 1.0},
        {"mpp": 0.0},
        {"cut": "maybe"},
        {"min_share": 2},
        {"background": -1},
        {"on_bad_box": "ask"},
        {"picture": "gif"},
    ],
)
def test_rules_out_of_bounds_are_named(bad):
    with pytest.raises(DataError, match=f"^{next(iter(bad)).replace('_', '-')}="):
        BoxRules(**{"classes": ("glomerulus",), **bad}).check()


def test_counts_of_a_document():
    images = [{"id": n, "slide": f"s{n // 3}", "patient": None if n < 3 else "p"} for n in range(6)]
    rows = [(0, 1.0, 0, "a"), (1, 0.5, 0, "a"), (1, 0.1, 1, "b"), (2, 0.2, 1, "b"), (4, 1.0, 0, "c")]
    annotations = [{"image_id": i, "share": s, "ignore": g, "object": o} for i, s, g, o in rows]
    assert count_document({"images": images, "annotations": annotations}) == {
        "slides": 2,
        "patients": 1,
        "tiles": 6,
        "tiles with objects": 3,
        "tiles with ignored parts alone": 1,
        "background tiles": 2,
        "objects": 2,
        "boxes": 3,
        "cut boxes": 1,
        "ignored parts": 2,
    }
