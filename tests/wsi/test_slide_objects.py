"""Objects of a slide from every kind of file, and what is said of those that cannot be used."""

import json

import cv2
import numpy as np
import pytest
import shapely
from annotated_lab import geojson
from PIL import Image

from pathzoo.errors import DataError
from pathzoo.wsi.annotation_sources import AnnotatedSlide
from pathzoo.wsi.slide import Slide
from pathzoo.wsi.slide_objects import find_object_sources, read_objects

CLASSES = ("glomerulus", "vessel")


@pytest.fixture
def slide(tmp_path):
    path = tmp_path / "slides" / "a.png"
    path.parent.mkdir()
    Image.fromarray(np.full((300, 400, 3), 200, np.uint8)).save(path)
    return path


def read(slide, annotations, classes=CLASSES, **options):
    with Slide(slide) as opened:
        return read_objects(AnnotatedSlide(slide, annotations), opened, classes, **options)


def write_coco(path, boxes, names=CLASSES, file="a.png", size=(400, 300), **more):
    images = [{"id": 7, "file_name": f"somewhere/{file}", "width": size[0], "height": size[1]}]
    rows = [{"id": n, "image_id": 7, "category_id": c, "bbox": box, **more} for n, (c, box) in enumerate(boxes)]
    categories = [{"id": n, "name": name} for n, name in enumerate(names)]
    path.write_text(json.dumps({"images": images, "annotations": rows, "categories": categories}))
    return path


def _region(box):
    x0, y0, x1, y1 = box
    corners = "".join(f'<Vertex X="{x}" Y="{y}"/>' for x, y in ((x0, y0), (x1, y0), (x1, y1), (x0, y1)))
    return f'<Region Type="0"><Vertices>{corners}</Vertices></Region>'


def test_a_mask_a_coco_file_and_geojson_give_the_same_objects(tmp_path, slide):
    boxes = [("glomerulus", (20, 30, 70, 90)), ("glomerulus", (200, 100, 260, 130)), ("vessel", (300, 10, 340, 60))]
    (tmp_path / "drawn").mkdir()
    geojson(tmp_path / "drawn" / "a.geojson", [(shapely.box(*box), name) for name, box in boxes])
    mask = np.zeros((300, 400), np.uint8)
    for name, (x0, y0, x1, y1) in boxes:
        mask[y0:y1, x0:x1] = CLASSES.index(name) + 1
    Image.fromarray(mask).save(tmp_path / "drawn" / "mask.png")
    small = cv2.resize(mask, (200, 150), interpolation=cv2.INTER_NEAREST)
    Image.fromarray(small).save(tmp_path / "drawn" / "small.png")
    rows = [(CLASSES.index(name), [x0, y0, x1 - x0, y1 - y0]) for name, (x0, y0, x1, y1) in boxes]
    coco = write_coco(tmp_path / "drawn" / "a.json", rows)
    layers = "".join(f'<Annotation Name="{name}"><Regions>{_region(box)}</Regions></Annotation>' for name, box in boxes)
    (tmp_path / "drawn" / "a.xml").write_text(f"<Annotations>{layers}</Annotations>")
    for file in ("a.geojson", "mask.png", "small.png", "a.xml", coco.name):
        listed = read(slide, tmp_path / "drawn" / file)
        assert [(one.name, one.box, one.outline.area) for one in listed.objects] == [
            (name, box, (box[2] - box[0]) * (box[3] - box[1])) for name, box in boxes
        ]
        assert not listed.problems and [one.id for one in listed.objects] == ["a:1", "a:2", "a:3"]


def test_parts_of_a_mask_are_8_connected_and_have_opencvs_boxes_and_areas(tmp_path, slide):
    noise = cv2.GaussianBlur(np.random.default_rng(4).standard_normal((300, 400)), (0, 0), 4)
    mask = (noise > 0.08).astype(np.uint8)
    mask[0:4, 0:4], mask[4:8, 4:8] = 1, 1  # touch at a corner only
    Image.fromarray(mask * 255).save(tmp_path / "a.png")
    n, _, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    expected = sorted((x, y, x + w, y + h, area) for x, y, w, h, area in stats[1:].tolist() if area >= 10)
    listed = read(slide, tmp_path / "a.png", ("glomerulus",), min_pixels=10)
    assert sorted((*one.box, one.outline.area) for one in listed.objects) == expected and n > 20


BAD = [
    (0, [10, 10, 50, 50]),
    (0, [380, 10, 50, 50]),
    (0, [500, 10, 50, 50]),
    (0, [10, 10, 0, 50]),
    (5, [10, 10, 50, 50]),
    (0, [10, float("inf"), 5, 5]),
    (0, [100, 299.6, 50, 0.9]),
]


def test_bad_boxes_are_listed_and_cut_or_left_out(tmp_path, slide):
    coco = write_coco(tmp_path / "a.json", BAD)
    listed = read(slide, coco)
    assert [one.box for one in listed.objects] == [(10, 10, 60, 60), (380, 10, 400, 60)]
    said = ("leaves the slide of 400 x 300 px", "lies outside of", "has no area", "category 5", "finite", "has no area")
    assert len(listed.problems) == len(said)
    for line, text in zip(listed.problems, said, strict=True):
        assert text in line and line.startswith(f"{coco}: annotation ")
    assert [one.box for one in read(slide, coco, clip=False).objects] == [(10, 10, 60, 60)]
    crowd = read(slide, write_coco(tmp_path / "b.json", BAD[:1], iscrowd=1))
    assert not crowd.objects and "iscrowd" in crowd.problems[0]


def test_other_classes_are_named_or_left_out_by_choice(tmp_path, slide):
    areas = [(shapely.box(0, 0, 50, 50), name) for name in ("Glomerulos", "Tissue", None, "glomerulus")]
    geojson(tmp_path / "drawn" / "a.geojson", areas)
    drawn = tmp_path / "drawn" / "a.geojson"
    listed = read(slide, drawn, leave_out=("Tissue",))
    assert listed.left_out == {"Tissue": 1} and len(listed.objects) == 1
    assert "did you mean 'glomerulus'?" in listed.problems[0] and listed.problems[1].endswith("has no class")
    assert read(slide, drawn, leave_out=("Tissue", "", "Glomerulos")).problems == []


def test_an_edge_that_a_hand_overdrew_is_cut_without_a_word(tmp_path, slide):
    listed = read(slide, write_coco(tmp_path / "a.json", [(0, [-0.8, 10, 50, 50])]))
    assert listed.problems == [] and listed.objects[0].box == (0, 10, 49.2, 60)


def test_what_does_not_belong_to_the_slide_is_refused(tmp_path, slide):
    with pytest.raises(DataError, match=r"stated as 800 x 600 px, a\.png has 400 x 300"):
        read(slide, write_coco(tmp_path / "a.json", [], size=(800, 600)))
    Image.fromarray(np.zeros((300, 300), np.uint8)).save(tmp_path / "m.png")
    with pytest.raises(DataError, match=r"mask of 300 x 300 px does not fit a\.png of 400 x 300"):
        read(slide, tmp_path / "m.png")
    Image.fromarray(np.full((300, 400), 9, np.uint8)).save(tmp_path / "m.png")
    with pytest.raises(DataError, match="holds the value 9, but there are 2 classes"):
        read(slide, tmp_path / "m.png")
    Image.fromarray(np.zeros((300, 400, 3), np.uint8)).save(tmp_path / "m.png")
    with pytest.raises(DataError, match="mode RGB; a mask has one"):
        read(slide, tmp_path / "m.png")
    (tmp_path / "m.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"m\.png: cannot be read as a mask"):
        read(slide, tmp_path / "m.png")


def test_slides_find_their_annotations(tmp_path, slide):
    Image.open(slide).save(slide.with_name("b.png"))
    sources, without = find_object_sources(slide.parent, write_coco(tmp_path / "whole.json", BAD[:1]))
    assert [s.slide.name for s in sources] == ["a.png"] and [path.name for path in without] == ["b.png"]
    Image.fromarray(np.zeros((300, 400), np.uint8)).save(tmp_path / "b.png")
    sources, without = find_object_sources(slide.parent, tmp_path)
    assert [s.annotations.name for s in sources] == ["b.png"] and [path.name for path in without] == ["a.png"]
    assert find_object_sources(slide.parent, slide.parent)[0] == []  # a picture is no mask of itself


@pytest.mark.parametrize("text", ["{", "[]", '{"images": [{}], "annotations": [], "categories": []}'])
def test_a_file_that_is_no_coco_is_refused(tmp_path, slide, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DataError, match=r"x\.json: not a COCO file"):
        find_object_sources(slide.parent, tmp_path / "x.json")
    with pytest.raises(DataError, match="no such file or folder of annotations"):
        find_object_sources(slide.parent, tmp_path / "y.json")
