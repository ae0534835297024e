"""Several processes, with GPUs (NCCL) or without (gloo).

mmengine's own set-up needs CUDA: `init_dist` calls `torch.cuda.set_device`, and its DDP wrapper passes `device_ids`.
"""

import os
from typing import Any

import torch
import torch.distributed as dist
from mmengine.model import MMDistributedDataParallel
from torch import nn

from pathzoo.errors import ConfigError
from pathzoo.registry import MODEL_WRAPPERS


@MODEL_WRAPPERS.register_module()
class DistributedDataParallel(MMDistributedDataParallel):
    """mmengine's DDP wrapper that also takes a module on the CPU.

    Args:
        module: The model, already on its device.
        device_ids: As for torch's DDP; dropped where the module is on the CPU, for which torch wants None.
        kwargs: Passed on.
    """

    def __init__(self, module: nn.Module, device_ids: list[int] | None = None, **kwargs: Any) -> None:
        on_cpu = all(parameter.device.type == "cpu" for parameter in module.parameters())
        super().__init__(module=module, device_ids=None if on_cpu else device_ids, **kwargs)


@MODEL_WRAPPERS.register_module()
class AveragedGradients(nn.Module):
    """Several processes for a model whose parts have optimizers of their own, as generator and discriminator do.

    DDP wants one forward pass and one backward pass in turn; mmengine's separate wrapper gives each part its own DDP,
    but mmagic's translators call the parts inside, past DDP, and then nothing is averaged. Here every gradient is
    averaged over the processes as soon as its parameter has it, whichever way it came about. That needs every process
    to take the same steps in the same order, and to reach the same parameters.

    Args:
        module: The model, already on its device; parameters and buffers become those of the first process.
        broadcast_buffers, find_unused_parameters: mmengine gives them to every wrapper; nothing is unused here.
    """

    def __init__(
        self, module: nn.Module, broadcast_buffers: bool = False, find_unused_parameters: bool = False
    ) -> None:
        super().__init__()
        self.module = module
        self._world = dist.get_world_size()
        for tensor in (*module.parameters(), *module.buffers()):
            dist.broadcast(tensor.detach(), 0)
        for parameter in module.parameters():
            parameter.register_post_accumulate_grad_hook(self._average)

    def _average(self, parameter: torch.Tensor) -> None:
        # What earlier batches left in an accumulating gradient is the same in all processes: its mean is itself.
        dist.all_reduce(parameter.grad)
        parameter.grad /= self._world

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The model's own."""
        return self.module(*args, **kwargs)

    def train_step(self, data: Any, optim_wrapper: Any) -> Any:
        """The model's own; its gradients are averaged on their way."""
        return self.module.train_step(data, optim_wrapper=optim_wrapper)

    def val_step(self, data: Any) -> Any:
        """The model's own."""
        return self.module.val_step(data)

    def test_step(self, data: Any) -> Any:
        """The model's own."""
        return self.module.test_step(data)


def init_gloo(launcher: str) -> None:
    """Joins the gloo process group that torchrun or srun describes, where there is no GPU; harmless when repeated.

    Args:
        launcher: "pytorch" (torchrun sets RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT) or "slurm" (srun sets
            SLURM_PROCID, SLURM_NTASKS, SLURM_LOCALID; MASTER_ADDR and MASTER_PORT are the user's).

    Raises:
        ConfigError: A variable of the launcher is missing.
    """
    if dist.is_initialized():
        return
    if launcher == "slurm":
        for ours, theirs in (("RANK", "PROCID"), ("WORLD_SIZE", "NTASKS"), ("LOCAL_RANK", "LOCALID")):
            value = os.environ.get(f"SLURM_{theirs}")
            if value is None:
                raise ConfigError(f"--launcher slurm: SLURM_{theirs} is not set; start it by `srun`")
            os.environ.setdefault(ours, value)
    missing = [key for key in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT") if key not in os.environ]
    if missing:
        raise ConfigError(f"--launcher {launcher}: {', '.join(missing)} not set; start it by `torchrun` (or `srun`)")
    dist.init_process_group("gloo")


def leave_group() -> None:
    """Ends the process group when every process has come this far; harmless without one.

    Processes that just exit, one before the other, are now and then aborted by gloo's threads (SIGABRT, torch 2.15),
    and torchrun then reports a finished run as failed.
    """
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def without_gpu() -> bool:
    """Whether this process has no CUDA device, so that gloo has to serve."""
    return not torch.cuda.is_available()
