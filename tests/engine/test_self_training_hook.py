"""The hook under the Runner: when rounds are made, what they leave untouched, and that a run resumes exactly."""

import json
import os
import random
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.hooks import EMAHook, Hook
from self_training_fakes import FakePseudoLabelled
from self_training_runs import EMA, SEEDS, assert_same_training, labels_of, make_hook, make_runner, train

from pathzoo.engine.hooks import PreemptionHook, SelfTrainingHook
from pathzoo.engine.hooks.preemption import EXIT_PREEMPTED
from pathzoo.engine.self_training.teacher import state_digest
from pathzoo.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("regions")
    FakePseudoLabelled(folder)
    return folder


@pytest.fixture(scope="module")
def unbroken(data, tmp_path_factory) -> tuple[dict, Path]:
    """The checkpoint after six epochs with rounds before the third and the fifth; and its folder. Read only."""
    folder = tmp_path_factory.mktemp("unbroken")
    return train(folder, data, [SEEDS, EMA, make_hook((2, 4))], epochs=6), folder


def test_rounds_are_made_when_due_and_change_what_is_trained(data, tmp_path, unbroken):
    checkpoint, folder = unbroken
    assert sorted(path.name for path in (folder / "pseudo_labels").iterdir()) == [
        "audit.csv",
        "audit.png",
        "round_01",
        "round_02",
    ]
    without = train(tmp_path, data, [SEEDS, EMA], epochs=6)
    losses = [run["message_hub"]["log_scalars"]["train/loss"]["history"] for run in (checkpoint, without)]
    assert torch.equal(losses[0][:4], losses[1][:4])  # two epochs of two iterations without pseudo-labels
    assert not torch.equal(losses[0][4:], losses[1][4:])


def test_the_teacher_sees_tiles_of_the_size_that_is_trained_on(data, tmp_path):
    """Larger ones reach beyond small regions, and a network that pools over its input takes the padding for tissue."""
    hook = make_hook((1,), tile=None, stride=None)
    dataset = FakePseudoLabelled(data)
    with pytest.raises(ConfigError, match="FakePart states no patch_size to predict by; give tile="):
        train(tmp_path / "a", data, [SEEDS, EMA, hook], epochs=2, dataset=dataset)
    dataset.labelled.patch_size = 24
    with pytest.raises(ConfigError, match="stride=30: give pixels from 1 to the tile's 24"):
        train(tmp_path / "b", data, [SEEDS, EMA, {**hook, "stride": 30}], epochs=2, dataset=dataset)
    train(tmp_path / "c", data, [SEEDS, EMA, hook], epochs=2, dataset=dataset)
    made = json.loads((tmp_path / "c/pseudo_labels/round_01/provenance.json").read_text())
    assert (made["tile"], made["stride"]) == (24, 18)


@pytest.mark.parametrize(("round_number", "failing"), [(1, 3), (2, 1)])
def test_run_killed_within_a_round_and_resumed_equals_an_unbroken_one(data, tmp_path, unbroken, round_number, failing):
    hooks = [SEEDS, EMA, make_hook((2, 4))]
    dataset = FakePseudoLabelled(data)

    class _Killer(Hook):
        priority = "HIGHEST"

        def before_train_epoch(self, runner):
            if runner.epoch == 2 * round_number:
                dataset.unlabelled.fail_at = {failing: KeyboardInterrupt()}

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, data, [*hooks, {"type": _Killer}], dataset=dataset, epochs=6)
    folder = tmp_path / "pseudo_labels" / f"round_{round_number:02d}"
    assert not (folder / "provenance.json").exists()
    done = {path.name for path in (folder / "regions").glob("*.json")}
    assert 0 < len(done) < 5 or failing == 0
    again = FakePseudoLabelled(data)
    resumed = train(tmp_path, data, hooks, resume=True, dataset=again, epochs=6)
    assert len(again.unlabelled.reads) == 5 * (3 - round_number) - len(done)
    assert_same_training(resumed, unbroken[0])
    assert labels_of(tmp_path) == labels_of(unbroken[1])


@pytest.mark.parametrize("after", [1, 2, 3, 5])
def test_run_resumed_between_rounds_equals_an_unbroken_one(data, tmp_path, unbroken, after):
    """After 2 epochs a round is due at once, and is there already; after 3 and 5 the one before is taken up."""
    shutil.copytree(unbroken[1], tmp_path, dirs_exist_ok=True)
    for path in tmp_path.glob("epoch_*.pth"):
        if int(path.stem.split("_")[1]) > after:
            path.unlink()
    resumed = train(tmp_path, data, [SEEDS, EMA, make_hook((2, 4))], resume=True, epochs=6)
    assert_same_training(resumed, unbroken[0])
    assert labels_of(tmp_path) == labels_of(unbroken[1])


def test_resumed_run_without_its_round_is_refused(data, tmp_path, unbroken):
    shutil.copytree(unbroken[1], tmp_path / "gone")
    shutil.rmtree(tmp_path / "gone" / "pseudo_labels")
    (tmp_path / "gone" / "epoch_6.pth").unlink()
    hooks = [SEEDS, EMA, make_hook((2, 4))]
    with pytest.raises(DataError, match=r"round_02: not there, and the run resumed after 5 epochs.*at most 4 epochs"):
        train(tmp_path / "gone", data, hooks, resume=True, epochs=6)

    other = tmp_path / "other"
    train(other, data, hooks, epochs=5)
    shutil.rmtree(tmp_path / "gone" / "pseudo_labels", ignore_errors=True)
    shutil.copytree(other / "pseudo_labels", tmp_path / "gone" / "pseudo_labels")
    with pytest.raises(DataError, match=r"round_02: pseudo-labels of another run"):
        train(tmp_path / "gone", data, hooks, resume=True, epochs=6)


def test_resumed_run_whose_rounds_were_moved_is_refused(data, tmp_path, unbroken):
    """Else round 1 of the old plan would be taken for that of the new one."""
    shutil.copytree(unbroken[1], tmp_path, dirs_exist_ok=True)
    for number in (4, 5, 6):
        (tmp_path / f"epoch_{number}.pth").unlink()
    shutil.rmtree(tmp_path / "pseudo_labels" / "round_02")
    with pytest.raises(ConfigError, match=r"round_01: made after 2 epochs, but rounds=\[1, 4\] has round 1 after 1: "):
        train(tmp_path, data, [SEEDS, EMA, make_hook((1, 4))], resume=True, epochs=6)
    train(tmp_path, data, [SEEDS, EMA, make_hook((2, 5))], resume=True, epochs=6)  # what is still to come may move


class _Noisy(FakePseudoLabelled):
    """Draws from every generator while a region is read, and ignores the labels."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, use=False)
        read = self.unlabelled.read_image

        def drawing(index):
            random.random(), np.random.rand(), torch.rand(1)
            return read(index)

        self.unlabelled.read_image = drawing


@pytest.mark.parametrize("teacher", ["ema", "model"])
def test_labelling_changes_neither_weights_nor_statistics_nor_random_numbers(data, tmp_path, teacher):
    """Without EpochSeedHook: dropout would tell if one number more had been drawn."""
    seen = []

    class _Watch(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            if runner.epoch == 2 and batch_idx == 0:
                seen.append((runner.model.training, random.random(), np.random.rand()))
                assert all(module.training for module in runner.model.modules())

    watch = {"type": _Watch}
    plain = train(tmp_path / "plain", data, [EMA, watch], dataset=_Noisy(data))
    hooks = [EMA, make_hook(teacher=teacher), watch]
    labelled = train(tmp_path / "labelled", data, hooks, dataset=_Noisy(data))
    assert (tmp_path / "labelled" / "pseudo_labels" / "round_01" / "provenance.json").exists()
    assert_same_training(plain, labelled)
    assert seen[0] == seen[1]


@pytest.mark.parametrize("teacher", ["ema", "model"])
def test_teacher_is_the_average_or_the_model(data, tmp_path, teacher):
    digests = {}

    class _Digests(Hook):
        priority = "VERY_HIGH"

        def before_train_epoch(self, runner):
            if runner.epoch == 2:
                average = next(hook for hook in runner.hooks if isinstance(hook, EMAHook)).ema_model.module
                digests.update(ema=state_digest(average), model=state_digest(runner.model))

    train(tmp_path, data, [SEEDS, EMA, {"type": _Digests}, make_hook(teacher=teacher)], epochs=3)
    text = (tmp_path / "pseudo_labels" / "round_01" / "provenance.json").read_text()
    assert digests["ema"] != digests["model"]
    assert digests[teacher] in text
    assert f'"teacher": "{teacher}"' in text


def test_persistent_workers_get_the_new_labels(data, tmp_path):
    seen = {}

    class _Watch(Hook):
        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            seen.setdefault(runner.epoch, []).extend(sample.round for sample in data_batch["data_samples"])

    train(tmp_path, data, [SEEDS, EMA, make_hook(), {"type": _Watch}], workers=2, epochs=3)
    assert [sum(seen[epoch]) for epoch in range(3)] == [0, 0, 4]


def test_signal_within_a_round_ends_the_run_after_the_region(data, tmp_path, unbroken):
    dataset, handlers = FakePseudoLabelled(data), {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGUSR1)}
    read = dataset.unlabelled.read_image

    def preempted(index):
        os.kill(os.getpid(), signal.SIGTERM)
        return read(index)

    dataset.unlabelled.read_image = preempted
    try:
        with pytest.raises(SystemExit) as ended:
            hooks = [SEEDS, EMA, {"type": PreemptionHook}, make_hook((2, 4))]
            train(tmp_path, data, hooks, dataset=dataset, epochs=6)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert ended.value.code == EXIT_PREEMPTED
    assert len(list((tmp_path / "pseudo_labels" / "round_01" / "regions").glob("*.json"))) == 1
    resumed = train(tmp_path, data, [SEEDS, EMA, make_hook((2, 4))], resume=True, epochs=6)
    assert_same_training(resumed, unbroken[0])


def test_average_that_nobody_keeps_is_refused_before_training(data, tmp_path):
    with pytest.raises(ConfigError, match=r"no EMAHook among the hooks; add dict\(type=EMAHook.*teacher=\"model\""):
        train(tmp_path, data, [SEEDS, make_hook()])
    assert not list(tmp_path.glob("*.pth"))


def test_rounds_that_cannot_be_are_refused_before_training(data, tmp_path):
    with pytest.raises(ConfigError, match="a round after 4 epochs, and training ends after 4"):
        train(tmp_path / "a", data, [EMA, make_hook((2, 4))])
    with pytest.raises(ConfigError, match=r"rounds begin at 0.*load_from"):
        train(tmp_path / "b", data, [EMA, make_hook((0, 2))])
    with pytest.raises(ConfigError, match="counted in epochs"):
        runner = make_runner(tmp_path / "c", FakePseudoLabelled(data), [EMA, make_hook()])
        runner._train_loop = {"by_epoch": False, "max_iters": 4}
        runner.train()


def test_round_before_any_epoch_takes_loaded_weights(data, tmp_path, unbroken):
    weights = str(unbroken[1] / "epoch_6.pth")
    train(tmp_path, data, [SEEDS, EMA, make_hook((0,))], load_from=weights, epochs=1)
    assert (tmp_path / "pseudo_labels" / "round_01" / "provenance.json").exists()


def test_data_set_without_pseudo_labels_is_refused(data, tmp_path):
    dataset = FakePseudoLabelled(data)
    part = torch.utils.data.Subset(dataset, range(8))
    with pytest.raises(ConfigError, match=r"Subset takes no pseudo-labels.*PseudoLabelled"):
        train(tmp_path, data, dataset=part)
    dataset.pseudo = False
    with pytest.raises(ConfigError, match="has pseudo=False"):
        train(tmp_path, data, dataset=dataset)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"rounds": []}, "rounds"),
        ({"rounds": [4, 2]}, "ascending"),
        ({"rounds": [2, 2]}, "ascending"),
        ({"rounds": 2}, "rounds=2"),
        ({"rounds": [1.5]}, "1.5"),
        ({"rounds": [2], "teacher": "emma"}, "did you mean 'ema'|ema"),
        ({"rounds": [2], "tta": "d8"}, "d4"),
        ({"rounds": [2], "policy": {"type": "quantile"}}, "keep=None"),
        ({"rounds": [2], "tile": "256"}, "tile='256'"),
        ({"rounds": [2], "kept_below": "0.1"}, "kept_below='0.1'"),
    ],
)
def test_bad_argument_is_named_before_anything_is_built(arguments, named):
    with pytest.raises(ConfigError, match=named):
        SelfTrainingHook.check_config(arguments)
