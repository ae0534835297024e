"""Objects of COCO files: outlines, run lengths and flags, against pycocotools."""

import json

import cv2
import numpy as np
import pytest
import shapely
from annotated_lab import geojson
from PIL import Image
from pycocotools import mask as coco_masks

from pathzoo.errors import DataError
from pathzoo.wsi.annotation_sources import AnnotatedSlide
from pathzoo.wsi.slide import Slide
from pathzoo.wsi.slide_objects import find_object_sources, read_objects

SIZE = 400, 300


@pytest.fixture
def slide(tmp_path):
    path = tmp_path / "slides" / "a.png"
    path.parent.mkdir()
    Image.fromarray(np.full((SIZE[1], SIZE[0], 3), 200, np.uint8)).save(path)
    return path


def read(slide, annotations, **options):
    with Slide(slide) as opened:
        return read_objects(AnnotatedSlide(slide, annotations), opened, ("glomerulus",), **options)


def write(path, *annotations, **image):
    stated = {"id": 1, "file_name": "a.png", "width": SIZE[0], "height": SIZE[1], **image}
    rows = [{"id": number, "image_id": 1, "category_id": 1, **row} for number, row in enumerate(annotations)]
    names = [{"id": 1, "name": "glomerulus"}]
    path.write_text(json.dumps({"images": [stated], "annotations": rows, "categories": names}))
    return path


def blobs(seed):
    """A mask of one object with holes and several parts."""
    noise = cv2.GaussianBlur(np.random.default_rng(seed).standard_normal((SIZE[1], SIZE[0])), (0, 0), 8)
    return np.asfortranarray((noise > 0.03).astype(np.uint8))


def uncompressed(mask):
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *edges, flat.size]).tolist()
    return {"size": list(mask.shape), "counts": counts if flat[0] == 0 else [0, *counts]}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("packed", [True, False])
def test_run_lengths_are_the_pixels_that_pycocotools_sees(tmp_path, slide, seed, packed):
    mask = blobs(seed)
    code = coco_masks.encode(mask)
    box, area = coco_masks.toBbox(code), int(coco_masks.area(code))
    given = {"size": code["size"], "counts": code["counts"].decode()} if packed else uncompressed(mask)
    (one,) = read(slide, write(tmp_path / "c.json", {"segmentation": given})).objects
    x, y, width, height = box.tolist()
    assert one.box == (x, y, x + width, y + height) and one.outline.area == area > 5000
    rows, columns = np.mgrid[: SIZE[1], : SIZE[0]] + 0.5
    np.testing.assert_array_equal(shapely.contains_xy(one.outline, columns, rows), mask.astype(bool))


def test_polygons_are_united_and_give_the_area_of_geojson(tmp_path, slide):
    angles = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    ellipse = np.stack([150 + 100 * np.cos(angles), 120 + 90 * np.sin(angles)], axis=1)
    coco = write(tmp_path / "c.json", {"bbox": [50, 30, 200, 180], "segmentation": [ellipse.ravel().tolist()]})
    geojson(tmp_path / "drawn" / "a.geojson", [(shapely.Polygon(ellipse), "glomerulus")])
    (one,), (drawn,) = read(slide, coco).objects, read(slide, tmp_path / "drawn" / "a.geojson").objects
    assert one.outline.area == pytest.approx(drawn.outline.area) and one.area < 200 * 180 * 0.79
    parts = [[10, 10, 60, 10, 60, 60, 10, 60], [40, 40, 90, 40, 90, 90, 40, 90], [200, 10, 220, 10, 220, 30, 200, 30]]
    (one,) = read(slide, write(tmp_path / "d.json", {"segmentation": parts})).objects  # without a box
    seen = coco_masks.decode(coco_masks.merge(coco_masks.frPyObjects(parts, SIZE[1], SIZE[0])))
    assert one.box == (10, 10, 220, 90) and one.outline.area == int(seen.sum())


def test_the_files_area_is_kept_where_there_is_no_outline(tmp_path, slide):
    rows = [
        {"bbox": [281, 39, 60, 50], "area": 2100},
        {"bbox": [10, 10, 20, 20]},
        {"bbox": [-50, 0, 99, 99], "area": 7},
    ]
    rows += [{"bbox": [100, 100, 20, 10], "segmentation": [], "area": 140}, {"bbox": [0, 200, 20, 10], "area": "x"}]
    rows += [{"bbox": [100, 200, 20, 10], "segmentation": [[100, 200, 120, 200, 120, 210]], "area": 5}]
    found = read(slide, write(tmp_path / "c.json", *rows)).objects
    assert [one.area for one in found] == [2100, 400, 49 * 99, 140, 200, 100]  # what was cut has another area
    assert [one.outline.area for one in found] == [3000, 400, 49 * 99, 200, 200, 100]


@pytest.mark.parametrize("flag", [{"iscrowd": 1}, {"ignore": 1}])
def test_what_is_to_be_ignored_is_an_ignored_object(tmp_path, slide, flag):
    listed = read(slide, write(tmp_path / "c.json", {"bbox": [10, 10, 50, 40], **flag}, {"bbox": [99, 9, 9, 9]}))
    assert [one.ignored for one in listed.objects] == [True, False] and not listed.problems


def test_outlines_that_cannot_be_used_are_listed(tmp_path, slide):
    code = coco_masks.encode(blobs(0))
    good = {"size": code["size"], "counts": code["counts"].decode()}
    bad = {
        "no area": [[10, 10, 50, 10, 90, 10]],
        "under three points": [[10, 10, 50, 10]],
        "odd number": [[10, 10, 50, 10, 90, 10, 3]],
        "finite": [[10, 10, float("nan"), 10, 90, 10]],
        "300 x 200 px": good | {"size": [200, 300]},
        "of 120000 pixels": {"size": [300, 400], "counts": [10, 200000]},
        "run lengths": good | {"counts": "~"},
        "below 0": {"size": [300, 400], "counts": [10, -5, 7]},
        "of a picture of 7 px": good | {"size": 7},
        "beyond any": {"size": [300, 400], "counts": [2**70]},
        "of 120000 ": {"size": [300, 400], "counts": [2**62, 2**62, 2**62]},
        "not of numbers": "abc",
        "neither box nor outline": None,
    }
    rows = [{"bbox": [1, 1, 9, 9]}, *({} if value is None else {"segmentation": value} for value in bad.values())]
    path = write(tmp_path / "c.json", *rows)
    listed = read(slide, path)
    assert len(listed.objects) == 1 and len(listed.problems) == len(bad)
    for number, (text, line) in enumerate(zip(bad, listed.problems, strict=True), 1):
        assert line.startswith(f"{path}: annotation {number}: ") and text in line


def test_a_file_of_outlines_alone_is_coco(tmp_path, slide):
    path = write(tmp_path / "c.json", {"segmentation": [[10, 10, 60, 10, 60, 60]]}, width=None, height=None)
    assert find_object_sources(slide.parent, path)[0]
    path = write(tmp_path / "d.json", {"bbox": [1, 2, 3]})
    with pytest.raises(DataError, match=r"d\.json: annotation 0: bbox \[1, 2, 3\]"):
        find_object_sources(slide.parent, path)
