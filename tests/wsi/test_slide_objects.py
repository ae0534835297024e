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


def test_masks_beyond_pillows_limit_for_pictures_are_read(tmp_path, slide, monkeypatch):
    mask = np.zeros((300, 400), np.uint8)
    mask[30:90, 20:70] = 1
    for number, mode in enumerate("L1P"):
        picture = Image.fromarray(mask.astype(bool) if mode == "1" else mask)
        if mode == "P":
            picture.putpalette([0, 0, 0, 200, 0, 0])
        assert picture.mode == mode
        picture.save(tmp_path / f"{number}.png")
    with Slide(slide) as opened:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
        for number in range(3):
            source = AnnotatedSlide(slide, tmp_path / f"{number}.png")
            assert [one.box for one in read_objects(source, opened, ("glomerulus",)).objects] == [(20, 30, 70, 90)]


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


def test_what_lies_outside_of_the_slides_bounds_is_listed_and_cut_there(tmp_path, slide):
    boxes = [(100, 90, 150, 120), (30, 60, 90, 100), (0, 0, 40, 30)]  # inside, partly outside, outside
    coco = write_coco(tmp_path / "a.json", [(0, [x0, y0, x1 - x0, y1 - y0]) for x0, y0, x1, y1 in boxes])
    moved = [(shapely.box(x0 - 50, y0 - 40, x1 - 50, y1 - 40), "glomerulus") for x0, y0, x1, y1 in boxes]
    geojson(tmp_path / "drawn" / "a.geojson", moved)  # QuPath counts from the bounds
    for file in (coco, tmp_path / "drawn" / "a.geojson"):
        with Slide(slide) as opened:
            opened.bounds = (50, 40, 300, 200)
            source = AnnotatedSlide(slide, file)
            listed, dropped = (read_objects(source, opened, CLASSES, clip=clip) for clip in (True, False))
        assert [one.box for one in listed.objects] == [boxes[0], (50, 60, 90, 100)]
        assert [one.box for one in dropped.objects] == [boxes[0]]
        leaves, outside = listed.problems
        assert "leaves the slide's bounds of 300 x 200 px at (50, 40)" in leaves and "lies outside of" in outside


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


def test_geojson_without_area_is_listed_by_its_place_in_the_file(tmp_path, slide):
    drawn = [
        (shapely.Polygon([(10, 10), (10, 50), (10, 90)]), "glomerulus"),
        (shapely.box(0, 0, 50, 50), "glomerulus"),
        (shapely.Point(5, 5), "glomerulus"),
        (shapely.LineString([(0, 0), (50, 0)]), None),  # a ruler: neither area nor object
        (shapely.box(380, 10, 450, 60), "glomerulus"),
    ]
    path = tmp_path / "drawn" / "a.geojson"
    geojson(path, drawn)
    listed = read(slide, path)
    assert len(listed.objects) == 2
    starts = [line.split(": ")[1:] for line in listed.problems]
    assert [start[:2] for start in starts[:2]] == [["object 1", "has no area"], ["object 3", "has no area"]]
    assert starts[2][0] == "object 5" and "leaves the slide" in starts[2][1]


def test_regions_of_imagescope_without_area_are_listed_by_layer_and_region(tmp_path, slide):
    flat, good = _region((10, 10, 10, 60)), _region((20, 20, 60, 60))
    ruler = _region((0, 0, 50, 0)).replace('Type="0"', 'Type="4"')
    point = '<Region Type="0"><Vertices><Vertex X="1" Y="1"/></Vertices></Region>'
    hole = good.replace('Type="0"', 'Type="0" NegativeROA="1"')
    layers = [ruler + flat + good + point, hole + good]
    body = "".join(f'<Annotation Name="glomerulus"><Regions>{one}</Regions></Annotation>' for one in layers)
    (tmp_path / "a.xml").write_text(f"<Annotations>{body}</Annotations>")
    listed = read(slide, tmp_path / "a.xml")
    assert [one.box for one in listed.objects] == [(20, 20, 60, 60)]
    places = ("layer 1, region 2", "layer 1, region 4", "layer 2, region 2")
    assert listed.problems == [f"{tmp_path / 'a.xml'}: {place}: has no area" for place in places]


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
