"""Cross-entropy over label maps: a mean over what is labelled, weighted by class and by pixel.

mmseg's own (1.4.2, with `avg_non_ignore=True`) is not used: with class weights it fails (it indexes a list of pixels by
a map), and weights of samples or pixels change its sum but not what the sum is divided by, so that a sample of weight 0
still makes every other one count less.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from pathzoo.errors import ConfigError
from pathzoo.registry import MODELS

#: Below any weight that is meant: where nothing is labelled, the mean is 0 / this, not 0 / 0.
_NOTHING = 1e-12


def pixel_cross_entropy(
    logits: torch.Tensor,
    labels: torch.Tensor,
    class_weight: torch.Tensor | None = None,
    weight: torch.Tensor | None = None,
    ignore_index: int = 255,
) -> torch.Tensor:
    """Weighted mean of -log p(label) over the labelled pixels: sum(w c l) / sum(w c), as torch's own for weights c.

    Args:
        logits: (N, C, H, W).
        labels: (N, H, W), int64; 0..C-1 or `ignore_index`.
        class_weight: (C,), c of a pixel's label; all 1 where None.
        weight: w of a pixel, (N, H, W) or what broadcasts to it, such as (N, 1, 1) for samples; all 1 where None.
        ignore_index: Pixels of this label count nowhere.

    Returns:
        A scalar, float32; 0 (with gradient 0) where no pixel counts.
    """
    losses = functional.cross_entropy(
        logits.float(), labels, weight=class_weight, ignore_index=ignore_index, reduction="none"
    )
    labelled = labels != ignore_index
    shares = labelled.float() if class_weight is None else class_weight[labels.where(labelled, 0)] * labelled
    if weight is not None:
        losses, shares = losses * weight, shares * weight
    return losses.sum() / shares.sum().clamp_min(_NOTHING)


@MODELS.register_module()
class PixelCrossEntropy(nn.Module):
    """`pixel_cross_entropy` as a loss of mmseg's decode heads.

    Args:
        class_weight: One number of 0 or more for each class; all 1 where None.
        ignore_index: Where the head gives none.
        loss_weight: Of this loss among others.
        loss_name: As it is logged; has to hold "loss" to be trained on.

    Several processes each take the mean over their own batch, as with any loss of torch.
    """

    def __init__(
        self,
        class_weight: Sequence[float] | None = None,
        ignore_index: int = 255,
        loss_weight: float = 1.0,
        loss_name: str = "loss_ce",
    ) -> None:
        super().__init__()
        register_class_weight(self, class_weight)
        self.ignore_index, self.loss_weight, self.loss_name = ignore_index, loss_weight, loss_name

    def forward(
        self,
        logits: torch.Tensor,
        labels: torch.Tensor,
        weight: torch.Tensor | None = None,
        ignore_index: int | None = None,
    ) -> torch.Tensor:
        """Shapes as of `pixel_cross_entropy`; `ignore_index` overrides the own one."""
        ignored = self.ignore_index if ignore_index is None else ignore_index
        check_classes(self, logits)
        return self.loss_weight * pixel_cross_entropy(logits, labels, self.class_weight, weight, ignored)


def register_class_weight(loss: nn.Module, class_weight: Sequence[float] | None) -> None:
    """Keeps the weights where the loss computes, but out of checkpoints: they stand in the config.

    Raises:
        ConfigError: A weight below 0, or none above.
    """
    weights = None if class_weight is None else torch.tensor(list(class_weight), dtype=torch.float32)
    if weights is not None and (weights.isnan().any() or weights.min() < 0 or weights.max() <= 0):
        raise ConfigError(
            f"{type(loss).__name__}: class_weight is {list(class_weight or ())}; it takes numbers of 0 or more, and "
            "one above 0 at least"
        )
    loss.register_buffer("class_weight", weights, persistent=False)


def check_classes(loss: nn.Module, logits: torch.Tensor) -> None:
    """Raises a ConfigError where there are not as many weights as classes."""
    weights = loss.class_weight
    if weights is not None and len(weights) != logits.shape[1]:
        raise ConfigError(
            f"{type(loss).__name__}: class_weight has {len(weights)} numbers, but the head has {logits.shape[1]} "
            "classes (num_classes); give one for each"
        )
