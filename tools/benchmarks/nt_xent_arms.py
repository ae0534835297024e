"""One way to compute NT-Xent, in a process of its own; `nt_xent.py` starts it and asks. Runs in the peer's environment.

A line "time" on its input has it take a step (forward and backward); it answers with seconds, the memory that the step
needed beyond the inputs in MiB, and the loss, after MARK.
"""

import argparse
import json
import math
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn import functional

MARK = "nt_xent: "
_STATUS, _REFERENCES = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def main() -> None:
    """Answers until its input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--arm", choices=("ours", "plain", "peer"), required=True)
    parser.add_argument("--pairs", type=int, required=True)
    for name in ("--dimensions", "--chunk", "--threads"):
        parser.add_argument(name, type=int, required=True)
    parser.add_argument("--temperature", type=float, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    function, version = choose(arguments.arm, arguments.temperature, arguments.chunk)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    _step(function, _views(8, arguments.dimensions, device))  # what is loaded once is loaded
    views = _views(arguments.pairs, arguments.dimensions, device)
    _answer(version)
    for _ in sys.stdin:
        _answer(_measure(function, views))


def choose(arm: str, temperature: float, chunk: int) -> tuple[Callable[..., torch.Tensor], str]:
    """The loss of two views (N, D), and what it is called."""
    if arm == "ours":
        from pathzoo.models.selfsup import nt_xent

        return lambda first, second: nt_xent(first, second, temperature, chunk), "pathzoo"
    if arm == "plain":
        return lambda first, second: plain(first, second, temperature), "plain formula"
    import lightly
    from lightly.loss import NTXentLoss

    return NTXentLoss(temperature=temperature), f"lightly {lightly.__version__}"


def plain(first: torch.Tensor, second: torch.Tensor, temperature: float) -> torch.Tensor:
    """All similarities in one matrix, and torch's cross-entropy: as it is usually written."""
    rows = functional.normalize(torch.cat([first, second]), dim=1)
    logits = (rows @ rows.T / temperature).fill_diagonal_(-math.inf)
    return functional.cross_entropy(logits, torch.arange(len(rows), device=rows.device).roll(len(first)))


def _views(pairs: int, dimensions: int, device: torch.device) -> list[torch.Tensor]:
    """The second near the first, as views of a network that has learnt something are."""
    generator = torch.Generator().manual_seed(0)
    first, noise = (torch.randn(pairs, dimensions, generator=generator) for _ in range(2))
    return [view.to(device).requires_grad_() for view in (first, first + 0.5 * noise)]


def _step(function: Callable[..., torch.Tensor], views: list[torch.Tensor]) -> float:
    for view in views:
        view.grad = None
    loss = function(*views)
    loss.backward()
    return float(loss.detach())


def _measure(function: Callable[..., torch.Tensor], views: list[torch.Tensor]) -> dict[str, float]:
    cuda = views[0].is_cuda
    for view in views:
        view.grad = None
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        before = _start_peak()
    started = time.perf_counter()
    loss = _step(function, views)
    if cuda:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    peak = torch.cuda.max_memory_allocated() if cuda else _peak()
    return {"seconds": seconds, "mib": (peak - before) / 2**20, "loss": loss}


def _start_peak() -> int:
    """Bytes resident now; where the kernel lets us, the peak starts over from here."""
    try:
        _REFERENCES.write_text("5")
        return _field("VmRSS")
    except OSError:
        return _peak()


def _peak() -> int:
    try:
        return _field("VmHWM")
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _field(name: str) -> int:
    [line] = [line for line in _STATUS.read_text().splitlines() if line.startswith(f"{name}:")]
    return int(line.split()[1]) * 1024


def _answer(value: object) -> None:
    print(MARK + json.dumps(value), flush=True)


if __name__ == "__main__":
    main()
