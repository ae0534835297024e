"""Soft Dice over label maps, pooled over the batch.

mmseg's own is not used: pixels to be ignored still count in it, as pixels of no class.
"""

from collections.abc import Sequence

import torch
from torch import nn

from pathzoo.models.losses.cross_entropy import check_classes, register_class_weight
from pathzoo.registry import MODELS


def dice_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    class_weight: torch.Tensor | None = None,
    weight: torch.Tensor | None = None,
    ignore_index: int = 255,
    smooth: float = 1.0,
) -> torch.Tensor:
    """1 - Dice of the softmax against the labels, averaged over the classes that occur among the labels.

    Dice of a class is (2 sum(w p g) + smooth) / (sum(w p) + sum(w g) + smooth) over the labelled pixels of the whole
    batch, p the probability, g 1 where the label is that class, w the pixel's weight. Pooled over the batch, not by
    picture: in a patch that has a class in a few pixels, or none, its own Dice says next to nothing. A class that no
    label of the batch names is left out: its Dice would be 0 however small p is.

    Source: Milletari, Navab, Ahmadi, V-Net, 3DV 2016, with plain sums in the denominator (as Sudre et al., 2017).

    Args:
        logits: (N, C, H, W).
        labels: (N, H, W), int64; 0..C-1 or `ignore_index`.
        class_weight: (C,), of the classes in the average; all 1 where None.
        weight: w, (N, H, W) or what broadcasts to it, such as (N, 1, 1) for samples; all 1 where None.
        ignore_index: Pixels of this label count nowhere.
        smooth: In pixels; keeps a class of few pixels from jumping.

    Returns:
        A scalar in 0..1, float32; 0 (with gradient 0) where no pixel counts.
    """
    probs = logits.float().softmax(dim=1)
    counted = (labels != ignore_index).float()
    if weight is not None:
        counted = counted * weight
    counted = counted[:, None]  # (N, 1, H, W)
    classes = torch.arange(logits.shape[1], device=logits.device).view(1, -1, 1, 1)
    truth = (labels[:, None] == classes) * counted  # (N, C, H, W)
    over = (0, 2, 3)
    occurring = truth.sum(over)  # (C,), pixels
    overlap, predicted = (probs * truth).sum(over), (probs * counted).sum(over)
    dice = (2 * overlap + smooth) / (predicted + occurring + smooth)
    shares = (occurring > 0).float()
    if class_weight is not None:
        shares = shares * class_weight
    return ((1 - dice) * shares).sum() / shares.sum().clamp_min(1e-12)


@MODELS.register_module()
class DiceLoss(nn.Module):
    """`dice_loss` as a loss of mmseg's decode heads.

    Args:
        class_weight: One number of 0 or more for each class; all 1 where None.
        ignore_index: Where the head gives none.
        smooth: In pixels.
        loss_weight: Of this loss among others.
        loss_name: As it is logged; has to hold "loss" to be trained on.
    """

    def __init__(
        self,
        class_weight: Sequence[float] | None = None,
        ignore_index: int = 255,
        smooth: float = 1.0,
        loss_weight: float = 1.0,
        loss_name: str = "loss_dice",
    ) -> None:
        super().__init__()
        register_class_weight(self, class_weight)
        self.ignore_index, self.smooth = ignore_index, smooth
        self.loss_weight, self.loss_name = loss_weight, loss_name

    def forward(
        self,
        logits: torch.Tensor,
        labels: torch.Tensor,
        weight: torch.Tensor | None = None,
        ignore_index: int | None = None,
    ) -> torch.Tensor:
        """Shapes as of `dice_loss`; `ignore_index` overrides the own one."""
        ignored = self.ignore_index if ignore_index is None else ignore_index
        check_classes(self, logits)
        return self.loss_weight * dice_loss(logits, labels, self.class_weight, weight, ignored, self.smooth)
