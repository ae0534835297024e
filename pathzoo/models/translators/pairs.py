"""From what segmentation packs to what a translator trains on: label maps as channels, pictures between -1 and 1."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseDataPreprocessor

from pathzoo.errors import ConfigError, DataError
from pathzoo.registry import MODELS


def one_hot(labels: torch.Tensor, n_classes: int, ignore_index: int = 255) -> torch.Tensor:
    """Label maps as one channel per class: (N, H, W) integers -> float32 (N, C, H, W) of 0 and 1.

    A pixel of `ignore_index` is 0 in every channel: nobody has said what is there.

    Raises:
        DataError: A value that is neither a class nor `ignore_index`; it names the value.
    """
    return _channels(_checked(labels, n_classes, ignore_index), n_classes, ignore_index)


def _checked(labels: torch.Tensor, n_classes: int, ignore_index: int) -> torch.Tensor:
    """Labels of which each is a class or `ignore_index`, as bytes where they fit in: an eighth to read and to send."""
    if not labels.numel():
        return labels
    low, high = (int(bound) for bound in torch.aminmax(labels))
    fit = low >= 0 and max(high, n_classes - 1) <= 255
    labels = labels.to(torch.uint8 if fit else torch.int64)
    if low < 0 or high >= n_classes:
        wrong = labels[((labels < 0) | (labels >= n_classes)) & (labels != ignore_index)]
        if len(wrong):
            raise DataError(f"a label map holds {int(wrong[0])}; there are {n_classes} classes, 0 to {n_classes - 1}")
    return labels


def _channels(labels: torch.Tensor, n_classes: int, ignore_index: int) -> torch.Tensor:
    """`one_hot` of checked labels. One comparison into floats; torch's own takes several steps, in 64 bits."""
    count, height, width = labels.shape
    classes = torch.arange(n_classes, device=labels.device).to(labels.dtype).view(-1, 1, 1)
    channels = torch.empty((count, n_classes, height, width), device=labels.device)
    torch.eq(labels[:, None], classes, out=channels)
    if 0 <= ignore_index < n_classes:
        channels[:, ignore_index] = 0
    return channels


@MODELS.register_module()
class PairPreprocessor(BaseDataPreprocessor):
    """Takes the batches of a segmentation data set (mmseg's PackSegInputs), gives pairs of label map and picture.

    In: inputs, K-channel pictures (K, H, W) of values as `mean` and `std` are stated for (0..255), stacked or as a list
    of one size; data_samples with `gt_sem_seg` (1, H, W). Out: inputs, a dict of img_label, one-hot (N, C, H, W), and
    img_image, (N, K, H, W), (value - mean) / std; data_samples as they came.

    Args:
        n_classes: C.
        mean: K numbers.
        std: K numbers above 0. A generator ends in tanh, which reaches -1..1: 127.5 for both maps 0..255 there.
        ignore_index: Label of pixels that nobody has labelled.

    Raises:
        ConfigError: `mean` and `std` of other lengths, or samples without a label map.
    """

    def __init__(self, n_classes: int, mean: Sequence[float], std: Sequence[float], ignore_index: int = 255) -> None:
        super().__init__(non_blocking=True)  # a loader's pinned pictures travel while the host goes on
        if not mean or len(mean) != len(std) or min(std) <= 0:
            raise ConfigError(f"PairPreprocessor: mean {list(mean)} and std {list(std)}: give one of each per channel")
        self.n_classes, self.ignore_index = n_classes, ignore_index
        self.register_buffer("mean", torch.tensor(list(mean), dtype=torch.float32).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(list(std), dtype=torch.float32).view(-1, 1, 1), persistent=False)

    def forward(self, data: Mapping[str, Any], training: bool = False) -> dict[str, Any]:
        """See the class."""
        inputs, samples = self.cast_data(data["inputs"]), data.get("data_samples")
        images = inputs if isinstance(inputs, torch.Tensor) else torch.stack(list(inputs))
        if images.shape[1] != len(self.mean):
            raise ConfigError(
                f"PairPreprocessor: pictures of {images.shape[1]} channels, mean and std of {len(self.mean)}: "
                "give one of each per channel"
            )
        if not samples or any("gt_sem_seg" not in sample for sample in samples):
            raise ConfigError("PairPreprocessor: a sample has no label map (gt_sem_seg): train on labelled pictures")
        # Looked at where they lie: the device gets bytes, and nothing else of the samples.
        checked = (_checked(sample.gt_sem_seg.data[0], self.n_classes, self.ignore_index) for sample in samples)
        labels = torch.stack(list(checked)).to(images.device, non_blocking=True)
        pairs = {
            "img_label": _channels(labels, self.n_classes, self.ignore_index),
            "img_image": (images.float() - self.mean) / self.std,
        }
        return {"inputs": pairs, "data_samples": samples}

    def to_values(self, images: torch.Tensor) -> torch.Tensor:
        """What a generator gives, back in the values of `mean` and `std`, (N, K, H, W) float32, cut at 0 and 255."""
        return (images.float() * self.std + self.mean).clamp(0, 255)
