"""From annotated slides to COCO files, by the command."""

import csv
import json
from collections import Counter, defaultdict

import numpy as np
import pytest
import shapely
from annotated_lab import geojson
from box_lab import BOXES, load, make_lab, run, tissue
from dataset_converters import annotations_to_boxes as tool
from PIL import Image

from pathzoo.wsi.slide import Slide


@pytest.fixture
def lab(tmp_path):
    return make_lab(tmp_path)


def test_tiles_are_the_slides_pixels_and_boxes_lie_where_the_objects_are(lab, capsys):
    assert run(lab) == 0
    document = load(lab)
    assert document["categories"] == [{"id": 1, "name": "glomerulus"}]
    images = {image["id"]: image for image in document["images"]}
    with Slide(lab / "slides" / "a.tif") as slide:
        for image in images.values():
            assert (image["width"], image["height"], image["downsample"], image["mpp"]) == (120, 90, 1.0, 0.5)
            if image["slide"] == "a":
                written = np.asarray(Image.open(lab / "out" / image["file_name"]))
                np.testing.assert_array_equal(written, slide.read(image["x"], image["y"], 120, 90))
    for annotation in document["annotations"]:
        image = images[annotation["image_id"]]
        x0, y0, x1, y1 = BOXES[int(annotation["object"].split(":")[1]) - 1]
        left, top = max(x0, image["x"]), max(y0, image["y"])
        right, bottom = min(x1, image["x"] + 120), min(y1, image["y"] + 90)
        assert annotation["bbox"] == [left - image["x"], top - image["y"], right - left, bottom - top]
        share = (right - left) * (bottom - top) / ((x1 - x0) * (y1 - y0))
        assert annotation["share"] == pytest.approx(share, abs=1e-4)
        assert annotation["ignore"] == annotation["iscrowd"] == int(share < 0.4)
        assert annotation["area"] == (right - left) * (bottom - top)
    said = capsys.readouterr()
    assert "e.tif: no annotations" in said.err and "slides without annotations, left out: 1" in said.out
    counts = {line.rsplit(maxsplit=1)[0]: line.rsplit(maxsplit=1)[1] for line in said.out.splitlines()[1:10]}
    assert counts["slides"] == "4" and counts["patients"] == "3" and counts["tiles"] == str(len(images))
    assert "12 of 12 objects are larger than the overlap of 40x30 px (largest sides 140x90 px)" in said.out


def test_objects_stand_whole_and_once_for_evaluation(lab):
    assert run(lab, mpp="1.0") == 0
    known = load(lab, "objects.json")
    assert (known["format"], known["classes"]) == ("pathzoo.objects", ["glomerulus"])
    assert [slide["slide"] for slide in known["slides"]] == list("abcd")
    assert known["slides"][0]["patient"] == "p0" and known["slides"][0]["mpp"] == pytest.approx(0.5)
    assert [tuple(one["box"]) for one in known["slides"][2]["objects"]] == BOXES  # level-0 pixels
    with (lab / "out" / "objects.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12 and rows[3]["object"] == "b:1" and float(rows[5]["x1"]) == 390
    assert {image["downsample"] for image in load(lab)["images"]} == {2.0}


@pytest.mark.parametrize("cut", ["keep", "drop", "ignore"])
def test_small_parts_are_kept_dropped_or_ignored(lab, cut):
    assert run(lab, "--cut", cut, "--min-share", "0.5") == 0
    document = load(lab)
    small = [annotation for annotation in document["annotations"] if annotation["share"] < 0.5]
    assert bool(small) == (cut != "drop") and all(annotation["ignore"] == (cut == "ignore") for annotation in small)
    if cut == "drop":  # no tile that holds a dropped part alone is taken for background
        shown = {annotation["image_id"] for annotation in document["annotations"]}
        for image in document["images"]:
            touched = any(
                min(x1, image["x"] + 120) - max(x0, image["x"]) >= 1
                and min(y1, image["y"] + 90) - max(y0, image["y"]) >= 1
                for x0, y0, x1, y1 in BOXES
            )
            assert image["id"] in shown or not touched


def test_background_is_drawn_over_tissue_at_the_rate(lab, capsys):
    counts = {}
    for rate in ("0", "0.5", "1"):
        assert run(lab, "--background", rate, "--cut", "keep", out=f"out{rate}") == 0
        document = load(lab, out=f"out{rate}")
        shown = {annotation["image_id"] for annotation in document["annotations"]}
        rest = {(i["slide"], i["x"], i["y"]) for i in document["images"] if i["id"] not in shown}
        counts[rate] = len(shown), rest
        assert all(x < 300 for _, x, _ in rest)  # glass is no background
    assert len({n for n, _ in counts.values()}) == 1 and not counts["0"][1]
    assert counts["0.5"][1] < counts["1"][1] and 0.25 < len(counts["0.5"][1]) / len(counts["1"][1]) < 0.75
    assert run(lab, "--background", "0.5", "--cut", "keep", "--seed", "1", out="other") == 0
    assert load(lab, out="other")["images"] != load(lab, out="out0.5")["images"]


def test_the_split_is_by_patient(lab, capsys):
    assert run(lab, "--split", "2", "1", "--from-slide") == 0
    parts = {name: load(lab, f"{name}.json") for name in ("train", "test", "tiles")}
    patients = {name: {image["patient"] for image in part["images"]} for name, part in parts.items()}
    assert patients["train"] | patients["test"] == patients["tiles"] == {"p0", "p1", "p2"}
    assert not patients["train"] & patients["test"] and all(patients.values())
    for kind in ("images", "annotations"):
        ids = [row["id"] for name in ("train", "test") for row in parts[name][kind]]
        assert sorted(ids) == [row["id"] for row in parts["tiles"][kind]]
    assert "train  test" in capsys.readouterr().out.splitlines()[0]
    assert not (lab / "out" / "images").exists()
    assert (lab / "out" / parts["tiles"]["images"][0]["file_name"]).resolve() == (lab / "slides" / "a.tif").resolve()


def test_a_slide_smaller_than_a_tile_is_one_padded_tile(lab, capsys):
    assert run(lab, tile=("640", "480")) == 0
    document = load(lab)
    assert Counter(image["slide"] for image in document["images"]) == dict.fromkeys("abcd", 1)
    picture = np.asarray(Image.open(lab / "out" / document["images"][0]["file_name"]))
    assert picture.shape == (480, 640, 3) and (picture[300:] == 255).all() and (picture[:, 400:] == 255).all()
    assert "smaller than a tile, padded with white: 4 slides (a, b, c, d)" in capsys.readouterr().out


def test_bad_boxes_of_all_slides_are_named_at_once_and_nothing_is_written(lab, capsys):
    outside = (shapely.box(380, 10, 450, 60), "glomerulus")
    other = (shapely.box(0, 0, 30, 30), "Glomeruli")
    for name in "ab":
        geojson(lab / "drawn" / f"{name}.geojson", [(shapely.box(*BOXES[0]), "glomerulus"), outside, other])
    assert run(lab) == 2 and not (lab / "out").exists()
    error = capsys.readouterr().err.splitlines()[-1]
    assert "4 boxes cannot be used" in error and "a.geojson: object 2" in error and "b.geojson: object 3" in error
    assert "unknown class 'Glomeruli'; did you mean 'glomerulus'?" in error and "--on-bad-box" in error
    boxes = defaultdict(dict)
    for choice in ("clip", "drop"):
        assert run(lab, "--on-bad-box", choice, out=choice) == 0
        assert capsys.readouterr().out.count("bad box: ") == 4
        for slide in load(lab, "objects.json", choice)["slides"]:
            boxes[choice][slide["slide"]] = [tuple(one["box"]) for one in slide["objects"]]
    assert boxes["clip"]["a"] == [BOXES[0], (380, 10, 400, 60)] and boxes["drop"]["a"] == [BOXES[0]]
    assert run(lab, "--leave-out", "Glomeruli", "--on-bad-box", "clip", out="left") == 0
    assert "areas left out, class 'Glomeruli': 2" in capsys.readouterr().out


def test_what_cannot_be_done_is_said_in_a_line(lab, capsys):
    Image.fromarray(tissue(9)).save(lab / "slides" / "f.png")
    geojson(lab / "drawn" / "f.geojson", [(shapely.box(*BOXES[0]), "glomerulus")])
    wrong = [
        (["--split", "4", "-1"], {"mpp": None}, "test=-1"),
        (["--overlap", "1"], {}, "overlap=1.0"),
        ([], {"drawn": "nowhere"}, "nowhere: no such file or folder"),
        ([], {}, "f.png: states no resolution (microns per pixel); give it in --mpp-csv"),
    ]
    for more, options, text in wrong:
        assert run(lab, *more, **options) == 2 and not (lab / "out").exists()
        assert text in capsys.readouterr().err.splitlines()[-1]
    (lab / "patients.csv").write_text("slide,patient\n")
    assert run(lab, "--split", "4", "1", mpp=None) == 2
    assert "0 known patients and one group of slides without a patient" in capsys.readouterr().err
    assert run(lab, mpp=None) == 0
    assert "patient unknown for 5 slides" in capsys.readouterr().out
    assert {image["mpp"] for image in load(lab)["images"] if image["slide"] == "f"} == {None}


def test_jpeg_tiles_by_choice(lab):
    assert run(lab, "--picture", "jpg", "--background", "0") == 0
    image = load(lab)["images"][0]
    assert image["file_name"].endswith(".jpg")
    with Image.open(lab / "out" / image["file_name"]) as picture, Slide(lab / "slides" / "a.tif") as slide:
        assert picture.format == "JPEG"
        off = np.asarray(picture).astype(int) - slide.read(image["x"], image["y"], 120, 90)
        assert abs(off).mean() < 6


@pytest.mark.real
def test_masks_and_boxes_of_real_tiles_agree(real_data, tmp_path):
    folder, found = real_data / "glomeruli" / "aidpath", []
    for name in ("masks", "boxes_coco.json"):
        given = ["--slides", folder / "images", "--annotations", folder / name, "--out", tmp_path / name]
        given += ["--classes", "glomerulus", "--keep-pixels", "--tile", 1024, 1024, "--overlap", 0, "--from-slide"]
        assert tool.main([*map(str, given), "--min-pixels", "400", "--cut", "keep"]) == 0
        document = json.loads((tmp_path / name / "tiles.json").read_text())
        slides = {image["id"]: image["slide"] for image in document["images"]}
        found.append(sorted((slides[row["image_id"]], *row["bbox"]) for row in document["annotations"]))
    assert found[0] == found[1] and len(found[0]) == 17
