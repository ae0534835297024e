"""The hook under the Runner: when rounds are made, what they leave untouched, and that a run resumes exactly."""

import os
import random
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.hooks import EMAHook, Hook
from self_training_fakes import FakePseudoLabelled, TinySegmentor, contents
from torch.optim import SGD

from pathzoo.datasets.sampling import SeededSampler
from pathzoo.engine import Runner
from pathzoo.engine.checkpoint import latest_checkpoint, load_checkpoint_safely
from pathzoo.engine.hooks import CheckpointHook, EpochSeedHook, PreemptionHook, SelfTrainingHook
from pathzoo.engine.hooks.preemption import EXIT_PREEMPTED
from pathzoo.engine.self_training.teacher import state_digest
from pathzoo.errors import ConfigError, DataError

_EMA = {"type": EMAHook, "momentum": 0.3, "update_buffers": True}
_SEEDS = {"type": EpochSeedHook}


def _hook(rounds=(2,), **changes):
    values = {"policy": {"type": "quantile", "keep": 0.6}, "tta": "flips", "tile": 32, "stride": 24, "batch_size": 4}
    return {"type": SelfTrainingHook, "rounds": list(rounds), **values, **changes}


def _runner(work_dir: Path, dataset, hooks, epochs=4, workers=0, **changes) -> Runner:
    loader = {"dataset": dataset, "batch_size": 4, "num_workers": workers, "persistent_workers": workers > 0}
    return Runner(
        model=TinySegmentor(seed=7),
        work_dir=str(work_dir),
        train_dataloader={**loader, "sampler": {"type": SeededSampler, "shuffle": True}},
        train_cfg={"by_epoch": True, "max_epochs": epochs, **changes.pop("train_cfg", {})},
        optim_wrapper={"optimizer": {"type": SGD, "lr": 0.05, "momentum": 0.9}},
        default_hooks={"checkpoint": {"type": CheckpointHook, "interval": 1}},
        custom_hooks=hooks,
        randomness={"seed": 3},
        default_scope=None,
        **changes,
    )


def _train(work_dir: Path, data: Path, hooks=None, resume=False, dataset=None, **changes) -> dict:
    """Trains, or trains on; the last checkpoint."""
    dataset = dataset or FakePseudoLabelled(data)
    if resume:
        changes |= {"resume": True, "load_from": str(latest_checkpoint(work_dir))}
    _runner(work_dir, dataset, hooks or [_SEEDS, _EMA, _hook()], **changes).train()
    return load_checkpoint_safely(latest_checkpoint(work_dir))


def _same(one, other, where="") -> None:
    """Bitwise, at any depth."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            _same(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        for number, pair in enumerate(zip(one, other, strict=True)):
            _same(*pair, f"{where}.{number}")
    else:
        assert one == other, where


def _assert_same_training(one: dict, other: dict) -> None:
    for part in ("state_dict", "ema_state_dict", "optimizer"):
        _same(one[part], other[part], part)
    losses = [run["message_hub"]["log_scalars"]["train/loss"]["history"] for run in (one, other)]
    assert torch.equal(*losses)


def _labels(work_dir: Path) -> dict[str, bytes]:
    """All of the rounds but what names the run."""
    files = contents(work_dir / "pseudo_labels")
    return {name: data for name, data in files.items() if Path(name).name not in ("round.json", "provenance.json")}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("regions")
    FakePseudoLabelled(folder)
    return folder


@pytest.fixture(scope="module")
def unbroken(data, tmp_path_factory) -> tuple[dict, Path]:
    """The checkpoint after six epochs with rounds before the third and the fifth; and its folder. Read only."""
    folder = tmp_path_factory.mktemp("unbroken")
    return _train(folder, data, [_SEEDS, _EMA, _hook((2, 4))], epochs=6), folder


def test_rounds_are_made_when_due_and_change_what_is_trained(data, tmp_path, unbroken):
    checkpoint, folder = unbroken
    assert sorted(path.name for path in (folder / "pseudo_labels").iterdir()) == [
        "audit.csv",
        "audit.png",
        "round_01",
        "round_02",
    ]
    without = _train(tmp_path, data, [_SEEDS, _EMA], epochs=6)
    losses = [run["message_hub"]["log_scalars"]["train/loss"]["history"] for run in (checkpoint, without)]
    assert torch.equal(losses[0][:4], losses[1][:4])  # two epochs of two iterations without pseudo-labels
    assert not torch.equal(losses[0][4:], losses[1][4:])


@pytest.mark.parametrize(("round_number", "failing"), [(1, 3), (2, 1)])
def test_run_killed_within_a_round_and_resumed_equals_an_unbroken_one(data, tmp_path, unbroken, round_number, failing):
    hooks = [_SEEDS, _EMA, _hook((2, 4))]
    dataset = FakePseudoLabelled(data)

    class _Killer(Hook):
        priority = "HIGHEST"

        def before_train_epoch(self, runner):
            if runner.epoch == 2 * round_number:
                dataset.unlabelled.fail_at = {failing: KeyboardInterrupt()}

    with pytest.raises(KeyboardInterrupt):
        _train(tmp_path, data, [*hooks, {"type": _Killer}], dataset=dataset, epochs=6)
    folder = tmp_path / "pseudo_labels" / f"round_{round_number:02d}"
    assert not (folder / "provenance.json").exists()
    done = {path.name for path in (folder / "regions").glob("*.json")}
    assert 0 < len(done) < 5 or failing == 0
    again = FakePseudoLabelled(data)
    resumed = _train(tmp_path, data, hooks, resume=True, dataset=again, epochs=6)
    assert len(again.unlabelled.reads) == 5 * (3 - round_number) - len(done)
    _assert_same_training(resumed, unbroken[0])
    assert _labels(tmp_path) == _labels(unbroken[1])


@pytest.mark.parametrize("after", [1, 2, 3, 5])
def test_run_resumed_between_rounds_equals_an_unbroken_one(data, tmp_path, unbroken, after):
    """After 2 epochs a round is due at once, and is there already; after 3 and 5 the one before is taken up."""
    shutil.copytree(unbroken[1], tmp_path, dirs_exist_ok=True)
    for path in tmp_path.glob("epoch_*.pth"):
        if int(path.stem.split("_")[1]) > after:
            path.unlink()
    resumed = _train(tmp_path, data, [_SEEDS, _EMA, _hook((2, 4))], resume=True, epochs=6)
    _assert_same_training(resumed, unbroken[0])
    assert _labels(tmp_path) == _labels(unbroken[1])


def test_resumed_run_without_its_round_is_refused(data, tmp_path, unbroken):
    shutil.copytree(unbroken[1], tmp_path / "gone")
    shutil.rmtree(tmp_path / "gone" / "pseudo_labels")
    (tmp_path / "gone" / "epoch_6.pth").unlink()
    hooks = [_SEEDS, _EMA, _hook((2, 4))]
    with pytest.raises(DataError, match=r"round_02: not there, and the run resumed after 5 epochs.*at most 4 epochs"):
        _train(tmp_path / "gone", data, hooks, resume=True, epochs=6)

    other = tmp_path / "other"
    _train(other, data, hooks, epochs=5)
    shutil.rmtree(tmp_path / "gone" / "pseudo_labels", ignore_errors=True)
    shutil.copytree(other / "pseudo_labels", tmp_path / "gone" / "pseudo_labels")
    with pytest.raises(DataError, match=r"round_02: pseudo-labels of another run"):
        _train(tmp_path / "gone", data, hooks, resume=True, epochs=6)


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
    plain = _train(tmp_path / "plain", data, [_EMA, watch], dataset=_Noisy(data))
    hooks = [_EMA, _hook(teacher=teacher), watch]
    labelled = _train(tmp_path / "labelled", data, hooks, dataset=_Noisy(data))
    assert (tmp_path / "labelled" / "pseudo_labels" / "round_01" / "provenance.json").exists()
    _assert_same_training(plain, labelled)
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

    _train(tmp_path, data, [_SEEDS, _EMA, {"type": _Digests}, _hook(teacher=teacher)], epochs=3)
    text = (tmp_path / "pseudo_labels" / "round_01" / "provenance.json").read_text()
    assert digests["ema"] != digests["model"]
    assert digests[teacher] in text
    assert f'"teacher": "{teacher}"' in text


def test_persistent_workers_get_the_new_labels(data, tmp_path):
    seen = {}

    class _Watch(Hook):
        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            seen.setdefault(runner.epoch, []).extend(sample.round for sample in data_batch["data_samples"])

    _train(tmp_path, data, [_SEEDS, _EMA, _hook(), {"type": _Watch}], workers=2, epochs=3)
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
            hooks = [_SEEDS, _EMA, {"type": PreemptionHook}, _hook((2, 4))]
            _train(tmp_path, data, hooks, dataset=dataset, epochs=6)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert ended.value.code == EXIT_PREEMPTED
    assert len(list((tmp_path / "pseudo_labels" / "round_01" / "regions").glob("*.json"))) == 1
    resumed = _train(tmp_path, data, [_SEEDS, _EMA, _hook((2, 4))], resume=True, epochs=6)
    _assert_same_training(resumed, unbroken[0])


def test_average_that_nobody_keeps_is_refused_before_training(data, tmp_path):
    with pytest.raises(ConfigError, match=r"no EMAHook among the hooks; add dict\(type=EMAHook.*teacher=\"model\""):
        _train(tmp_path, data, [_SEEDS, _hook()])
    assert not list(tmp_path.glob("*.pth"))


def test_rounds_that_cannot_be_are_refused_before_training(data, tmp_path):
    with pytest.raises(ConfigError, match="a round after 4 epochs, and training ends after 4"):
        _train(tmp_path / "a", data, [_EMA, _hook((2, 4))])
    with pytest.raises(ConfigError, match=r"rounds begin at 0.*load_from"):
        _train(tmp_path / "b", data, [_EMA, _hook((0, 2))])
    with pytest.raises(ConfigError, match="counted in epochs"):
        runner = _runner(tmp_path / "c", FakePseudoLabelled(data), [_EMA, _hook()])
        runner._train_loop = {"by_epoch": False, "max_iters": 4}
        runner.train()


def test_round_before_any_epoch_takes_loaded_weights(data, tmp_path, unbroken):
    weights = str(unbroken[1] / "epoch_6.pth")
    _train(tmp_path, data, [_SEEDS, _EMA, _hook((0,))], load_from=weights, epochs=1)
    assert (tmp_path / "pseudo_labels" / "round_01" / "provenance.json").exists()


def test_data_set_without_pseudo_labels_is_refused(data, tmp_path):
    dataset = FakePseudoLabelled(data)
    part = torch.utils.data.Subset(dataset, range(8))
    with pytest.raises(ConfigError, match=r"Subset takes no pseudo-labels.*PseudoLabelled"):
        _train(tmp_path, data, dataset=part)
    dataset.pseudo = False
    with pytest.raises(ConfigError, match="has pseudo=False"):
        _train(tmp_path, data, dataset=dataset)


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
    ],
)
def test_bad_argument_is_named_before_anything_is_built(arguments, named):
    with pytest.raises(ConfigError, match=named):
        SelfTrainingHook.check_config(arguments)
