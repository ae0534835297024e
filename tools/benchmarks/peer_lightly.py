"""lightly's SimCLR in a plain loop, for simclr_training.py: run by an interpreter that has it.

Needs arms.py, which needs torch alone; of lightly 1.6 with timm. Written as lightly's own example of SimCLR: its data
set over a folder of files, its transform, its projection head, its loss, a pass of the network for each view.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from arms import batches_of, reading, serve, training

#: lightly's documented settings of SimCLR.
TEMPERATURE, PROJECTION = 0.5, 128


def main() -> None:
    """Serves one arm until its input ends."""
    arguments = parse(("bare", "folder"))
    import lightly
    import timm
    from lightly.data import LightlyDataset
    from lightly.loss import NTXentLoss
    from lightly.models.modules import SimCLRProjectionHead
    from lightly.transforms import SimCLRTransform

    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cudnn.benchmark = True
    backbone = timm.create_model(arguments.backbone, num_classes=0)
    width = backbone.num_features
    model = torch.nn.Sequential(backbone, SimCLRProjectionHead(width, width, PROJECTION))
    layout = torch.channels_last if arguments.channels_last else torch.contiguous_format
    model = model.to(device, memory_format=layout).train()
    if arguments.compile:
        backbone.compile()
    criterion = NTXentLoss(temperature=TEMPERATURE)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.06, momentum=0.9)
    scaler = torch.amp.GradScaler(device, enabled=bool(arguments.amp) and device == "cuda")
    kind = torch.float16 if device == "cuda" else torch.bfloat16

    def step(batch: Sequence[Any]) -> int:
        first, second = (view.to(device, non_blocking=True).contiguous(memory_format=layout) for view in batch[0])
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, dtype=kind, enabled=bool(arguments.amp)):
            loss = criterion(model(first), model(second))
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return len(first)

    dataset = LightlyDataset(str(arguments.root / "tiles"), transform=SimCLRTransform(input_size=arguments.size))
    batches = batches_of(dataset, arguments.batch_size, arguments.workers, device)
    if arguments.arm == "bare":
        views = [view.to(device) for view in next(iter(batches))[0]]
        batches = [(views,)] * arguments.iterations
    count = sum(parameter.numel() for parameter in model.parameters())
    about = {"parameters": count, "version": f"lightly {lightly.__version__}, timm {timm.__version__}"}
    serve(about, {"train": training(batches, step, device), "read": reading(dataset)})


def parse(arms: Sequence[str]) -> argparse.Namespace:
    """The arguments that arms of both sides take."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--arm", choices=arms, required=True)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--backbone", required=True)
    for name in ("size", "batch-size", "iterations", "workers", "rounds", "amp", "channels-last", "compile"):
        parser.add_argument(f"--{name}", type=int, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
