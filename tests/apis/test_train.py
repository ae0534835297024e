"""Training as a user starts it: every switch, every refusal, and what is left behind."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from tiny_run import CONFIG, as_words, draw_cohort, tiny_options

from pathzoo.apis.config import load_config
from pathzoo.apis.train import train
from pathzoo.cli import main
from pathzoo.engine.checkpoint import load_checkpoint_safely
from pathzoo.errors import ConfigError, DataError, LeakageError


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    """Ten phantom patients with two images each. Read only."""
    return draw_cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture
def own_cohort(cohort, tmp_path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(cohort, tmp_path / "own"))


def _record(folder: Path) -> dict:
    return json.loads((folder / "train_run.json").read_text())


def _content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_seed_reaches_weights_augmentation_and_the_record(cohort, tmp_path):
    """The same seed gives the same weights, another one others; the config's own is 0."""
    states = []
    for name, seed in (("a", 7), ("b", 7), ("c", None)):
        folder = train(CONFIG, tmp_path / name, options=tiny_options(cohort), seed=seed)
        record = _record(folder)
        assert record["seed"] == (0 if seed is None else seed)
        assert load_config(folder / Path(CONFIG).name).train_dataloader.dataset.seed == record["seed"]
        states.append(load_checkpoint_safely(folder / "epoch_1.pth")["state_dict"])
    first, again, other = states
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["head.fc.weight"], other["head.fc.weight"])


def test_record_holds_what_design_promises(cohort, tmp_path):
    command = ["tools/train.py", CONFIG]
    folder = train(CONFIG, tmp_path / "run", options=tiny_options(cohort), command=command)
    record = _record(folder)
    assert record["command"] == command
    assert record["status"] == "finished"
    assert "test_resnet" in record["config"]["text"]  # as it was run, options included
    assert record["versions"]["torch"] == torch.__version__.split("+")[0]
    assert set(record["git"]) == {"commit", "dirty"}
    assert record["data"]["counts"]["n_images"] == 12
    assert record["data"]["digest"] != record["data"]["split"]["digest"]
    assert record["data"]["synthetic"] is True
    assert set(record["timings"]) == {"setup_s", "train_s"}
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["subset"] == "val"
    assert {row["n"] for row in metrics["rows"] if row["metric"] == "accuracy" and row["level"] == "image"} == {4}


def test_data_root_below_the_phantoms_top_is_still_known_as_synthetic(cohort, tmp_path):
    deep = cohort / "histology_slides"
    folder = train(CONFIG, tmp_path / "run", options=tiny_options(deep), no_validate=True)
    assert _record(folder)["data"]["synthetic"] is True


def test_no_validate_trains_without_it(cohort, tmp_path):
    folder = train(CONFIG, tmp_path / "run", options=tiny_options(cohort), no_validate=True)
    assert (folder / "epoch_1.pth").exists()
    assert not (folder / "metrics.json").exists()
    assert not list(folder.glob("best_*"))


def test_auto_scale_lr_scales_by_the_global_batch(cohort, tmp_path):
    """base_batch_size 16, batch 4: a quarter. With a constant schedule the optimizer shows it."""
    options = tiny_options(cohort, param_scheduler=None)
    rates = []
    for switch in (False, True):
        folder = train(CONFIG, tmp_path / str(switch), options=options, auto_scale_lr=switch, no_validate=True)
        groups = load_checkpoint_safely(folder / "epoch_1.pth")["optimizer"]["param_groups"]
        rates.append(groups[0]["lr"])
    assert rates == [pytest.approx(1e-3), pytest.approx(1e-3 * 4 / 16)]


def test_auto_scale_lr_without_a_batch_to_scale_from_is_refused(cohort, tmp_path):
    options = tiny_options(cohort, auto_scale_lr={"enable": False})
    with pytest.raises(ConfigError, match=r"--auto-scale-lr: .*base_batch_size"):
        train(CONFIG, tmp_path / "run", options=options, auto_scale_lr=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_amp_without_a_gpu_is_refused(cohort, tmp_path):
    with pytest.raises(ConfigError, match=r"--amp: .*needs a GPU"):
        train(CONFIG, tmp_path / "run", options=tiny_options(cohort), amp=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="mixed precision needs a GPU")
def test_amp_trains_on_a_gpu(cohort, tmp_path):
    folder = train(CONFIG, tmp_path / "run", options=tiny_options(cohort), amp=True)
    assert "loss_scaler" in load_checkpoint_safely(folder / "epoch_1.pth")["optimizer"]


def test_resume_without_a_checkpoint_begins_anew_and_says_so(cohort, tmp_path, capsys):
    words = ["train", CONFIG, "--work-dir", str(tmp_path / "run"), "--resume", *as_words(tiny_options(cohort))]
    assert main(words) == 0
    assert "--resume: no checkpoint in" in capsys.readouterr().out
    assert (tmp_path / "run" / "epoch_1.pth").exists()


def test_work_dir_of_another_split_is_refused_and_stays_as_it_was(cohort, tmp_path):
    folder = train(CONFIG, tmp_path / "run", options=tiny_options(cohort))
    before = _content(folder)
    with pytest.raises(DataError, match=r"splits\.json: this folder was trained on another split.*--work-dir"):
        train(CONFIG, folder, options=tiny_options(cohort, fold=1), resume=True)
    assert _content(folder) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data_root": "no/such/folder"}, "no such folder"),
        ({"train_cfg.max_epoch": 3}, "did you mean 'max_epochs'"),
        ({"model.backbone.name": "resnet10"}, "no such network"),
        ({"model.backbone.pretrained": "gone.pth"}, "gone.pth: no such file"),
        ({"load_from": "gone.pth"}, "gone.pth: no such checkpoint"),
        ({"split": {"scheme": "patient_kfold", "k": 5, "fold": 7, "seed": 0}}, "fold"),
        ({"train_dataloader.dataset.subset": "all"}, "'all', which holds what the split keeps for val and test"),
        ({"train_dataloader.dataset.subset": "test"}, "'test', which holds what the split keeps for test: give"),
    ],
)
def test_refused_input_is_one_line_code_2_and_leaves_nothing(cohort, tmp_path, capsys, options, message):
    words = as_words(tiny_options(cohort) | options)
    assert main(["train", CONFIG, "--work-dir", str(tmp_path / "new" / "run"), *words]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("pathzoo: ")
    assert message in error
    assert list(tmp_path.iterdir()) == []


def _damage(root: Path) -> Path:
    path = sorted(root.rglob("*.png"))[0]
    path.write_bytes(path.read_bytes()[:2000])
    return path


def test_damaged_image_is_named(own_cohort, tmp_path):
    bad = _damage(own_cohort)
    with pytest.raises(DataError, match=rf'{bad.name}.*on_bad_image="skip"'):
        train(CONFIG, tmp_path / "run", options=tiny_options(own_cohort))
    assert not (tmp_path / "run").exists()


def test_damaged_image_is_skipped_and_counted_by_choice(own_cohort, tmp_path):
    _damage(own_cohort)
    folder = train(CONFIG, tmp_path / "run", options=tiny_options(own_cohort, on_bad_image="skip"))
    assert _record(folder)["data"]["counts"]["skipped"] == 1
    subsets = json.loads((folder / "splits.json").read_text())["subsets"]
    assert sum(len(subset["items"]) for subset in subsets.values()) == 19


def test_identical_images_on_both_sides_end_the_run(own_cohort, tmp_path, capsys):
    """The same bytes as an image of another patient's: training on one and testing on the other would be cheating."""
    folder = train(CONFIG, tmp_path / "first", options=tiny_options(own_cohort), no_validate=True)
    subsets = json.loads((folder / "splits.json").read_text())["subsets"]
    left, right = (own_cohort / sorted(subsets[name]["items"])[0] for name in ("train", "test"))
    shutil.copyfile(left, right)
    with pytest.raises(LeakageError) as leak:
        train(CONFIG, tmp_path / "second", options=tiny_options(own_cohort))
    assert left.name in str(leak.value)
    assert right.name in str(leak.value)
    words = ["train", CONFIG, "--work-dir", str(tmp_path / "third"), *as_words(tiny_options(own_cohort))]
    assert main(words) == 2
    assert left.name in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "own"]


def test_error_in_a_worker_process_is_one_clear_line(own_cohort, tmp_path, capsys):
    """The image was sound when it was listed, and is not when a worker comes to it."""
    from mmengine.hooks import Hook

    from pathzoo.registry import HOOKS

    @HOOKS.register_module(force=True)
    class DamageAtStart(Hook):
        def before_train(self, runner):
            for path in own_cohort.rglob("*.png"):
                path.write_bytes(path.read_bytes()[:2000])

    try:
        options = tiny_options(own_cohort, workers=1, custom_hooks=[{"type": "pathzoo.DamageAtStart"}])
        options.pop("train_dataloader.persistent_workers")
        assert main(["train", CONFIG, "--work-dir", str(tmp_path / "run"), *as_words(options)]) == 2
    finally:
        HOOKS.module_dict.pop("DamageAtStart")
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("pathzoo: ")]
    assert len(errors) == 1
    assert ".png: " in errors[0]
    assert "was sound when the data set was loaded" in errors[0]


def test_fewer_samples_than_a_batch_are_refused_where_the_rest_is_dropped(cohort, tmp_path):
    options = tiny_options(cohort) | {"train_dataloader.batch_size": 64, "train_dataloader.drop_last": True}
    with pytest.raises(ConfigError, match=r"samples make no batch of 64, and drop_last .* smaller batch_size"):
        train(CONFIG, tmp_path / "run", options=options)
    assert not (tmp_path / "run").exists()
