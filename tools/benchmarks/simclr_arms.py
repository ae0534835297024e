"""Our arms of simclr_training.py: a process of its own for each, which measures when it is asked to.

bare      the network alone on one batch in memory
folder    mmengine's Runner over a folder of files, views by HistologyViews; an epoch for each question
packed    the same over a packed store
device    the Runner over a packed store, views by BatchedViews on the model's device
read      the data set and its views alone, from a packed store
"""

import argparse
from typing import Any

import torch
from arms import batches_of, reading, serve, training
from peer_lightly import PROJECTION, TEMPERATURE, parse
from runner_arms import run_rounds

from pathzoo.apis.setup import setup

#: ImageNet's, on 0..255, as lightly's transform has them on 0..1.
_NORM = {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]}


def main() -> None:
    """Serves one arm until its input ends."""
    arguments = parse(("bare", "folder", "packed", "device", "read"))
    setup()
    from mmengine.dataset import default_collate

    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dataset = make_dataset(arguments)
    if arguments.arm == "read":
        serve({}, {"read": reading(dataset)})
        return
    model = make_model(arguments).to(device).train()
    if arguments.compile:
        model.backbone.compile()
    about = {"parameters": sum(parameter.numel() for parameter in model.parameters())}
    if arguments.arm == "bare":
        batch = next(iter(batches_of(dataset, arguments.batch_size, 0, device, default_collate)))
        held = [model.data_preprocessor(batch, training=True)] * arguments.iterations
        serve(about, {"train": training(held, _step(model, arguments.amp, device), device)})
        return
    loader = {
        "dataset": dataset,
        "batch_size": arguments.batch_size,
        "drop_last": True,
        "num_workers": arguments.workers,
        "persistent_workers": arguments.workers > 0,
        "pin_memory": device == "cuda",
        "collate_fn": {"type": default_collate},
    }
    optimizer = {"type": torch.optim.SGD, "lr": 0.06, "momentum": 0.9}
    wrapper: dict[str, Any] = {"optimizer": optimizer}
    if arguments.amp:
        wrapper |= {"type": "AmpOptimWrapper"} | ({} if device == "cuda" else {"dtype": "bfloat16"})
    run_rounds(about, model, loader, wrapper, arguments.rounds + 1)  # one to warm up


def _step(model: Any, amp: int, device: str) -> Any:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.06, momentum=0.9)
    scaler = torch.amp.GradScaler(device, enabled=bool(amp) and device == "cuda")
    kind = torch.float16 if device == "cuda" else torch.bfloat16

    def step(data: Any) -> int:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, dtype=kind, enabled=bool(amp)):
            loss = model(**data, mode="loss")["loss"]
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return len(data["inputs"][0])

    return step


def make_dataset(arguments: argparse.Namespace) -> Any:
    """Tiles without labels; two views each, but for the arm that makes them on the device."""
    from mmpretrain.datasets.transforms import PackInputs

    from pathzoo.datasets.transforms import HistologyViews
    from pathzoo.datasets.transforms.view_recipe import ViewRecipe
    from pathzoo.datasets.unlabelled import UnlabelledTiles

    views = [] if arguments.arm == "device" else [{"type": HistologyViews, "size": arguments.size}]
    source = "tiles" if arguments.arm == "folder" else "tiles.safetensors"
    return UnlabelledTiles(
        source=str(arguments.root / source),
        size=ViewRecipe(arguments.size).largest_crop,
        pipeline=[*views, {"type": PackInputs, "meta_keys": ("sample_idx", "sample_seed")}],
    )


def make_model(arguments: argparse.Namespace) -> Any:
    """SimCLR as a config has it."""
    from mmengine.config import ConfigDict
    from mmpretrain.models import NonLinearNeck, SelfSupDataPreprocessor

    from pathzoo.models import BatchedViews, NTXentHead, SimCLR, TimmBackbone
    from pathzoo.registry import MODELS

    with torch.device("meta"):
        width = TimmBackbone(arguments.backbone).channels[-1]
    preprocessor: dict[str, Any] = {"type": SelfSupDataPreprocessor, **_NORM}
    if arguments.arm == "device":
        preprocessor |= {"type": BatchedViews, "size": arguments.size}
    config = {
        "type": SimCLR,
        "data_preprocessor": preprocessor,
        "backbone": {
            "type": TimmBackbone,
            "name": arguments.backbone,
            "channels_last": bool(arguments.channels_last),
        },
        "neck": {
            "type": NonLinearNeck,
            "in_channels": width,
            "hid_channels": width,
            "out_channels": PROJECTION,
            "num_layers": 2,
            "with_avg_pool": True,
        },
        "head": {"type": NTXentHead, "temperature": TEMPERATURE},
    }
    return MODELS.build(ConfigDict(config))


if __name__ == "__main__":
    main()
