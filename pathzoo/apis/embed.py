"""Vectors of a data set's pictures, by a backbone from anywhere."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from mmengine.dataset import pseudo_collate
from torch.utils.data import DataLoader

from pathzoo.apis.predict_progress import counter
from pathzoo.errors import ConfigError, DataError
from pathzoo.models.backbones.parent_weights import ParentWeights, load_parent, read_parent
from pathzoo.models.backbones.timm_backbone import TimmBackbone


@dataclass(frozen=True)
class Embedder:
    """A backbone under a mean over its last map, and the mean and std (0..255) that it wants to be fed with.

    `record` says where its weights come from, as `initial_weights` of a training run does; `folder` is where they lie,
    None for random and ImageNet weights.
    """

    backbone: TimmBackbone
    mean: tuple[float, ...]
    std: tuple[float, ...]
    record: dict[str, Any]
    folder: Path | None = None

    def __call__(self, pictures: torch.Tensor) -> torch.Tensor:
        """RGB 0..255 (N, 3, H, W), any type, on the backbone's device -> float32 (N, D)."""
        shape = (1, -1, 1, 1)
        mean, std = (torch.tensor(v, device=pictures.device).view(shape) for v in (self.mean, self.std))
        return self.backbone((pictures.float() - mean) / std)[-1].mean(dim=(2, 3)).float()


def load_embedder(
    source: str | Path | None,
    network: str,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    device: str | torch.device = "cpu",
    seed: int = 0,
    partial: bool = False,
) -> Embedder:
    """Builds a backbone from random weights (None), timm's ("imagenet"), or whatever `TimmBackbone.pretrained` takes.

    Args:
        source: See `pathzoo.models.backbones.parent_weights.read_parent`.
        network: timm's name, where the source does not tell: random and ImageNet weights, and files of bare tensors.
        mean: On 0..255, where the source does not tell; ImageNet's are those that timm names with the weights.
        std: Likewise.
        device: Where it computes.
        seed: Of random weights.
        partial: Take what fits of weights that do not fit in whole.

    Raises:
        ConfigError, CheckpointError, ZooError: Weights that cannot be had, or do not fit.
    """
    parent: ParentWeights | None = None
    record: dict[str, Any] = {"source": "random", "seed": seed}
    if source == "imagenet":
        record = {"source": "imagenet", "network": f"timm {network}"}
        facts = timm.get_pretrained_cfg(network)
        if facts is not None:
            mean, std = ([255 * value for value in values] for values in (facts.mean, facts.std))
    elif source is not None:
        parent = read_parent(source)
        network, mean, std = parent.network or network, parent.mean or mean, parent.std or std
        record = parent.record
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = TimmBackbone(network, pretrained="imagenet" if source == "imagenet" else None)
    if parent is not None:
        load_parent(parent, backbone.timm_model, network, partial)
    else:
        backbone.init_weights()
    folder = parent.folder if parent else None
    return Embedder(backbone.to(device).eval(), tuple(mean), tuple(std), record | {"network": network}, folder)


def embed_dataset(
    embedder: Embedder, dataset: Any, batch_size: int = 64, device: str | torch.device = "cpu", num_workers: int = 0
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """The vector of every picture of a data set, in its order.

    Args:
        embedder: See `load_embedder`.
        dataset: Its pipeline ends in `PackInputs`: `inputs` uint8 or float (3, H, W), RGB 0..255, of one size.
        batch_size: Pictures per call of the network; does not change the result.
        device: Where the network computes.
        num_workers: Processes that read pictures.

    Returns:
        float32 (N, D), and each picture's data_info (item, patient, slide, gt_label, ...).

    Raises:
        DataError: An empty data set, or pictures that are no (3, H, W) of one size.
    """
    if not len(dataset):
        raise DataError(f"{type(dataset).__name__}: the subset {getattr(dataset, 'subset', '')!r} is empty")
    embedder.backbone.to(device)
    loader = DataLoader(dataset, batch_size, num_workers=num_workers, collate_fn=pseudo_collate)
    show = counter(f"embedding {getattr(dataset, 'subset', '')}".strip(), "tiles")
    vectors: list[np.ndarray] = []
    done = 0
    with torch.inference_mode():
        for batch in loader:
            pictures = batch["inputs"]
            shapes = {tuple(p.shape) if isinstance(p, torch.Tensor) else type(p).__name__ for p in pictures}
            if len(shapes) != 1 or len(next(iter(shapes))) != 3:
                raise DataError(
                    f"{type(dataset).__name__}: pictures {sorted(map(str, shapes))} come in one batch; give a pipeline "
                    "whose pictures are (3, H, W) of one size (CenterCropOrPad), as a test pipeline makes them"
                )
            vectors.append(embedder(torch.stack(pictures).to(device)).cpu().numpy())
            done += len(pictures)
            show(done, len(dataset))
    return np.concatenate(vectors), [dataset.get_data_info(index) for index in range(len(dataset))]


def network_of(config: Any) -> tuple[str | None, list[float], list[float]]:
    """timm's name of a config's backbone (None where it is no TimmBackbone), and its preprocessor's mean and std."""
    model = config.get("model") or {}
    name = (model.get("backbone") or {}).get("name")
    preprocessor = model.get("data_preprocessor") or {}
    mean, std = (list(preprocessor.get(key) or []) for key in ("mean", "std"))
    if len(mean) != 3 or len(std) != 3:
        raise ConfigError(
            f"{config.filename}: model.data_preprocessor has mean {mean} and std {std}; three values each are needed"
        )
    return name, mean, std
