"""A translator trained for a moment, and the slices that it draws: whose they are, what refuses them, what is told."""

import importlib
import json
import shutil

import numpy as np
import pytest
import synthesize as tool
import torch
from PIL import Image
from slice_stores import COHORT, write_slices

from pathzoo.apis.config import load_config
from pathzoo.apis.synthesis_slices import to_hounsfield
from pathzoo.apis.synthesize import Drawing, synthesize
from pathzoo.apis.test import test as run_test
from pathzoo.apis.train import train
from pathzoo.ct.store import SliceStore
from pathzoo.datasets.label_augmentation import LabelAugmentation
from pathzoo.datasets.slices import SliceSegmentation
from pathzoo.datasets.transforms import HUWindow
from pathzoo.errors import ConfigError, DataError, LeakageError
from pathzoo.zoo.load import get_model
from pathzoo.zoo.publish import publish_model

CONFIG = "kits_pix2pix/pix2pix_unet_1xb4_40e_kits19_small.py"
TINY = {
    "model.generator.num_down": 5,
    "model.generator.base_channels": 4,
    "model.discriminator.base_channels": 4,
    "model_input.tile_size": (64, 32),
    "train_cfg.max_epochs": 1,
    "train_cfg.val_interval": 1,
    "param_scheduler.0.begin": 0,
    "param_scheduler.0.end": 1,
    "samples_per_epoch": 8,
}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_slices(tmp_path_factory.mktemp("real") / "store", size=(64, 32))


@pytest.fixture(scope="module")
def options(store):
    return TINY | {"data_root": str(store)}


@pytest.fixture(scope="module")
def run(options, tmp_path_factory):
    folder = train(CONFIG, tmp_path_factory.mktemp("runs") / "run", options=options)
    run_test(CONFIG, work_dir=folder, options=options)
    return folder


@pytest.fixture(scope="module")
def checkpoint(run):
    return run / "epoch_1.pth"


@pytest.fixture(scope="module")
def drawn(checkpoint, options, tmp_path_factory):
    return synthesize(CONFIG, checkpoint, tmp_path_factory.mktemp("drawn") / "store", Drawing(20), options=options)


def images(folder):
    return np.load(folder / "train" / "images.npy")


def labels(folder):
    return np.load(folder / "train" / "labels.npy")


def test_every_slice_is_of_a_training_patient_and_of_a_map_that_shows_something(store, drawn):
    made, real = SliceStore(drawn), SliceStore(store)
    made.verify()
    assert made.subsets == ("train",)
    of_item = {record.item: record for record in real.records("train")}
    records = made.records("train")
    assert len(records) == 20
    for index, record in enumerate(records):
        parent = of_item[record.source]
        assert record.patient == parent.patient in COHORT["train"]
        assert record.kidney + record.tumour > 0
        place = list(of_item).index(record.source)
        np.testing.assert_array_equal(made.label("train", index), real.label("train", place))
    counts = np.unique([record.source for record in records], return_counts=True)[1]
    assert len(counts) == 8  # two of three slices of four patients
    assert counts.min() >= 2
    assert counts.max() <= 3  # each in turn
    assert made.known_range == (-200, 200)
    assert made.synthetic["parent_store"] == real.digest


def test_slice_k_is_the_same_whatever_the_count(checkpoint, options, drawn, tmp_path):
    fewer = synthesize(CONFIG, checkpoint, tmp_path / "few", Drawing(5), options=options)
    np.testing.assert_array_equal(images(fewer), images(drawn)[:5])
    other = synthesize(CONFIG, checkpoint, tmp_path / "other", Drawing(5, seed=1), options=options)
    assert not np.array_equal(images(other), images(fewer))


def test_pictures_are_the_generators_in_hounsfield_units(checkpoint, options, drawn, tmp_path):
    from pathzoo.registry import MODELS

    plain = synthesize(CONFIG, checkpoint, tmp_path / "plain", Drawing(3, noise=False), options=options)
    model = MODELS.build(load_config(CONFIG, options).model)
    model.load_state_dict(torch.load(checkpoint, weights_only=True)["state_dict"])
    values = model.draw(torch.from_numpy(labels(plain).astype(np.int64))).numpy()[:, 0] / 255 * 400 - 200
    np.testing.assert_allclose(images(plain), values, atol=0.51)  # whole HU
    assert to_hounsfield(np.array([[0.0, 127.5, 255.0]]), (-200.0, 200.0)).tolist() == [[-200, 0, 200]]


def test_label_maps_are_changed_where_asked(checkpoint, options, drawn, tmp_path):
    changed = Drawing(8, augmentation=LabelAugmentation(shift=4, rotation=10))
    other = synthesize(CONFIG, checkpoint, tmp_path / "changed", changed, options=options)
    assert not np.array_equal(labels(other), labels(drawn)[:8])
    assert [record.source for record in SliceStore(other).records("train")] == [
        record.source for record in SliceStore(drawn).records("train")[:8]
    ]


def test_a_rare_class_alone_is_drawn(store, checkpoint, options, tmp_path):
    made = synthesize(CONFIG, checkpoint, tmp_path / "tumours", Drawing(9), classes=["tumour"], options=options)
    assert (labels(made) == 2).any(axis=(1, 2)).all()
    of_item = {record.item: record for record in SliceStore(store).records("train")}
    sources = [record.source for record in SliceStore(made).records("train")]
    assert set(sources) == {item for item, record in of_item.items() if record.tumour}
    assert SliceStore(made).synthetic["classes"] == ["tumour"]
    with pytest.raises(ConfigError, match="'liver' is none that a label map is chosen by; there are kidney, tumour"):
        synthesize(CONFIG, checkpoint, tmp_path / "x", Drawing(1), classes=["liver"], options=options)


def test_controls_keep_labels_and_exchange_what_they_say(checkpoint, options, drawn, tmp_path):
    shuffled = synthesize(CONFIG, checkpoint, tmp_path / "shuffled", Drawing(8, control="shuffled"), options=options)
    untrained = synthesize(CONFIG, None, tmp_path / "untrained", Drawing(8, control="untrained"), options=options)
    for folder, fewest in ((shuffled, 2), (untrained, 8)):  # many of these patients' label maps are alike
        np.testing.assert_array_equal(labels(folder), labels(drawn)[:8])
        differ = [not np.array_equal(a, b) for a, b in zip(images(folder), images(drawn)[:8], strict=True)]
        assert sum(differ) >= fewest
    assert SliceStore(untrained).synthetic["generator"] is None
    with pytest.raises(ConfigError, match="goes without one"):
        synthesize(CONFIG, checkpoint, tmp_path / "x", Drawing(1, control="untrained"), options=options)
    with pytest.raises(ConfigError, match="give the checkpoint"):
        synthesize(CONFIG, None, tmp_path / "x", Drawing(1), options=options)
    with pytest.raises(ConfigError, match="give one of untrained, shuffled"):
        Drawing(1, control="random")


@pytest.mark.parametrize("maps", [2, 3, 8])
def test_shuffled_pictures_are_of_another_label_map_always(monkeypatch, maps):
    """Each map is seen once a round, and never by the picture that will stand beside it."""

    class Maps(list):
        def label(self, index):
            return np.full((4, 4), index, np.uint8)

    module = importlib.import_module("pathzoo.apis.synthesize")
    monkeypatch.setattr(module, "draw_one", lambda model, seen, seeds: seen)
    found = [
        (index, int(seen[0, 0]))
        for index, _, seen in module._drawn(None, Maps(range(maps)), Drawing(3 * maps, seed=5, control="shuffled"))
    ]
    assert all(index != seen for index, seen in found)
    for turn in range(3):
        assert sorted(seen for _, seen in found[turn * maps : (turn + 1) * maps]) == list(range(maps))


def test_training_takes_them_and_nothing_else_does(store, drawn):
    window = {"type": "pathzoo.HUWindow", "centre": 0.0, "width": 400.0}
    both = SliceSegmentation(str(store), "train", synthetic=str(drawn), pipeline=[window])
    assert len(both) == 12 + 20
    for subset in ("val", "test"):
        with pytest.raises(LeakageError):
            SliceSegmentation(str(store), subset, synthetic=str(drawn))
    with pytest.raises(LeakageError):
        SliceSegmentation(str(drawn), "test").full_init()


def test_a_generator_of_held_out_patients_is_refused(checkpoint, options, tmp_path):
    """The same patients, dealt otherwise: the generator has seen who is tested on here."""
    other = write_slices(
        tmp_path / "other", size=(64, 32), cohort={"train": ("P5", "P6"), "val": ("P4",), "test": ("P0", "P1")}
    )
    with pytest.raises(LeakageError, match="this store's training subset"):
        synthesize(CONFIG, checkpoint, tmp_path / "drawn", Drawing(2), options=options | {"data_root": str(other)})
    assert not (tmp_path / "drawn").exists()


@pytest.mark.parametrize("subset", ["all", "test"])
def test_a_generator_that_was_trained_on_what_its_split_keeps_is_refused(run, options, tmp_path, subset):
    """The split beside it is the store's own, and says nothing of it."""
    options = options | {"train_dataloader.dataset.subset": subset}
    with pytest.raises(LeakageError, match=f"train_dataloader.dataset.subset is '{subset}'"):
        train(CONFIG, tmp_path / "run", options=options)
    shutil.copytree(run, tmp_path / "by_earlier_code")  # which did not refuse it
    record = tmp_path / "by_earlier_code" / "train_run.json"
    said = json.loads(record.read_text())
    said["data"]["counts"]["subset"] = subset
    record.write_text(json.dumps(said))
    with pytest.raises(LeakageError, match=rf"epoch_1\.pth: its run was trained on the subset '{subset}'"):
        synthesize(CONFIG, record.parent / "epoch_1.pth", tmp_path / "drawn", Drawing(2), options=options)
    assert not (tmp_path / "drawn").exists()


def test_a_generator_whose_weights_come_from_who_is_held_out_is_refused(run, options, tmp_path):
    """Neither run has seen who its own split holds out; together they have."""
    cohort = {"train": ("P5", "P6"), "val": ("P4",), "test": ("P7",)}
    later = write_slices(tmp_path / "later", size=(64, 32), cohort=cohort)
    second = train(
        CONFIG,
        tmp_path / "second",
        options=options | {"data_root": str(later), "load_from": str(run / "epoch_1.pth")},
    )
    cohort = {"train": ("P5", "P6"), "val": ("P7",), "test": ("P0",)}
    other = write_slices(tmp_path / "other", size=(64, 32), cohort=cohort)
    with pytest.raises(LeakageError, match=r"P0.*this store's training subset"):
        synthesize(
            CONFIG, second / "epoch_1.pth", tmp_path / "drawn", Drawing(2), options=options | {"data_root": str(other)}
        )


def test_the_store_that_is_drawn_from_is_not_replaced(store, checkpoint, options):
    with pytest.raises(ConfigError, match="holds real slices, which synthetic ones do not replace"):
        synthesize(CONFIG, checkpoint, store, Drawing(2), options=options, overwrite=True)
    SliceStore(store).verify()


def test_a_generator_of_whom_nobody_knows_what_it_saw_is_refused(checkpoint, options, tmp_path):
    alone = tmp_path / "alone.pth"
    shutil.copy(checkpoint, alone)
    with pytest.raises(DataError, match=r"alone.pth: no splits.json lies beside it"):
        synthesize(CONFIG, alone, tmp_path / "drawn", Drawing(2), options=options)
    assert not (tmp_path / "drawn").exists()


def test_what_the_training_could_not_compare_stands_in_the_tests_metrics(run, options, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    record = tmp_path / "run" / "train_run.json"
    said = json.loads(record.read_text())
    said["data"]["counts"]["generator_caveats"] = ["g@1.0.0 may have seen anybody"]
    record.write_text(json.dumps(said))
    run_test(CONFIG, work_dir=tmp_path / "run", options=options)
    assert "g@1.0.0 may have seen anybody" in json.loads((tmp_path / "run" / "metrics.json").read_text())["caveats"]
    assert "g@1.0.0 may have seen anybody" not in (run / "metrics.json").read_text()


def test_a_run_with_another_window_is_refused(checkpoint, options, tmp_path):
    """Weights do not tell: what they draw would be read as other HU."""
    with pytest.raises(ConfigError, match=r"epoch_1.pth: draws the window -200.0, 200.0, .* wants -135.0, 215.0: give"):
        synthesize(
            CONFIG,
            checkpoint,
            tmp_path / "drawn",
            Drawing(2),
            options=options | {"window_centre": 40.0, "window_width": 350.0},
        )


def test_only_a_translators_config_draws(store, checkpoint, tmp_path):
    with pytest.raises(ConfigError, match="task segmentation"):
        synthesize(
            "kits_pix2pix/unet1_1xb8_30e_ctslices_small.py",
            checkpoint,
            tmp_path / "drawn",
            options={"data_root": str(store)},
        )


def test_the_tool_reports_and_shows_what_it_drew(checkpoint, options, tmp_path, capsys):
    words = [f"{key}={value!r}" if isinstance(value, tuple) else f"{key}={value}" for key, value in options.items()]
    out = tmp_path / "drawn"
    given = [f"configs/{CONFIG}", str(checkpoint), "--out", str(out), "--count", "12", "--augment-labels"]
    assert tool.main([*given, "--cfg-options", *words]) == 0
    said = capsys.readouterr().out
    assert "12 slices of 4 training patients" in said
    report = json.loads((out / "report.json").read_text())
    assert report["quality"]["n"] == 8
    assert -1 <= report["quality"]["ssim"] <= 1
    assert report["kid"]["drawn"]["mean"] > 0
    assert {"drawn", "validation"} <= report["kid"].keys()
    assert len(report["memorised"]["items"]) == report["memorised"]["flagged"]
    assert Image.open(out / "pictures.png").width > 600
    SliceStore(out).verify()
    assert tool.main([*given, "--cfg-options", *words]) == 2  # nothing is written over
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize("classes", [None, ("tumour",)])
def test_a_copy_of_a_patients_slice_is_flagged(store, checkpoint, options, tmp_path, classes):
    """Of one of another class than was drawn, too: the generator has seen it."""
    from pathzoo.apis.generators import load_generator
    from pathzoo.apis.synthesis_report import report_synthesis
    from pathzoo.ct.store_writer import slice_store_writer

    folder = synthesize(CONFIG, checkpoint, tmp_path / "drawn", Drawing(20), options=options, classes=classes)
    real, made = SliceStore(store), SliceStore(folder)
    copied = next(k for k, record in enumerate(real.records("train")) if record.kidney and not record.tumour)
    settings = {"size": real.size, "known_range": made.known_range, "phantom": True, "source": "synthetic"}
    with slice_store_writer(tmp_path / "copy", synthetic=made.synthetic, **settings) as writer:
        for index, record in enumerate(made.records("train")):
            image = np.clip(real.image("train", copied), -200, 200) if index == 7 else made.image("train", index)
            about = {"item": record.item, "patient": record.patient, "case": record.case, "slice": index}
            writer.add("train", image, made.label("train", index), source=record.source, **about)
    cfg = load_config(CONFIG, options)
    found = report_synthesis(cfg, load_generator(cfg, checkpoint, 0, "cpu"), tmp_path / "copy")
    assert "drawn_000007" in found["memorised"]["items"]


def test_a_trained_translator_is_published_and_draws_from_the_zoo(run, tmp_path):
    card = {"description": "A toy.", "licence": "CC-BY-NC-SA-4.0", "commercial_use": False}
    folder = publish_model(run / "epoch_1.pth", "toy-translator", "1.0.0", tmp_path, card, run=run)
    manifest = json.loads((folder / "model.json").read_text())
    assert manifest["task"] == "translation"
    assert manifest["input"]["hu_window"] == [-200, 200]
    assert {row["metric"] for row in manifest["metrics"][0]["rows"]} >= {"mae", "ssim"}
    drawn = get_model(folder)(np.ones((2, 32, 64), np.uint8)).values
    assert drawn.shape == (2, 1, 32, 64)
    shutil.rmtree(folder)


def test_changes_to_label_maps_that_are_not_switched_on_are_refused(checkpoint, tmp_path, capsys):
    given = [f"configs/{CONFIG}", str(checkpoint), "--out", str(tmp_path / "drawn"), "--tumour-scale", "0.5", "2"]
    assert tool.main(given) == 2
    assert "--tumour-scale changes label maps, which are drawn as they are: give --augment-labels" in (
        capsys.readouterr().err
    )


def test_patients_whom_the_generator_saw_elsewhere_are_told_of(checkpoint, options, drawn, tmp_path):
    """What is tested later is held against this store's split, in which they do not stand."""
    assert "generator_caveats" not in SliceStore(drawn).synthetic
    part = write_slices(
        tmp_path / "part", size=(64, 32), cohort={"train": COHORT["train"][:2], "val": COHORT["val"], "test": ("P9",)}
    )
    made = synthesize(CONFIG, checkpoint, tmp_path / "made", Drawing(2), options=options | {"data_root": str(part)})
    (text,) = SliceStore(made).synthetic["generator_caveats"]
    assert "has seen 2 patients more than this split trains and validates on" in text
    window = [{"type": HUWindow, "centre": 0.0, "width": 400.0}]
    data = SliceSegmentation(str(part), "train", synthetic=str(made), pipeline=window)
    assert text in data.describe()["caveats"]


def test_the_command_needs_no_options_of_the_config(checkpoint, tmp_path, capsys):
    assert tool.main([CONFIG, str(checkpoint), "--out", str(tmp_path)]) == 2
    assert f"{tmp_path}: exists already" in capsys.readouterr().err
