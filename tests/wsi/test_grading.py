import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from wsi.faulty_slides import TiledSlide
from wsi.graded_slides import DISCS, Discs, Middles, draw_discs, record_of, rows_of

from pathzoo.errors import SlideError
from pathzoo.evaluation.predicted_slides import read_predicted_slides
from pathzoo.wsi.annotated_tiles import AnnotatedSlide, cut_annotated_tiles
from pathzoo.wsi.grading import Grades, check_classifier, crop_name, label_objects
from pathzoo.wsi.run import finished_result, predict_slide
from pathzoo.wsi.run_options import RunOptions
from pathzoo.wsi.slide import Slide

_CHECK = Path(__file__).parents[3] / "shared/checks/qupath_geojson.py"


def run(path, out, classifier=None, **options):
    options = {"isolate": False, "tissue": False, "overlap": 0.5} | options
    return predict_slide(path, Discs(), out, classifier=classifier, **options)


def test_every_object_gets_the_grade_of_the_pixels_that_are_written(make_slide, tmp_path):
    path, classifier = make_slide(draw_discs()), Middles()
    result = run(path, tmp_path, classifier, batch_size=2)
    rows = rows_of(result.folder / "detections.csv")
    assert list(rows[0])[6:] == ["grade", "prob_full", "prob_pale"] and len(rows) == len(DISCS)
    pale = {(x, y): p for x, y, _, p in DISCS}
    with Slide(path) as slide:
        for number, row in enumerate(rows):
            x, y = ((float(row[f"{side}0"]) + float(row[f"{side}1"])) / 2 for side in "xy")
            crop = np.asarray(Image.open(result.folder / "crops" / f"{number + 1:04d}.png"))
            # By hand: 24 pixels to each side of the centre, which lies on a whole pixel here.
            assert np.array_equal(crop, slide.read(round(x) - 24, round(y) - 24, 48, 48, 0.5))
            assert any(np.array_equal(crop, tile) for tile in classifier.seen)
            expected = Middles.rule(crop)
            assert [float(row["prob_full"]), float(row["prob_pale"])] == pytest.approx(expected, abs=1e-6)
            assert row["grade"] == ("pale" if pale[round(x), round(y)] else "full")
    assert len(list((result.folder / "crops").iterdir())) == len(DISCS)
    assert result.counts == {"disc": 5} and result.grades == {"disc": {"full": 3, "pale": 2}}


def test_crops_at_another_resolution_and_over_the_edge_are_what_the_slide_gives(make_slide, tmp_path):
    path = make_slide(draw_discs(), mpp=0.4, levels=2)
    result = run(path, tmp_path, Middles(40, 1.0))
    with Slide(path) as slide:
        rows = rows_of(result.folder / "detections.csv")
        assert len(rows) == len(DISCS)
        for number, row in enumerate(rows):
            corner = [(float(row[f"{s}0"]) + float(row[f"{s}1"])) / 2 - 20 * 1.0 / 0.4 for s in "xy"]
            x, y = (int(np.floor(value + 0.5)) for value in corner)
            crop = np.asarray(Image.open(result.folder / "crops" / crop_name(number)))
            assert np.array_equal(crop, slide.read(x, y, 40, 40, 1.0))
            # Of the disc at (24, 360) a quarter of the crop lies left of the slide.
            assert (crop[:, :8] == 255).all() == (float(row["x0"]) < 10)
    assert record_of(result.folder)["classifier"]["read_mpp"] == 1.0


def test_a_grader_is_trained_on_crops_as_it_is_given_them(make_slide, tmp_path):
    path = make_slide(draw_discs(), mpp=0.4)
    result = run(path, tmp_path, Middles(40, 1.0))
    source = AnnotatedSlide(path, result.folder / "prediction.geojson")  # as graded in QuPath and exported
    cut_annotated_tiles([source], tmp_path / "cut", tile=40, mpp=1.0, around_objects=True)
    given = [np.asarray(Image.open(file)) for file in (result.folder / "crops").iterdir()]
    graded = {row["grade"]: [] for row in rows_of(result.folder / "detections.csv")}
    for row in rows_of(tmp_path / "cut" / "tiles.csv"):
        pixels = np.asarray(Image.open(tmp_path / "cut" / row["path"]))
        assert any(np.array_equal(pixels, crop) for crop in given)
        graded[row["label"].removeprefix("disc: ")].append(row)
    assert {name: len(rows) for name, rows in graded.items()} == result.grades["disc"]


def test_files_agree_and_qupath_and_the_evaluation_read_them(make_slide, tmp_path):
    plain = run(make_slide(draw_discs()), tmp_path / "plain")
    graded = run(make_slide(draw_discs()), tmp_path / "graded", Middles())
    path = graded.folder / "prediction.geojson"
    if _CHECK.exists():
        done = subprocess.run([sys.executable, str(_CHECK), str(path)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
    features = json.loads(path.read_text())["features"]
    colors = {}
    for feature, row in zip(features, rows_of(graded.folder / "detections.csv"), strict=True):
        properties = feature["properties"]
        assert properties["classification"]["name"] == f"disc: {row['grade']}"
        colors[row["grade"]] = properties["classification"]["color"]
        for name in ("full", "pale"):
            assert properties["measurements"][f"Probability {name}"] == pytest.approx(float(row[f"prob_{name}"]))
    assert colors["full"] != colors["pale"]
    before = json.loads((plain.folder / "prediction.geojson").read_text())["features"]
    assert [f["id"] for f in before] == [f["id"] for f in features], "a grade makes no other object"
    [one], [other] = read_predicted_slides([plain.folder]), read_predicted_slides([graded.folder])
    assert np.array_equal(one.boxes, other.boxes) and one.classes == other.classes == ["disc"] * 5


def test_the_record_names_the_classifier_and_says_what_is_larger_than_its_crop(make_slide, tmp_path):
    result = run(make_slide(draw_discs()), tmp_path, Middles())
    record = record_of(result.folder)
    assert {k: record["classifier"][k] for k in ("name", "version", "digest")} == {
        "name": "middles",
        "version": "2.0.0",
        "digest": "e" * 64,
    }
    assert record["grades"]["by_class"] == {"disc": {"full": 3, "pale": 2}}
    assert record["grades"]["not_classified"] == []
    # Of 80 and 52 px; the crop has 48. They are the surest, so the first.
    assert record["grades"]["larger_than_crop"] == [1, 2]
    assert "2 objects are larger than the classifier's crop of 48 × 48 px" in " ".join(record["notes"])
    assert finished_result(result.folder)[1].grades == result.grades


def test_a_result_by_another_or_no_classifier_has_another_key(make_slide):
    path, options, detector = make_slide(draw_discs()), RunOptions(), Discs()
    by = [None, Middles(), Middles(digest="f" * 64)]
    keys = [options.result_key(path, detector, classifier) for classifier in by]
    assert len(set(keys)) == 3
    assert keys[0] == options.result_key(path, detector), "outputs made before there were classifiers are not outdated"


def test_what_cannot_be_decoded_has_no_grade_and_is_listed(make_slide, tmp_path, monkeypatch):
    """Of the object at (330, 200), the corner of the crop lies on a native tile that is lost; its centre does not."""
    path = make_slide(draw_discs())
    monkeypatch.setattr(
        "pathzoo.wsi.run.Slide", lambda path, mpp, reader: TiledSlide(path, mpp, (64, 64), {(0, 6, 4): "corrupt"})
    )
    result = run(path, tmp_path, Middles(140))
    rows = rows_of(result.folder / "detections.csv")
    assert [(rows[0][k]) for k in ("grade", "prob_full", "prob_pale")] == ["", "", ""]
    assert all(row["grade"] for row in rows[1:])
    assert not (result.folder / "crops/0001.png").exists() and (result.folder / "crops/0002.png").exists()
    record = record_of(result.folder)
    [lost] = record["grades"]["not_classified"]
    assert lost["object"] == 1 and "cannot decode" in lost["reason"]
    assert record["grades"]["by_class"]["disc"] == {"full": 2, "pale": 2} and record["tiles"]["by_class"] == {"disc": 5}
    assert any(tile["reason"].startswith("crop of object 1: ") for tile in record["skipped_tiles"])
    features = json.loads((result.folder / "prediction.geojson").read_text())["features"]
    assert features[0]["properties"]["classification"]["name"] == "disc"
    assert not any("Probability" in name for name in features[0]["properties"]["measurements"])


def test_stain_is_that_of_the_slide_as_for_tiles(make_slide, tmp_path):
    from pathzoo.wsi.stain import StainFit, StainTransform

    target = StainFit("reinhard", {"mean": (2.0, 0.1, 0.05), "std": (0.2, 0.05, 0.02)})
    path, classifier = make_slide(draw_discs()), Middles(stain=target)
    result = run(path, tmp_path, classifier)
    said = record_of(result.folder)["classifier"]["stain"]
    own = StainFit(said["method"], {k: tuple(v) for k, v in said["slide"].items()})
    with Slide(path) as slide:
        row = rows_of(result.folder / "detections.csv")[3]
        x, y = (round((float(row[f"{s}0"]) + float(row[f"{s}1"])) / 2) - 24 for s in "xy")
        plain = slide.read(x, y, 48, 48, 0.5)
    crop = np.asarray(Image.open(result.folder / "crops/0004.png"))
    assert np.array_equal(crop, StainTransform(own, target).apply(plain)) and not np.array_equal(crop, plain)


def test_nothing_found_is_nothing_graded(make_slide, tmp_path):
    result = run(make_slide(np.full((300, 300, 3), 240, np.uint8)), tmp_path, Middles())
    with (result.folder / "detections.csv").open() as file:
        assert next(csv.reader(file))[6:] == ["grade", "prob_full", "prob_pale"]
    assert result.grades == {"disc": {"full": 0, "pale": 0}} and not (result.folder / "crops").exists()


def test_what_does_not_go_together_is_refused_before_anything_is_written(make_slide, tmp_path):
    detector, unknown = Discs(), Middles(mpp=None)
    for one, other, words in (
        (Middles(), Middles(), "model middles: its task is classification; --classify goes with detectors"),
        (detector, Discs(), "model discs: its task is detection; --classify takes a model for classification"),
        (detector, unknown, r"model middles was trained at unknown resolution \(mpp: null\)"),
    ):
        with pytest.raises(SlideError, match=words):
            check_classifier(one, other)
    path = make_slide(draw_discs())
    with pytest.raises(SlideError, match=r"slide.tif: has 0.5 microns per pixel, coarser than the 0.25 asked for"):
        run(path, tmp_path / "out", Middles(mpp=0.25))
    assert not (tmp_path / "out").exists()


def test_labels_keep_their_colours_and_hide_classes_that_are_graded_throughout():
    objects = np.array([[0, 0, 1, 1, 0.9, 0], [0, 0, 1, 1, 0.8, 1], [0, 0, 1, 1, 0.7, 1]])
    some = np.array([[0.2, 0.8], [np.nan, np.nan], [0.6, 0.4]], np.float32)
    partly = label_objects(objects, ("a", "b"), Grades(("x", "y"), some))
    assert partly.counts == {"a: x": 0, "a: y": 1, "b: x": 1, "b: y": 0, "b": 1}
    assert [partly.names[i] for i in partly.which] == ["a: y", "b", "b: x"]
    wholly = label_objects(objects[:1], ("a", "b"), Grades(("x", "y"), some[:1]))
    assert wholly.counts == {"a: x": 0, "a: y": 1, "b: x": 0, "b: y": 0}
    assert all(partly.colors[name] == wholly.colors[name] for name in wholly.names)
    assert len(set(partly.colors.values())) == 5
    assert label_objects(objects, ("a", "b"), None).counts == {"a": 1, "b": 2}
