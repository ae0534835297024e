"""What is refused before a run begins, because its result would be wrong or could not be told from another's."""

import json
from pathlib import Path

import pytest
import tiny_run
from tiny_run import CONFIG, tiny_options

from pathzoo.apis.checks import check_model_input
from pathzoo.apis.config import load_config
from pathzoo.apis.test import test as run_test
from pathzoo.apis.train import train
from pathzoo.cli import main
from pathzoo.datasets.transforms import NormalizeStain
from pathzoo.errors import ConfigError, LeakageError


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    tiny_run.draw_cohort(folder)
    return folder


@pytest.fixture(scope="module")
def run(data, tmp_path_factory) -> Path:
    """A finished run of fold 1."""
    folder = tmp_path_factory.mktemp("runs") / "fold1"
    return train(CONFIG, folder, options=tiny_options(data, fold=1))


def test_testing_on_training_patients_is_refused_and_names_them(data, run):
    """The fold forgotten: fold 0 of the test set holds patients that fold 1 trained on."""
    with pytest.raises(LeakageError, match=r"test.*splits\.json") as error:
        run_test(CONFIG, work_dir=run, options=tiny_options(data))
    split = json.loads((run / "splits.json").read_text())["subsets"]
    assert any(patient in str(error.value) for patient in split["train"]["groups"])
    assert not (run / "test").exists()


def test_testing_with_the_runs_own_fold_is_fine(data, run):
    assert run_test(CONFIG, work_dir=run, options=tiny_options(data, fold=1))
    assert json.loads((run / "metrics.json").read_text())["subset"] == "test"


def test_a_checkpoint_of_another_fold_elsewhere_is_refused_too(data, run, tmp_path):
    with pytest.raises(LeakageError):
        run_test(CONFIG, run / "epoch_1.pth", tmp_path / "new", options=tiny_options(data))
    with pytest.raises(LeakageError):
        train(CONFIG, tmp_path / "next", options=tiny_options(data) | {"load_from": str(run / "epoch_1.pth")})
    assert not (tmp_path / "next").exists()


def test_validation_of_another_fold_is_refused(data, tmp_path):
    options = tiny_options(data) | {"train_dataloader.dataset.split.fold": 2}
    with pytest.raises(LeakageError):
        train(CONFIG, tmp_path / "run", options=options)
    assert not (tmp_path / "run").exists()


def test_validation_on_the_runs_own_test_patients_is_refused(data, tmp_path):
    options = tiny_options(data) | {"val_dataloader.dataset.subset": "test"}
    with pytest.raises(LeakageError, match="this run's split keeps for testing, first: patient"):
        train(CONFIG, tmp_path / "run", options=options)
    assert not (tmp_path / "run").exists()


def test_no_epoch_at_all_is_no_training(data, tmp_path):
    with pytest.raises(ConfigError, match=r"train_cfg.max_epochs is 0; a training takes 1 at least"):
        train(CONFIG, tmp_path / "run", options=tiny_options(data, epochs=0))
    assert not (tmp_path / "run").exists()


def test_a_second_run_in_one_folder_is_refused(data, run):
    with pytest.raises(ConfigError, match="holds checkpoints of an earlier run"):
        train(CONFIG, run, options=tiny_options(data, fold=1))


def test_classes_and_outputs_have_to_agree(data, tmp_path):
    options = tiny_options(data) | {"model.head.num_classes": 5, "model.data_preprocessor.num_classes": 5}
    with pytest.raises(ConfigError, match=r"num_classes is 5, the data has 2 classes .* set num_classes=2"):
        train(CONFIG, tmp_path / "run", options=options)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test_dataloader.dataset.pipeline.1.mpp": 1.5}, r"model_input\.mpp is 0\.98, but ResizeToMpp .* makes 1\.5"),
        (
            {"model_input.tile_size": (96, 96)},
            r"model_input\.tile_size is \(96, 96\), but CenterCropOrPad .* 224",
        ),
        ({"model_input.mpp": -3}, r"model_input\.mpp"),
    ],
)
def test_declared_input_is_what_the_pipeline_makes(options, message):
    with pytest.raises(ConfigError, match=message):
        check_model_input(load_config(CONFIG, options))


def test_declared_stain_is_what_the_pipeline_makes():
    target = {"method": "reinhard", "parameters": {"mean": (2.0, 0.1, 0.0), "std": (0.2, 0.03, 0.01)}}
    config = load_config(CONFIG)
    config.model_input.stain_fit = {**target, "method": "vahadane"}
    with pytest.raises(ConfigError, match=r"model_input\.stain_fit: stain method 'vahadane'"):
        check_model_input(config)
    config.model_input.stain_fit = target
    with pytest.raises(ConfigError, match=r"model_input\.stain_fit is StainFit\(method='reinhard'"):
        check_model_input(config)
    config.test_dataloader.dataset.pipeline.insert(1, {"type": NormalizeStain, "target": target})
    check_model_input(config)


@pytest.mark.parametrize("option", ["train_dataloader.batch_size=abc", "seed=abc", "train_cfg.max_epochs=abc"])
def test_a_value_of_the_wrong_kind_is_one_line_and_2(data, tmp_path, capsys, option):
    words = tiny_run.as_words(tiny_options(data))
    assert main(["train", CONFIG, "--work-dir", str(tmp_path / "run"), *words, option]) == 2
    assert "cannot be built" in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "run").exists()


def test_verify_speaks_json_of_bad_and_unknown_models(tmp_path, capsys):
    (tmp_path / "model.json").write_text("{}")
    assert main(["verify", str(tmp_path), "no-such-model", "--json"]) == 2
    reports = json.loads(capsys.readouterr().out)
    assert [report["ok"] for report in reports] == [False, False]
    assert all(isinstance(problem, str) for report in reports for problem in report["problems"])
