import csv
import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image
from shapely.geometry import shape

from pathzoo import wsi
from pathzoo.errors import SlideError
from pathzoo.wsi.colors import class_colors
from pathzoo.wsi.detection import check_boxes, detect, merge_rule, rounded, to_slide
from pathzoo.wsi.job import SlideJob, TileBatch
from pathzoo.wsi.predictor import Boxes, ClassProbs, InputSpec
from pathzoo.wsi.run_options import SETTINGS
from pathzoo.wsi.slide import Slide
from pathzoo.wsi.tiling import tile_grid

COLORS = {"dark": (60, 40, 120), "red": (200, 40, 60)}


class Blobs:
    """Finds the objects of `draw`, each class by its colour; the score follows from the size that is seen."""

    name, version, digest, task, classes = "blobs", "1.0.0", "", "detection", tuple(COLORS)

    def __init__(self, tile=128, mpp=0.5):
        self.input = InputSpec((tile, tile), mpp)

    def __call__(self, tiles):
        return Boxes([self.find(tile) for tile in tiles])

    @staticmethod
    def find(tile):
        found = []
        for index, color in enumerate(COLORS.values()):
            near = np.abs(tile.astype(int) - color).max(axis=2) < 45
            stats = cv2.connectedComponentsWithStats(near.astype(np.uint8))[2][1:]
            found += [[x, y, x + w, y + h, min(1, a / 5000), index] for x, y, w, h, a in stats.tolist()]
        return np.array(found, np.float32).reshape(-1, 6)


def draw(objects, width=700, height=500):
    """Ellipses filling the boxes x0, y0, x1, y1, class on white."""
    image = np.full((height, width, 3), 245, np.uint8)
    y, x = np.mgrid[:height, :width]
    for x0, y0, x1, y1, index in objects:
        a, b = (x1 - x0) / 2, (y1 - y0) / 2
        inside = ((x + 0.5 - x0 - a) / a) ** 2 + ((y + 0.5 - y0 - b) / b) ** 2 <= 1
        image[inside] = list(COLORS.values())[index]
    return image


def tiles_of(slide, grid, mpp, damage=None):
    """The tile stream, read plainly."""
    for start in range(0, len(grid), 5):
        numbers = np.arange(start, min(start + 5, len(grid)))
        tiles = [slide.read(int(x), int(y), *grid.tile_size, mpp) for x, y in grid.corners[numbers]]
        yield TileBatch(
            numbers, np.stack(tiles), {n: (damage or {})[n] for n in numbers.tolist() if n in (damage or {})}
        )


def run(slide, folder, predictor=None, overlap=0.25, mpp=0.5, damage=None, **settings):
    predictor = predictor or Blobs()
    folder.mkdir(exist_ok=True)
    grid = tile_grid(slide.bounds, predictor.input.tile_size, mpp / slide.mpp, overlap)
    job = SlideJob(
        slide, grid, mpp, predictor, None, slide.thumbnail(1400, slide.bounds), folder, "slide.tif", settings=settings
    )
    return job, detect(job, tiles_of(slide, grid, mpp, damage))


def rows_of(folder):
    with (folder / "detections.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def boxes_in(folder):
    names = list(COLORS)
    keys = ("x0", "y0", "x1", "y1")
    return sorted([*(float(r[k]) for k in keys), names.index(r["class"])] for r in rows_of(folder))


# On a seam, at corners of tiles, larger than the overlap and than a tile, on the slide's border, 2 px apart.
OBJECTS = [
    (80, 80, 120, 110, 0),
    (90, 180, 110, 220, 1),
    (200, 150, 420, 330, 0),
    (0, 300, 40, 360, 0),
    (660, 460, 700, 500, 1),
    (500, 60, 530, 90, 0),
    (532, 60, 562, 90, 0),
    (450, 350, 640, 372, 1),
]


@pytest.mark.parametrize(("tile", "overlap"), [(128, 0.25), (128, 0.5), (100, 0.3), (256, 0.1), (900, 0.0)])
def test_every_object_is_found_once(make_slide, tmp_path, tile, overlap):
    with Slide(make_slide(draw(OBJECTS))) as slide:
        _, outcome = run(slide, tmp_path / "out", Blobs(tile), overlap)
    assert boxes_in(tmp_path / "out") == sorted([float(v) for v in row] for row in OBJECTS)
    assert outcome.counts == {"dark": 5, "red": 3} and outcome.unit == "objects" and not outcome.skipped


def test_tile_pixels_become_level_0_pixels(make_slide, tmp_path):
    with Slide(make_slide(draw(OBJECTS), mpp=0.25)) as slide:
        run(slide, tmp_path / "out", mpp=0.5)
    assert np.abs(np.array(boxes_in(tmp_path / "out")) - sorted(OBJECTS)).max() <= 2


def test_files_agree_and_qupath_opens_them(make_slide, tmp_path):
    with Slide(make_slide(draw(OBJECTS))) as slide:
        run(slide, tmp_path / "out")
        run(slide, tmp_path / "again")
    for name in ("detections.csv", "prediction.geojson", "overlay.png"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    rows = rows_of(tmp_path / "out")
    features = json.loads((tmp_path / "out" / "prediction.geojson").read_text())["features"]
    scores = [float(row["score"]) for row in rows]
    assert list(rows[0]) == ["x0", "y0", "x1", "y1", "score", "class"] and scores == sorted(scores, reverse=True)
    assert len({feature["id"] for feature in features}) == len(features) == len(rows) == 8
    for row, feature in zip(rows, features, strict=True):
        properties, box = feature["properties"], [float(row[k]) for k in ("x0", "y0", "x1", "y1")]
        assert properties["objectType"] == "detection" and list(shape(feature["geometry"]).bounds) == box
        assert properties["classification"] == {"name": row["class"], "color": list(class_colors(COLORS)[row["class"]])}
        w, h = (box[2] - box[0]) * 0.5, (box[3] - box[1]) * 0.5
        expected = {"Score": float(row["score"]), "Width µm": w, "Height µm": h, "Area µm^2": w * h}
        assert properties["measurements"] == pytest.approx({**expected, "Diameter µm": (w * h) ** 0.5}, abs=1e-4)
    assert Image.open(tmp_path / "out" / "overlay.png").size[0] > 700


def test_bounds_offset_and_padding(make_slide, tmp_path):
    """What lies in the white that pads a tile is dropped; coordinates in QuPath count from the bounds."""
    boxes = np.array([[2, 2, 8, 8, 0.5, 0], [6, 6, 30, 30, 0.5, 0], [90, 90, 104, 104, 0.5, 0]], np.float32)
    placed = to_slide(boxes, np.array([10, 10]), 2.0, (20, 20, 180, 180))
    # Centres at 20, 46 and 204: the last is out; the first is cut at the bounds.
    assert placed[:, :4].tolist() == [[20, 20, 26, 26], [22, 22, 70, 70]]
    with Slide(make_slide(draw(OBJECTS))) as slide:
        slide.bounds = (70, 50, 600, 430)
        run(slide, tmp_path / "out")
    inside = [(x0, y0, x1, y1, c) for x0, y0, x1, y1, c in OBJECTS if x1 > 70 and x0 < 660]
    assert boxes_in(tmp_path / "out") == sorted([float(v) for v in row] for row in inside)
    features = json.loads((tmp_path / "out" / "prediction.geojson").read_text())["features"]
    drawn = sorted(list(shape(f["geometry"]).bounds) for f in features)
    assert drawn == sorted([x0 - 70, y0 - 50, x1 - 70, y1 - 50] for x0, y0, x1, y1, _ in inside)


def test_score_threshold_and_merging_are_settings_and_recorded(make_slide, tmp_path):
    with Slide(make_slide(draw(OBJECTS))) as slide:
        _, all_of_them = run(slide, tmp_path / "a")
        job, fewer = run(slide, tmp_path / "b", score_threshold=0.15, merge_iou=0.4, merge_ios=0.9)
    assert all_of_them.record["detection"]["score_threshold"] == 0 and sum(all_of_them.counts.values()) == 8
    assert min(float(row["score"]) for row in rows_of(tmp_path / "b")) >= 0.15 and sum(fewer.counts.values()) < 8
    record = fewer.record["detection"]
    assert record["score_threshold"] == 0.15 and record["merging"]["iou"] == 0.4 and record["merging"]["ios"] == 0.9
    assert merge_rule(job).edge == 2.0
    json.dumps(dict(fewer.record))
    with Slide(make_slide(draw(OBJECTS))) as slide:
        for name, wrong in (("score_threshold", 1.5), ("merge_iou", 0), ("merge_ios", "much")):
            with pytest.raises(SlideError, match=f"slide.tif: {name} is {wrong}"):
                run(slide, tmp_path / "c", **{name: wrong})


def test_a_model_s_own_threshold_holds_until_the_user_names_one(make_slide, tmp_path):
    model = Blobs()
    model.score_threshold = 0.15
    with Slide(make_slide(draw(OBJECTS), mpp=0.5)) as slide:
        own, asked = run(slide, tmp_path / "a", model)[1], run(slide, tmp_path / "b", model, score_threshold=0.0)[1]
        given = run(slide, tmp_path / "c", score_threshold=0.15)[1]
    assert own.record["detection"]["score_threshold"] == 0.15 and own.counts == given.counts
    assert sum(asked.counts.values()) > sum(own.counts.values())


def test_nothing_found_is_an_empty_result(make_slide, tmp_path):
    with Slide(make_slide(draw([]))) as slide:
        _, outcome = run(slide, tmp_path / "out")
    assert outcome.counts == {"dark": 0, "red": 0} and rows_of(tmp_path / "out") == []
    assert json.loads((tmp_path / "out" / "prediction.geojson").read_text())["features"] == []


def test_damaged_tiles_are_predicted_and_listed(make_slide, tmp_path):
    half, whole = np.zeros((128, 128), bool), np.ones((128, 128), bool)
    half[:, :64] = True
    objects = [(20, 40, 50, 70, 0), (80, 40, 110, 70, 0), (300, 40, 330, 70, 0)]
    with Slide(make_slide(draw(objects))) as slide:
        # No overlap: tile 0 holds the first two, tile 2 the third.
        damage = {0: (half, "corrupt"), 2: (whole, "corrupt")}
        _, outcome = run(slide, tmp_path / "out", overlap=0.0, damage=damage)
        assert boxes_in(tmp_path / "out") == [[80, 40, 110, 70, 0]]  # centred on what could be decoded
        assert [(s.x, s.y, s.reason) for s in outcome.skipped] == [(0, 0, "corrupt"), (256, 0, "corrupt")]
        with pytest.raises(SlideError, match=r"none of 24 tiles can be decoded; the first: gone"):
            run(slide, tmp_path / "none", overlap=0.0, damage=dict.fromkeys(range(24), (whole, "gone")))


GOOD = [1, 2, 30, 40, 0.5, 1]


def answer(*rows, dtype=np.float32):
    return Boxes([np.array(rows, dtype).reshape(-1, 6)])


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (ClassProbs(np.zeros((1, 2), np.float32)), TypeError, "answered ClassProbs, expected Boxes"),
        (Boxes([]), ValueError, "boxes of 0 tiles, expected 1"),
        (Boxes([[GOOD]]), TypeError, "boxes of type list"),
        (answer(GOOD, dtype=np.float64), TypeError, "boxes of type float64"),
        (Boxes([np.zeros((3, 5), np.float32)]), ValueError, r"shape \(3, 5\), expected \(n, 6\)"),
        (answer([1, 2, float("nan"), 4, 0.5, 0]), SlideError, "model blobs: boxes are not finite"),
        (answer(GOOD, [1, 2, 30, 40, float("inf"), 0]), SlideError, "not finite"),
        (answer(GOOD, [30, 2, 1, 40, 0.5, 0]), ValueError, r"box \(30, 2, 1, 40, 0.5, 0\) that has no area"),
        (answer([200, 2, 240, 40, 0.5, 0]), ValueError, "outside its tile of 128 x 128"),
        (answer([1, 2, 30, 40, 1.5, 0]), ValueError, "score"),
        (answer([1, 2, 30, 40, 0.5, 2]), ValueError, r"class \(sixth value\) that is none of 0..1"),
        (answer([1, 2, 30, 40, 0.5, 0.5]), ValueError, "class"),
    ],
)
def test_what_the_model_answers_is_checked(given, error, message):
    with pytest.raises(error, match=message):
        check_boxes(Blobs(), given, 1)


def test_a_box_that_stands_out_of_its_tile_is_clipped():
    [boxes] = check_boxes(Blobs(), answer([-3, 100, 40, 140, 0.5, 1], GOOD), 1)
    assert boxes.tolist() == [[0, 100, 40, 128, 0.5, 1], GOOD]
    assert check_boxes(Blobs(), Boxes([np.zeros((0, 6), np.float32)]), 1)[0].shape == (0, 6)


def test_every_setting_that_a_task_reads_is_known():
    for task, module in (("detection", "detection"), ("segmentation", "segmentation")):
        source = (Path(wsi.__file__).parent / f"{module}.py").read_text()
        read = re.findall(r'settings\.get\("(\w+)"|_setting\(job, "(\w+)"', source)
        assert {a or b for a, b in read} == set(SETTINGS[task])


def test_rounding_is_outwards_and_leaves_whole_numbers():
    boxes = np.array([[0.29, 1, 2, 3, 0.5, 0], [1.001, 1.001, 1.002, 1.002, 0.5, 0]])
    assert rounded(boxes)[:, :4].tolist() == [[0.29, 1, 2, 3], [1.0, 1.0, 1.01, 1.01]]


def test_edge_follows_the_overlap():
    def edge(tile, overlap, downsample=1.0):
        grid = tile_grid((0, 0, 5000, 5000), tile, downsample, overlap)
        return merge_rule(SimpleNamespace(grid=grid, settings={}, slide=None)).edge

    assert edge((512, 512), 0.0) == 2 and edge((512, 512), 0.25) == pytest.approx(5.12)
    assert edge((1600, 1200), 1 / 3) == pytest.approx(12) and edge((1600, 1200), 1 / 3, 2.0) == pytest.approx(24)
    assert edge((400, 300), 0.03) == pytest.approx(2.25)  # a quarter of 9 px


@pytest.mark.real
def test_passes_the_shared_check_on_a_real_region(tmp_path, real_data):
    script = real_data.parent / "checks" / "qupath_geojson.py"
    path = real_data / "glomeruli" / "aidpath_regions" / "region_A_2048x2048.tiff"
    if not script.is_file() or not path.is_file():
        pytest.skip("no glomeruli region or no ../checks/qupath_geojson.py")

    class Purple(Blobs):
        @staticmethod
        def find(tile):
            gray = cv2.GaussianBlur(tile, (0, 0), 2)[..., 0]
            stats = cv2.connectedComponentsWithStats((gray < 150).astype(np.uint8))[2][1:]
            found = [[x, y, x + w, y + h, 0.5, 0] for x, y, w, h, area in stats.tolist() if area > 60]
            return np.array(found, np.float32).reshape(-1, 6)

    with Slide(path, mpp=0.5) as slide:
        _, outcome = run(slide, tmp_path / "out", Purple(512))
        width, height = slide.dimensions
    assert sum(outcome.counts.values()) > 100
    command = [sys.executable, str(script), str(tmp_path / "out" / "prediction.geojson"), "--type", "detection"]
    done = subprocess.run([*command, "--width", str(width), "--height", str(height)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert tifffile.imread(path).shape[:2] == (height, width)
