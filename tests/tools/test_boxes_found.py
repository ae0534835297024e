"""What the converter to boxes says of annotations that are unlike others: ignored, unseen, without a slide."""

import csv
import json
import shutil

import numpy as np
import pytest
import tifffile
from annotated_lab import geojson
from box_lab import BOXES, load, make_lab, run


@pytest.fixture
def lab(tmp_path):
    return make_lab(tmp_path)


def write_coco(path, *annotations, image="a.tif"):
    """A COCO file of one slide."""
    rows = [{"id": number, "image_id": 1, "category_id": 1, **row} for number, row in enumerate(annotations)]
    names = [{"id": 1, "name": "glomerulus"}]
    path.write_text(json.dumps({"images": [{"id": 1, "file_name": image}], "annotations": rows, "categories": names}))
    return path


@pytest.mark.parametrize("cut", ["keep", "drop", "ignore"])
def test_objects_to_be_ignored_are_ignored_boxes_in_every_tile(lab, capsys, cut):
    x0, y0, x1, y1 = BOXES[1]
    rows = [{"bbox": [10, 10, 50, 50]}, {"bbox": [x0, y0, x1 - x0, y1 - y0], "iscrowd": 1, "area": 1234}]
    write_coco(lab / "whole.json", *rows)
    assert run(lab, "--cut", cut, "--min-share", "0.9", drawn="whole.json") == 0
    boxes = [(row["object"], row["ignore"]) for row in load(lab)["annotations"]]
    assert [flag for name, flag in boxes if name == "a:2"] == [1] * sum(name == "a:2" for name, _ in boxes)
    assert sum(name == "a:2" for name, _ in boxes) > 2  # the parts that tiles cut, too
    (known,) = load(lab, "objects.json")["slides"]
    assert [(one["ignore"], one["area"]) for one in known["objects"]] == [(False, 2500), (True, 1234)]
    with (lab / "out" / "objects.csv").open(newline="") as file:
        assert [row["ignore"] for row in csv.DictReader(file)] == ["0", "1"]
    said = capsys.readouterr().out
    assert "objects annotated on the slides: 1\n" in said and "to be ignored, by their file: 1\n" in said


def test_ignored_objects_alone_are_no_objects(lab, capsys):
    write_coco(lab / "whole.json", {"bbox": [10, 10, 50, 50], "ignore": 1})
    assert run(lab, drawn="whole.json") == 2
    assert "not one object of class glomerulus was found" in capsys.readouterr().err


def test_one_slide_under_two_patients_is_a_leak(lab, capsys):
    """a is of p0, c of p1."""
    shutil.copy(lab / "slides" / "a.tif", lab / "slides" / "c.tif")
    assert run(lab, "--split", "1", "1") == 2 and not (lab / "out").exists()
    said = capsys.readouterr().err.splitlines()
    assert "a.tif and c.tif hold the same bytes, but are of patients 'p0' and 'p1'" in said[-1]
    assert not any("tiles" in line for line in said)  # nothing was cut
    assert run(lab, "--from-slide") == 0
    assert "warning: a.tif and c.tif hold the same bytes, but are of patients" in capsys.readouterr().out


def test_one_slide_twice_under_one_patient_is_said(lab, capsys):
    shutil.copy(lab / "slides" / "a.tif", lab / "slides" / "b.tif")
    assert run(lab, "--split", "1", "1", "--from-slide") == 0
    assert "warning: a.tif and b.tif hold the same bytes: what they show counts twice" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("shares", "patients", "text"),
    [
        (("4", "0"), None, "test=0; give each part a share above 0"),
        (("4", "1"), "p0", "need as many patients, but there is 1 known patient"),
        (("4", "1"), "", "but there are 0 known patients and one group of slides without a patient"),
    ],
)
def test_a_split_that_cannot_be_is_refused_before_anything_is_cut(lab, capsys, shares, patients, text):
    if patients is not None:
        rows = [f"{name},{patients}" for name in "abcde"]
        (lab / "patients.csv").write_text("\n".join(["slide,patient", *rows]) + "\n")
    assert run(lab, "--split", *shares) == 2
    said = capsys.readouterr().err.splitlines()
    assert text in said[-1] and "leaky" not in said[-1] and not any("tiles" in line for line in said[:-1])


def test_tiles_with_ignored_parts_alone_are_no_background(lab, capsys):
    shown = {}
    for rate in ("0", "1"):
        assert run(lab, "--background", rate, "--min-share", "0.5", "--from-slide", out=rate) == 0
        document = load(lab, out=rate)
        flags = {image["id"]: [] for image in document["images"]}
        for row in document["annotations"]:
            flags[row["image_id"]].append(row["ignore"])
        shown[rate] = [
            sum(bool(own) and all(own) for own in flags.values()),
            sum(not own for own in flags.values()),
        ]
        said = {
            line.rsplit(maxsplit=1)[0]: line.rsplit(maxsplit=1)[-1] for line in capsys.readouterr().out.splitlines()
        }
        assert [said["tiles with ignored parts alone"], said["background tiles"]] == [str(n) for n in shown[rate]]
    assert shown["0"][0] == shown["1"][0] > 0 and shown["0"][1] == 0 < shown["1"][1]


def test_objects_without_a_box_in_any_tile_are_named(lab, capsys):
    """The third object, 140 x 90, is larger than the tile; no tile holds 0.9 of it."""
    assert run(lab, "--min-share", "0.9", "--from-slide", tile=("64", "64")) == 0
    said = capsys.readouterr().out
    boxed = {row["object"] for row in load(lab)["annotations"] if not row["ignore"]}
    missing = [f"{name}:{n}" for name in "abcd" for n in (1, 2, 3) if f"{name}:{n}" not in boxed]
    assert "d:3" in missing
    assert f"warning: objects without a box in any tile: {len(missing)} ({', '.join(missing[:5])}" in said


def test_an_annotated_slide_without_tissue_is_counted_and_said(lab, capsys):
    glass = np.full((300, 400, 3), 245, np.uint8)
    size = {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(lab / "slides" / "d.tif", glass, tile=(64, 64), photometric="rgb", **size)
    geojson(lab / "drawn" / "d.geojson", [])
    assert run(lab, "--from-slide") == 0
    said = capsys.readouterr().out.splitlines()
    assert said[1].split() == ["slides", "4"] and said[2].split() == ["patients", "3"]
    assert "slides that gave no tile (no object, and no tissue or no background drawn): 1 (d)" in said


def test_what_matches_no_slide_is_named(lab, capsys):
    geojson(lab / "drawn" / "Zother.geojson", [])
    with (lab / "patients.csv").open("a") as table:
        table.write("gone.tif,p9\n")
    (lab / "mpp.csv").write_text("slide,mpp\na,0.5\nlost,0.25\n")
    assert run(lab, "--from-slide", "--mpp-csv", lab / "mpp.csv") == 0
    said = capsys.readouterr()
    for text in (
        "annotations without a slide: 1 (Zother.geojson)",
        "rows of patients.csv without a slide: 1 (gone.tif)",
        "rows of mpp.csv without a slide: 1 (lost)",
    ):
        assert f"warning: {text}" in said.out and text in said.err
    write_coco(lab / "whole.json", {"bbox": [10, 10, 50, 50]})
    document = json.loads((lab / "whole.json").read_text())
    document["images"].append({"id": 2, "file_name": "other/elsewhere.tif"})
    (lab / "whole.json").write_text(json.dumps(document))
    assert run(lab, "--from-slide", drawn="whole.json", out="coco") == 0
    assert "warning: images of whole.json without a slide: 1 (elsewhere)" in capsys.readouterr().out


def test_annotations_may_carry_the_slides_whole_name(lab, capsys):
    (lab / "drawn" / "a.geojson").rename(lab / "drawn" / "a.tif.geojson")
    assert run(lab, "--from-slide") == 0
    said = capsys.readouterr().out
    assert {image["slide"] for image in load(lab)["images"]} == set("abcd") and "without a slide" not in said
    shutil.copy(lab / "drawn" / "a.tif.geojson", lab / "drawn" / "a.geojson")
    assert run(lab, "--from-slide", out="twice") == 2
    assert "a.tif: has two files of annotations" in capsys.readouterr().err


def test_a_table_of_other_slides_is_said_where_a_split_fails(lab, capsys):
    (lab / "patients.csv").write_text("slide,patient\nx1,p1\nx2,p2\n")
    assert run(lab, "--split", "4", "1") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "patients.csv gives 2 slides a patient, but none of these, e.g. x1" in error


def test_tiles_are_replaced_by_choice_and_nothing_else_is(lab, capsys):
    assert run(lab, "--from-slide") == 0 and run(lab, "--from-slide") == 2
    assert "exists already; remove it, choose another output folder, or pass --overwrite" in capsys.readouterr().err
    assert run(lab, "--from-slide", "--background", "0", "--overwrite") == 0
    assert load(lab)["info"]["background"] == 0
    capsys.readouterr()
    assert run(lab, "--from-slide", "--overwrite", out="slides") == 2
    assert "slides: holds no tiles of this converter (no objects.json)" in capsys.readouterr().err
    assert sorted(path.name for path in (lab / "slides").iterdir()) == [f"{name}.tif" for name in "abcde"]
    (lab / "slides" / "objects.json").touch()
    assert run(lab, "--from-slide", "--overwrite", out="slides") == 2
    assert "slides: holds a.tif, which would be removed with it" in capsys.readouterr().err
