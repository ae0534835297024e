"""A translator of tissue trained for a moment, and the regions that it draws: whose they are, and what refuses them."""

import csv
import json
import shutil

import numpy as np
import pytest
import synthesize as tool
import torch
from PIL import Image

from pathzoo.apis.config import load_config
from pathzoo.apis.generators import load_generator
from pathzoo.apis.synthesis_regions import inner_places
from pathzoo.apis.synthesis_report import report_synthesis
from pathzoo.apis.synthesize import Drawing, synthesize
from pathzoo.apis.test import test as run_test
from pathzoo.apis.train import train
from pathzoo.datasets.breast_lesions import BreastLesions
from pathzoo.datasets.drawn_regions import read_record
from pathzoo.datasets.drawn_regions_writer import drawn_region_writer
from pathzoo.datasets.label_augmentation import LabelAugmentation
from pathzoo.datasets.phantom import write_regions
from pathzoo.datasets.region_table import ClassList, default_palette
from pathzoo.errors import CheckpointError, ConfigError, DataError, LeakageError, SlideError
from pathzoo.phantom_mark import any_phantom
from pathzoo.zoo.load import get_model
from pathzoo.zoo.publish import publish_model

CONFIG = "kits_pix2pix/pix2pix_unet_1xb4_40e_breastlesions_small.py"
SEGMENTER = "self_training/supervised_resnest14d-unet_1xb8_48e_breastlesions_small.py"
SPLIT = {"scheme": "patient_kfold", "k": 3, "fold": 0, "seed": 0}
TINY = {
    "model.generator.base_channels": 4,
    "model.discriminator.base_channels": 4,
    "train_cfg.max_epochs": 1,
    "train_cfg.val_interval": 1,
    "param_scheduler.0.begin": 0,
    "param_scheduler.0.end": 1,
    "patches_per_epoch": 8,
    "split": SPLIT,
}
SIDE = 64


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Six patients with a region of 150 x 100 px each."""
    root = tmp_path_factory.mktemp("regions")
    write_regions(root, patients=6, regions_per_patient=1, size=(150, 100), mpp=2.0)
    return root


@pytest.fixture(scope="module")
def options(lab):
    return TINY | {"data_root": str(lab)}


@pytest.fixture(scope="module")
def run(options, tmp_path_factory):
    return train(CONFIG, tmp_path_factory.mktemp("runs") / "run", options=options)


@pytest.fixture(scope="module")
def checkpoint(run):
    return run / "epoch_1.pth"


@pytest.fixture(scope="module")
def drawn(checkpoint, options, tmp_path_factory):
    return synthesize(CONFIG, checkpoint, tmp_path_factory.mktemp("drawn") / "drawn", Drawing(30), options=options)


def pictures(folder):
    return np.stack([np.asarray(Image.open(path)) for path in sorted((folder / "images").iterdir())])


def masks(folder):
    return np.stack([np.asarray(Image.open(path)) for path in sorted((folder / "masks").iterdir())])


def rows(folder):
    with (folder / "regions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def load(lab, subset, **arguments):
    return BreastLesions(str(lab), subset=subset, split=SPLIT, patch_size=SIDE, **arguments)


def test_every_region_is_of_a_training_patient_and_of_a_map_that_shows_a_lesion(lab, drawn):
    real = load(lab, "train")
    index_of = {region.item: index for index, region in enumerate(real.regions)}
    record, made = read_record(drawn), masks(drawn)
    lines = rows(drawn)
    assert len(lines) == len(made) == 30
    for number, line in enumerate(lines):
        about = record["items"][line["image"]]
        region = real.regions[index_of[about["source"]]]
        assert (line["patient"], line["slide"], float(line["mpp"])) == (region.patient, region.slide, 2.0)
        labels = real.read_labels(index_of[about["source"]])
        x, y = about["x"], about["y"]
        np.testing.assert_array_equal(made[number], labels[y : y + SIDE, x : x + SIDE])
        assert np.isin(made[number], (1, 2)).any()
    places = [(about["source"], about["x"], about["y"]) for about in record["items"].values()]
    counts = np.unique(places, axis=0, return_counts=True)[1]
    assert counts.max() - counts.min() <= 1  # each in turn
    assert record["parent_table"] == real.table_digest
    assert record["split"] == real.split.digest
    assert {"generator", "config", "pathzoo", "count", "seed", "noise", "control", "patch_size"} <= record.keys()
    assert (record["augmentation"]["lesion"], record["augmentation"]["outside"]) == (None, 255)
    assert any_phantom([drawn / lines[0]["image"]])


def test_patches_cover_regions_and_stay_inside():
    sizes = [(150, 100), (40, 70), (64, 64)]
    places = list(inner_places(sizes, SIDE))
    for number, (width, height) in enumerate(sizes):
        seen = np.zeros((height, width), bool)
        for place in (place for place in places if place.region == number):
            assert place.x + SIDE <= max(width, SIDE)
            assert place.y + SIDE <= max(height, SIDE)
            seen[place.y : place.y + SIDE, place.x : place.x + SIDE] = True
        assert seen.all()
    assert len(places) == len(set(places)) == 6 + 2 + 1


def test_what_nobody_labelled_stays_unlabelled(lab, checkpoint, options, tmp_path):
    root = tmp_path / "lab"
    shutil.copytree(lab, root)
    for path in (root / "masks").iterdir():
        mask = np.array(Image.open(path))
        mask[:20] = 255
        Image.fromarray(mask).save(path)
    options = options | {"data_root": str(root)}
    made = synthesize(CONFIG, None, tmp_path / "drawn", Drawing(12, control="untrained"), options=options)
    record = read_record(made)
    for about, mask in zip(record["items"].values(), masks(made), strict=True):
        assert (mask == 255).all(axis=1).sum() == max(0, 20 - about["y"])
    assert (masks(made) == 255).any()


def test_a_rare_class_alone_is_drawn(lab, checkpoint, options, tmp_path):
    made = synthesize(CONFIG, checkpoint, tmp_path / "malignant", Drawing(15), classes=["malignant"], options=options)
    assert (masks(made) == 2).any(axis=(1, 2)).all()
    assert read_record(made)["classes"] == ["malignant"]
    both = load(lab, "train", synthetic=str(tmp_path / "malignant")).describe()
    assert both["per_class"]["malignant"]["n_synthetic"] == 15
    for wrong, hint in (
        (["malignat"], "did you mean 'malignant'"),
        (["normal"], "is none that a label map is chosen by"),
        ([], r"classes=\[\]: give names of benign, malignant"),
    ):
        with pytest.raises(ConfigError, match=hint):
            synthesize(CONFIG, checkpoint, tmp_path / "x", Drawing(1), classes=wrong, options=options)


def test_region_k_is_the_same_whatever_the_count(checkpoint, options, drawn, tmp_path):
    fewer = synthesize(CONFIG, checkpoint, tmp_path / "few", Drawing(5), options=options)
    np.testing.assert_array_equal(pictures(fewer), pictures(drawn)[:5])
    other = synthesize(CONFIG, checkpoint, tmp_path / "other", Drawing(5, seed=1), options=options)
    assert not np.array_equal(pictures(other), pictures(fewer))


def test_pictures_are_the_generators_in_rgb(checkpoint, options, tmp_path):
    plain = synthesize(CONFIG, checkpoint, tmp_path / "plain", Drawing(3, noise=False), options=options)
    model = load_generator(load_config(CONFIG, options), checkpoint, 0, "cpu")
    values = model.draw(torch.from_numpy(masks(plain).astype(np.int64))).numpy()  # (3, 3, H, W)
    np.testing.assert_allclose(pictures(plain), np.moveaxis(values, 1, -1), atol=0.51)


def test_label_maps_are_changed_as_a_whole_and_nothing_is_made_up(checkpoint, options, drawn, tmp_path):
    changed = Drawing(8, augmentation=LabelAugmentation(shift=6, rotation=20, scale=(0.8, 1.2)))
    other = synthesize(CONFIG, checkpoint, tmp_path / "changed", changed, options=options)
    assert not np.array_equal(masks(other), masks(drawn)[:8])
    assert (masks(other) == 255).any()  # what came in over the border
    assert not (masks(drawn) == 255).any()
    assert np.isin(masks(other), (1, 2)).any(axis=(1, 2)).all()
    lesions = Drawing(1, augmentation=LabelAugmentation(tumour_shift=2))
    with pytest.raises(ConfigError, match="no lesion in an organ that changes by itself"):
        synthesize(CONFIG, checkpoint, tmp_path / "x", lesions, options=options)


def test_controls_keep_labels_and_exchange_what_they_say(checkpoint, options, drawn, tmp_path):
    shuffled = synthesize(CONFIG, checkpoint, tmp_path / "shuffled", Drawing(8, control="shuffled"), options=options)
    untrained = synthesize(CONFIG, None, tmp_path / "untrained", Drawing(8, control="untrained"), options=options)
    for folder in (shuffled, untrained):
        np.testing.assert_array_equal(masks(folder), masks(drawn)[:8])
        same = [np.array_equal(a, b) for a, b in zip(pictures(folder), pictures(drawn)[:8], strict=True)]
        assert not any(same)
    assert read_record(untrained)["generator"] is None
    with pytest.raises(ConfigError, match="give the checkpoint"):
        synthesize(CONFIG, None, tmp_path / "x", Drawing(1), options=options)
    with pytest.raises(CheckpointError):
        wide = options | {"model.generator.base_channels": 8}
        synthesize(CONFIG, checkpoint, tmp_path / "x", Drawing(1), options=wide)
    assert not (tmp_path / "x").exists()


def test_training_takes_them_and_nothing_else_does(lab, drawn, tmp_path):
    segmenter = {"data_root": str(lab), "split": SPLIT, "patches_per_epoch": 4, "train_cfg.max_epochs": 1}
    folder = train(SEGMENTER, tmp_path / "run", options=segmenter | {"train_dataloader.dataset.synthetic": str(drawn)})
    data, plain = json.loads((folder / "train_run.json").read_text())["data"], load(lab, "train")
    assert data["counts"]["n_synthetic"] == 30
    assert any("30 of 32 regions are synthetic" in text for text in data["counts"]["caveats"])
    assert "drawn" not in (folder / "splits.json").read_text()
    assert (data["digest"] != plain.data_digest) and (data["split"]["digest"] == plain.split.digest)
    run_test(SEGMENTER, work_dir=folder, options=segmenter)
    for part in ("val", "test"):
        with pytest.raises(LeakageError, match="what is judged is real"):
            options = segmenter | {f"{part}_dataloader.dataset.synthetic": str(drawn)}
            train(SEGMENTER, tmp_path / part, options=options)
        with pytest.raises(LeakageError, match="nothing is judged on those"):
            load(drawn, part)
    with pytest.raises(LeakageError, match="who stands in"):
        fold = segmenter | {"fold": 1, "train_dataloader.dataset.synthetic": str(drawn)}
        train(SEGMENTER, tmp_path / "fold", options=fold)
    assert not list(tmp_path.glob("[vtf]*"))


def test_a_generator_of_held_out_patients_is_refused(checkpoint, options, tmp_path):
    """The same patients, dealt otherwise: the generator has seen who is tested on here."""
    other = options | {"split": {**SPLIT, "fold": 1}}
    with pytest.raises(LeakageError, match=r"stands in 'train'.*this split's training subset"):
        synthesize(CONFIG, checkpoint, tmp_path / "drawn", Drawing(2), options=other)
    assert not (tmp_path / "drawn").exists()


def test_what_cannot_be_drawn_leaves_nothing(lab, checkpoint, options, drawn, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"has 2 microns per pixel, but model_input\.mpp is 1.0"):
        synthesize(CONFIG, checkpoint, tmp_path / "x", Drawing(1), options=options | {"model_input.mpp": 1.0})
    root = tmp_path / "lab"
    shutil.copytree(lab, root)
    for path in (root / "masks").iterdir():
        mask = np.array(Image.open(path))
        Image.fromarray(np.minimum(mask, 1)).save(path)
    with pytest.raises(DataError, match="no patch of 64 px in training regions shows malignant"):
        malignant = {"classes": ["malignant"], "options": options | {"data_root": str(root)}}
        synthesize(CONFIG, None, tmp_path / "x", Drawing(1, control="untrained"), **malignant)
    with pytest.raises(SlideError, match="exists already"):
        synthesize(CONFIG, checkpoint, drawn, Drawing(1), options=options)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathzoo.datasets.drawn_regions_writer.write_picture", full)
    with pytest.raises(SlideError, match="No space left on device"):
        synthesize(CONFIG, checkpoint, tmp_path / "x", Drawing(1), options=options)
    assert [path.name for path in tmp_path.iterdir()] == ["lab"]


def test_the_tool_reports_and_shows_what_it_drew(checkpoint, options, tmp_path, capsys):
    words = [f"{key}={value}" for key, value in options.items()]
    out = tmp_path / "drawn"
    given = [f"configs/{CONFIG}", str(checkpoint), "--out", str(out), "--count", "12", "--augment-labels"]
    given += ["--classes", "malignant", "--cfg-options", *words]
    assert tool.main(given) == 0
    said = capsys.readouterr().out
    assert "12 regions of 2 training patients" in said
    report = json.loads((out / "report.json").read_text())
    assert report["parents"]["patients"] == 2
    assert report["quality"]["n"] == report["parents"]["patches"]
    assert -1 <= report["quality"]["ssim"] <= 1
    assert {"drawn", "validation"} <= report["kid"].keys()
    assert len(report["memorised"]["items"]) == report["memorised"]["flagged"]
    assert Image.open(out / "pictures.png").width > 600
    assert tool.main(given) == 2  # nothing is written over
    assert "exists already" in capsys.readouterr().err
    assert tool.main([*given[:4], "--overwrite", *given[4:7], "--tumour-shift", "3", *given[7:]]) == 2
    assert "--tumour-scale, --tumour-shift) out" in capsys.readouterr().err
    assert (out / "report.json").exists()
    assert tool.main([*given[:4], "--overwrite", *given[4:]]) == 0


def test_a_copy_of_a_patients_tile_is_flagged(lab, checkpoint, options, tmp_path):
    made, real = synthesize(CONFIG, checkpoint, tmp_path / "drawn", Drawing(6), options=options), load(lab, "train")
    index_of = {region.item: index for index, region in enumerate(real.regions)}
    classes = ClassList(real.metainfo["classes"], default_palette(3))
    with drawn_region_writer(tmp_path / "copy", classes, {"parent_table": real.table_digest}) as writer:
        for number, about in enumerate(read_record(made)["items"].values()):
            place, x, y = index_of[about["source"]], about["x"], about["y"]
            own = real.read_image(place)[y : y + SIDE, x : x + SIDE]
            tile = own.copy() if number == 4 else pictures(made)[number]
            writer.add(tile, masks(made)[number], real.regions[place], x, y)
    cfg = load_config(CONFIG, options)
    found = report_synthesis(cfg, load_generator(cfg, checkpoint, 0, "cpu"), tmp_path / "copy")
    assert "images/drawn_000004.png" in found["memorised"]["items"]


def test_a_trained_translator_is_published_and_draws_from_the_zoo(run, options, tmp_path):
    run_test(CONFIG, work_dir=run, options=options)
    card = {"description": "A toy.", "licence": "CC-BY-4.0", "commercial_use": True}
    folder = publish_model(run / "epoch_1.pth", "toy-tissue", "1.0.0", tmp_path, card, run=run)
    manifest = json.loads((folder / "model.json").read_text())
    assert manifest["task"] == "translation"
    assert (manifest["input"]["channels"], manifest["input"]["mpp"]) == ("RGB", 2.0)
    assert {row["metric"] for row in manifest["metrics"][0]["rows"]} >= {"mae", "ssim"}
    values = get_model(folder)(np.ones((2, SIDE, SIDE), np.uint8)).values
    assert values.shape == (2, 3, SIDE, SIDE)
