import csv
import importlib.util
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import shapely
import tifffile
from PIL import Image
from shapely.geometry import mapping

from pathzoo.errors import DataError
from pathzoo.wsi.annotated_tiles import AMBIGUOUS, OUTSIDE, AnnotatedSlide, cut_annotated_tiles, label_tiles
from pathzoo.wsi.readers.base import Level
from pathzoo.wsi.tiling import tile_grid

_TOOL = Path(__file__).parents[2] / "tools" / "dataset_converters" / "annotations_to_tiles.py"
_spec = importlib.util.spec_from_file_location("annotations_to_tiles", _TOOL)
tool = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tool)


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


@pytest.fixture
def lab(tmp_path):
    """Two slides of 0.5 microns: `a` a tiled TIFF that says so, `b` a PNG that does not."""
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
    (tmp_path / "slides" / "readme.txt").write_text("scanned on Monday")
    geojson(
        tmp_path / "qupath" / "a.geojson",
        [
            (shapely.box(0, 0, 200, 200), "benign"),
            (shapely.box(200, 0, 400, 250), "malignant"),
            (shapely.box(450, 300, 480, 330), "malignant"),
            (shapely.box(0, 300, 100, 400), "Necrosis"),
            (shapely.box(0, 300, 100, 400), None),
        ],
    )
    geojson(tmp_path / "qupath" / "b.geojson", [(shapely.box(100, 100, 640, 480), "malignant")])
    (tmp_path / "mpp.csv").write_text("slide,mpp\nb.png,0.5\n")
    (tmp_path / "patients.csv").write_text("slide,patient\na,p1\nb,p2\n")
    return tmp_path


def run(lab, *more, tile="100", mpp="0.5"):
    folders = ["--slides", lab / "slides", "--annotations", lab / "qupath", "--out", lab / "out"]
    return tool.main([*map(str, folders), "--tile", tile, "--mpp", mpp, "--mpp-csv", str(lab / "mpp.csv"), *more])


def table(lab):
    with (lab / "out" / "tiles.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_tiles_labels_and_pixels(lab, capsys):
    assert run(lab, "--classes", "benign", "malignant", "--patients", str(lab / "patients.csv")) == 0
    rows = table(lab)
    assert list(rows[0]) == ["path", "label", "patient", "slide", "mpp", "x", "y"]
    of_a = {(int(r["x"]), int(r["y"])): r["label"] for r in rows if r["slide"] == "a"}
    expected = {(x, y): "benign" for x in (0, 100) for y in (0, 100)}
    expected |= {(x, y): "malignant" for x in (200, 300) for y in (0, 100, 200)}
    assert of_a == expected  # (200, 200) and (300, 200) are half covered
    of_b = {(int(r["x"]), int(r["y"])) for r in rows if r["slide"] == "b"}
    assert of_b == {(x, y) for x in range(100, 600, 100) for y in range(100, 500, 100)}  # edge tiles: 0.4 x 0.8
    assert {(r["slide"], r["patient"], float(r["mpp"])) for r in rows} == {("a", "p1", 0.5), ("b", "p2", 0.5)}
    originals = {"a": picture(seed=1), "b": np.pad(picture(seed=2), ((0, 20), (0, 60), (0, 0)), constant_values=255)}
    for r in rows:
        x, y = int(r["x"]), int(r["y"])
        pixels = np.asarray(Image.open(lab / "out" / r["path"]))
        assert np.array_equal(pixels, originals[r["slide"]][y : y + 100, x : x + 100])
    assert len(list((lab / "out").rglob("*.png"))) == len(rows)
    printed = capsys.readouterr()
    assert "30 tiles from 2 slides" in printed.out and "benign: 4" in printed.out and "malignant: 26" in printed.out
    assert "class 'Necrosis': 1" in printed.out and "class '(no class)': 1" in printed.out
    assert "ambiguous: 5" in printed.out  # the small box on a, and four edge tiles of b
    assert "warning" not in printed.out
    assert "c.png: no annotations" in printed.err


def test_unknown_patients_are_empty_and_warned_about(lab, capsys):
    (lab / "patients.csv").write_text("slide,patient\na.tif,p1\nb,\n")
    assert run(lab, "--patients", str(lab / "patients.csv")) == 0
    assert {(r["slide"], r["patient"]) for r in table(lab)} == {("a", "p1"), ("b", "")}
    assert "patient unknown for 1 slides (b)" in capsys.readouterr().out
    assert {r["label"] for r in table(lab)} == {"benign", "malignant", "Necrosis"}  # no --classes: all that occur


def test_coarser_tiles_and_overlap(lab):
    assert run(lab, "--classes", "malignant", "--overlap", "0.5", "--min-cover", "1", tile="50", mpp="1.0") == 0
    of_b = {(int(r["x"]), int(r["y"])) for r in table(lab) if r["slide"] == "b"}
    assert of_b == {(x, y) for x in range(100, 541, 50) for y in range(100, 381, 50)}
    assert Image.open(lab / "out" / table(lab)[0]["path"]).size == (50, 50)


def test_one_tile_around_each_object(lab, capsys):
    geojson(
        lab / "qupath" / "a.geojson",
        [
            (shapely.Point(200, 150).buffer(31), "benign"),  # its box is 169..231, 119..181
            (shapely.box(300, 200, 341, 241), "malignant"),  # the middle lies at 320.5, 220.5
            (shapely.box(10, 300, 30, 320), "malignant"),  # 30 of its tile's 100 columns lie left of the slide
            (shapely.box(290, 190, 351, 251), "malignant"),  # in the place of the second
            (shapely.box(500, 100, 620, 110), "benign"),  # longer than a tile
            (shapely.box(400, 400, 420, 420), "benign"),
            (shapely.box(405, 405, 415, 415), "malignant"),  # of another class in the same place
            (shapely.box(0, 0, 9, 9), "Necrosis"),
        ],
    )
    (lab / "qupath" / "b.geojson").unlink()
    assert run(lab, "--around-objects", "--classes", "benign", "malignant") == 0
    found = {(int(row["x"]), int(row["y"])): row["label"] for row in table(lab)}
    assert found == {(150, 100): "benign", (271, 171): "malignant", (-30, 260): "malignant", (510, 55): "benign"}
    whole = np.pad(picture(seed=1), ((0, 0), (30, 0), (0, 0)), constant_values=255)
    for row in table(lab):
        x, y = int(row["x"]), int(row["y"])
        assert np.array_equal(np.asarray(Image.open(lab / "out" / row["path"])), whole[y : y + 100, x + 30 : x + 130])
    printed = capsys.readouterr().out
    for line in ("ambiguous: 1", "one tile for both: 2", "they show the middle: 1", "'Necrosis': 1"):
        assert line in printed


def test_tiles_around_objects_do_not_overlap_by_choice(lab, capsys):
    assert_refused(lab, capsys, "leave --overlap out", "--around-objects", "--overlap", "0.5")
    assert_refused(lab, capsys, "there is no area of class Tumor", "--around-objects", "--classes", "Tumor")


def test_labels_against_a_count_of_pixels():
    rng = np.random.default_rng(5)
    boxes = [shapely.box(x, y, x + w, y + h) for x, y, w, h in rng.integers(5, 90, (9, 4))]
    areas = [(box, str(rng.choice(["a", "b", "c"]))) for box in boxes]
    grid = tile_grid((0, 0, 170, 180), (20, 20), 1.0, 0.25)
    labels = label_tiles(grid, areas, ["a", "b"], 0.4)
    y, x = np.mgrid[:220, :220]
    drawn = {name: np.zeros((220, 220), bool) for name in "ab"}
    for box, name in areas:
        if name in drawn:
            x0, y0, x1, y1 = box.bounds
            drawn[name] |= (x >= x0) & (x < x1) & (y >= y0) & (y < y1)
    for (left, top), label in zip(grid.corners, labels, strict=True):
        cover = [drawn[name][top : top + 20, left : left + 20].mean() for name in "ab"]
        enough = [i for i, part in enumerate(cover) if part >= 0.4]
        expected = enough[0] if len(enough) == 1 else AMBIGUOUS if max(cover) > 0 else OUTSIDE
        assert label == expected
    assert Counter(labels.tolist()).keys() >= {OUTSIDE, AMBIGUOUS, 0, 1}


def test_holes_of_annotations_are_not_covered():
    grid = tile_grid((0, 0, 30, 30), (10, 10), 1.0)
    ring = shapely.box(0, 0, 30, 30) - shapely.box(10, 10, 20, 20)
    assert label_tiles(grid, [(ring, "a")], ["a"], 0.5).tolist() == [0, 0, 0, 0, OUTSIDE, 0, 0, 0, 0]


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


def test_annotations_count_from_the_bounds_and_tiles_from_the_slide(lab, monkeypatch):
    monkeypatch.setattr("pathzoo.wsi.slide.open_reader", lambda path, name: BoundedReader(path))
    sources = [AnnotatedSlide(lab / "slides" / "a.tif", lab / "qupath" / "a.geojson")]
    cut_annotated_tiles(sources, lab / "out", tile=100, mpp=0.5, classes=["benign"])
    assert {(int(r["x"]), int(r["y"])) for r in table(lab)} == {(x, y) for x in (200, 300) for y in (100, 200)}
    for r in table(lab):
        pixel = np.asarray(Image.open(lab / "out" / r["path"]))[0, 0]
        assert pixel.tolist() == [int(r["x"]) // 4, int(r["y"]) // 4, 0]


def test_the_folder_of_annotations_may_be_the_folder_of_slides(lab):
    for name in ("a", "b"):
        (lab / "qupath" / f"{name}.geojson").rename(lab / "slides" / f"{name}.geojson")
    command = ["--slides", str(lab / "slides"), "--annotations", str(lab / "slides"), "--out", str(lab / "out")]
    assert tool.main([*command, "--tile", "100", "--mpp", "0.5", "--mpp-csv", str(lab / "mpp.csv")]) == 0


@pytest.mark.parametrize("ending", ["", ".tif"])
def test_ids_with_a_dot_are_told_apart(lab, ending):
    (lab / "slides" / "a.tif").rename(lab / "slides" / "S19.1234.tif")
    (lab / "qupath" / "a.geojson").rename(lab / "qupath" / "S19.1234.geojson")
    shutil.copy(lab / "slides" / "S19.1234.tif", lab / "slides" / "S19.1235.tif")
    shutil.copy(lab / "qupath" / "S19.1234.geojson", lab / "qupath" / "S19.1235.geojson")
    (lab / "patients.csv").write_text(f"slide,patient\nS19.1234{ending},p1\nS19.1235{ending},p2\nb,p3\n")
    assert run(lab, "--patients", str(lab / "patients.csv")) == 0
    found = {(row["slide"], row["patient"], row["path"].split("/")[0]) for row in table(lab)}
    assert found == {("S19.1234", "p1", "S19.1234"), ("S19.1235", "p2", "S19.1235"), ("b", "p3", "b")}
    sources, _ = tool.find_sources(lab / "slides", lab / "qupath", lab / "patients.csv", lab / "mpp.csv")
    assert [source.mpp for source in sources] == [None, None, 0.5]


def test_slides_without_an_ending_keep_what_stands_after_the_dot(lab):
    for name in ("S19.1234", "S19.1235"):
        shutil.copy(lab / "slides" / "a.tif", lab / "slides" / name)
        shutil.copy(lab / "qupath" / "a.geojson", lab / "qupath" / f"{name}.geojson")
    assert run(lab) == 0
    assert {row["slide"] for row in table(lab)} == {"a", "b", "S19.1234", "S19.1235"}


def test_slides_from_a_table(lab):
    (lab / "list.csv").write_text("slide\nslides/a.tif\n")
    sources, without = tool.find_sources(lab / "list.csv", lab / "qupath")
    assert [s.slide for s in sources] == [lab / "slides" / "a.tif"] and without == []


def assert_refused(lab, capsys, message, *more, **options):
    before = sorted(lab.rglob("*"))
    assert run(lab, *more, **options) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and message in error
    assert sorted(lab.rglob("*")) == before


def test_bad_input_is_one_line_and_nothing_is_written(lab, capsys):
    assert_refused(lab, capsys, "coarser than the 0.25", mpp="0.25")
    assert_refused(lab, capsys, "no tile was cut", "--classes", "Tumor")
    assert_refused(lab, capsys, "min-cover is 0.0", "--min-cover", "0")
    assert_refused(lab, capsys, "overlap is 1.0", "--overlap", "1")
    assert_refused(lab, capsys, "none.csv: no such file", "--patients", str(lab / "none.csv"))
    (lab / "patients.csv").write_text("slide,name\na,p1\n")
    assert_refused(lab, capsys, "has no column 'patient'; it has slide, name", "--patients", str(lab / "patients.csv"))
    (lab / "patients.csv").write_text("slide,patient\na,p1\na.tif,p2\n")
    assert_refused(lab, capsys, "slide a.tif has patient 'p2', and a 'p1'", "--patients", str(lab / "patients.csv"))
    (lab / "patients.csv").write_text("slide,patient\na,p1\na,p2\n")
    assert_refused(lab, capsys, "line 3: slide a has patient 'p2' and 'p1'", "--patients", str(lab / "patients.csv"))
    (lab / "mpp.csv").write_text("slide,mpp\nb,half\n")
    assert_refused(lab, capsys, "slide b.png has mpp 'half'")
    (lab / "mpp.csv").write_text("slide,mpp\n")
    assert_refused(lab, capsys, "b.png: states no resolution")
    (lab / "qupath" / "b.geojson").write_text("{")
    assert_refused(lab, capsys, "b.geojson: not GeoJSON")
    (lab / "out").mkdir()
    (lab / "qupath" / "b.geojson").unlink()
    assert_refused(lab, capsys, "out: exists already; remove it or choose another output folder")
    (lab / "slides" / "a.png").touch()
    assert_refused(lab, capsys, "two slides are called 'a'")
    with pytest.raises(DataError, match="no such folder of annotations"):
        tool.find_sources(lab / "slides", lab / "nowhere")


def test_a_damaged_slide_is_named(lab, capsys):
    (lab / "slides" / "b.png").write_bytes(b"damaged")
    assert_refused(lab, capsys, "b.png: damaged")


@pytest.mark.real
def test_real_slide(real_data, tmp_path):
    geojson(tmp_path / "q" / "cmu_small_region.geojson", [(shapely.box(800, 800, 1400, 1500), "epidermis")])
    (tmp_path / "s.csv").write_text(f"slide\n{real_data / 'slides' / 'cmu_small_region.svs'}\n")
    command = ["--slides", str(tmp_path / "s.csv"), "--annotations", str(tmp_path / "q"), "--out", str(tmp_path / "o")]
    assert tool.main([*command, "--tile", "224", "--mpp", "0.5"]) == 0
    rows = list(csv.DictReader((tmp_path / "o" / "tiles.csv").open()))
    assert {(row["x"], row["y"]) for row in rows} == {(x, y) for x in ("896", "1120") for y in ("896", "1120", "1344")}
    assert {row["mpp"] for row in rows} == {"0.499"}
