"""Phantom biopsies: their layout, the same pixels for the same seed, outlines that hold what they say."""

import csv
import json
from collections import Counter

import cv2
import numpy as np
import pytest
from dataset_converters import annotations_to_boxes as tool

from pathzoo.datasets import TileDetection
from pathzoo.datasets.phantom import draw_biopsy, write_biopsies
from pathzoo.datasets.phantom.canvas import Canvas
from pathzoo.datasets.phantom.glomeruli import LOOKS, paint_glomeruli
from pathzoo.errors import DataError
from pathzoo.fileio import sha256_file
from pathzoo.wsi.annotations import read_areas
from pathzoo.wsi.slide import Slide
from pathzoo.wsi.tissue import tissue_mask

SIZE, MPP = (440, 340), 2.5


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    told, root = [], tmp_path_factory.mktemp("biopsies")
    table = write_biopsies(root, 3, 2, 2, SIZE, MPP, progress=lambda *done: told.append(done))
    assert table == root / "patients.csv" and told == [(number, 4) for number in range(1, 5)]
    return root


def test_the_layout(cohort):
    with (cohort / "patients.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["slide"] for row in rows] == ["B001-1", "B001-2", "B002-1", "B002-2"]
    assert [row["patient"] for row in rows] == ["B001", "B001", "B002", "B002"]
    assert json.loads((cohort / "phantom.json").read_text())["phantom"] == "biopsies"
    for row in rows:
        with Slide(cohort / "slides" / f"{row['slide']}.tif") as slide:
            assert slide.dimensions == SIZE and slide.mpp == pytest.approx(MPP, rel=1e-3)
        areas = read_areas(cohort / "annotations" / f"{row['slide']}.geojson")
        assert areas and {name for _, name in areas} == {"glomerulus"}
    features = json.loads((cohort / "annotations" / "B001-1.geojson").read_text())["features"]
    assert {feature["properties"]["name"] for feature in features} <= set(LOOKS)


def test_outlines_lie_in_tissue_apart_and_have_the_sizes_of_glomeruli(cohort):
    for path in sorted((cohort / "slides").iterdir()):
        with Slide(path) as slide:
            tissue = tissue_mask(slide.read(0, 0, *SIZE))
        areas = [area for area, _ in read_areas(cohort / "annotations" / f"{path.stem}.geojson")]
        for number, area in enumerate(areas):
            inside = np.zeros(tissue.shape, np.uint8)
            cv2.fillPoly(inside, [np.rint(np.array(area.exterior.coords)).astype(np.int32)], 1)
            assert tissue[inside > 0].mean() > 0.6  # the white space of the capsule is none
            assert 70 < 2 * np.sqrt(area.area / np.pi) * MPP < 280
            x0, y0, x1, y1 = area.bounds
            assert x0 >= 0 and y0 >= 0 and x1 <= SIZE[0] and y1 <= SIZE[1]
            assert all(area.intersection(other).area < 0.15 * area.area for other in areas[:number])


def test_the_converter_and_the_data_set_read_them(cohort, tmp_path):
    given = ["--slides", cohort / "slides", "--annotations", cohort / "annotations", "--out", tmp_path / "tiles"]
    given += ["--patients", cohort / "patients.csv", "--classes", "glomerulus", "--mpp", MPP, "--tile", 160, 128]
    assert tool.main([*map(str, given), "--from-slide", "--split", "1", "1"]) == 0
    drawn = sum(len(read_areas(path)) for path in (cohort / "annotations").iterdir())
    tiles = TileDetection("tiles.json", str(tmp_path / "tiles"))
    counts = tiles.describe()
    assert counts["n_boxes"] >= drawn and counts["n_patients"] == 2 and tiles[0]["img"].shape == (128, 160, 3)
    assert TileDetection("test.json", str(tmp_path / "tiles")).describe()["n_patients"] == 1


def test_the_seed_decides(cohort, tmp_path):
    write_biopsies(tmp_path / "again", 3, 1, 1, SIZE, MPP)
    name = "slides/B001-1.tif"
    assert sha256_file(tmp_path / "again" / name) == sha256_file(cohort / name)
    first, other = (draw_biopsy(seed, SIZE, MPP)[0] for seed in (1, 2))
    assert not np.array_equal(first, other)


def test_the_look_may_be_the_class(cohort, tmp_path):
    write_biopsies(tmp_path, 3, 1, 1, SIZE, MPP, class_is_look=True)
    name = "annotations/B001-1.geojson"
    looks, plain = (json.loads((root / name).read_text())["features"] for root in (tmp_path, cohort))
    assert [one["properties"]["classification"]["name"] for one in looks] == [o["properties"]["name"] for o in plain]
    assert [one["geometry"] for one in looks] == [one["geometry"] for one in plain]


def test_all_looks_occur_and_look_different():
    canvas = Canvas(np.random.default_rng(0), (1400, 1200), 2.0, 1.0, 0.5)
    canvas.restrict(None)
    found = paint_glomeruli(canvas, np.random.default_rng(1), 60)
    counts = Counter(one.look for one in found)
    assert set(counts) == set(LOOKS) and counts["normal"] > counts["crescent"]
    dye = {look: [] for look in LOOKS}
    for one in found:
        mask = np.zeros(canvas.eosin.shape, np.uint8)
        cv2.fillPoly(mask, [np.rint(one.outline.points() / 2).astype(np.int32)], 1)
        dye[one.look].append((canvas.eosin[mask > 0].mean(), canvas.haematoxylin[mask > 0].mean()))
    means = {look: np.mean(values, axis=0) for look, values in dye.items()}
    assert means["sclerosed"][0] > means["normal"][0] + 0.2  # pink matrix
    assert means["crescent"][1] > means["normal"][1]  # more cells


def test_too_little_is_refused(tmp_path):
    with pytest.raises(DataError, match="give at least 500 um each way"):
        draw_biopsy(0, (400, 1000), 1.0)
    with pytest.raises(DataError, match="0 patients"):
        write_biopsies(tmp_path, patients=0)
