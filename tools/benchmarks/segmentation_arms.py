"""Our arms of segmentation_training.py: a process of its own for each, which measures when it is asked to.

bare      the network alone on one batch in memory
plain     a plain PyTorch loop over RegionSegmentation
runner    mmengine's Runner, an epoch for each question
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from arms import batches_of, reading, serve, training
from peer_segmentation_models import MEAN, STD
from runner_arms import run_rounds

from pathzoo.apis.setup import setup


def main() -> None:
    """Serves one arm until its input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--arm", choices=("bare", "plain", "runner"), required=True)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--decoder-channels", type=int, nargs="+", required=True)
    for name in ("--size", "--batch-size", "--iterations", "--workers", "--channels-last", "--rounds"):
        parser.add_argument(name, type=int, required=True)
    arguments = parser.parse_args()
    setup()
    torch.manual_seed(0)
    dataset, model = make_dataset(arguments), make_model(arguments).to(_device())
    about = {"parameters": sum(parameter.numel() for parameter in model.parameters())}
    if arguments.arm == "runner":
        _run(arguments, about, dataset, model)
    else:
        _loop(arguments, about, dataset, model)


def _loop(arguments: argparse.Namespace, about: dict[str, Any], dataset: Any, model: Any) -> None:
    from mmengine.dataset import pseudo_collate

    device = _device()
    torch.backends.cudnn.benchmark = True
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step(data: Any) -> int:
        if arguments.arm == "plain":
            data = model.data_preprocessor(data, training=True)
        optimizer.zero_grad(set_to_none=True)
        losses = model(**data, mode="loss")
        sum(value for name, value in losses.items() if "loss" in name).backward()
        optimizer.step()
        return len(data["inputs"])

    batches = batches_of(dataset, arguments.batch_size, arguments.workers, device, pseudo_collate)
    if arguments.arm == "bare":
        batches = [model.data_preprocessor(next(iter(batches)), training=True)] * arguments.iterations
    serve(about, {"train": training(batches, step, device), "read": reading(_Normalised(dataset, model))})


def _run(arguments: argparse.Namespace, about: dict[str, Any], dataset: Any, model: Any) -> None:
    from mmengine.dataset import pseudo_collate

    loader = {
        "dataset": dataset,
        "batch_size": arguments.batch_size,
        "num_workers": arguments.workers,
        "persistent_workers": arguments.workers > 0,
        "collate_fn": {"type": pseudo_collate},
    }
    optimizer = {"type": torch.optim.AdamW, "lr": 1e-3}
    run_rounds(about, model, loader, {"optimizer": optimizer}, arguments.rounds + 1)  # one to warm up


class _Normalised:
    """Our data set, each patch brought to a normalised tensor, as the peer's are."""

    def __init__(self, dataset: Any, model: Any) -> None:
        self._dataset, self._preprocess = dataset, model.data_preprocessor

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Any:
        sample = self._dataset[index]
        data = {"inputs": [sample["inputs"]], "data_samples": [sample["data_samples"]]}
        return self._preprocess(data, training=True)


def make_dataset(arguments: argparse.Namespace) -> Any:
    """Patches at drawn places; as many as a round takes."""
    import albumentations
    from mmseg.datasets.transforms import PackSegInputs

    from pathzoo.datasets.regions import SEG_META_KEYS, RegionSegmentation
    from pathzoo.datasets.transforms import Albumentations

    color = {"brightness": 0.1, "contrast": 0.1, "saturation": 0.0, "hue": 0.0}
    changes: list[dict[str, Callable | Any]] = [
        {"type": albumentations.D4, "p": 1.0},
        {"type": albumentations.ColorJitter, **color, "p": 0.5},
    ]
    return RegionSegmentation(
        data_root=str(arguments.root),
        patch_size=arguments.size,
        patches_per_epoch=arguments.batch_size * arguments.iterations,
        pipeline=[
            {"type": Albumentations, "transforms": changes},
            {"type": PackSegInputs, "meta_keys": SEG_META_KEYS},
        ],
    )


def make_model(arguments: argparse.Namespace) -> Any:
    """The U-Net as a config has it."""
    from mmengine.config import ConfigDict
    from mmseg.models import EncoderDecoder, SegDataPreProcessor

    from pathzoo.models import DiceLoss, PixelCrossEntropy, TimmBackbone, UNetHead
    from pathzoo.registry import MODELS

    levels = tuple(range(len(arguments.decoder_channels)))
    with torch.device("meta"):
        channels = TimmBackbone(arguments.encoder, out_indices=levels).channels
    size = (arguments.size, arguments.size)
    config = {
        "type": EncoderDecoder,
        "data_preprocessor": {"type": SegDataPreProcessor, "mean": list(MEAN), "std": list(STD), "size": size},
        "backbone": {
            "type": TimmBackbone,
            "name": arguments.encoder,
            "out_indices": levels,
            "channels_last": bool(arguments.channels_last),
        },
        "decode_head": {
            "type": UNetHead,
            "in_channels": channels,
            "decoder_channels": arguments.decoder_channels,
            "num_classes": 3,
            "loss_decode": [{"type": PixelCrossEntropy}, {"type": DiceLoss}],
        },
        "test_cfg": {"mode": "whole"},
    }
    return MODELS.build(ConfigDict(config))


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


if __name__ == "__main__":
    main()
