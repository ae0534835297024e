"""What training makes small; over label maps, with pixels that nobody has labelled."""

from pathzoo.models.losses.cross_entropy import PixelCrossEntropy, pixel_cross_entropy
from pathzoo.models.losses.dice import DiceLoss, dice_loss

__all__ = ["DiceLoss", "PixelCrossEntropy", "dice_loss", "pixel_cross_entropy"]
