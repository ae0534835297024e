"""Makes an epoch's random numbers a function of (seed, rank, epoch), so that a resumed run equals an unbroken one."""

import random
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook

from pathzoo.datasets.sampling import mix_seed
from pathzoo.registry import HOOKS


@HOOKS.register_module()
class EpochSeedHook(Hook):
    """Reseeds Python, numpy and torch (CPU and CUDA) before each training epoch, and again before its first step.

    Checkpoints are taken between epochs, and mmengine saves no random state. With this hook none is needed: worker
    seeds and dropout in epoch e depend on the run's seed, the rank and e alone. The second time matters: a loader
    draws a seed when its workers start, which persistent workers do once, a resumed run's anew.
    """

    priority = "VERY_HIGH"

    def before_train_epoch(self, runner: Any) -> None:
        """Seeds with a hash of the run's seed, the rank and the epoch."""
        seed = mix_seed(runner.seed or 0, runner.rank, runner.epoch)
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)  # CUDA devices included

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Seeds again once the epoch's first batch is there."""
        if batch_idx == 0:
            self.before_train_epoch(runner)
