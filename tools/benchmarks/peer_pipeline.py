"""The input pipeline that a PyTorch user writes with torchvision's transforms v2, equivalent to a config of ours.

Written by torchvision's own advice (v2, tensors, uint8 until the end). Whether its tensors or Pillow's images are
faster depends on the transforms and the machine, so both are there and the benchmark takes the faster.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image
from torch.utils.data import Dataset
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from pathzoo.errors import ConfigError

BACKENDS = ("tensor", "pillow")


class TorchvisionImages(Dataset):
    """Images with labels, loaded and augmented as torchvision's documentation advises.

    Args:
        infos: dicts with img_path, gt_label and mpp, as a data set of ours gives them.
        resize: What the config does before it crops, from `resize_of`.
        crop: (height, width) in pixels.
        mean: Of RGB 0..255.
        std: Likewise.
        backend: "tensor" decodes and transforms uint8 tensors, "pillow" images of Pillow.
        hue: Jitter hue and saturation, as our stain jitter does; the costliest step of torchvision's.
    """

    def __init__(
        self,
        infos: Sequence[dict[str, Any]],
        resize: Callable[[tuple[int, int], float | None], tuple[int, int]],
        crop: tuple[int, int],
        mean: Sequence[float],
        std: Sequence[float],
        backend: str = "tensor",
        hue: bool = True,
    ) -> None:
        self.files = [(info["img_path"], info["gt_label"], info.get("mpp")) for info in infos]
        self.resize, self.backend = resize, backend
        stain = [v2.RandomApply([v2.ColorJitter(saturation=0.15, hue=0.04)], p=0.8)] if hue else []
        self.transform = v2.Compose(
            [
                v2.RandomCrop(crop, pad_if_needed=True, fill=255),
                v2.RandomHorizontalFlip(),
                v2.RandomVerticalFlip(),
                v2.RandomApply([_Transpose()]),  # with the flips: the eight symmetries of the square
                *stain,
                v2.RandomApply([v2.ColorJitter(brightness=0.1, contrast=0.1)], p=0.5),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize([value / 255 for value in mean], [value / 255 for value in std]),
            ]
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        """(float32 (3, H, W), normalised; label)."""
        path, label, mpp = self.files[index]
        if self.backend == "tensor":
            image = decode_image(path, ImageReadMode.RGB)
            height, width = image.shape[1:]
        else:
            with Image.open(path) as file:
                image = file.convert("RGB")
            width, height = image.size
        wanted = self.resize((height, width), mpp)
        if wanted != (height, width):
            image = functional.resize(image, list(wanted), antialias=True)
        return self.transform(image), label


class _Transpose(torch.nn.Module):
    """Swaps rows and columns of a tensor or an image of Pillow; torchvision has no transform for it."""

    def forward(self, image: Any) -> Any:
        if isinstance(image, Image.Image):
            return image.transpose(Image.Transpose.TRANSPOSE)
        return image.transpose(-1, -2)


def resize_of(pipeline: Sequence[dict]) -> Callable[[tuple[int, int], float | None], tuple[int, int]]:
    """A function from (height, width) and mpp to the (height, width) that a config's pipeline would resize to."""
    for step in pipeline:
        name = _name(step)
        if name == "ResizeToMpp":
            return lambda size, mpp, step=step: _by_mpp(size, mpp, step)
        if name == "ResizeShortSide":
            return lambda size, mpp, side=step["size"]: tuple(round(edge * side / min(size)) for edge in size)
    return lambda size, mpp: size


def crop_of(pipeline: Sequence[dict]) -> tuple[int, int]:
    """(height, width) of the random crop in a config's pipeline.

    Raises:
        ConfigError: It has none, so that there is nothing to compare with.
    """
    for step in pipeline:
        for transform in step.get("transforms", ()):
            if _name(transform) == "RandomCrop":
                return transform["height"], transform["width"]
    raise ConfigError("--config: its training pipeline has no RandomCrop inside Albumentations to build the peer after")


def _by_mpp(size: tuple[int, int], mpp: float, step: dict) -> tuple[int, int]:
    scale = mpp / step["mpp"]
    if abs(scale - 1) <= step.get("tolerance", 0.02):  # the default of ResizeToMpp
        return size
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _name(step: dict) -> str:
    """The class name in a step's `type`, be it a class or text."""
    kind = step["type"]
    return kind.rpartition(".")[2] if isinstance(kind, str) else kind.__name__
