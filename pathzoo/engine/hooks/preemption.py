"""Ends a run in order when the cluster asks for its machine back."""

import signal
import sys
from typing import Any

from mmengine.hooks import Hook

from pathzoo.registry import HOOKS

#: sysexits.h EX_TEMPFAIL: "try again later"; the batch script resubmits with --resume.
EXIT_PREEMPTED = 75


@HOOKS.register_module()
class PreemptionHook(Hook):
    """On SIGTERM or SIGUSR1: finishes the iteration, then exits with 75. `--resume` goes on from the last epoch saved.

    The work of the unfinished epoch is done again: checkpoints are taken between epochs, where a run can be resumed
    exactly. Batch systems may signal every process of a job; where that ends the loader's workers and with them the
    iteration, the run exits with 75 all the same: from the signal on, the end of a worker (SIGCHLD) no longer raises an
    error at whatever line is being run, as PyTorch's loader has it, but is found when its next batch is waited for.
    """

    def __init__(self) -> None:
        self._asked: str | None = None
        self._previous: dict[int, Any] = {}

    def before_train(self, runner: Any) -> None:
        """Takes over the two signals."""
        for number in (signal.SIGTERM, signal.SIGUSR1):
            self._previous[number] = signal.signal(number, self._note)

    def after_train(self, runner: Any) -> None:
        """Gives the signals back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Exits where a signal has come."""
        self.after_failure(runner)

    def after_failure(self, runner: Any) -> None:
        """Exits where a signal has come: it is why the training failed. `pathzoo.engine.Runner` calls this."""
        if self._asked:
            runner.logger.warning(f"{self._asked} received: stopping; go on by --resume")
            sys.exit(EXIT_PREEMPTED)

    def _note(self, number: int, frame: Any) -> None:
        self._asked = signal.Signals(number).name
        self._previous.setdefault(signal.SIGCHLD, signal.signal(signal.SIGCHLD, signal.SIG_DFL))
