"""Trains by a config: what `tools/train.py` and `pathzoo train` call."""

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.hooks import Hook

from pathzoo.apis import run_record
from pathzoo.apis.checks import (
    check_data_resolution,
    check_length,
    check_model_input,
    check_slice_size,
    errors_of_the_config,
    model_input,
)
from pathzoo.apis.config import load_config, set_options
from pathzoo.apis.lineage import (
    ancestors_of,
    input_caveats,
    refuse_trained_split,
    refuse_training_beyond,
    refuse_training_patients,
    refuse_validation_on_test,
    splits_beside,
    warn,
)
from pathzoo.apis.setup import setup
from pathzoo.apis.validation_metrics import KeepBestMetrics, write_validation_metrics
from pathzoo.datasets.sampling import check_sampler
from pathzoo.datasets.slices import SliceSegmentation
from pathzoo.engine.checkpoint import latest_checkpoint
from pathzoo.errors import ConfigError, DataError
from pathzoo.fileio import write_json


def train(
    config: str | Path,
    work_dir: str | Path | None = None,
    *,
    resume: bool | str | Path = False,
    amp: bool = False,
    no_validate: bool = False,
    auto_scale_lr: bool = False,
    options: Mapping[str, Any] | None = None,
    launcher: str = "none",
    seed: int | None = None,
    command: list[str] | None = None,
) -> Path:
    """Trains a model.

    Args:
        config: A config file, or its path below the packaged configs.
        work_dir: Where everything goes; `work_dirs/<config name>` where not given.
        resume: True goes on from the newest checkpoint in `work_dir` (and begins anew where there is none); a path
            from that one. Files are never unpickled.
        amp: Mixed precision; needs a GPU.
        no_validate: Train without validation.
        auto_scale_lr: Scale the learning rate by (batch x processes) / the config's `base_batch_size`; refused where
            the loss is a sum.
        options: Dotted key -> value, set in the config.
        launcher: "none", "pytorch" (torchrun) or "slurm".
        seed: Of initial weights, shuffling and augmentation; the config's own where not given.
        command: What to record as the command line.

    Returns:
        The work folder: `epoch_N.pth`, `train_run.json`, `metrics.json` and `metrics_best.json` (validation of the last
        checkpoint and of the best), `splits.json`, logs.

    Raises:
        ConfigError, DataError, LeakageError, CheckpointError: One line that names the file, the value, the remedy.
    """
    setup()
    started = time.time()
    cfg = load_config(config, options)
    folder = Path(work_dir or cfg.get("work_dir") or Path("work_dirs") / Path(cfg.filename).stem)
    cfg.work_dir = str(folder)
    cfg.launcher = launcher
    _apply_switches(cfg, amp, no_validate, auto_scale_lr, seed)
    _choose_resume(cfg, folder, resume)
    check_model_input(cfg)
    check_length(cfg)

    from pathzoo.engine import Runner
    from pathzoo.engine.distributed import leave_group

    with run_record.nothing_left_behind(folder) as accept:
        with errors_of_the_config(cfg):
            runner = Runner.from_cfg(cfg)
            _ = runner.train_loop, runner.val_loop  # builds the data sets: bad data ends the run here
        dataset = runner.train_dataloader.dataset
        _check_batches(cfg, runner.train_dataloader)
        check_sampler(runner.train_dataloader, cfg.filename)
        _check_classes(cfg, dataset)
        check_data_resolution(cfg, dataset)
        _check_slice_size(cfg, dataset)
        _check_split(dataset, folder)
        start_weights = run_record.initial_weights(cfg)
        caveats = _check_overlap(cfg, runner, start_weights)
        record = _record(cfg, runner, dataset, start_weights, caveats, command or sys.argv)

        def begin() -> None:
            accept()
            if is_main_process():
                _keep_split(dataset, folder)
                write_json(folder / "train_run.json", record | {"status": "running"})

        start = _AtStart(begin)
        runner.register_hook(start)
        runner.register_hook(KeepBestMetrics(folder))
        trained_from = time.time()
        try:
            runner.train()
        except BaseException as error:
            if start.begun and is_main_process():  # else the record may be an earlier run's
                ended = {SystemExit: "preempted", KeyboardInterrupt: "interrupted"}.get(type(error), "failed")
                write_json(folder / "train_run.json", record | {"status": ended})
            raise
    if is_main_process():
        timings = {"setup_s": trained_from - started, "train_s": time.time() - trained_from}
        done = {"status": "finished", "epochs_done": runner.epoch, "timings": timings}
        write_json(folder / "train_run.json", record | done)
        write_validation_metrics(runner, folder)
    if launcher != "none":
        leave_group()
    return folder


class _AtStart(Hook):
    """Calls a function when every input has been accepted, weights included, and training begins."""

    priority = "VERY_HIGH"

    def __init__(self, act: Callable[[], None]) -> None:
        self._act = act
        self.begun = False

    def before_train(self, runner: Any) -> None:
        self._act()
        self.begun = True


def _check_slice_size(cfg: Config, dataset: Any) -> None:
    """Raises ConfigError where slices come out of their pipeline in another size than the config says."""
    if isinstance(dataset, SliceSegmentation):
        picture = dataset[0].get("inputs")
        if picture is not None:
            check_slice_size(cfg, (picture.shape[-1], picture.shape[-2]), str(dataset.data_root))


def _check_batches(cfg: Config, loader: Any) -> None:
    """Raises where `drop_last` leaves no batch: there are fewer samples than one holds."""
    if not len(loader):
        raise ConfigError(
            f"{cfg.filename}: train_dataloader: {len(loader.sampler)} samples make no batch of {loader.batch_size}, "
            "and drop_last drops what is less: give a smaller batch_size, drop_last=False, or samples_per_epoch=N of "
            "a SeededSampler"
        )


def _apply_switches(cfg: Config, amp: bool, no_validate: bool, auto_scale_lr: bool, seed: int | None) -> None:
    if amp:
        import torch
        from mmengine.optim import AmpOptimWrapper

        if not torch.cuda.is_available():
            raise ConfigError("--amp: mixed precision needs a GPU and none is visible here; leave --amp out")
        for wrapper in _wrappers(cfg):
            wrapper.type = AmpOptimWrapper
    if no_validate:
        for key in ("val_dataloader", "val_cfg", "val_evaluator"):
            cfg[key] = None
        checkpoint = (cfg.get("default_hooks") or {}).get("checkpoint") or {}
        checkpoint.pop("save_best", None)  # the best by validation does not exist then
    if auto_scale_lr:
        from pathzoo.registry import MODELS

        head = (cfg.model.get("bbox_head") or {}).get("type")
        head = MODELS.get(head) if isinstance(head, str) else head  # a run's copy of its config names classes by text
        if getattr(head, "loss_is_sum", False):
            raise ConfigError(
                f"--auto-scale-lr: the loss of {head.__name__} is a sum over tiles, of all processes, so that its rate "
                "holds for any batch; leave --auto-scale-lr out"
            )
        if "base_batch_size" not in (cfg.get("auto_scale_lr") or {}):
            raise ConfigError(
                f"--auto-scale-lr: {cfg.filename} names no auto_scale_lr.base_batch_size to scale from; add "
                "auto_scale_lr = dict(base_batch_size=N) with the batch that its learning rate was chosen for"
            )
        cfg.auto_scale_lr.enable = True
    if seed is not None:
        key = "seed" if "seed" in (cfg.get("parameters") or {}) else "randomness.seed"
        set_options(cfg, {key: seed}, "--seed")


def _wrappers(cfg: Config) -> list[Any]:
    """The config's optimizer wrapper, or those of its parts where each has its own."""
    if "optimizer" in cfg.optim_wrapper:
        return [cfg.optim_wrapper]
    return [part for part in cfg.optim_wrapper.values() if isinstance(part, Mapping) and "optimizer" in part]


def _choose_resume(cfg: Config, folder: Path, resume: bool | str | Path) -> None:
    if not resume:
        if latest_checkpoint(folder):
            raise ConfigError(
                f"{folder}: holds checkpoints of an earlier run, and two runs in one folder cannot be told apart; "
                "go on with --resume, or give another --work-dir"
            )
        return
    checkpoint = latest_checkpoint(folder) if resume is True else Path(resume)
    if checkpoint is None:
        print(f"--resume: no checkpoint in {folder} yet; training from the start")
        return
    cfg.load_from, cfg.resume = str(checkpoint), True


def _check_split(dataset: Any, folder: Path) -> None:
    """Where the folder holds a splits.json already, the data must still give the same split."""
    split, path = getattr(dataset, "split", None), folder / "splits.json"
    if split is None or not path.exists():
        return
    before = type(split).load(path).digest
    if before != split.digest:
        raise DataError(
            f"{path}: this folder was trained on another split (digest {before[:12]}, now {split.digest[:12]}): "
            "data, fold or seed changed; give another --work-dir"
        )


def _check_classes(cfg: Config, dataset: Any) -> None:
    """The model has one output for each class of the data."""
    classes = (getattr(dataset, "metainfo", None) or {}).get("classes")
    for head in ("head", "decode_head", "bbox_head"):
        outputs = (cfg.model.get(head) or {}).get("num_classes")
        if classes and isinstance(outputs, int) and outputs != len(classes):
            raise ConfigError(
                f"{cfg.filename}: model.{head}.num_classes is {outputs}, the data has {len(classes)} classes "
                f"({', '.join(classes)}); set num_classes={len(classes)}"
            )


def _check_overlap(cfg: Config, runner: Any, start: Mapping[str, Any]) -> list[str]:
    """No patient of validation was trained on or is kept for testing.

    Nor were any of val and test, by the runs that a checkpoint or the backbone's weights come from. Returns what could
    not be compared, and what of the input differs.
    """
    own = getattr(runner.train_dataloader.dataset, "split", None)
    if own is None:
        return []
    refuse_training_beyond(runner.train_dataloader.dataset, own)
    if runner.val_loop:
        refuse_training_patients(runner.val_dataloader.dataset, [(own, "this run's split")])
        refuse_validation_on_test(runner.val_dataloader.dataset, own)
    if cfg.load_from:
        for split, source in splits_beside(Path(cfg.load_from).parent):
            refuse_trained_split(own, split, source)
    caveats = ancestors_of(start, Path(cfg.work_dir)).refuse_split(own) + input_caveats(start, model_input(cfg))
    warn(caveats)
    return caveats


def _keep_split(dataset: Any, folder: Path) -> None:
    split, path = getattr(dataset, "split", None), folder / "splits.json"
    if split is not None and not path.exists():
        split.save(path)


def _record(
    cfg: Config, runner: Any, dataset: Any, start: dict[str, Any], caveats: list[str], command: list[str]
) -> dict[str, Any]:
    from pathzoo.zoo.allowlist import to_data

    try:
        model = to_data(cfg.model)
    except Exception as error:  # a model of the lab's own trains all the same; publishing will name what is missing
        model = {"not_publishable": str(error)}
    return run_record.process_record(command) | {
        "config": run_record.config_record(cfg),
        "study": cfg.get("study"),
        "task": cfg.get("task", "classification"),
        "model": model,
        "model_input": model_input(cfg),
        "classes": list((getattr(dataset, "metainfo", None) or {}).get("classes") or []),
        "initial_weights": start,
        "seed": runner.seed,
        "epochs": runner.max_epochs,
        "data": run_record.data_record(dataset, caveats),
    }
