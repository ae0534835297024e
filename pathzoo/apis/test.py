"""Tests a checkpoint by a config: what `tools/test.py` and `pathzoo test` call."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process

from pathzoo.apis.checks import errors_of_the_config
from pathzoo.apis.config import load_config
from pathzoo.apis.lineage import ancestors_of, refuse_training_patients, splits_beside, warn
from pathzoo.apis.run_record import nothing_left_behind, recorded, recorded_start
from pathzoo.apis.setup import setup
from pathzoo.datasets.split_caveats import CAVEATS
from pathzoo.engine.checkpoint import chosen_checkpoint
from pathzoo.fileio import write_json


def test(
    config: str | Path,
    checkpoint: str | Path | None = None,
    work_dir: str | Path | None = None,
    *,
    options: Mapping[str, Any] | None = None,
    launcher: str = "none",
) -> list[dict[str, Any]]:
    """Tests a model on the config's test set.

    Args:
        config: A config file, or its path below the packaged configs.
        checkpoint: A .pth file; where not given, `best_*.pth` of the work folder, else its newest.
        work_dir: The run's folder; `work_dirs/<config name>` where not given.
        options: Dotted key -> value, set in the config.
        launcher: As for `train`.

    Returns:
        The metric rows (metric, level, n, value, low, high). Written to the work folder: `metrics.json`, and `test/`
        with plots and what they are drawn from: predictions.csv and curves of a classifier, regions.csv of a segmenter.

    Raises:
        ConfigError, DataError, LeakageError, CheckpointError: One line that names the file, the value, the remedy.
    """
    setup()
    cfg = load_config(config, options)
    folder = Path(work_dir or cfg.get("work_dir") or Path("work_dirs") / Path(cfg.filename).stem)
    cfg.work_dir = str(folder)
    cfg.launcher = launcher
    cfg.load_from = str(checkpoint or chosen_checkpoint(folder))
    evaluators = cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]
    for evaluator in evaluators:
        evaluator["out_dir"] = str(folder / "test")

    from pathzoo.engine import Runner
    from pathzoo.engine.distributed import leave_group

    with nothing_left_behind(folder):
        with errors_of_the_config(cfg):
            runner = Runner.from_cfg(cfg)
            _ = runner.test_loop
        dataset, of_checkpoint = runner.test_dataloader.dataset, Path(cfg.load_from).parent
        refuse_training_patients(dataset, [*splits_beside(folder), *splits_beside(of_checkpoint)])
        caveats = ancestors_of(recorded_start(of_checkpoint), of_checkpoint).refuse(dataset)
        warn(caveats)
        runner.test()
    if is_main_process():
        about = {"subset": "test", "dataset": type(dataset).__name__, "checkpoint": Path(cfg.load_from).name}
        counts = dataset.describe() if hasattr(dataset, "describe") else {}
        of_training = recorded(of_checkpoint, "data", "counts", CAVEATS) or ()
        about["caveats"] = [*counts.get("caveats", ()), *caveats, *of_training]
        write_json(folder / "metrics.json", about | json.loads((folder / "test" / "metrics.json").read_text()))
    if launcher != "none":
        leave_group()
    return [row for metric in runner.test_evaluator.metrics for row in getattr(metric, "rows", None) or []]


test.__test__ = False  # its name is no test of pytest's
