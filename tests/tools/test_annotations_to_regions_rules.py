"""What annotations stand for on the way to masks, what is told of them, and what is refused."""

import numpy as np
import pytest
import shapely
from annotated_lab import A_MASK, box_mask, geojson, picture, read, run, table, write_annotated_lab

from pathzoo.wsi import annotated_regions
from pathzoo.wsi.region_areas import joined_boxes


@pytest.fixture
def lab(tmp_path):
    return write_annotated_lab(tmp_path)


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


def test_boxes_are_joined_until_none_overlap():
    boxes = [shapely.box(x, y, x + 10, y + 10) for x, y in [(0, 0), (8, 8), (30, 0), (16, 2), (50, 50)]]
    assert [box.bounds for box in joined_boxes(boxes)] == [(0, 0, 26, 18), (30, 0, 40, 10), (50, 50, 60, 60)]
    assert joined_boxes([]) == []


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


def test_what_only_touches_the_slide_or_is_ignored_is_not_cut(lab, capsys):
    beside, ignored = shapely.box(640, 100, 700, 200), shapely.box(500, 300, 550, 350)
    geojson(
        lab / "drawn" / "a.geojson",
        [(shapely.box(10, 10, 60, 50), "benign"), (beside, "malignant"), (ignored, "Ignore*"), (beside, "Region")],
    )
    for cut, corners in (("annotated", [("a", "10", "10"), ("b", "10", "20")]), ("regions", [])):
        code = run(lab, "--cut", cut, out=cut)
        told = capsys.readouterr()
        if corners:
            assert code == 0 and "warning: areas that lie wholly outside of 1 slides (a)" in told.out
            assert [(row["slide"], row["x"], row["y"]) for row in table(lab, cut)] == corners
            assert all(row["mask"] for row in table(lab, cut))
        else:
            assert code == 2 and "no pixel got a label" in told.err
            assert not (lab / cut).exists()
