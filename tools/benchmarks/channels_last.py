"""Training steps with `TimmBackbone(channels_last=True)` against without, on this machine's GPU or CPU.

    python tools/benchmarks/channels_last.py [--models resnet10t ...] [--markdown FILE]

A step is forward, backward and AdamW on one batch in memory, images per second. Both settings take turns.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from measuring import Table, in_turns, machine, publish, ratio, spread
from torch import nn

from pathzoo.models import TimmBackbone

_MODELS = ("efficientnet_lite0", "resnet10t", "legacy_xception")


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints; returns 0."""
    arguments = _parser().parse_args(argv)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cudnn.benchmark = True  # as default_runtime.py has it
    where = machine(device=device)
    rows = [_row(name, device, arguments) for name in arguments.models]
    columns = ("network", "as usual, images/s", "channels_last, images/s", "ratio (range)")
    size, batch = arguments.size, arguments.batch_size
    title = f"Training step of {batch} images of {size} px: channels_last / as usual"
    note = (
        f"Medians (range) of {arguments.rounds} rounds of {arguments.steps} steps, in turns; a ratio above 1 is in "
        f"favour of channels_last. {where}."
    )
    publish([Table(title, columns, rows)], note, arguments.markdown)
    return 0


def _row(name: str, device: str, arguments: argparse.Namespace) -> tuple[str, ...]:
    steps = {}
    for channels_last in (False, True):
        step = training_step(name, channels_last, arguments.batch_size, arguments.size, device)
        steps[channels_last] = _timed(step, arguments.steps, arguments.batch_size, device)
    values = in_turns({"off": steps[False], "on": steps[True]}, arguments.rounds)
    compared = ratio(values["on"], values["off"])
    return name, spread(values["off"]).show(), spread(values["on"]).show(), compared.show()


def training_step(name: str, channels_last: bool, batch_size: int, size: int, device: str) -> Callable[[], None]:
    """One training step of timm's `name` with a linear classifier, on one fixed random batch.

    Args:
        name: timm's network.
        channels_last: As in `TimmBackbone`.
        batch_size: Images per step.
        size: Their height and width in pixels.
        device: "cpu" or "cuda".
    """
    torch.manual_seed(0)
    backbone = TimmBackbone(name, channels_last=channels_last)
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(backbone.num_features, 2))
    model = nn.ModuleList([backbone, head]).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    images = torch.rand(batch_size, 3, size, size, device=device)
    labels = torch.arange(batch_size, device=device) % 2

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(head(backbone(images)[0]), labels).backward()
        optimizer.step()

    return step


def _timed(step: Callable[[], None], steps: int, batch_size: int, device: str) -> Callable[[], float]:
    def measure() -> float:
        started = time.perf_counter()
        for _ in range(steps):
            step()
        if device == "cuda":
            torch.cuda.synchronize()
        return steps * batch_size / (time.perf_counter() - started)

    return measure


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=_MODELS, help="timm's names")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--size", type=int, default=224, help="height and width in pixels")
    parser.add_argument("--steps", type=int, default=4, help="per measurement")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
