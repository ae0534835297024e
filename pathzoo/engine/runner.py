"""mmengine's Runner with checkpoints that load safely and appear whole, and with process groups on the CPU."""

import itertools
import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import master_only
from mmengine.runner import BaseLoop
from mmengine.runner import Runner as _HostRunner
from mmengine.runner.checkpoint import _load_checkpoint_to_model
from torch import nn

from pathzoo.engine.checkpoint import history_from_plain, history_to_plain, load_checkpoint_safely, state_dict_of
from pathzoo.engine.distributed import DistributedDataParallel, init_gloo, without_gpu
from pathzoo.errors import CheckpointError
from pathzoo.registry import RUNNERS

#: mmengine keeps loggers and log histories under the experiment's name, to which it adds the second.
_RUNS = itertools.count(1)


@RUNNERS.register_module()
class Runner(_HostRunner):
    """Takes the arguments of `mmengine.runner.Runner`. What differs:

    - `load_checkpoint` never unpickles (see `pathzoo.engine.checkpoint`) and refuses a file of another model; resuming
      and testing are strict about every key.
    - `save_checkpoint` writes to a temporary file, flushes it to disk and renames it.
    - The copy of the config appears in the work folder when training begins, not when the Runner is made: neither input
      that is refused nor a test may replace the copy of an earlier run.
    - Weights are not initialised (or downloaded) when a checkpoint is about to replace all of them.
    - With a launcher and no GPU, processes talk by gloo.
    - Every run of a process has a log history of its own, also two that begin in the same second.
    """

    def __init__(self, *args: Any, cfg: Any = None, experiment_name: str | None = None, **kwargs: Any) -> None:
        name = experiment_name or Path(getattr(cfg, "filename", None) or "run").stem
        self._exact = False
        super().__init__(*args, cfg=cfg, experiment_name=f"{name}_{next(_RUNS)}", **kwargs)

    def setup_env(self, env_cfg: dict) -> None:
        """Joins a gloo group first where there is no GPU: the host's own set-up, which needs one, is then skipped."""
        if self.distributed and without_gpu():
            init_gloo(self.launcher)
        super().setup_env(env_cfg)

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """Wraps by our `DistributedDataParallel` where processes run without a GPU, else as the host does."""
        if self.distributed and model_wrapper_cfg is None and without_gpu():
            find_unused = self.cfg.get("find_unused_parameters", False)
            model_wrapper_cfg = {
                "type": DistributedDataParallel,
                "broadcast_buffers": False,
                "find_unused_parameters": find_unused,
            }
            os.environ.setdefault("LOCAL_RANK", "0")
        return super().wrap_model(model_wrapper_cfg, model)

    def _init_model_weights(self) -> None:
        if not (self._resume and self._load_from):
            super()._init_model_weights()

    def train(self) -> nn.Module:
        """Trains as the host does; where that fails, hooks with `after_failure` are called before the error goes on.

        Persistent workers end with the run, not whenever the garbage collector comes by.
        """
        try:
            return super().train()
        except RuntimeError:
            self.call_hook("after_failure")
            raise
        finally:
            for loop in (self._train_loop, self._val_loop):
                if isinstance(loop, BaseLoop):
                    loop.dataloader._iterator = None

    def val(self) -> dict:
        """Validates as the host does, with a checkpoint that fits the model exactly."""
        self._exact = True
        return super().val()

    def test(self) -> dict:
        """Tests as the host does, with a checkpoint that fits the model exactly: no part stays at random weights."""
        self._exact = True
        return super().test()

    def load_checkpoint(
        self,
        filename: str,
        map_location: Any = "cpu",
        strict: bool = False,
        revise_keys: list = [(r"^module.", "")],  # noqa: B006  # the host's signature; never changed
    ) -> dict:
        """Loads weights from a local file without unpickling.

        Raises:
            CheckpointError: See `load_checkpoint_safely`; also where no tensor of the file fits the model, or, when
                resuming or testing, where any key differs or a module refuses what it is given.
        """
        checkpoint = load_checkpoint_safely(filename, map_location)
        if "state_dict" not in checkpoint:
            checkpoint = {"state_dict": checkpoint}  # tensors alone: hooks look for them under that name
        if "message_hub" in checkpoint:
            checkpoint["message_hub"] = history_from_plain(checkpoint["message_hub"])
        model = self.model.module if hasattr(self.model, "module") else self.model
        saved, wanted = state_dict_of(checkpoint), model.state_dict()
        exact = strict or self._resume or self._exact
        _check_fit(Path(filename), saved, wanted, exact)
        if exact:
            _check_accepted(Path(filename), checkpoint["state_dict"], model)
        # Only now, since an average (EMA) loads the checkpoint itself.
        self.call_hook("after_load_checkpoint", checkpoint=checkpoint)
        others = [key for key, value in wanted.items() if key in saved and saved[key].shape != value.shape]
        if others:  # in one line; the host's own has one for each
            self.logger.warning(
                f"{filename}: {len(others)} tensors are left out, since the model's are of another shape, and stay as "
                f"they were initialised: {', '.join(others)}"
            )
        _load_checkpoint_to_model(model, checkpoint, strict, self.logger, revise_keys)
        self._has_loaded = True
        self.logger.info(f"Load checkpoint from {filename}")
        return checkpoint

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """Calls every hook; before saving, what the hooks left is brought to tensors and plain data."""
        if fn_name == "before_train":
            super().dump_config()
        super().call_hook(fn_name, **kwargs)
        if fn_name == "before_save_checkpoint":
            checkpoint = kwargs["checkpoint"]
            checkpoint["message_hub"] = history_to_plain(checkpoint["message_hub"])

    def dump_config(self) -> None:
        """Nothing yet: the host calls this on construction; see `call_hook`."""

    @master_only
    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, **kwargs: Any) -> None:
        """Saves as the host does, but the file appears under its name only once it is whole and on disk."""
        temporary = Path(out_dir) / f".{filename}.tmp"
        try:
            super().save_checkpoint(out_dir, temporary.name, *args, **kwargs)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(Path(out_dir) / filename)
        finally:
            temporary.unlink(missing_ok=True)


def _check_fit(path: Path, saved: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor], exact: bool) -> None:
    fitting = [key for key, value in wanted.items() if key in saved and saved[key].shape == value.shape]
    missing = sorted(set(wanted) - set(fitting))
    unexpected = sorted(set(saved) - set(wanted))
    if not fitting:
        raise CheckpointError(
            f"{path}: none of its {len(saved)} tensors fits the model (first of the model: {missing[:1]}, first of the "
            f"file: {sorted(saved)[:1]}); is it another model's?"
        )
    if exact and (missing or unexpected):
        raise CheckpointError(
            f"{path}: does not fit this config's model: {len(missing)} tensors missing or of another shape "
            f"{missing[:2]}, {len(unexpected)} unexpected {unexpected[:2]}; use the config of that run"
        )


def _check_accepted(path: Path, state: dict[str, torch.Tensor], model: nn.Module) -> None:
    """Loads `state`: a module may refuse what names and shapes do not tell, e.g. a head weights of other anchors."""
    found = OrderedDict((key.removeprefix("module."), value) for key, value in state.items())
    found._metadata = getattr(state, "_metadata", None)  # type: ignore[attr-defined]  # as torch has it
    try:
        model.load_state_dict(found)
    except RuntimeError as error:
        reasons = "; ".join(line.strip() for line in str(error).splitlines()[1:])
        raise CheckpointError(f"{path}: does not fit this config's model: {reasons}") from error
