"""Testing a trained model: which checkpoint is taken, and what is written."""

import csv
import json
import os
import shutil
from pathlib import Path

import pytest
from tiny_run import CONFIG, as_words, draw_cohort, tiny_options

from pathzoo.apis.test import test
from pathzoo.apis.train import train
from pathzoo.cli import main
from pathzoo.engine.checkpoint import chosen_checkpoint
from pathzoo.errors import CheckpointError


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    """Ten phantom patients with two images each. Read only."""
    return draw_cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(scope="module")
def trained(cohort, tmp_path_factory) -> Path:
    """A run of two epochs. Read only."""
    return train(CONFIG, tmp_path_factory.mktemp("trained"), options=tiny_options(cohort, epochs=2))


@pytest.fixture
def run(trained, tmp_path) -> Path:
    """A copy of that run."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def test_metrics_and_the_test_folder_are_written(cohort, run):
    rows = test(CONFIG, work_dir=run, options=tiny_options(cohort))
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["subset"] == "test"
    assert metrics["dataset"] == "BreakHis"
    assert metrics["checkpoint"] == next(run.glob("best_*.pth")).name
    assert [row["value"] for row in metrics["rows"]] == [row["value"] for row in rows]
    accuracy = next(row for row in rows if (row["metric"], row["level"]) == ("accuracy", "image"))
    with (run / "test" / "predictions.csv").open() as file:
        table = list(csv.DictReader(file))
    assert accuracy["n"] == len(table) == 4
    wanted = json.loads((run / "splits.json").read_text())["subsets"]["test"]["items"]
    assert {line["item"] for line in table} == set(wanted)
    assert list((run / "test" / "plots").glob("*.png"))
    assert list((run / "test" / "curves").glob("*.csv"))
    assert json.loads((run / "train_run.json").read_text())["status"] == "finished"  # untouched


def test_a_named_checkpoint_is_the_one_that_is_tested(cohort, run):
    words = [str(run / "epoch_2.pth"), "--work-dir", str(run), *as_words(tiny_options(cohort))]
    assert main(["test", CONFIG, *words]) == 0
    assert json.loads((run / "metrics.json").read_text())["checkpoint"] == "epoch_2.pth"


def test_the_best_by_validation_comes_before_the_newest(tmp_path):
    for name in ("epoch_9.pth", "epoch_10.pth"):
        (tmp_path / name).touch()
    assert chosen_checkpoint(tmp_path).name == "epoch_10.pth"
    for age, name in enumerate(("best_nll_epoch_3.pth", "best_nll_epoch_2.pth")):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    assert chosen_checkpoint(tmp_path).name == "best_nll_epoch_3.pth"


def test_without_any_checkpoint_it_says_what_to_do(cohort, tmp_path, capsys):
    with pytest.raises(CheckpointError, match="holds no checkpoint; train first"):
        chosen_checkpoint(tmp_path)
    assert main(["test", CONFIG, "--work-dir", str(tmp_path / "new"), *as_words(tiny_options(cohort))]) == 2
    assert "holds no checkpoint" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "options",
    [
        {"data_root": "no/such/folder"},
        # One tensor in a hundred would fit, the head's bias: the rest must not be tested at random weights.
        {"model.backbone.name": "resnet10t", "model.head.in_channels": 512},
    ],
)
def test_refused_input_leaves_the_run_as_it_was(cohort, run, capsys, options):
    before = {str(path): path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert main(["test", CONFIG, "--work-dir", str(run), *as_words(tiny_options(cohort) | options)]) == 2
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith("pathzoo: ")
    assert {str(path): path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
