"""What slides must share to be evaluated together, and objects that are not wholly on them."""

import pytest
from shapely.geometry import Polygon
from slide_predictions import BOX, GOOD, THREE, annotate, by_hand, detection, evaluate, objects_file, rows_of, values

from pathzoo.wsi.geojson import annotation, write_features


def _eight(cut=0.0):
    """A slide with 8 objects that are all found (.9 to .2), and 7 false detections (.75 to .15), as predicted."""
    hits = [(0.9 - 0.1 * k, [100 * k, 0, 100 * k + 50, 50]) for k in range(8)]
    false = [(0.75 - 0.1 * k, [100 * k, 500, 100 * k + 50, 550]) for k in range(7)]
    rows = [detection(corners, round(score, 4)) for score, corners in hits + false if score >= cut - 1e-9]
    return rows, [("glomerulus", corners) for _, corners in hits]


def test_slides_predicted_at_different_thresholds_are_compared_above_the_highest(tmp_path, capsys):
    for name, least in (("s1", 0.5), ("s2", 0.1)):
        by_hand(tmp_path, name, _eight(least)[0], least=least)
    objects = objects_file(tmp_path, {name: (None, _eight()[1]) for name in ("s1", "s2")})
    more = ("--target-recall", "0.6", "--bootstrap", "0")
    assert evaluate(tmp_path, objects, *more) == 0
    found, written = values(tmp_path)
    # From 0.5 up each slide has 5 hits (0.9 to 0.5) and 3 false ones (0.75 to 0.55).
    assert (written["n_detections"], written["score_threshold"]) == (16, 0.5)
    assert found["highest_recall"] == 5 / 8 and found["threshold_at_target_recall"] == 0.5
    assert written["score_thresholds_that_differ"] == {"s1": 0.5, "s2": 0.1}
    assert written["n_detections_below_score_threshold"] == 7
    printed = capsys.readouterr().out
    warning = "warning: predicted at different --score-threshold (0.1: s2; 0.5: s1): detections below 0.5 are left out"
    assert warning in printed and "predict all alike" in printed
    assert evaluate(tmp_path, objects, *more, "--threshold", "0.2", "--overwrite") == 2
    assert "threshold 0.2: the predictions hold scores from 0.5 up" in capsys.readouterr().err


def test_a_threshold_of_more_digits_than_the_scores_cuts_none_that_reach_it(tmp_path):
    by_hand(tmp_path, "s1", [detection(BOX, 0.3333)], least=0.33333)  # 0.333334, as it is written
    assert evaluate(tmp_path, objects_file(tmp_path, {"s1": GOOD["s1"]}), "--threshold", "0.3333") == 0
    found, written = values(tmp_path)
    assert found["recall_at_given_threshold"] == 1.0 and written["n_detections"] == 1
    assert written["score_thresholds_that_differ"] == {} and written["n_detections_below_score_threshold"] == 0


def test_a_patient_called_unknown_is_not_known(tmp_path, capsys):
    for name in THREE:
        by_hand(tmp_path, name, [detection(BOX, 0.9)])
    objects = objects_file(tmp_path, {n: (p, GOOD["s1"][1]) for n, p in zip(THREE, ("p1", "Unknown", ""), strict=True)})
    assert evaluate(tmp_path, objects) == 0
    written = values(tmp_path)[1]
    assert (written["n_patients"], written["n_slides_of_unknown_patient"]) == (1, 2)
    table = tmp_path / "patients.csv"
    table.write_text("slide,patient\ns1.svs,unknown\ns2.svs,p2\ns3,p3\n")
    assert evaluate(tmp_path, objects, "--patients", str(table), "--overwrite") == 0
    assert {row["patient"] for row in rows_of(tmp_path / "out/matches.csv")} == {"p1", "p2", "p3"}
    for lines, message in (
        ("s2.svs,A\ns2,B\n", "slide s2.svs has patient 'A', and s2 'B'"),
        ("s2.svs,A\ns2.tif,B\n", "slide s2 has patients 'A' and 'B'"),
    ):
        table.write_text(f"slide,patient\n{lines}")
        capsys.readouterr()
        assert evaluate(tmp_path, objects, "--patients", str(table), "--overwrite") == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("source", ["folder", "file"])
def test_objects_that_leave_what_was_predicted_are_cut_or_dropped_and_listed(tmp_path, capsys, source):
    """Predicted was 1000 x 1000 px from (500, 400) on; the slide is larger."""
    seen = [1400, 500, 1500, 600]
    by_hand(tmp_path, "s1", [detection(seen, 0.9), detection([600, 500, 700, 600], 0.8)], bounds=(500, 400, 1000, 1000))
    boxes = [[1400, 500, 1600, 600], [600, 500, 700, 600], [100, 100, 200, 200], [1400.0, 1300, 1500.5, 1400]]
    if source == "file":
        objects = objects_file(tmp_path, {"s1": (None, [("glomerulus", corners) for corners in boxes])})
    else:
        objects = tmp_path / "annotations"
        annotate(objects / "s1.geojson", [[x0 - 500, y0 - 400, x1 - 500, y1 - 400] for x0, y0, x1, y1 in boxes])
    assert evaluate(tmp_path, objects) == 2
    error = capsys.readouterr().err
    assert "2 objects do not fit their slides" in error and error.count("\n") == 1
    assert evaluate(tmp_path, objects, "--on-bad-box", "clip") == 0
    found, written = values(tmp_path)
    assert written["n_objects"] == 3 and found["highest_recall"] == 2 / 3  # the cut one is found, the outer one gone
    assert len(written["bad_boxes"]) == 2 and "lies outside of 500, 400, 1500, 1400" in written["bad_boxes"][1]
    assert "(1400, 500, 1600, 600) leaves" in capsys.readouterr().err
    assert evaluate(tmp_path, objects, "--on-bad-box", "drop", "--overwrite") == 0
    assert values(tmp_path)[1]["n_objects"] == 2


def test_an_outline_is_cut_not_its_box(tmp_path):
    """Of a triangle that leaves the slide to the right only the tip is inside: its box is lower than the whole's."""
    by_hand(tmp_path, "s1", [detection([900, 400, 1000, 600], 0.9)])
    (tmp_path / "annotations").mkdir()
    tip = Polygon([(900, 500), (1100, 300), (1100, 700)])
    write_features(tmp_path / "annotations/s1.geojson", [annotation(tip, "glomerulus", (0, 0, 0), {}, "0")])
    assert evaluate(tmp_path, tmp_path / "annotations", "--on-bad-box", "clip", "--iou", "0.99") == 0
    assert values(tmp_path)[0]["highest_recall"] == 1.0


def test_where_there_is_no_object_that_is_said(tmp_path, capsys):
    by_hand(tmp_path, "s1", [detection(BOX, 0.9)])
    by_hand(tmp_path, "s2", [])
    objects = objects_file(tmp_path, {"s1": (None, []), "s2": (None, [])})
    assert evaluate(tmp_path, objects, "--threshold", "0.5") == 0
    printed = capsys.readouterr().out
    assert "target recall: there is no object to find" in printed and "best F1: there is no object to find" in printed
    assert "nan" not in printed and "may find more" not in printed and "costs 0.50 false" in printed
    points = values(tmp_path)[1]["points"]
    assert [point["note"] for point in points[:2]] == ["there is no object to find"] * 2
    (tmp_path / "predictions/s1/detections.csv").write_text("x0,y0,x1,y1,score,class\n")
    assert evaluate(tmp_path, objects, "--overwrite") == 0
    assert "target recall: there is no object to find" in capsys.readouterr().out


def test_annotations_named_by_the_file_of_the_slide(tmp_path, capsys):
    by_hand(tmp_path, "s1", [detection(BOX, 0.9)])
    annotate(tmp_path / "annotations" / "s1.svs.geojson", [BOX])
    assert evaluate(tmp_path, tmp_path / "annotations") == 0
    annotate(tmp_path / "annotations" / "s1.geojson", [BOX])
    assert evaluate(tmp_path, tmp_path / "annotations", "--overwrite") == 2
    assert "slide s1 has s1.geojson too" in capsys.readouterr().err
