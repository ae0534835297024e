"""A review of labels from end to end: planted mistakes, files for QuPath, and what comes back through the converter."""

import csv
import json
import shutil
import uuid
from pathlib import Path

import cv2
import numpy as np
import pytest
from analysis_tools import label_review as tool
from dataset_converters import annotations_to_regions as converter
from PIL import Image
from region_tables import write_lab, write_table
from shapely import box
from shapely.geometry import shape

from pathzoo.datasets.phantom import write_regions

SIZE = (300, 240)
#: In whose labels benign and malignant are exchanged.
FLIPPED = ("P002_1", "P004_2")
CLASSES = ("normal", "benign", "malignant")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("PATHZOO_CACHE", str(tmp_path_factory.mktemp("cache")))


def read(path):
    with Image.open(path) as picture:
        return np.array(picture)


def predicted(truth, sure=0.9):
    """(3, H, W) float32: sure of the class, and of nothing where there is none."""
    rest = (1 - sure) / 2
    probs = np.stack([np.where(truth == index, sure, rest) for index in range(3)])
    probs[:, truth == 255] = 1 / 3
    return probs.astype(np.float32)


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Path:
    """Eight regions of four patients: two flipped, one partly and one not at all labelled; `predictions` as drawn."""
    root = tmp_path_factory.mktemp("review") / "lab"
    write_regions(root, patients=4, regions_per_patient=2, size=SIZE)
    (root / "predictions").mkdir()
    for path in sorted((root / "masks").iterdir()):
        truth = read(path)
        np.savez_compressed(root / "predictions" / f"{path.stem}.npz", probs=predicted(truth))
        if path.stem in FLIPPED:
            Image.fromarray(np.array([0, 2, 1], np.uint8)[truth]).save(path)
    partly = read(root / "masks" / "P001_2.png")
    partly[:30, :40] = 255
    partly[100, 100] = 255
    Image.fromarray(partly).save(root / "masks" / "P001_2.png")
    table = (root / "regions.csv").read_text()
    (root / "regions.csv").write_text(table.replace("masks/P003_2.png", ""))
    (root / "masks" / "P003_2.png").unlink()
    (root / "predictions" / "P003_2.npz").unlink()
    return root


def review(lab, out, *more):
    words = ["--data-root", lab, "--predictions", lab / "predictions", "--work-dir", out, "--pictures", "1"]
    return tool.main([str(word) for word in [*words, *more]])


@pytest.fixture(scope="module")
def done(lab, tmp_path_factory):
    out = tmp_path_factory.mktemp("done")
    assert review(lab, out) == 0
    return out / "review"


def convert(done, out, *more, annotations=None):
    tables = [word for option in ("--slides", "--patients", "--mpp-csv") for word in (option, done / "slides.csv")]
    words = [*tables, "--annotations", annotations or done / "geojson", "--background", "normal", "--out", out, *more]
    assert converter.main([*map(str, words), "--classes", *CLASSES]) == 0
    return out


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def features(done, name):
    return json.loads((done / "geojson" / f"{name}.geojson").read_text())["features"]


def test_the_flipped_regions_come_first(done):
    ranking = rows(done / "ranking.csv")
    assert {Path(row["item"]).stem for row in ranking[:2]} == set(FLIPPED)
    assert [row["rank"] for row in ranking] == [str(rank) for rank in range(1, 8)]
    assert all(float(row["suspicion"]) > 0 for row in ranking[:2])
    assert all(float(row["suspicion"]) < 0 for row in ranking[2:])
    areas = rows(done / "areas.csv")
    assert {Path(row["item"]).stem for row in areas} == set(FLIPPED)
    assert all({row["labelled"], row["looks_like"]} == {"benign", "malignant"} for row in areas)
    assert {row["whole"] for row in areas} == {"1"}
    assert sum(int(row["pixels"]) for row in areas) == sum(int(row["area_pixels"]) for row in ranking)
    assert len(list((done / "pictures").iterdir())) == 1


def test_every_file_is_as_qupath_reads_it(done, lab):
    items = [Path(row["item"]).stem for row in rows(done / "ranking.csv")]
    assert sorted(path.stem for path in (done / "geojson").iterdir()) == sorted(items)
    names = set()
    for item in items:
        found = features(done, item)
        ids = [feature["id"] for feature in found]
        assert len(set(ids)) == len(ids) and all(uuid.UUID(name) for name in ids)
        for feature in found:
            assert set(feature) == {"type", "id", "geometry", "properties"}
            properties, figure = feature["properties"], shape(feature["geometry"])
            assert properties["objectType"] == "annotation"
            assert all(np.isfinite(value) for value in properties["measurements"].values())
            assert figure.is_valid and figure.area == properties["measurements"]["Pixels"]
            assert box(0, 0, *SIZE).covers(figure)
            for ring in feature["geometry"]["coordinates"]:
                assert ring[0] == ring[-1] and len({tuple(point) for point in ring}) == len(ring) - 1
            names.add(properties["classification"]["name"])
            if properties["classification"]["name"].startswith("Review: "):
                assert "looks like" in properties["name"] and item in FLIPPED
    assert names == {"benign", "malignant", "Ignore*", "Review: benign", "Review: malignant"}


def test_what_nobody_changed_comes_back(done, lab, tmp_path):
    out = convert(done, tmp_path / "same")
    table = {Path(row["image"]).stem: row for row in rows(out / "regions.csv")}
    assert len(table) == 7 and "P003_2" not in table
    for name, row in table.items():
        np.testing.assert_array_equal(read(out / row["mask"]), read(lab / "masks" / f"{name}.png"))
        np.testing.assert_array_equal(read(out / row["image"]), read(lab / "images" / f"{name}.png"))
        assert row["patient"] == name[:4] and row["mpp"] == "1"


@pytest.mark.parametrize("derived", [False, True])
def test_an_accepted_area_changes_exactly_its_pixels(done, lab, tmp_path, derived):
    """One area is kept, all others are deleted: of the masks just those pixels change, to what was drawn there."""
    shutil.copytree(done / "geojson", tmp_path / "geojson")
    kept = None
    for item in FLIPPED:
        left = []
        for feature in features(done, item):
            classification = feature["properties"]["classification"]
            if classification["name"].startswith("Review: "):
                if kept is not None:
                    continue
                kept = feature
                if derived:  # as QuPath 0.4 and later writes such a class
                    classification["names"] = classification.pop("name").split(": ")
            left.append(feature)
        content = {"type": "FeatureCollection", "features": left}
        (tmp_path / "geojson" / f"{item}.geojson").write_text(json.dumps(content))
    out = convert(done, tmp_path / "out", "--accept-reviews", annotations=tmp_path / "geojson")
    for path in sorted((lab / "masks").iterdir()):
        before, after = read(path), read(out / "masks" / path.name)
        changed = before != after
        if path.stem != FLIPPED[0]:
            assert not changed.any()
            continue
        assert changed.sum() == kept["properties"]["measurements"]["Pixels"] > 0
        np.testing.assert_array_equal(after[changed], drawn(lab, path.stem)[changed])
        (old,) = np.unique(before[changed])
        # A whole lesion: nothing of its label is left at its edge.
        edge = cv2.dilate(changed.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool) & ~changed
        assert not (after[edge] == old).any()


def drawn(lab, name):
    with np.load(lab / "predictions" / f"{name}.npz") as content:
        return content["probs"].argmax(axis=0)


def test_all_areas_accepted_give_the_drawing(done, lab, tmp_path):
    out = convert(done, tmp_path / "accepted", "--accept-reviews")
    for name in FLIPPED:
        np.testing.assert_array_equal(read(out / "masks" / f"{name}.png"), drawn(lab, name))


def test_what_is_printed_says_how_to_go_on(lab, tmp_path, capsys):
    assert review(lab, tmp_path, "--top", "2", "--rank-by", "disagreement") == 0
    told = capsys.readouterr().out
    assert "looks like" in told and "annotations_to_regions.py" in told
    command = next(line for line in told.splitlines() if "annotations_to_regions.py" in line)
    assert "--accept-reviews" not in command and "--background normal" in command
    assert json.loads((tmp_path / "review" / "review.json").read_text())["rank_by"] == "disagreement"
    assert converter.main(command.split()[2:]) == 0  # as it stands
    assert (tmp_path / "corrected" / "regions.csv").is_file()


def refused(capsys, message, *words):
    assert tool.main([str(word) for word in words]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and message in error


def test_bad_input_is_one_line(lab, done, tmp_path, capsys):
    data, probs, out = ("--data-root", lab), ("--predictions", lab / "predictions"), ("--work-dir", tmp_path / "w")
    refused(capsys, "give a CONFIG", *data, *out)
    refused(capsys, "needs --data-root", *probs, *out)
    refused(capsys, "none: no such folder of predictions", *data, "--predictions", tmp_path / "none", *out)
    refused(capsys, "review: exists already", *data, *probs, "--work-dir", done.parent)
    refused(capsys, "background 'norml' is no class; did you mean 'normal'", *data, *probs, *out, "--background=norml")
    (tmp_path / "few").mkdir()
    message = "few: holds no probabilities of 7 of 7 regions, the first images/P001_1.png"
    refused(capsys, message, *data, "--predictions", tmp_path / "few", *out)
    # Before any model is trained:
    config = "self_training/supervised_resnest14d-unet_1xb8_48e_breastlesions_small.py"
    words = (config, *out, "--background", "norml", "--cfg-options", "split={'scheme':'none'}")
    more = ("train_dataloader.dataset.subset=all",)
    refused(capsys, "background 'norml' is no class", *words, f"data_root={lab}", *more)
    assert not (tmp_path / "w").exists()


def test_two_pictures_of_one_name_are_refused_at_once(tmp_path, capsys):
    """QuPath and the converter tell pictures apart by their names alone."""
    lab = write_lab(tmp_path / "lab", patients=2, each=1)
    for number in (0, 1):
        (lab / f"p{number}").mkdir()
        (lab / "images" / f"{number:02d}.png").rename(lab / f"p{number}" / "roi.png")
    write_table(
        lab / "regions.csv",
        [["image", "mask", "patient"], *([f"p{n}/roi.png", f"masks/{n:02d}.png", f"P{n}"] for n in (0, 1))],
    )
    content = {"format": 1, "classes": list(CLASSES)}
    (lab / "classes.json").write_text(json.dumps(content))
    words = ("--data-root", lab, "--predictions", lab, "--work-dir", tmp_path / "w")
    refused(capsys, "p1/roi.png and p0/roi.png: two pictures of one name", *words)
    assert not (tmp_path / "w").exists()
