"""What each of several gloo processes does for test_nt_xent.py; spawned ones import it by its name."""

from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from pathzoo.models.selfsup import nt_xent


def network() -> nn.Module:
    """Two layers with the same weights everywhere, double precision."""
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4)).double()


def views(rank: int, n: int) -> torch.Tensor:
    """(2, n, 6): the data of one process, other data on each."""
    return torch.randn(2, n, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(100 + rank))


def work(rank: int, folder: str, cases: list[list[int]], chunk: int) -> None:
    """Leaves this process's loss of each case, and the gradients after DDP's mean; a case is the pairs by process."""
    store = Path(folder, "store").as_uri()
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=len(cases[0]))
    found = []
    for sizes in cases:
        model = nn.parallel.DistributedDataParallel(network())
        first, second = model(torch.cat(list(views(rank, sizes[rank])))).chunk(2)
        loss = nt_xent(first, second, temperature=0.3, chunk=chunk)
        loss.backward()
        apart = nt_xent(first.detach(), second.detach(), temperature=0.3, gather=False)
        gradients = [parameter.grad for parameter in model.parameters()]
        found.append({"loss": loss.detach(), "apart": apart, "gradients": gradients})
    torch.save(found, Path(folder, f"{rank}.pt"))
    dist.barrier()
    dist.destroy_process_group()
