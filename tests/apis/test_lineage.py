"""A run that begins with another run's backbone: what it records, and whose patients it may not be tested on."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny_run import CONFIG, draw_cohort, tiny_options

from pathzoo.apis.lineage import ancestors_of, input_caveats
from pathzoo.apis.run_record import data_record, recorded_start
from pathzoo.apis.test import test as run_test
from pathzoo.apis.train import train
from pathzoo.datasets.splits import Split
from pathzoo.engine.checkpoint import load_checkpoint_safely
from pathzoo.errors import CheckpointError, LeakageError


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return draw_cohort(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory) -> Path:
    """`parent`, and `child` that begins with its backbone and keeps it (learning rate 0), on one split. Read only."""
    root = tmp_path_factory.mktemp("runs")
    train(CONFIG, root / "parent", options=tiny_options(data))
    begun = {"model.backbone.pretrained": str(root / "parent/epoch_1.pth"), "optim_wrapper.optimizer.lr": 0.0}
    train(CONFIG, root / "child", options=tiny_options(data) | begun | {"model.backbone.norm_eval": True})
    return root


def start(folder: Path) -> dict:
    return json.loads((folder / "train_run.json").read_text())["initial_weights"]


def backbone(checkpoint: Path) -> dict:
    state = load_checkpoint_safely(checkpoint)["state_dict"]
    return {key: value for key, value in state.items() if key.startswith("backbone.")}


def test_the_backbone_is_the_parents_and_the_record_says_so(runs):
    own, parents = backbone(runs / "child/epoch_1.pth"), backbone(runs / "parent/epoch_1.pth")
    assert all(torch.equal(value, parents[key]) for key, value in own.items())
    record = start(runs / "child")
    assert (record["source"], record["file"], record["folder"]) == ("run", "epoch_1.pth", "../parent")
    assert set(record["backbone"]) == {"float32", "float16"}


def test_resuming_keeps_what_was_recorded(data, runs, tmp_path):
    """The parent need not be there any more."""
    folder = Path(shutil.copytree(runs / "child", tmp_path / "child"))
    gone = {"model.backbone.pretrained": str(tmp_path / "gone.pth")}
    train(CONFIG, folder, options=tiny_options(data, epochs=2) | gone, resume=True)
    assert start(folder) == start(runs / "child") and (folder / "epoch_2.pth").exists()
    train(CONFIG, tmp_path / "deep/er", options=tiny_options(data, epochs=3) | gone, resume=folder / "epoch_2.pth")
    assert start(tmp_path / "deep/er") == start(folder) | {"folder": "../../parent"}


def test_what_does_not_fit_ends_the_run_before_anything_is_written(data, runs, tmp_path):
    options = tiny_options(data) | {"model.backbone.pretrained": str(runs / "parent/epoch_1.pth")}
    options |= {"model.backbone.name": "test_resnet", "model.backbone.out_indices": None}
    wide = options | {"model.backbone.name": "resnet10t", "model.head.in_channels": 512}
    with pytest.raises(CheckpointError, match=r"does not fit timm's resnet10t, nothing was loaded: .* missing"):
        train(CONFIG, tmp_path / "run", options=wide)
    assert not (tmp_path / "run").exists()


def test_testing_on_whom_the_parent_was_trained_on_is_refused(data, runs, tmp_path):
    """Fold 1 of the child tests and validates patients that fold 0 of its parent trained on."""
    options = tiny_options(data, fold=1) | {"model.backbone.pretrained": str(runs / "parent/epoch_1.pth")}
    with pytest.raises(LeakageError, match=r"parent/splits\.json, first: patient '\S+' .*pretrain anew without them"):
        train(CONFIG, tmp_path / "run", options=options)
    assert not (tmp_path / "run").exists()


def test_the_chain_is_followed_to_its_end(data, runs, tmp_path):
    """The grandparent alone has seen the patients; its folder is found from the parent's, both moved together."""
    root = tmp_path / "moved"
    shutil.copytree(runs, root)
    (root / "child/splits.json").unlink()  # as if it had been trained on other data
    options = tiny_options(data, fold=1) | {"model.backbone.pretrained": str(root / "child/epoch_1.pth")}
    with pytest.raises(LeakageError, match=r"moved/parent/splits\.json"):
        train(CONFIG, tmp_path / "run", options=options)
    shutil.rmtree(root / "parent")  # what is not there cannot be compared, and the log says so
    train(CONFIG, tmp_path / "run", options=options)
    log = next((tmp_path / "run").rglob("*.log")).read_text()
    assert f"{root / 'parent'}: holds no splits.json" in log
    assert any("the run that the weights come from was trained on" in text for text in caveats(tmp_path / "run"))


def caveats(folder: Path) -> list[str]:
    return json.loads((folder / "train_run.json").read_text())["data"]["counts"]["caveats"]


def test_what_a_parents_drawn_pictures_came_with_is_told_of_its_children(runs, tmp_path):
    root, text = Path(shutil.copytree(runs, tmp_path / "moved")), "g@1.0.0 may have seen anybody"
    said = json.loads((root / "parent/train_run.json").read_text())
    said["data"]["counts"]["generator_caveats"] = [text]
    (root / "parent/train_run.json").write_text(json.dumps(said))
    assert ancestors_of(recorded_start(root / "child"), root / "child").caveats == [text]
    assert ancestors_of(recorded_start(runs / "child"), runs / "child").caveats == []


def test_a_whole_model_to_begin_with_is_a_parent_like_a_backbone(data, runs, tmp_path):
    """By load_from, and by an init_cfg that mmengine loads."""
    checkpoint = str(runs / "parent/epoch_1.pth")
    train(CONFIG, tmp_path / "whole", options=tiny_options(data) | {"load_from": checkpoint})
    record = start(tmp_path / "whole")
    assert (record["source"], record["file"], record["whole"]) == ("run", "epoch_1.pth", True)
    assert (tmp_path / "whole" / record["folder"]).resolve() == runs / "parent" and record["backbone"]
    options = tiny_options(data) | {"model.init_cfg": {"type": "Pretrained", "checkpoint": checkpoint}}
    train(CONFIG, tmp_path / "init", options=options)
    assert {**start(tmp_path / "init"), "whole": True} == record
    with pytest.raises(LeakageError, match=r"parent/splits\.json.*pretrain anew"):
        train(CONFIG, tmp_path / "other", options=options | tiny_options(data, fold=1))


def test_nobody_whom_a_parent_was_chosen_by_is_tested_on(data, runs, tmp_path):
    """Of fold 1's test patients every one trained the parent of fold 0, or validated it."""
    root = Path(shutil.copytree(runs, tmp_path / "moved"))
    split = Split.load(root / "parent/splits.json")
    others = {name: part for name, part in split.subsets.items() if name != "train"}
    replace(split, subsets=others).save(root / "parent/splits.json")  # as if it had been trained on other patients
    begun = {"model.backbone.pretrained": str(root / "parent/epoch_1.pth")}
    with pytest.raises(LeakageError, match=r"subset 'test' .* or its epoch chosen by, .* stands in 'val'"):
        train(CONFIG, tmp_path / "run", options=tiny_options(data, fold=1) | begun)


def test_a_parent_that_tells_nothing_leaves_a_caveat(data, runs, tmp_path):
    split = Split.load(runs / "parent/splits.json")
    root = Path(shutil.copytree(runs, tmp_path / "moved"))
    blind = {name: replace(part, origins=None, groups=()) for name, part in split.subsets.items()}
    replace(split, subsets=blind).save(root / "parent/splits.json")
    begun = {"model.backbone.pretrained": str(root / "parent/epoch_1.pth")}
    train(CONFIG, tmp_path / "run", options=tiny_options(data) | begun)
    assert any(text.startswith("a run that the weights come from may have seen") for text in caveats(tmp_path / "run"))
    run_test(CONFIG, work_dir=tmp_path / "run", options=tiny_options(data))
    assert any("bytes alone" in text for text in json.loads((tmp_path / "run/metrics.json").read_text())["caveats"])
    assert not caveats(runs / "child"), "patients and slides are known there"


def test_other_colours_or_another_resolution_than_the_parents_are_said():
    start = {"source": "run", "input": {"mean": [120.0, 110.0, 100.0], "std": [50.0, 50.0, 50.0], "mpp": 0.5}}
    own = {"mean": [120.2, 110.0, 100.0], "std": [50.0, 50.0, 57.0], "mpp": 1.0}
    assert [text.split()[5] for text in input_caveats(start, own)] == ["model_input.std", "model_input.mpp"]
    assert not input_caveats(start, own | {"std": [50.5, 50.0, 50.0], "mpp": 0.54})
    assert not input_caveats({"source": "random"}, own) and not input_caveats(start, {})


def test_testing_asks_the_chain_too(data, runs, tmp_path):
    root = tmp_path / "moved"
    shutil.copytree(runs, root)
    (root / "child/splits.json").unlink()
    with pytest.raises(LeakageError, match=r"parent/splits\.json.*pretrain anew without them"):
        run_test(CONFIG, root / "child/epoch_1.pth", tmp_path / "new", options=tiny_options(data, fold=2))
    assert run_test(CONFIG, root / "child/epoch_1.pth", tmp_path / "new", options=tiny_options(data))


def test_caveats_join_the_counts_of_a_data_set_and_a_host_without_counts_has_none():
    """Publishing takes every entry of the counts of a host's data set for a subset's."""
    counted = SimpleNamespace(describe=lambda: {"subset": "train", "caveats": ["a"]})
    assert data_record(counted, ["b"])["counts"] == {"subset": "train", "caveats": ["a", "b"]}
    assert data_record(object(), ["b"])["counts"] == {}
