"""The figures of a run's validations: of its last checkpoint, and of its best one."""

from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook

from pathzoo.engine.checkpoint import latest_checkpoint
from pathzoo.fileio import write_json

LAST, BEST = "metrics.json", "metrics_best.json"


def write_validation_metrics(runner: Any, folder: Path) -> None:
    """Writes the rows of the last validation to `metrics.json`, with the name of the last checkpoint."""
    last = latest_checkpoint(folder)  # the validation was its, not the best one's
    _write(runner, folder / LAST, last.name if last else None)


class KeepBestMetrics(Hook):
    """Writes the rows of a validation to `metrics_best.json` whenever its checkpoint is kept as the best.

    A pretext has no test to be measured by afterwards: these are the figures that its published form may show.

    Args:
        folder: The work folder.
    """

    priority = "LOWEST"  # after the CheckpointHook

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: str | None = None

    def before_train(self, runner: Any) -> None:
        """A run that goes on has a best one already, which was validated earlier."""
        self._seen = _best(runner)

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Looks whether this validation gave a new best one."""
        best = _best(runner)
        if best and best != self._seen:
            self._seen = best
            if is_main_process():
                _write(runner, self._folder / BEST, Path(best).name)


def _best(runner: Any) -> str | None:
    info = runner.message_hub.runtime_info
    return str(info["best_ckpt"]) if info.get("best_ckpt") else None


def _write(runner: Any, path: Path, checkpoint: str | None) -> None:
    evaluator = getattr(runner.val_loop, "evaluator", None) if runner.val_loop else None
    rows = [row for metric in getattr(evaluator, "metrics", []) for row in getattr(metric, "rows", None) or []]
    if rows:
        about = {"subset": "val", "dataset": type(runner.val_dataloader.dataset).__name__}
        about |= {"checkpoint": checkpoint} if checkpoint else {}
        write_json(path, about | {"rows": rows})
