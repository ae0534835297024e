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
