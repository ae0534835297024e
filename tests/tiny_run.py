"""A training run of seconds for tests: a packaged config, shrunk by options to a small network and tiles of 64 px."""

from pathlib import Path
from typing import Any

from pathzoo.datasets.phantom import write_breakhis

CONFIG = "breakhis_xception/full_resnet10t_1xb16_20e_phantom40x_small.py"


def draw_cohort(root: Path, images_per_patient: int = 2) -> Path:
    """Ten phantom patients at 40X; their split by patient gives 6 to training, 2 to validation and 2 to testing."""
    return write_breakhis(root, patients=10, images_per_patient=images_per_patient)


def tiny_options(data: Path, epochs: int = 1, workers: int = 0, **more: Any) -> dict[str, Any]:
    """Options for `CONFIG`; `more` is added with `__` in place of dots."""
    options: dict[str, Any] = {
        "data_root": str(data),
        "train_cfg.max_epochs": epochs,
        "model.backbone.name": "test_resnet",
        "model.head.in_channels": 96,
        "model_input.tile_size": (64, 64),
        "train_dataloader.dataset.pipeline.2.transforms.0.height": 64,
        "train_dataloader.dataset.pipeline.2.transforms.0.width": 64,
        "val_dataloader.dataset.pipeline.2.size": 64,
        "test_dataloader.dataset.pipeline.2.size": 64,
    }
    for part in ("train", "val", "test"):
        options |= {f"{part}_dataloader.batch_size": 4, f"{part}_dataloader.num_workers": workers}
    if workers:
        options["train_dataloader.persistent_workers"] = True
    return options | {key.replace("__", "."): value for key, value in more.items()}


def as_words(options: dict[str, Any]) -> list[str]:
    """The same as `--cfg-options` on a command line."""
    return ["--cfg-options", *(f"{key}={value}" for key, value in options.items())]
