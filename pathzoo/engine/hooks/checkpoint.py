"""Saves checkpoints without ever leaving the run with none, and ends a run that no longer gets better."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.hooks import CheckpointHook as _HostCheckpointHook

from pathzoo.errors import ConfigError
from pathzoo.registry import HOOKS

#: Where the run's history keeps how many validations there were since the best one.
_WAITED = "waited_validations"  # mmengine logs what begins with "val"


@HOOKS.register_module()
class CheckpointHook(_HostCheckpointHook):
    """mmengine's CheckpointHook that deletes an outdated checkpoint only after the new one is safe on disk.

    The host deletes first, so that a run killed while it saves may have lost both.

    With `patience` it also ends the training early: mmengine's EarlyStoppingHook forgets its count when a run is
    resumed, and has a notion of its own of what is best. The epoch that training ends after is saved, whatever the
    interval; resumed with the same patience the run stays ended, with more it goes on.

    Args:
        *args, **kwargs: The host's.
        patience: Validations without a better one than the best, after which training ends; None for never. Schedules
            stay those of `max_epochs`. Counted are validations, of which `val_interval=3` gives one in three epochs.

    Raises:
        ConfigError: A patience that is no whole number above 0, or without one `save_best` to wait for.
    """

    def __init__(self, *args: Any, patience: int | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if patience is not None and not (type(patience) is int and patience > 0):
            raise ConfigError(f"CheckpointHook(patience={patience!r}): give a whole number above 0, or None")
        if patience is not None and len(self.save_best or ()) != 1:
            raise ConfigError(
                f"CheckpointHook(patience={patience}) waits for a better validation, but save_best is "
                f"{self.save_best}: name one measure, or set patience=None where nothing is validated"
            )
        self.patience = patience

    def before_train(self, runner: Any) -> None:
        """Prepares the folder; a resumed run that had ended early does not begin again."""
        super().before_train(runner)
        if self.patience is not None and self._waited(runner) >= self.patience:
            runner.logger.info(f"training had ended by patience={self.patience}; a higher one would go on")
            runner.train_loop.stop_training = True

    def after_val_epoch(self, runner: Any, metrics: dict[str, float]) -> None:
        """Keeps the best; ends the training where it has waited long enough for a better one."""
        before = getattr(self, "best_ckpt_path", None)
        super().after_val_epoch(runner, metrics)
        if self.patience is None:
            return
        better = self.best_ckpt_path != before
        waited = 0 if better else self._waited(runner) + 1
        runner.message_hub.update_info(_WAITED, waited)
        now, end = (runner.epoch, runner.max_epochs) if self.by_epoch else (runner.iter, runner.max_iters)
        stop = waited >= self.patience and now < end
        # This epoch's checkpoint was saved before its validation: without the count a resumed run would wait longer.
        saved = self.last_ckpt is not None and Path(self.last_ckpt).name == self.filename_tmpl.format(now)
        if stop or (saved and not better):  # else the host has just done it
            self._save_checkpoint_with_step(runner, now, meta={"epoch": runner.epoch, "iter": runner.iter})
        if stop:
            unit = "epoch" if self.by_epoch else "iteration"
            best = runner.message_hub.runtime_info.get("best_score")
            than = "" if best is None else f" than {best:.4f}"
            runner.logger.info(
                f"{waited} validations without a better {self.save_best[0]}{than}: training ends after {unit} {now} "
                f"of {end}"
            )
            runner.train_loop.stop_training = True

    def _waited(self, runner: Any) -> int:
        return int(runner.message_hub.runtime_info.get(_WAITED, 0))

    def _save_checkpoint_with_step(self, runner: Any, step: int, meta: dict) -> None:
        with self._removals_afterwards():
            super()._save_checkpoint_with_step(runner, step, meta)

    def _save_best_checkpoint(self, runner: Any, metrics: dict) -> None:
        with self._removals_afterwards():
            super()._save_best_checkpoint(runner, metrics)

    @contextmanager
    def _removals_afterwards(self) -> Iterator[None]:
        backend = self.file_backend
        deferred = _DeferredRemovals(backend)
        self.file_backend = deferred
        try:
            yield
        finally:
            self.file_backend = backend
        for remove, path in deferred.removals:  # reached only where saving succeeded
            remove(path)


class _DeferredRemovals:
    """A file backend that notes removals instead of doing them."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self.removals: list[tuple[Callable[[str], None], str]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def remove(self, path: str) -> None:
        self.removals.append((self._backend.remove, path))

    def rmtree(self, path: str) -> None:
        self.removals.append((self._backend.rmtree, path))
