"""mmengine's Runner as an arm of a benchmark: an epoch for each question."""

import sys
import tempfile
import time
from typing import Any

import torch
from arms import answer
from mmengine.hooks import Hook


def run_rounds(
    about: dict[str, Any], model: Any, loader: dict[str, Any], optim_wrapper: dict[str, Any], rounds: int
) -> None:
    """Trains with our Runner and its hooks; speaks with the benchmark as `arms.serve` does, without reading words.

    Args:
        about: what the arm says of itself.
        model: on its device already.
        loader: train_dataloader without the sampler; `dataset` is built already.
        optim_wrapper: the Runner's.
        rounds: epochs, at most; with those to warm up.
    """
    from mmengine.config import Config

    from pathzoo.datasets.sampling import SeededSampler
    from pathzoo.engine import Runner
    from pathzoo.engine.hooks import CheckpointHook, EpochSeedHook

    with tempfile.TemporaryDirectory() as folder:
        runner = Runner(
            model=model,
            work_dir=folder,
            train_dataloader={**loader, "sampler": {"type": SeededSampler, "shuffle": True}},
            train_cfg={"by_epoch": True, "max_epochs": rounds},
            optim_wrapper=optim_wrapper,
            default_hooks={"checkpoint": {"type": CheckpointHook, "interval": rounds + 1, "save_last": False}},
            custom_hooks=[{"type": EpochSeedHook}],
            env_cfg={"cudnn_benchmark": True},
            log_level="ERROR",
            cfg=Config({}),
        )
        runner.register_hook(_Rounds(about, len(loader["dataset"])), priority=0)
        runner.train()


class _Rounds(Hook):
    """Each epoch waits for a question; it is timed from before the first hook to after the last iteration."""

    def __init__(self, about: dict[str, Any], samples: int) -> None:
        self._about, self._samples = about, samples

    def before_train(self, runner: Any) -> None:
        answer(self._about)

    def before_train_epoch(self, runner: Any) -> None:
        if not sys.stdin.readline():
            raise SystemExit(0)
        self._started = time.perf_counter()

    def after_train_epoch(self, runner: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        answer(self._samples / (time.perf_counter() - self._started))
