"""Annotated slides to regions with masks: every pixel, every way of cutting, and what is refused."""

import csv
import json

import numpy as np
import pytest
import shapely
import tifffile
from dataset_converters import annotations_to_regions as tool
from PIL import Image
from shapely.geometry import mapping

from pathzoo.wsi import annotated_regions
from pathzoo.wsi.annotated_regions import cut_annotated_regions
from pathzoo.wsi.annotation_sources import AnnotatedSlide
from pathzoo.wsi.geojson import annotation, write_features
from pathzoo.wsi.outlines import Outliner
from pathzoo.wsi.readers.base import Level
from pathzoo.wsi.region_areas import AreaRules, joined_boxes

CLASSES = ["normal", "benign", "malignant"]


def geojson(path, areas):
    features = [
        {
            "type": "Feature",
            "geometry": mapping(area),
            "properties": {"objectType": "annotation", **({"classification": {"name": name}} if name else {})},
        }
        for area, name in areas
    ]
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))


def picture(width=640, height=480, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def box_mask(boxes, width=640, height=480, background=255):
    mask = np.full((height, width), background, np.uint8)
    for (x0, y0, x1, y1), value in boxes:
        mask[y0:y1, x0:x1] = value
    return mask


@pytest.fixture
def lab(tmp_path):
    """Slides of 0.5 microns: `a` a tiled TIFF that says so, `b` a PNG that does not, `c` nobody has annotated."""
    (tmp_path / "slides").mkdir()
    tifffile.imwrite(
        tmp_path / "slides" / "a.tif",
        picture(seed=1),
        tile=(128, 128),
        photometric="rgb",
        resolution=(20000, 20000),
        resolutionunit="CENTIMETER",
    )
    Image.fromarray(picture(seed=2)).save(tmp_path / "slides" / "b.png")
    Image.fromarray(picture(seed=3)).save(tmp_path / "slides" / "c.png")
    geojson(
        tmp_path / "drawn" / "a.geojson",
        [
            (shapely.box(250, 100, 400, 250), "malignant"),
            (shapely.box(100, 100, 300, 200), "benign"),
            (shapely.box(500, 400, 600, 450), "normal"),
            (shapely.box(500, 400, 510, 410), "Ignore*"),
            (shapely.box(0, 300, 100, 400), "Necrosis"),
            (shapely.box(0, 300, 100, 400), None),
            (shapely.box(80, 80, 440, 280), "Region"),
        ],
    )
    (tmp_path / "drawn" / "b.xml").write_text(
        '<Annotations><Annotation Name="malignant"><Regions><Region Type="0"><Vertices><Vertex X="10" Y="20"/>'
        '<Vertex X="50" Y="20"/><Vertex X="50" Y="60"/><Vertex X="10" Y="60"/></Vertices></Region>'
        '<Region Type="1" NegativeROA="1"><Vertices><Vertex X="20" Y="30"/><Vertex X="25" Y="35"/></Vertices></Region>'
        "</Regions></Annotation></Annotations>"
    )
    (tmp_path / "mpp.csv").write_text("slide,mpp\nb.png,0.5\nc.png,0.5\n")
    (tmp_path / "patients.csv").write_text("slide,patient\na,p1\nb,p2\nc,p3\n")
    return tmp_path


def run(lab, *more, out="out", classes=CLASSES):
    folders = ["--slides", lab / "slides", "--annotations", lab / "drawn", "--out", lab / out]
    tables = ["--mpp-csv", lab / "mpp.csv", "--patients", lab / "patients.csv"]
    given = ["--classes", *classes] if classes else []
    return tool.main([*map(str, [*folders, *tables, *more]), *given])


def table(lab, out="out"):
    with (lab / out / "regions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def read(lab, name, out="out"):
    with Image.open(lab / out / name) as image:
        return np.asarray(image)


A_MASK = box_mask([((100, 100, 300, 200), 1), ((250, 100, 400, 250), 2), ((500, 400, 600, 450), 0)])
A_MASK[400:410, 500:510] = 255
B_MASK = box_mask([((10, 20, 50, 60), 2), ((20, 30, 25, 35), 255)])


def test_whole_slides_and_what_is_told_of_them(lab, capsys):
    assert run(lab) == 0
    whole = {"mpp": "0.5", "x": "0", "y": "0"}
    assert table(lab) == [
        {"image": "images/a.png", "mask": "masks/a.png", "patient": "p1", "slide": "a", **whole},
        {"image": "images/b.png", "mask": "masks/b.png", "patient": "p2", "slide": "b", **whole},
    ]
    for name, mask, seed in (("a", A_MASK, 1), ("b", B_MASK, 2)):
        np.testing.assert_array_equal(read(lab, f"images/{name}.png"), picture(seed=seed))
        np.testing.assert_array_equal(read(lab, f"masks/{name}.png"), mask)
    described = json.loads((lab / "out" / "classes.json").read_text())
    assert described["format"] == 1 and described["classes"] == CLASSES and described["ignore_index"] == 255
    with Image.open(lab / "out" / "masks" / "a.png") as image:
        assert image.convert("RGB").getpixel((260, 120)) == tuple(described["colors"][2])
    assert sorted(path.name for path in (lab / "out").iterdir()) == ["classes.json", "images", "masks", "regions.csv"]
    told = capsys.readouterr()
    assert "c.png: no annotations" in told.err
    assert "2 regions from 2 slides" in told.out
    assert "overlapping areas, malignant over benign: 5000 px" in told.out
    assert "class 'Necrosis': 1" in told.out and "class '(no class)': 1" in told.out
    assert f"malignant: {(A_MASK == 2).sum() + (B_MASK == 2).sum()} px" in told.out
    assert "warning" not in told.out


def test_the_later_class_wins_whatever_the_order_in_the_file(lab):
    assert run(lab, classes=["normal", "malignant", "benign"]) == 0
    expected = box_mask([((250, 100, 400, 250), 1), ((100, 100, 300, 200), 2), ((500, 400, 600, 450), 0)])
    expected[400:410, 500:510] = 255
    np.testing.assert_array_equal(read(lab, "masks/a.png"), expected)


def test_background_unlabelled_slides_and_renamed_classes(lab, capsys):
    more = ("--background", "normal", "--unlabelled", "--rename", "Necrosis=malignant")
    assert run(lab, *more) == 0
    expected = A_MASK.copy()
    expected[expected == 255] = 0
    expected[400:410, 500:510] = 255
    expected[300:400, :100] = 2
    np.testing.assert_array_equal(read(lab, "masks/a.png"), expected)
    assert (read(lab, "masks/b.png")[30:35, 20:25] == 0).all()
    assert [(row["image"], row["mask"]) for row in table(lab)][2] == ("images/c.png", "")
    np.testing.assert_array_equal(read(lab, "images/c.png"), picture(seed=3))
    assert "without a label: 1" in capsys.readouterr().out


def test_regions_are_cut_where_they_were_drawn(lab, capsys):
    diamond = shapely.Polygon([(500.3, 100), (550, 150.3), (500.3, 200), (450, 150.3)])
    drawn = json.loads((lab / "drawn" / "a.geojson").read_text())
    areas = [
        (shapely.geometry.shape(f["geometry"]), f["properties"].get("classification", {}).get("name"))
        for f in drawn["features"]
    ]
    geojson(lab / "drawn" / "a.geojson", [*areas, (diamond, "Region"), (shapely.box(600, 300, 700, 500), "Region")])
    assert run(lab, "--cut", "regions", "--background", "normal") == 0
    rows = table(lab)
    assert [(row["x"], row["y"]) for row in rows] == [("80", "80"), ("450", "100"), ("600", "300")]
    assert rows[0]["image"] == "images/a_x80_y80.png" and rows[0]["slide"] == "a"
    np.testing.assert_array_equal(read(lab, rows[0]["image"]), picture(seed=1)[80:280, 80:440])
    expected = np.where(A_MASK == 255, 0, A_MASK)[80:280, 80:440]
    np.testing.assert_array_equal(read(lab, rows[0]["mask"]), expected)
    outside = read(lab, rows[1]["mask"])
    y, x = np.mgrid[100:200, 450:550] + 0.5
    np.testing.assert_array_equal(outside != 255, shapely.contains_xy(diamond, x, y))
    assert read(lab, rows[2]["image"]).shape == (180, 40, 3)  # ends with the slide
    assert "nothing to cut from 1 slides: b" in capsys.readouterr().out


def test_boxes_around_annotated_areas(lab):
    assert run(lab, "--cut", "annotated", "--margin", "16") == 0
    rows = table(lab)
    assert [(row["slide"], row["x"], row["y"]) for row in rows] == [
        ("a", "84", "84"),
        ("a", "484", "384"),
        ("b", "0", "4"),
    ]
    np.testing.assert_array_equal(read(lab, rows[0]["mask"]), A_MASK[84:266, 84:416])
    np.testing.assert_array_equal(read(lab, rows[0]["image"]), picture(seed=1)[84:266, 84:416])
    np.testing.assert_array_equal(read(lab, rows[2]["mask"]), B_MASK[4:76, 0:66])


def test_boxes_are_joined_until_none_overlap():
    boxes = [shapely.box(x, y, x + 10, y + 10) for x, y in [(0, 0), (8, 8), (30, 0), (16, 2), (50, 50)]]
    assert [box.bounds for box in joined_boxes(boxes)] == [(0, 0, 26, 18), (30, 0, 40, 10), (50, 50, 60, 60)]
    assert joined_boxes([]) == []


def test_coarser_regions_take_the_area_at_their_pixels_centres(lab):
    assert run(lab, "--mpp", "0.8") == 0
    row = table(lab)[0]
    assert float(row["mpp"]) == 0.8
    assert read(lab, row["image"]).shape == (300, 400, 3)
    y, x = (np.mgrid[:300, :400] + 0.5) * 1.6
    expected = np.full((300, 400), 255)
    # 100 and 300 lie on centres: the pixel to the right of an edge is its own.
    expected[(x >= 100) & (x < 300) & (y >= 100) & (y < 200)] = 1
    expected[(x >= 250) & (x < 400) & (y >= 100) & (y < 250)] = 2
    expected[(x >= 500) & (x < 600) & (y >= 400) & (y < 450)] = 0
    expected[(x >= 500) & (x < 510) & (y >= 400) & (y < 410)] = 255
    np.testing.assert_array_equal(read(lab, row["mask"]), expected)


def test_what_is_read_and_written_in_bands_is_the_same(lab, monkeypatch):
    assert run(lab, "--mpp", "0.8", "--background", "normal") == 0
    monkeypatch.setattr(annotated_regions, "_BAND_PIXELS", 400 * 9)
    monkeypatch.setattr("pathzoo.wsi.rasterising._BAND_PIXELS", 400 * 7)
    assert run(lab, "--mpp", "0.8", "--background", "normal", out="again") == 0
    for row in table(lab):
        np.testing.assert_array_equal(read(lab, row["mask"]), read(lab, row["mask"], "again"))
        # Means are rounded, and where the mean lies in the middle either way is right.
        np.testing.assert_allclose(read(lab, row["image"]).astype(int), read(lab, row["image"], "again"), atol=1)


def test_an_image_of_unknown_resolution_is_taken_as_it_is(lab):
    (lab / "mpp.csv").write_text("slide,mpp\n")
    assert run(lab) == 0
    assert [row["mpp"] for row in table(lab)] == ["0.5", ""]


class BoundedReader:
    """A slide scanned at (200, 100) only; pixel (x, y) is (x // 4, y // 4, 0)."""

    name, mpp, levels, bounds = "fake", (0.5, 0.5), (Level(1000, 800, 1.0),), (200, 100, 400, 300)

    def __init__(self, path):
        self.path, self.properties = path, {}

    def read_region(self, level, x, y, width, height):
        rows, columns = np.mgrid[y : y + height, x : x + width]
        return np.stack([columns // 4, rows // 4, 0 * rows], axis=-1).astype(np.uint8)

    def close(self):
        pass


def test_qupath_counts_from_the_bounds_and_imagescope_does_not(lab, monkeypatch):
    monkeypatch.setattr("pathzoo.wsi.slide.open_reader", lambda path, name: BoundedReader(path))
    rules = AreaRules(("benign", "malignant"))
    for number, file in enumerate(("a.geojson", "b.xml")):
        if file == "b.xml":
            text = (lab / "drawn" / file).read_text()
            for old, new in (("10", "210"), ("50", "250"), ("20", "120"), ("60", "160"), ("30", "330"), ("35", "335")):
                text = text.replace(f'="{old}"', f'="{new}"')
            (lab / "drawn" / file).write_text(text)
        source = AnnotatedSlide(lab / "slides" / "a.tif", lab / "drawn" / file)
        cut_annotated_regions([source], lab / f"out{number}", rules)
    first, second = (read(lab, "masks/a.png", f"out{number}") for number in (0, 1))
    assert read(lab, "images/a.png", "out0")[0, 0].tolist() == [50, 25, 0]
    assert first.shape == (300, 400) and (first[100:200, 100:250] == 0).all()
    assert (second == 1).sum() == 40 * 40 and (second[20:60, 10:50] == 1).all()


@pytest.mark.parametrize("seed", range(3))
def test_a_mask_as_geojson_comes_back(tmp_path, seed):
    """Exact outlines of every class, as pathzoo writes them for QuPath."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 4, (24, 30)).astype(np.uint8)
    mask = np.kron(blocks, np.ones((5, 4), np.uint8))
    mask[rng.random(mask.shape) < 0.05] = 1
    mask[mask == 3] = 255
    (tmp_path / "slides").mkdir()
    (tmp_path / "drawn").mkdir()
    Image.fromarray(picture(120, 120)).save(tmp_path / "slides" / "r.png")
    outliner = Outliner(120, [0, 1, 2], tolerance=0, min_pixels=1)
    outliner.add(mask)
    features = [annotation(o.polygon, CLASSES[o.label], (1, 2, 3), {}) for o in outliner.finish()]
    write_features(tmp_path / "drawn" / "r.geojson", features)
    words = ["--slides", tmp_path / "slides", "--annotations", tmp_path / "drawn", "--out", tmp_path / "out"]
    assert tool.main([*map(str, words), "--classes", *CLASSES]) == 0
    np.testing.assert_array_equal(read(tmp_path, "masks/r.png"), mask)


def test_reviews_count_only_when_accepted(lab):
    geojson(
        lab / "drawn" / "a.geojson",
        [
            (shapely.box(0, 0, 20, 20), "malignant"),
            (shapely.box(0, 0, 10, 20), "Review: benign"),
            (shapely.box(0, 0, 5, 5), "Ignore"),
            (shapely.box(0, 0, 30, 30), "Review: Necrosis"),
        ],
    )
    assert run(lab) == 0
    expected = box_mask([((0, 0, 20, 20), 2), ((0, 0, 5, 5), 255)])
    np.testing.assert_array_equal(read(lab, "masks/a.png"), expected)
    assert run(lab, "--accept-reviews", out="accepted") == 0
    expected = box_mask([((0, 0, 20, 20), 2), ((0, 0, 10, 20), 1), ((0, 0, 5, 5), 255)])
    np.testing.assert_array_equal(read(lab, "masks/a.png", "accepted"), expected)


def test_classes_that_occur_where_none_are_given(lab, capsys):
    assert run(lab, "--background", "normal", classes=None) == 0
    assert "in this order: normal, Necrosis, benign, malignant" in capsys.readouterr().err


def test_areas_beside_the_slide_and_unknown_patients_are_warned_of(lab, capsys):
    geojson(lab / "drawn" / "a.geojson", [(shapely.box(0, 0, 9, 9), "benign"), (shapely.box(900, 0, 999, 9), "benign")])
    (lab / "patients.csv").write_text("slide,patient\na,p1\n")
    assert run(lab) == 0
    told = capsys.readouterr().out
    assert "warning: areas that lie wholly outside of 1 slides (a)" in told
    assert "patient unknown for 1 slides (b)" in told


def test_a_region_without_a_labelled_pixel_has_no_mask(lab, capsys):
    geojson(lab / "drawn" / "a.geojson", [(shapely.box(0, 0, 9, 9), "Necrosis")])
    assert run(lab) == 0
    assert [row["mask"] for row in table(lab)] == ["", "masks/b.png"]
    assert not (lab / "out" / "masks" / "a.png").exists()
    assert "without a label: 1" in capsys.readouterr().out


def assert_refused(lab, capsys, message, *more, **options):
    before = sorted(lab.rglob("*"))
    assert run(lab, *more, **options) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and message in error
    assert sorted(lab.rglob("*")) == before


def test_bad_input_is_one_line_and_nothing_is_written(lab, capsys, monkeypatch):
    assert_refused(lab, capsys, "coarser than the 0.25", "--mpp", "0.25")
    assert_refused(lab, capsys, "no pixel got a label", classes=["tumour", "stroma"])
    assert_refused(lab, capsys, "classes are benign: give 2 to 254", classes=["benign"])
    assert_refused(lab, capsys, "class 'benign' stands twice", classes=["benign", "benign"])
    assert_refused(lab, capsys, "class 'Region': annotations of this name", classes=["benign", "Region"])
    assert_refused(lab, capsys, "background 'norml' is no class; did you mean 'normal'", "--background", "norml")
    assert_refused(lab, capsys, "margin is -1 px", "--margin", "-1")
    assert_refused(lab, capsys, "expected OLD=NEW", "--rename", "Necrosis")
    assert_refused(lab, capsys, "'Necrosis' is renamed to 'dead', which is no class", "--rename", "Necrosis=dead")
    assert_refused(lab, capsys, "none.csv: no such file", "--patients", str(lab / "none.csv"))
    with monkeypatch.context() as patch:
        patch.setattr(annotated_regions, "MAX_PIXELS", 1000)
        assert_refused(lab, capsys, "a.tif: a region of 640 x 480 px is more than the 1000")
    geojson(lab / "drawn" / "a.geojson", [(shapely.box(0, 0, 9, s), "Region") for s in (7, 9)])
    assert_refused(lab, capsys, "two regions have their corner at (0, 0)", "--cut", "regions", "--background", "normal")
    (lab / "drawn" / "b.geojson").write_text("{}")
    assert_refused(lab, capsys, "b.png: has two files of annotations")
    (lab / "drawn" / "b.geojson").unlink()
    (lab / "drawn" / "b.xml").write_text("<!DOCTYPE a><Annotations/>")
    assert_refused(lab, capsys, "b.xml: has a document type")
    (lab / "mpp.csv").write_text("slide,mpp\n")
    assert_refused(lab, capsys, "b.png: states no resolution", "--mpp", "0.5")
    (lab / "out").mkdir()
    assert_refused(lab, capsys, "out: exists already")
    for file in (lab / "drawn").iterdir():
        file.unlink()
    assert_refused(lab, capsys, "no slide with annotations was given")
    assert_refused(lab, capsys, "no area there has a class", classes=None)
