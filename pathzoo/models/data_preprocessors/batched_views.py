"""Views for self-supervision, made of whole batches on the model's device.

Where the processor that reads cannot make views as fast as the network takes them, it hands over plain tiles.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmpretrain.models import SelfSupDataPreprocessor
from torch.nn import functional

from pathzoo.datasets.transforms.view_recipe import N_DRAWS, ViewRecipe, blur_radius, view_draws, view_parameters
from pathzoo.errors import ConfigError
from pathzoo.models.batched_colour import adjust_colour_batch, jitter_stains_batch
from pathzoo.registry import MODELS


@MODELS.register_module()
class BatchedViews(SelfSupDataPreprocessor):
    """`HistologyViews` and normalisation in one: instead of SelfSupDataPreprocessor, with no views in the pipeline.

    Takes one uint8 batch (N, 3, H, W) of pictures of one size, RGB, and gives a list of `n_views` batches
    (N, 3, size, size), float32, normalised. Equal in distribution to `HistologyViews`, whose docstring explains the
    arguments, and picture by picture to it within a few grey levels where the draws are the same; it does not round
    in between.

    Draws in training: by `sample_seed` where the data samples hold it (name it in PackInputs' meta_keys), as
    HistologyViews does: then neither the number of processes nor an interruption changes what is drawn. Without it from
    torch's generator of the device, which `EpochSeedHook` (every config of the project has it) seeds by the run's seed,
    the rank and the epoch: processes draw differently and a resumed run as an unbroken one, but another number of
    processes draws other views. Where that hook is missing, mmengine has seeded all processes alike, unless
    `randomness` says diff_rank_seed.
    In validation: by `sample_idx`, so that every epoch and every batch size score the same views.

    Args:
        mean, std: of the normalisation, three numbers on 0..255; none without them.
        size, n_views, zoom, flips, turns, stain_alpha, stain_beta, brightness, contrast, saturation, jitter_p, blur_p,
            blur_sigma, stream: as HistologyViews has them.
        non_blocking: whether batches are copied to the device while the processor goes on.

    Raises:
        ConfigError: a value out of its range.
    """

    def __init__(
        self,
        size: int,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        n_views: int = 2,
        zoom: Sequence[float] = (0.8, 1.25),
        flips: bool = True,
        turns: bool = True,
        stain_alpha: float = 0.2,
        stain_beta: float = 0.05,
        brightness: float = 0.2,
        contrast: float = 0.2,
        saturation: float = 0.2,
        jitter_p: float = 0.8,
        blur_p: float = 0.5,
        blur_sigma: Sequence[float] = (0.1, 1.5),
        stream: int = 0,
        non_blocking: bool = False,
    ) -> None:
        super().__init__(mean=mean, std=std, non_blocking=non_blocking)
        if n_views < 1:
            raise ConfigError(f"BatchedViews(n_views={n_views}): needs 1 or more")
        self.recipe = ViewRecipe(
            size=size,
            zoom=zoom,
            flips=flips,
            turns=turns,
            stain_alpha=stain_alpha,
            stain_beta=stain_beta,
            brightness=brightness,
            contrast=contrast,
            saturation=saturation,
            jitter_p=jitter_p,
            blur_p=blur_p,
            blur_sigma=blur_sigma,
        )
        self.n_views, self.stream = n_views, stream

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """Makes the views of a batch of mmengine's default_collate.

        Raises:
            ConfigError: the pictures do not come as one uint8 batch, or no sample_idx comes with them in validation.
            DataError: they are smaller than the largest crop.
        """
        pictures = _check(data["inputs"])
        self.recipe.check_size(*pictures.shape[2:], "a batch")
        data = self.cast_data(data)
        pictures, samples = data["inputs"].float(), data.get("data_samples")
        views = []
        for drawn in self._draws(samples, pictures, training):
            view = make_views_batch(pictures, view_parameters(self.recipe, drawn, *pictures.shape[2:]), self.recipe)
            views.append((view - self.mean) / self.std if self._enable_normalize else view)
        return {"inputs": views, "data_samples": samples}

    def _draws(self, samples: Sequence[Any] | None, pictures: torch.Tensor, training: bool) -> torch.Tensor:
        """(n_views, N, N_DRAWS), on the pictures' device."""
        key = "sample_seed" if training else "sample_idx"
        seeds = [sample.metainfo.get(key) for sample in samples or ()]
        if seeds and None not in seeds:
            drawn = np.stack([view_draws(seed, self.n_views, self.stream) for seed in seeds], axis=1)
            return torch.from_numpy(drawn).to(pictures.device)
        if not training:
            raise ConfigError("BatchedViews: no sample_idx with the pictures; name it in PackInputs(meta_keys=...)")
        # In double precision: a place drawn in single could round up to one beyond the last.
        return torch.rand(self.n_views, len(pictures), N_DRAWS, dtype=torch.float64, device=pictures.device)


def make_views_batch(images: torch.Tensor, views: Mapping[str, torch.Tensor], recipe: ViewRecipe) -> torch.Tensor:
    """One view of each picture: crop, zoom, mirror, turn, stains, colour, blur.

    Args:
        images: RGB (N, 3, H, W), float, 0..255.
        views: of `view_parameters`, on the same device.
        recipe: what they were drawn from; gives the size, and says which steps nobody takes.

    Returns:
        RGB (N, 3, size, size), float32, 0..255; not rounded.
    """
    # Under AMP convolutions would run in half precision, which is coarser than a grey level.
    with torch.autocast(images.device.type, enabled=False):
        places = _places(images, views, recipe.size)
        out = functional.grid_sample(images.float(), places, padding_mode="border", align_corners=False)
        if recipe.jitter_p and (recipe.stain_alpha or recipe.stain_beta):
            changed = jitter_stains_batch(out, views["alpha"], views["beta"])
            still = (views["alpha"] == 1).all(1) & (views["beta"] == 0).all(1)
            out = torch.where(still[:, None, None, None], out, changed)
        if recipe.jitter_p and (recipe.brightness or recipe.contrast or recipe.saturation):
            out = adjust_colour_batch(out, views["brightness"], views["contrast"], views["saturation"])
        if recipe.blur_p:
            out = blur_batch(out, views["sigma"], blur_radius(recipe.blur_sigma[1]))
        return out


def blur_batch(images: torch.Tensor, sigma: torch.Tensor, radius: int) -> torch.Tensor:
    """Gaussian blur, each picture by a sigma of its own; at the border pictures are mirrored about their last pixel.

    Args:
        images: (N, C, H, W), float.
        sigma: (N,) in pixels; 0 for none.
        radius: of the largest kernel; each picture's own reaches three sigma, rounded up.

    Returns:
        (N, C, H, W) of the images' dtype.
    """
    n, channels, height, width = images.shape
    offset = torch.arange(-radius, radius + 1, device=sigma.device)
    # Where sigma is 0 only the middle is left.
    weights = torch.exp(-0.5 * (offset / sigma.clamp_min(1e-3)[:, None]) ** 2)
    weights = weights * (offset.abs() <= torch.ceil(3 * sigma)[:, None])
    weights = (weights / weights.sum(1, keepdim=True)).to(images.dtype).repeat_interleave(channels, 0)[:, None, None]
    flat = functional.pad(images.reshape(1, n * channels, height, width), (radius,) * 4, mode="reflect")
    flat = functional.conv2d(flat, weights, groups=n * channels)
    return functional.conv2d(flat, weights.mT, groups=n * channels).view_as(images)


def _places(images: torch.Tensor, views: Mapping[str, torch.Tensor], size: int) -> torch.Tensor:
    """Where in its picture each pixel of a view lies: (N, size, size, 2), x and y as grid_sample counts them, -1..1."""
    height, width = images.shape[2:]
    centred = torch.arange(size, device=images.device, dtype=torch.float32) - (size - 1) / 2
    down, right = centred[:, None], centred[None, :]
    # By quarter turns: cosine and sine are whole, so that without a zoom pixels fall on pixels.
    turn = views["turn"]
    cos, sin = ((turn == 0).float() - (turn == 2).float()), ((turn == 1).float() - (turn == 3).float())
    cos, sin = cos[:, None, None], sin[:, None, None]
    mirror = (1 - 2 * views["mirrored"].float())[:, None, None]
    columns, rows = mirror * (cos * right - sin * down), sin * right + cos * down
    side = views["side"].float()[:, None, None]
    places = []
    for place, first, length in ((columns, views["left"], width), (rows, views["top"], height)):
        first = first.float()[:, None, None]
        pixel = first + (place + size / 2) * (side / size) - 0.5
        pixel = torch.minimum(torch.maximum(pixel, first), first + side - 1)  # what lies beside the crop stays out
        places.append((2 * pixel + 1) / length - 1)
    return torch.stack(places, dim=-1)


def _check(inputs: Any) -> torch.Tensor:
    if not isinstance(inputs, torch.Tensor) or inputs.ndim != 4 or inputs.shape[1] != 3 or inputs.dtype != torch.uint8:
        found = f"{inputs.dtype} {tuple(inputs.shape)}" if isinstance(inputs, torch.Tensor) else type(inputs).__name__
        raise ConfigError(
            f"BatchedViews: {found} where one uint8 batch (N, 3, H, W) is needed; leave HistologyViews out of the "
            "pipeline, take mmengine's default_collate, and give tiles of one size"
        )
    return inputs
