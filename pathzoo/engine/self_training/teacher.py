"""Whose predictions become labels: the moving average of the weights, or the model as it stands."""

import contextlib
import copy
import hashlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from mmengine import dist
from mmengine.hooks import EMAHook
from mmengine.model import is_model_wrapper
from torch import nn

from pathzoo.errors import ConfigError
from pathzoo.nearest import did_you_mean

_KINDS = ("ema", "model")


def check_teacher(kind: str) -> None:
    """Refuses other than "ema" and "model" by a ConfigError."""
    if kind not in _KINDS:
        raise ConfigError(f"teacher={kind!r}{did_you_mean(str(kind), _KINDS)}")


def find_teacher(runner: Any, kind: str) -> nn.Module:
    """The live module, which is not to be changed.

    Args:
        runner: after its `before_run`, in which mmengine's EMAHook makes the average.
        kind: "ema" for the average that an EMAHook among the runner's hooks keeps (with `update_buffers=True` also of
            the statistics of normalisation, else with the model's own), or "model".

    Raises:
        ConfigError: "ema", and no EMAHook is there.
    """
    check_teacher(kind)
    if kind == "model":
        return runner.model.module if is_model_wrapper(runner.model) else runner.model
    for hook in runner.hooks:
        if isinstance(hook, EMAHook):
            return hook.ema_model.module
    raise ConfigError(
        'SelfTrainingHook(teacher="ema"): no EMAHook among the hooks; add dict(type=EMAHook, momentum=0.001, '
        'update_buffers=True) to custom_hooks, or set teacher="model"'
    )


def frozen_copy(module: nn.Module) -> nn.Module:
    """A copy in evaluation mode with the main process's tensors, which any process may use up.

    The copy leaves the module's modes and statistics alone. Processes differ in the running statistics of
    normalisation; a checkpoint holds the main process's, so a resumed run labels by those, and so does an unbroken one.
    """
    duplicate = copy.deepcopy(module).requires_grad_(False).eval()
    for tensor in _tensors(duplicate).values():
        dist.broadcast(tensor, src=0)
    return duplicate


def state_digest(module: nn.Module) -> str:
    """SHA-256 over name, type, shape and bytes of every tensor of the state, in order of name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(_tensors(module).items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name}|{values.dtype}|{tuple(values.shape)}|".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value for name, value in module.state_dict().items() if isinstance(value, torch.Tensor)}


@contextlib.contextmanager
def random_state_untouched() -> Iterator[None]:
    """Puts the random states of Python, numpy and torch (CPU and this process's GPU) back as they were."""
    states = random.getstate(), np.random.get_state()
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
