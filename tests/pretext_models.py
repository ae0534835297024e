"""Small pretext models and the data of their tests."""

import copy
from typing import Any, ClassVar

import torch
from mmengine.config import ConfigDict
from mmpretrain.models import NonLinearNeck, SelfSupDataPreprocessor
from mmpretrain.structures import DataSample
from torch import nn
from torch.utils.data import Dataset

from pathzoo.models import NTXentHead, RotationHead, RotationPred, SimCLR
from pathzoo.registry import MODELS

WIDTH = 12
MEAN, STD = [120.0, 110.0, 100.0], [60.0, 50.0, 40.0]


class TinyBackbone(nn.Module):
    """Two convolutions: (N, 3, S, S) -> one map (N, 12, S/4, S/4)."""

    def __init__(self, norm: bool = True) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in (3, WIDTH):
            layers += [nn.Conv2d(width, WIDTH, 3, stride=2, padding=1), nn.BatchNorm2d(WIDTH)][: 2 if norm else 1]
            layers.append(nn.ReLU())
        self.layers = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        return (self.layers(x),)


def preprocessor() -> dict[str, Any]:
    return {"type": SelfSupDataPreprocessor, "mean": MEAN, "std": STD}


def neck(out: int = 8, **more: Any) -> dict[str, Any]:
    return {
        "type": NonLinearNeck,
        "in_channels": WIDTH,
        "hid_channels": 16,
        "out_channels": out,
        "norm_cfg": {"type": nn.BatchNorm1d},
        **more,
    }


def build(kind: type, **config: Any) -> nn.Module:
    torch.manual_seed(0)
    whole = {"backbone": TinyBackbone(), "data_preprocessor": preprocessor(), **config}
    return MODELS.build(ConfigDict(copy.deepcopy({"type": kind, **whole})))


def simclr(**changed: Any) -> SimCLR:
    return build(SimCLR, **{"neck": neck(), "head": {"type": NTXentHead, "temperature": 0.2}, **changed})


def rotation_pred(**changed: Any) -> RotationPred:
    return build(RotationPred, **{"head": {"type": RotationHead, "in_channels": WIDTH}, **changed})


def pixels(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def samples(n: int, start: int = 0) -> list[DataSample]:
    return [DataSample(metainfo={"sample_idx": start + k, "patient": f"p{(start + k) % 5}"}) for k in range(n)]


class Pictures(Dataset):
    """n samples of `views` pictures each, packed as mmpretrain's PackInputs does."""

    metainfo: ClassVar[dict[str, Any]] = {}

    def __init__(self, n: int, views: int, size: int = 16) -> None:
        self.images = pixels(n, views, 3, size, size)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"inputs": list(self.images[index]), "data_samples": samples(1, index)[0]}
