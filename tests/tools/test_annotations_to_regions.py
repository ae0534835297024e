"""Annotated slides to regions with masks: every pixel, and every way of cutting."""

import json

import numpy as np
import pytest
import shapely
from annotated_lab import A_MASK, B_MASK, CLASSES, geojson, picture, read, run, table, write_annotated_lab
from dataset_converters import annotations_to_regions as tool
from PIL import Image

from pathzoo.wsi import annotated_regions
from pathzoo.wsi.annotated_regions import cut_annotated_regions
from pathzoo.wsi.annotation_sources import AnnotatedSlide
from pathzoo.wsi.geojson import annotation, write_features
from pathzoo.wsi.outlines import Outliner
from pathzoo.wsi.readers.base import Level
from pathzoo.wsi.region_areas import AreaRules


@pytest.fixture
def lab(tmp_path):
    return write_annotated_lab(tmp_path)


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
