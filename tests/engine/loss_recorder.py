"""A hook for tests/engine/test_distributed.py, which the training processes import by its name."""

import json
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook


class LossRecorder(Hook):
    """Writes this rank's loss of every iteration to `losses_RANK.json` in the work folder."""

    def __init__(self) -> None:
        self._losses: list[float] = []

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self._losses.append(float(outputs["loss"].detach()))

    def after_train(self, runner: Any) -> None:
        Path(runner.work_dir, f"losses_{runner.rank}.json").write_text(json.dumps(self._losses))
