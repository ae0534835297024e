"""Colour jitter of whole batches on their own device: stains, then brightness, contrast and saturation."""

from typing import Any

import torch
from torch import nn

from pathzoo.datasets.transforms.stain import RUIFROK
from pathzoo.datasets.transforms.view_recipe import COLOUR, check_strengths
from pathzoo.datasets.transforms.views import GREY
from pathzoo.registry import MODELS


def jitter_stains_batch(
    images: torch.Tensor, alpha: torch.Tensor, beta: torch.Tensor, vectors: Any = RUIFROK
) -> torch.Tensor:
    """Scales and shifts the amount of each stain, each picture by numbers of its own: s' = alpha s + beta.

    `pathzoo.datasets.transforms.stain.jitter_stains` for a batch, which also gives the sources; equal to it within one
    grey level.

    Args:
        images: RGB (N, 3, H, W), float, 0..255.
        alpha: (N, 3) factor on each stain, 1 keeps it.
        beta: (N, 3) amount added to each stain in tissue, in natural-log optical density; 0 adds none.
        vectors: (3, 3) absorption of each stain over (R, G, B), one stain a row.

    Returns:
        RGB (N, 3, H, W), float32, 0..255.
    """
    with _full_precision(images):
        # Inverted where the vectors are, mostly on the CPU: on a GPU an inverse makes everything wait.
        stains = torch.as_tensor(vectors, dtype=torch.float64)
        inverse, stains = (part.to(images.device, torch.float32) for part in (torch.linalg.inv(stains), stains))
        # Rows are (R, G, B) of density there and columns here, so the product is turned round.
        matrix = (inverse @ (alpha.to(stains)[:, :, None] * stains)).mT  # (N, 3, 3)
        shift = beta.to(stains) @ stains  # (N, 3)
        pixels = images.float()
        density = pixels.clamp_min(1).div_(255).log_().neg_()
        tissue = ((240 - _grey(pixels)) / 30).clamp_(0, 1)
        density = torch.bmm(matrix, density.flatten(2)).view_as(density)
        density.addcmul_(shift[:, :, None, None], tissue)
        return density.neg_().exp_().mul_(255).clamp_(max=255)


def adjust_colour_batch(
    images: torch.Tensor, brightness: torch.Tensor, contrast: torch.Tensor, saturation: torch.Tensor
) -> torch.Tensor:
    """Brightness, then contrast about the picture's own mean grey, then saturation, each picture by its own numbers.

    The three are linear in the pixels, so that one product with a 3x3 matrix does them, and values are cut to 0..255
    once, at the end; torchvision's ColorJitter, which defines them, cuts after each.

    Args:
        images: RGB (N, 3, H, W), float, 0..255.
        brightness: (N,) factor on the pixels; 1 keeps them, as with the others.
        contrast: (N,) factor on the difference from the mean grey (of the brightened picture).
        saturation: (N,) factor on the difference from each pixel's own grey.

    Returns:
        RGB (N, 3, H, W), float32, 0..255.
    """
    with _full_precision(images):
        pixels = images.float()
        matrix, shift = colour_matrix(pixels.mean((2, 3)), brightness, contrast, saturation)
        return torch.baddbmm(shift[:, :, None], matrix, pixels.flatten(2)).view_as(pixels).clamp_(0, 255)


def colour_matrix(
    mean: torch.Tensor, brightness: torch.Tensor, contrast: torch.Tensor, saturation: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """What `adjust_colour_batch` multiplies pixels by, (N, 3, 3), and adds, (N, 3), given their mean colour (N, 3)."""
    weights = torch.tensor(GREY, device=mean.device, dtype=mean.dtype)
    scale, own = (brightness * contrast).to(mean), saturation.to(mean)
    grey = weights.expand(3, 3)  # every row gives the pixel's grey
    eye = torch.eye(3, device=mean.device, dtype=mean.dtype)
    matrix = scale[:, None, None] * (own[:, None, None] * eye + (1 - own)[:, None, None] * grey)
    # Saturation leaves greys as they are, and what contrast adds is grey.
    shift = (1 - contrast.to(mean)) * brightness.to(mean) * (mean @ weights)
    return matrix, shift[:, None].expand(-1, 3)


@MODELS.register_module()
class BatchedColourJitter(nn.Module):
    """Draws a colour jitter for each picture of a batch and applies it (`jitter_stains_batch`, `adjust_colour_batch`).

    The steps and their ranges are those of `pathzoo.datasets.transforms.HistologyViews`.

    Args:
        stain_alpha: each stain is scaled by a draw from 1 - alpha .. 1 + alpha.
        stain_beta: each stain gains a draw from -beta .. beta, in natural-log optical density.
        brightness, contrast, saturation: factors are drawn from 1 - b .. 1 + b.
        p: of a picture to be changed; the others come back as they are.

    Raises:
        ConfigError: a strength outside 0..1 (`stain_beta`: below 0), a probability outside 0..1.
    """

    def __init__(
        self,
        stain_alpha: float = 0.2,
        stain_beta: float = 0.05,
        brightness: float = 0.2,
        contrast: float = 0.2,
        saturation: float = 0.2,
        p: float = 0.8,
    ) -> None:
        super().__init__()
        self.strengths = {
            "stain_alpha": stain_alpha,
            "stain_beta": stain_beta,
            "brightness": brightness,
            "contrast": contrast,
            "saturation": saturation,
        }
        self.p = p
        check_strengths(type(self).__name__, self.strengths, {"p": p})

    def forward(self, images: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """Jitters RGB (N, 3, H, W), float, 0..255, of which it returns a copy, float32.

        Draws come from `generator`, wherever it lives, or from torch's own of the pictures' device.
        """
        device = images.device if generator is None else generator.device
        drawn = torch.rand(len(images), 10, generator=generator, device=device).to(images.device)
        around = 2 * drawn - 1
        strength = self.strengths
        changed = jitter_stains_batch(
            images, 1 + strength["stain_alpha"] * around[:, 1:4], strength["stain_beta"] * around[:, 4:7]
        )
        factors = (1 + strength[name] * around[:, 7 + k] for k, name in enumerate(COLOUR))
        changed = adjust_colour_batch(changed, *factors)
        return torch.where((drawn[:, 0] < self.p)[:, None, None, None], changed, images.float())

    def extra_repr(self) -> str:
        """Strengths and probability, as the module prints itself."""
        return ", ".join(f"{name}={value}" for name, value in {**self.strengths, "p": self.p}.items())


def _grey(pixels: torch.Tensor) -> torch.Tensor:
    """(N, 1, H, W) of (N, 3, H, W)."""
    red, green, blue = pixels.unbind(1)
    return (GREY[0] * red + GREY[1] * green + GREY[2] * blue)[:, None]


def _full_precision(images: torch.Tensor) -> torch.autocast:
    """Under AMP the products would run in half precision, which is coarser than a grey level."""
    return torch.autocast(images.device.type, enabled=False)
