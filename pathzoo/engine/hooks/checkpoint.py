"""Saves checkpoints without ever leaving the run with none."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.hooks import CheckpointHook as _HostCheckpointHook

from pathzoo.registry import HOOKS


@HOOKS.register_module()
class CheckpointHook(_HostCheckpointHook):
    """mmengine's CheckpointHook that deletes an outdated checkpoint only after the new one is safe on disk.

    The host deletes first, so that a run killed while it saves may have lost both. Same arguments.
    """

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
