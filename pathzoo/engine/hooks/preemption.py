"""Ends a run in order when the cluster asks for its machine back."""

import signal
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from mmengine.hooks import Hook

from pathzoo.registry import HOOKS

#: sysexits.h EX_TEMPFAIL: "try again later"; the batch script resubmits with --resume.
EXIT_PREEMPTED = 75
_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


@HOOKS.register_module()
class PreemptionHook(Hook):
    """On SIGTERM or SIGUSR1: finishes the iteration, then exits with 75. `--resume` goes on from the last epoch saved.

    The work of the unfinished epoch is done again: checkpoints are taken between epochs, where a run can be resumed
    exactly. Batch systems signal every process of a job: loader workers ignore both signals, or the iteration could
    not be finished. They end with the process that started them.
    """

    def __init__(self) -> None:
        self._asked: str | None = None
        self._previous: dict[int, Any] = {}

    def before_train(self, runner: Any) -> None:
        """Takes over the two signals, before any worker has started."""
        for number in _SIGNALS:
            self._previous[number] = signal.signal(number, self._note)
        for loop in (runner.train_loop, runner.val_loop):
            if loop is not None:
                loop.dataloader.worker_init_fn = partial(_init_worker, loop.dataloader.worker_init_fn)

    def after_train(self, runner: Any) -> None:
        """Gives the signals back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Exits where a signal has come."""
        if self._asked:
            runner.logger.warning(f"{self._asked} received: stopping; go on by --resume")
            sys.exit(EXIT_PREEMPTED)

    def _note(self, number: int, frame: Any) -> None:
        self._asked = signal.Signals(number).name


def _init_worker(then: Callable[[int], None] | None, worker_id: int) -> None:
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if then is not None:
        then(worker_id)
