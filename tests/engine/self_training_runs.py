"""Runs of a tiny segmentor with the hook of self-training, for its tests; and what makes two runs the same."""

from pathlib import Path

import torch
from mmengine.hooks import EMAHook
from self_training_fakes import FakePseudoLabelled, TinySegmentor, contents
from torch.optim import SGD

from pathzoo.datasets.sampling import SeededSampler
from pathzoo.engine import Runner
from pathzoo.engine.checkpoint import latest_checkpoint, load_checkpoint_safely
from pathzoo.engine.hooks import CheckpointHook, EpochSeedHook, SelfTrainingHook

EMA = {"type": EMAHook, "momentum": 0.3, "update_buffers": True}
SEEDS = {"type": EpochSeedHook}


def make_hook(rounds=(2,), **changes) -> dict:
    """Its config: three fifths of the pixels are kept, so that patches hold labels and gaps."""
    values = {"policy": {"type": "quantile", "keep": 0.6}, "tta": "flips", "tile": 32, "stride": 24, "batch_size": 4}
    return {"type": SelfTrainingHook, "rounds": list(rounds), **values, **changes}


def make_runner(work_dir: Path, dataset, hooks, epochs=4, workers=0, **changes) -> Runner:
    """Of a work folder; `changes` are arguments of the Runner."""
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


def train(work_dir: Path, data: Path, hooks=None, resume=False, dataset=None, **changes) -> dict:
    """Trains, or trains on; the last checkpoint."""
    dataset = dataset or FakePseudoLabelled(data)
    if resume:
        changes |= {"resume": True, "load_from": str(latest_checkpoint(work_dir))}
    make_runner(work_dir, dataset, hooks or [SEEDS, EMA, make_hook()], **changes).train()
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


def assert_same_training(one: dict, other: dict) -> None:
    """Of two checkpoints: weights, their average, the optimizer and all losses, bitwise."""
    for part in ("state_dict", "ema_state_dict", "optimizer"):
        _same(one[part], other[part], part)
    losses = [run["message_hub"]["log_scalars"]["train/loss"]["history"] for run in (one, other)]
    assert torch.equal(*losses)


def labels_of(work_dir: Path) -> dict[str, bytes]:
    """All of the rounds but what names the run."""
    files = contents(work_dir / "pseudo_labels")
    return {name: data for name, data in files.items() if Path(name).name not in ("round.json", "provenance.json")}
