"""`pathzoo predict --classify`: a published detector and classifier over slides, and the table of counts."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from rule_models import publish_rule_model

from pathzoo.apis.predict import predict
from pathzoo.cli import main
from pathzoo.evaluation.predicted_slides import read_predicted_slides

_CHECK = Path(__file__).parents[3] / "shared/checks/qupath_geojson.py"


@pytest.fixture(scope="module")
def zoo(tmp_path_factory) -> Path:
    """rule-detector, -segmenter, -classifier 1.0.0 and 1.1.0 (40 px at 0.5), fine-classifier (at 0.1). Read only."""
    folder = tmp_path_factory.mktemp("zoo")
    publish_rule_model("detector", folder, tile=256, mpp=0.5)
    publish_rule_model("segmenter", folder, tile=64, mpp=0.5)
    publish_rule_model("classifier", folder, tile=40, mpp=0.5)
    publish_rule_model("classifier", folder, tile=40, mpp=0.5, version="1.1.0", radius=2)
    publish_rule_model("classifier", folder, tile=40, mpp=0.1, name="fine-classifier")
    return folder


@pytest.fixture(autouse=True)
def in_zoo(zoo, monkeypatch):
    monkeypatch.setenv("PATHZOO_ZOO", str(zoo))


def draw(path: Path, discs: int = 4) -> Path:
    """A slide of 0.5 microns per pixel: glass, a pink square of 300 px at (200, 100), dark purple discs in it."""
    pixels = np.full((512, 640, 3), 243, np.uint8)
    pixels[100:400, 200:500] = (225, 150, 190)
    y, x = np.mgrid[:512, :640]
    for number in range(discs):
        pixels[np.hypot(x - 230 - 55 * number, y - 150 - 50 * number) < 9 + 3 * number] = (80, 40, 120)
    resolution = {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, pixels, tile=(64, 64), photometric="rgb", compression="deflate", **resolution)
    return path


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def call(tmp_path, *more, slides="a.tif", classify="rule-classifier@1.0.0") -> int:
    words = ["predict", "-i", *(str(tmp_path / name) for name in slides.split()), "-m", "rule-detector"]
    words += ["--classify", classify] if classify else []
    return main([*words, "-o", str(tmp_path / "out"), *more])


def test_objects_are_graded_as_the_classifier_grades_their_crops(tmp_path, capsys):
    draw(tmp_path / "a.tif")
    assert call(tmp_path) == 0
    said, folder = capsys.readouterr().out, tmp_path / "out/a"
    rows = rows_of(folder / "detections.csv")
    assert len(rows) == 4 and "nucleus 4 [background" in said and "counts.csv" in said
    assert {path.name for path in folder.iterdir()} == {
        *("detections.csv", "prediction.geojson", "overlay.png", "contact_sheet.png", "predict_run.json", "crops")
    }
    record = json.loads((folder / "predict_run.json").read_text())
    published = json.loads((tmp_path / "out/a/predict_run.json").read_text())["classifier"]
    assert (published["name"], published["version"]) == ("rule-classifier", "1.0.0") and len(published["digest"]) == 64
    assert record["arguments"]["classify"] == "rule-classifier"
    # The same model over the crops as images, by the other way through pathzoo predict.
    predict(folder / "crops", "rule-classifier@1.0.0", tmp_path / "images", mpp=0.5)
    images = rows_of(tmp_path / "images/predictions.csv")
    assert [Path(row["path"]).name for row in images] == [f"000{n}.png" for n in range(1, 5)]
    for row, image in zip(rows, images, strict=True):
        assert row["grade"] == image["predicted"]
        for name in ("background", "pink", "purple"):
            assert float(row[f"prob_{name}"]) == pytest.approx(float(image[f"prob_{name}"]), abs=1e-6)
    if _CHECK.exists():
        words = [sys.executable, str(_CHECK), str(folder / "prediction.geojson"), "--type", "detection"]
        done = subprocess.run(words, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
    [slide] = read_predicted_slides([tmp_path / "out"])
    assert slide.classes == ["nucleus"] * 4


def test_an_output_by_another_or_no_classifier_is_not_taken_for_done(tmp_path, capsys):
    draw(tmp_path / "a.tif")
    assert call(tmp_path) == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*") if path.is_file()}
    for classify in (None, "rule-classifier@1.1.0"):
        assert call(tmp_path, classify=classify) == 2
        assert "by another model or other options" in capsys.readouterr().err
    assert call(tmp_path) == 0
    assert "left as it is" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in before} == before, "not even the table was written again"
    assert call(tmp_path, "--overwrite", classify="rule-classifier@1.1.0") == 0
    assert rows_of(tmp_path / "out/counts.csv")[0]["slide"] == "a"


def test_what_cannot_grade_is_refused_in_one_line_before_anything_is_written(tmp_path, capsys):
    draw(tmp_path / "a.tif")
    for model, classify, text in (
        (
            "rule-segmenter",
            "rule-classifier",
            "rule-segmenter: its task is segmentation; --classify goes with detectors",
        ),
        ("rule-detector", "rule-segmenter", "rule-segmenter: its task is segmentation; --classify takes a model for"),
        ("rule-detector", "no-such-model", "no-such-model"),
        ("rule-detector", "fine-classifier", "coarser than the 0.1 asked for"),
    ):
        words = ["predict", "-i", str(tmp_path / "a.tif"), "-m", model, "--classify", classify]
        assert main([*words, "-o", str(tmp_path / "out")]) == 2, classify
        error = capsys.readouterr().err
        assert text in error and error.strip().count("\n") == 0, error
        assert not (tmp_path / "out").exists()


def test_a_dry_run_says_who_grades_and_which_slides_are_too_coarse_for_it(tmp_path, capsys):
    draw(tmp_path / "a.tif")
    before = set(tmp_path.rglob("*"))
    assert call(tmp_path, "--dry-run") == 0
    assert "graded by rule-classifier 1.0.0 on a crop of 40 x 40 px at 0.5 um/px" in capsys.readouterr().out
    assert call(tmp_path, "--dry-run", classify="fine-classifier") == 0
    assert "would fail: " in capsys.readouterr().out and set(tmp_path.rglob("*")) == before


def test_pseudonyms_stand_for_the_slides_in_everything_that_is_graded(tmp_path):
    secret = "SMITH_JOHN_1950"
    for number in range(2):
        draw(tmp_path / f"{secret}_{number}.tif")
    slides = f"{secret}_0.tif {secret}_1.tif"
    assert call(tmp_path, "--anonymise", slides=slides) == 0
    for path in (tmp_path / "out").rglob("*"):
        assert secret not in path.name
        assert path.is_dir() or secret.encode() not in path.read_bytes(), path
    names = {row["pseudonym"] for row in rows_of(tmp_path / "out.names.csv")}
    assert {row["slide"] for row in rows_of(tmp_path / "out/counts.csv")} == names


def test_counts_cover_what_earlier_calls_found(tmp_path):
    for number, name in enumerate("ab"):
        draw(tmp_path / f"{name}.tif", 2 + number)
    (tmp_path / "bad.svs").write_bytes(b"no slide")
    assert call(tmp_path) == 0
    assert call(tmp_path, slides="b.tif bad.svs") == 4
    rows = rows_of(tmp_path / "out/counts.csv")
    assert [row["slide"] for row in rows] == ["a", "b"] and [row["count_nucleus"] for row in rows] == ["2", "3"]
    for row in rows:
        found = rows_of(tmp_path / "out" / row["slide"] / "detections.csv")
        for grade in ("background", "pink", "purple"):
            assert int(row[f"count_nucleus: {grade}"]) == sum(one["grade"] == grade for one in found)
        # A square of 150 microns a side.
        assert float(row["tissue_mm2"]) == pytest.approx(0.0225, rel=0.05)
        assert float(row["per_mm2_nucleus"]) == pytest.approx(len(found) / float(row["tissue_mm2"]), abs=1e-3)
    draw(tmp_path / "c.tif", 1)  # without a classifier: another model's output, as it were
    assert call(tmp_path, "--no-tissue-mask", slides="c.tif", classify=None) == 0
    [row] = rows_of(tmp_path / "out/counts.csv")
    assert (row["slide"], row["tissue_mm2"], row["per_mm2_nucleus"]) == ("c", "", "")
    assert not any("purple" in name for name in row)
