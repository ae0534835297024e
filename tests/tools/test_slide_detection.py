"""The slide-level evaluation of a detector: on slides that `pathzoo predict` ran over, and on folders made by hand."""

import numpy as np
import pytest
import tifffile
from slide_predictions import (
    BOX,
    FAR,
    GOOD,
    OTHER,
    annotate,
    by_hand,
    detection,
    evaluate,
    objects_file,
    rows_of,
    values,
)

from pathzoo.wsi.geojson import write_features
from pathzoo.wsi.predictor import Boxes, InputSpec
from pathzoo.wsi.run import predict_slide


class Dark:
    """Finds the dark part of a tile that lies above, left, right, below nothing else: one box for each dark square."""

    name, version, digest, task, classes = "dark", "1.0.0", "0" * 64, "detection", ("glomerulus",)
    input = InputSpec((128, 128), 0.5)

    def __call__(self, tiles):
        return Boxes([self._find(tile) for tile in tiles])

    @staticmethod
    def _find(tile):
        found = []
        for level, score in ((40, 0.9), (80, 0.6), (120, 0.3)):  # the darker the surer
            y, x = np.nonzero(np.abs(tile.astype(int) - level).max(axis=2) < 10)
            if len(x):
                found.append([x.min(), y.min(), x.max() + 1, y.max() + 1, score, 0])
        return np.array(found, np.float32).reshape(-1, 6)


def predicted(folder, name, squares, bounds=None):
    """A slide with grey squares x, y, side, level, run through by `Dark`."""
    image = np.full((256, 384, 3), 240, np.uint8)
    for x, y, side, level in squares:
        image[y : y + side, x : x + side] = level
    path = folder / f"{name}.tif"
    per_cm = 1e4 / 0.5
    tifffile.imwrite(path, image, tile=(128, 128), photometric="rgb", resolution=(per_cm, per_cm), resolutionunit=3)
    predict_slide(path, Dark(), folder / "predictions", overlap=0.25, tissue=False)


def test_slides_that_were_predicted(tmp_path, capsys):
    # Slide a: both squares are annotated, and one object is not there. Slide b: a false one, and one found.
    predicted(tmp_path, "a", [(40, 40, 30, 40), (220, 150, 40, 80)])
    predicted(tmp_path, "b", [(40, 40, 30, 40), (220, 150, 40, 120)])
    annotate(tmp_path / "annotations" / "a.geojson", [(40, 40, 70, 70), (222, 150, 262, 190), (300, 20, 330, 50)])
    annotate(tmp_path / "annotations" / "b.geojson", [(220, 150, 260, 190)])
    assert evaluate(tmp_path, tmp_path / "annotations", "--target-recall", "0.75", "--bootstrap", "50") == 0
    found, written = values(tmp_path)
    # By falling score: found (a), false (b), both 0.9; found (a) 0.6; found (b) 0.3. Of 4 objects one is missed.
    assert found["highest_recall"] == 0.75 and found["threshold_at_target_recall"] == pytest.approx(0.3)
    assert found["precision_at_target_recall"] == 0.75
    assert found["false_positives_per_slide_at_target_recall"] == 0.5
    assert found["average_precision"] == pytest.approx(3 / 4 * 3 / 4)  # the highest precision, 3 of 4, lies at the end
    assert found["sensitivity_at_0.5_fp_per_slide"] == 0.75 and found["sensitivity_at_0.25_fp_per_slide"] == 0.0
    assert (written["n_slides"], written["n_objects"], written["n_detections"]) == (2, 4, 4)
    assert written["intervals"]["resampled"] == "slide" and "over slides" in written["rows"][0]["note"]
    outcomes = [(row["item"], row["outcome"]) for row in rows_of(tmp_path / "out" / "matches.csv")]
    assert outcomes == [("a", "found"), ("a", "found"), ("a", "missed"), ("b", "false"), ("b", "found")]
    printed = capsys.readouterr().out
    assert "target recall: threshold 0.3000 gives recall 0.750 at precision 0.750 and costs 0.50 false" in printed
    assert "pathzoo predict --score-threshold 0.2999" in printed
    assert {path.name for path in (tmp_path / "out" / "plots").iterdir()} == {
        *("precision_recall.png", "confidence.png", "froc.png")
    }


def test_objects_json_patients_classes_and_duplicates(tmp_path, capsys):
    by_hand(
        tmp_path, "s1", [detection(BOX, 0.9), detection([105, 100, 205, 200], 0.8), detection(OTHER, 0.7, "vessel")]
    )
    by_hand(tmp_path, "s2", [detection(FAR, 0.6)], skipped=[{"column": 0}])
    objects = objects_file(
        tmp_path,
        {
            "s1": ("p1", [("glomerulus", BOX), ("artery", OTHER), ("tissue", [0, 0, 900, 900])]),
            "s2": ("p2", [("glomerulus", FAR)]),
            "s3": ("p3", [("glomerulus", FAR)]),
        },
    )
    more = ("--rename", "artery=vessel", "--leave-out", "tissue", "--only-predicted", "--threshold", "0.65")
    assert evaluate(tmp_path, objects, *more) == 0
    found, written = values(tmp_path)
    assert found["recall_at_given_threshold"] == pytest.approx(2 / 3) == found["precision_at_given_threshold"]
    assert found["highest_recall"] == 1.0
    assert written["n_detections_of_objects_found_before"] == 1
    assert written["n_objects_of_class"] == {"glomerulus": 2, "vessel": 1}
    assert written["intervals"]["resampled"] == "patient" and written["n_patients"] == 2
    assert written["slides_without_prediction_left_out"] == ["s3"]
    matches = {
        (row["item"], row["class"], row["outcome"], row["object"]) for row in rows_of(tmp_path / "out/matches.csv")
    }
    assert ("s1", "glomerulus", "again", "s1:0") in matches and ("s1", "vessel", "found", "s1:1") in matches
    printed = capsys.readouterr().out
    assert "not wholly readable: s2" in printed and "left out, without prediction: 1 slides" in printed
    assert "target recall: threshold 0.6000" in printed


def test_qupath_counts_from_the_bounds_and_areas_are_told(tmp_path):
    by_hand(tmp_path, "s1", [detection([600, 500, 700, 600], 0.9)], bounds=(500, 400, 1000, 1000))
    annotate(tmp_path / "annotations" / "s1.geojson", [BOX])
    (tmp_path / "patients.csv").write_text("slide,patient\ns1.svs,p1\n")
    more = ("--per", "mm2", "--patients", str(tmp_path / "patients.csv"))
    assert evaluate(tmp_path, tmp_path / "annotations", *more) == 0
    found, written = values(tmp_path)
    assert found["best_f1"] == 1.0 and found["sensitivity_at_1_fp_per_mm2"] == 1.0
    assert written["mm2"] == 0.25 and written["n_patients"] == 1
    assert "false_positives_per_mm2" in rows_of(tmp_path / "out/curves/froc.csv")[0]


def test_a_recall_out_of_reach_is_said(tmp_path, capsys):
    by_hand(tmp_path, "s1", [detection(BOX, 0.9)])
    assert evaluate(tmp_path, objects_file(tmp_path, {"s1": (None, [("glomerulus", BOX), ("glomerulus", FAR)])})) == 0
    printed = capsys.readouterr().out
    assert "target recall: no threshold reaches recall 0.99: all detections together reach 0.500" in printed
    assert "scores from 0.05 up" in printed
    assert values(tmp_path)[0]["threshold_at_target_recall"] is None


def test_a_slide_without_objects_counts(tmp_path):
    by_hand(tmp_path, "s1", [detection(BOX, 0.9)])
    by_hand(tmp_path, "s2", [detection(BOX, 0.9)])
    (tmp_path / "annotations").mkdir()
    annotate(tmp_path / "annotations" / "s1.geojson", [BOX])
    write_features(tmp_path / "annotations" / "s2.geojson", [])
    assert evaluate(tmp_path, tmp_path / "annotations") == 0
    found, _ = values(tmp_path)
    assert found["precision_at_best_f1"] == 0.5 and found["recall_at_best_f1"] == 1.0


@pytest.mark.parametrize(
    ("objects", "more", "message"),
    [
        ({"s1": GOOD["s1"]}, (), "1 slides have no annotations: s2;"),
        ({**GOOD, "s3": GOOD["s1"]}, (), "1 annotated slides have no prediction: s3;"),
        (
            {**GOOD, "s1": (None, [("tubule", BOX)])},
            (),
            "s1: 1 objects of class 'tubule', but the model has glomerulus",
        ),
        ({**GOOD, "s1": (None, [("glomerulus", [1500, 1500, 1600, 1600])])}, (), "object s1:0 (1500, 1500,"),
        ({**GOOD, "s1": (None, [("glomerulus", [5, 5, 5, 9])])}, (), "s1: object s1:0 (5, 5, 5, 9) has no area"),
        (
            {**GOOD, "s1": (None, [("glomerulus", [900, 5, 1002, 90])])},
            (),
            "1 objects do not fit their slides: s1: object s1:0 (900, 5, 1002, 90) leaves 0, 0, 1000, 1000 of the "
            "slide: correct them, or choose --on-bad-box clip or drop",
        ),
        (GOOD, ("--iou", "0"), "iou 0.0: give a number above 0"),
        (GOOD, ("--bootstrap", "-3"), "bootstrap -3: give 0 for none, or a number of resamples"),
        (GOOD, ("--seed", "-1"), "seed -1: give 0 or more"),
        (
            GOOD,
            ("--threshold", "0.02"),
            "threshold 0.02: the predictions hold scores from 0.05 up; give at least that, or predict with a lower "
            "--score-threshold",
        ),
        (GOOD, ("--rename", "artery"), "--rename 'artery': expected OLD=NEW"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_written(tmp_path, capsys, objects, more, message):
    for name in ("s1", "s2"):
        by_hand(tmp_path, name, [detection(BOX, 0.9)])
    assert evaluate(tmp_path, objects_file(tmp_path, objects), *more) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_bad_predictions_are_refused(tmp_path, capsys):
    objects = objects_file(tmp_path, GOOD)

    def refused():
        assert evaluate(tmp_path, objects) == 2
        return capsys.readouterr().err

    (tmp_path / "predictions").mkdir()
    assert "holds no prediction" in refused()
    by_hand(tmp_path, "s1", [detection(BOX, 0.9)])
    by_hand(tmp_path, "s2", [[*BOX, "sure", "glomerulus"]])
    assert "s2/detections.csv, line 2: cannot be read" in refused()
    (tmp_path / "predictions/s2/detections.csv").write_text("x0,y0,x1,y1,score,class\n1,1,9,9,0.5,nerve\n")
    assert "class 'nerve' is none of the model's" in refused()
    (tmp_path / "predictions/s2/detections.csv").unlink()
    assert "detections.csv: no such file" in refused()
    (tmp_path / "predictions/s2/predict_run.json").unlink()
    (tmp_path / "predictions/s2").rmdir()
    by_hand(tmp_path, "s2", [], digest="another")
    run = tmp_path / "predictions/s2/predict_run.json"
    whole = run.read_text()
    run.write_text(whole.replace('"bounds"', '"edges"'))
    assert "predict_run.json: cannot be read (KeyError('slide.bounds'))" in refused()
    run.write_text(whole)
    assert "s1 was predicted by m 1.0.0 (abc), s2 by m 1.0.0 (another)" in refused()
    by_hand(tmp_path, "s3", [], task="classification")
    assert "was predicted by a model for classification" in refused()


def test_other_files_in_place_of_objects(tmp_path, capsys):
    by_hand(tmp_path, "s1", [detection(BOX, 0.9)])
    for content, message in (
        ("{}", "its format is None, not 'pathzoo.objects'"),
        ("[1]", "not an objects.json"),
        ('{"format": "pathzoo.objects"}', "not an objects.json"),
    ):
        (tmp_path / "objects.json").write_text(content)
        assert evaluate(tmp_path, tmp_path / "objects.json") == 2
        assert message in capsys.readouterr().err
    assert evaluate(tmp_path, tmp_path / "nowhere.json") == 2
    assert "no such file" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert evaluate(tmp_path, tmp_path / "empty") == 2
    assert "holds no annotations" in capsys.readouterr().err
    wrong = objects_file(tmp_path, {"s1": GOOD["s1"]})
    wrong.write_text(wrong.read_text().replace('"width": 2000', '"width": 999'))
    assert evaluate(tmp_path, wrong) == 2
    assert "slide s1 is of [999, 2000] pixels" in capsys.readouterr().err
    wrong = objects_file(tmp_path, {"s1": (None, [("glomerulus", [200, 100, 100, 200])])})
    assert evaluate(tmp_path, wrong) == 2
    assert "[200, 100, 100, 200] is no box" in capsys.readouterr().err
    annotate(tmp_path / "empty" / "s1.geojson", [BOX])
    assert evaluate(tmp_path, tmp_path / "empty") == 0
    assert evaluate(tmp_path, tmp_path / "empty") == 2
    assert "out: exists already" in capsys.readouterr().err
    assert evaluate(tmp_path, tmp_path / "empty", "--overwrite") == 0
