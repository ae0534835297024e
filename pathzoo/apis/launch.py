"""Which of several processes this one is, as torchrun and slurm tell it."""

import os
from dataclasses import dataclass

from pathzoo.errors import ConfigError

_VARIABLES = {
    "pytorch": ("RANK", "LOCAL_RANK", "WORLD_SIZE"),
    "slurm": ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS"),
}
_STARTED_BY = {"pytorch": "torchrun", "slurm": "srun"}


@dataclass(frozen=True)
class Place:
    """One process among `world_size`; `local_rank` counts on its own machine."""

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1


def place(launcher: str) -> Place:
    """This process's place under a launcher ("none", "pytorch" or "slurm").

    Raises:
        ConfigError: The launcher did not start this process.
    """
    if launcher == "none":
        return Place()
    if launcher not in _VARIABLES:
        raise ConfigError(f"--launcher {launcher}: there are none, {', '.join(_VARIABLES)}")
    names = _VARIABLES[launcher]
    missing = [name for name in names if not os.environ.get(name, "").isdigit()]
    if missing:
        raise ConfigError(f"--launcher {launcher}: {missing[0]} is not set; start it by `{_STARTED_BY[launcher]}`")
    return Place(*(int(os.environ[name]) for name in names))
