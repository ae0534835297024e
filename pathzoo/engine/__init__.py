"""The runner parts that mmengine lacks: safe and atomic checkpoints, exact resume, process groups without a GPU."""

from pathzoo.engine.distributed import DistributedDataParallel
from pathzoo.engine.runner import Runner

__all__ = ["DistributedDataParallel", "Runner"]
