"""Study 4: thresholds of slides come from validation, rows are not made without weights, tables by hand."""

import csv

import numpy as np
import pytest
import reproduce
from studies import glomerulus_yolov5 as study
from studies.results import columns

from pathzoo.evaluation.detection_report import DetectionSet
from pathzoo.evaluation.functional.detection_matching import Picture


def _slide(scores, found, objects=3):
    """Objects 20 px apart; a detection stands on object number `found`, or where nothing is (None)."""
    places = np.array([[20 * k, 0, 20 * k + 10, 10] for k in range(objects)], dtype=np.float64).reshape(-1, 4)
    empty = [[20 * k, 500, 20 * k + 10, 510] for k in range(len(scores))]
    boxes = [empty[k] if place is None else places[place].tolist() for k, place in enumerate(found)]
    labels = np.zeros(len(scores), np.int64)
    boxes = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    return Picture(boxes, np.array(scores), labels, places, np.zeros(objects, np.int64), np.zeros(objects, bool))


def _set(*slides):
    names = [f"s{number}" for number in range(len(slides))]
    return DetectionSet(list(slides), names, names, names, ["glomerulus"], "slide")


def _values(val, test):
    return {row["metric"]: row["value"] for row in study.slide_rows(val, test)}


def test_the_thresholds_of_tested_slides_are_chosen_on_validation():
    # On validation F1 is best from 0.6 on (2 of 3 found, none false: 0.8), and from 0.2 on all are found.
    val = _set(_slide([0.9, 0.6, 0.5, 0.4, 0.3, 0.2], [0, 1, None, None, None, 2]))
    # On the test the best threshold would be 0.3 (all found, none false).
    test = _set(_slide([0.7, 0.5, 0.3, 0.2, 0.1], [0, 1, 2, None, None]))
    values = _values(val, test)
    assert values["precision_at_chosen"] == 1 and values["recall_at_chosen"] == pytest.approx(1 / 3)
    assert values["f1_at_chosen"] == pytest.approx(0.5) and values["false_positives_at_chosen"] == 0
    assert values["recall_for_recall"] == 1 and values["false_positives_for_recall"] == 1
    assert values["best_f1"] == 1
    assert (values["objects"], values["slides"]) == (3, 1)


def test_where_validation_never_reaches_the_recall_every_detection_counts():
    val = _set(_slide([0.9], [0]))
    test = _set(_slide([0.9, 0.05], [0, 1]), _slide([0.01], [None]))
    values = _values(val, test)
    assert values["recall_for_recall"] == pytest.approx(2 / 6)
    assert values["false_positives_for_recall"] == 0.5
    assert values["highest_recall"] == pytest.approx(2 / 6)


def test_every_figure_of_a_row_has_its_metric():
    test = _set(_slide([0.9], [0]))
    made = {(row["metric"], row["level"]) for row in study.slide_rows(test, test)}
    assert {metric for metric in study.METRICS if metric[1] == "slide"} <= made


def test_the_studys_arms_without_weights_read_not_run(tmp_path, capsys):
    words = ["glomerulus_yolov5", "--scale", "paper", "--work-dir", str(tmp_path)]
    words += ["--results", str(tmp_path / "r.csv")]
    assert reproduce.main([*words, "--arms", "YOLOv5 L", "YOLOv5 XL"]) == 0
    rows = list(csv.DictReader((tmp_path / "r.csv").open(newline="")))
    assert [(row["arm"], row["status"], row["note"]) for row in rows] == [
        ("YOLOv5 L", "not run", "no COCO weights of yolov5l at hand"),
        ("YOLOv5 XL", "not run", "no COCO weights of yolov5x at hand"),
    ]
    assert not (tmp_path / "glomerulus_yolov5").exists()  # nothing is drawn for them
    assert "not run: no COCO weights of yolov5l" in capsys.readouterr().out
    file = tmp_path / "x.pth"
    file.touch()
    assert reproduce.main([*words, "--arms", "YOLOv5 L", "--weights", f"yolov5n={file}"]) == 2
    assert "begins with COCO weights of yolov5n at this scale" in capsys.readouterr().err


def _row(arm, seed, f1, **changes):
    row = dict.fromkeys(columns(study.METRICS), "") | {"scale": "small", "data": "phantom", "status": "done"}
    row |= {name: f"{f1:.4f}" for name in row if name.endswith(("_tile", "_slide"))}
    row |= {"objects_slide": "160.0000", "slides_slide": "8.0000", "n_images": "72", "n_patients": "8"}
    return row | {"arm": arm, "seed": str(seed)} | changes


def test_means_over_seeds_stand_beside_the_studys_figures():
    rows = [_row("YOLOv5 L", 100, 0.8, objects_slide="150.0000"), _row("YOLOv5 L", 101, 0.9)]
    text = study.table(rows)
    assert "means over 2 seeds, tested on 8 slides with 150 to 160 glomeruli each time" in text
    mean = "0.850 ± 0.071"
    line = next(line for line in text.splitlines() if line.startswith("| YOLOv5 L | 2 |"))
    cells = [cell.strip() for cell in line.strip("| ").split("|")]
    assert cells[2:6] == [mean, mean, f"{mean} / {mean} / {mean}", mean]
    assert cells[-1] == "0.908 / 0.923 / 0.915"
    assert "| phantom | YOLOv5 L | 101 | 72 | 8 | 160 | 0.900 |" in text


def test_arms_that_the_study_has_not_stand_beside_its_figures_too():
    text = study.table([_row("YOLOv5 N", 100, 0.8), _row("YOLOv5 N", 101, 0.9), _row("RTMDet tiny (peer)", 100, 0.7)])
    assert "means over up to 2 seeds, tested on" in text
    assert "YOLOv5 L 0.908 / 0.923 / 0.915; YOLOv5 XL 0.901 / 0.926 / 0.913;" in text


def test_no_rows_and_rows_not_run_have_their_words():
    assert study.table([]) == "No rows yet."
    text = study.table([_row("YOLOv5 XL", 100, 0, status="not run", note="no COCO weights of yolov5x at hand")])
    assert "| phantom | YOLOv5 XL | 100 | not run: no COCO weights of yolov5x at hand |" in text
