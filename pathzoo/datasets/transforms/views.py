"""Views of a tile for self-supervision: what may change of a section without changing what it shows.

`pathzoo.models.data_preprocessors.BatchedViews` makes the same views of whole batches on their device.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from mmcv.transforms import BaseTransform

from pathzoo.datasets.transforms.boxes import NOT_MOVED
from pathzoo.datasets.transforms.draws import ProcessDraws
from pathzoo.datasets.transforms.stain import jitter_stains
from pathzoo.datasets.transforms.view_recipe import (
    COLOUR,
    N_DRAWS,
    VIEW_SALT,
    ViewRecipe,
    blur_radius,
    view_draws,
    view_parameters,
)
from pathzoo.errors import ConfigError, DataError
from pathzoo.registry import TRANSFORMS

#: Weights of red, green and blue in grey: ITU-R BT.601, as OpenCV and torchvision have them.
GREY = (0.299, 0.587, 0.114)

_TURNS = {1: cv2.ROTATE_90_COUNTERCLOCKWISE, 2: cv2.ROTATE_180, 3: cv2.ROTATE_90_CLOCKWISE}


@TRANSFORMS.register_module()
class HistologyViews(BaseTransform):
    """Makes views of `img` for self-supervision: crops at nearly the same scale, turned, restained, blurred.

    SimCLR crops 8 to 100 % of the area of a photograph and scales that to the view: up to 3.5 times, since a dog is a
    dog at any size. In a section the size of a nucleus is a finding, and a network is asked about slides of one
    resolution: here a crop keeps its scale within `zoom`, and the view's pixel means nearly what the picture's did.
    Colour changes as sections differ, by the amounts of their stains; hue and grey, which no laboratory varies, stay
    out. Flip and turn make each of the square's eight symmetries equally likely.

    Sets `img` to a list of `n_views` RGB uint8 (size, size, 3), which mmpretrain's PackInputs packs as it is, and
    `img_shape`. Draws as `Albumentations` does: by `sample_seed`, view and `stream` alone where the results hold one
    (and whatever `n_views` is), otherwise from a stream of each process.

    For RotationPred take `n_views=1, turns=False`: of pictures that lie turned at random nobody can tell the rotation.

    Source: Chen et al., SimCLR, ICML 2020 (two views, probabilities, blur); Tellez et al. 2018 (stains).

    Args:
        size: side of a view, pixels. A picture has to be `size / zoom[0]` wide and high.
        n_views: 1 or more.
        zoom: (low, high) factors of enlargement; crops are `size / zoom` wide. Between 0.5 and 2; (1, 1) resamples
            nothing.
        flips: mirrors left and right, every other time.
        turns: by 0, 90, 180 or 270 degrees.
        stain_alpha: each stain is scaled by a draw from 1 - alpha .. 1 + alpha (`jitter_stains`).
        stain_beta: each stain gains a draw from -beta .. beta, in natural-log optical density.
        brightness, contrast, saturation: factors are drawn from 1 - b .. 1 + b.
        jitter_p: probability of stain jitter, brightness, contrast and saturation, together.
        blur_p: probability of a Gaussian blur.
        blur_sigma: (low, high) of it, pixels.
        stream: number of an independent stream of draws for the same sample seeds.

    Raises:
        ConfigError: a value out of its range.
    """

    def __init__(
        self,
        size: int,
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
    ) -> None:
        if n_views < 1:
            raise ConfigError(f"HistologyViews(n_views={n_views}): needs 1 or more")
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
        self._process_draws = ProcessDraws([VIEW_SALT, stream])

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Raises DataError for a picture that is not RGB uint8 or too small, ConfigError for what it cannot move."""
        for key in (*NOT_MOVED, "gt_seg_map", "gt_bboxes"):
            if results.get(key) is not None:
                raise ConfigError(f"'{key}' would no longer fit the image: HistologyViews moves img alone")
        image, name = results["img"], results.get("item") or results.get("img_path", "item")
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise DataError(f"{name}: {image.dtype} {image.shape} where RGB uint8 (H, W, 3) is needed")
        height, width = image.shape[:2]
        self.recipe.check_size(height, width, name)
        views = view_parameters(self.recipe, self._draws(results.get("sample_seed")), height, width)
        results["img"] = [
            make_view(image, {key: values[k] for key, values in views.items()}, self.recipe.size)
            for k in range(self.n_views)
        ]
        results["img_shape"] = (self.recipe.size, self.recipe.size)
        return results

    def _draws(self, sample_seed: int | None) -> np.ndarray:
        if sample_seed is None:
            return self._process_draws.generator().random((self.n_views, N_DRAWS))
        return view_draws(sample_seed, self.n_views, self.stream)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(n_views={self.n_views}, {self.recipe}, stream={self.stream})"


def make_view(image: np.ndarray, view: Mapping[str, Any], size: int) -> np.ndarray:
    """One view of a picture: crop, zoom, mirror, turn, stains, colour, blur.

    Args:
        image: RGB uint8 (H, W, 3), which is left as it is.
        view: one of `view_parameters`, numbers or (3,) under each name.
        size: side of the view, pixels.

    Returns:
        RGB uint8 (size, size, 3), contiguous, with memory of its own. Nothing but the crop, the mirror and the turn
        touches pixels whose zoom, colour and blur are drawn as none.
    """
    side, left, top = int(view["side"]), int(view["left"]), int(view["top"])
    crop = image[top : top + side, left : left + side]
    # Linear both ways: within the zooms allowed it leaves no pixel out when it shrinks, and it is several times faster
    # than area means.
    picture = crop.copy() if side == size else cv2.resize(crop, (size, size), interpolation=cv2.INTER_LINEAR)
    if view["mirrored"]:
        picture = cv2.flip(picture, 1)
    if view["turn"]:
        picture = cv2.rotate(picture, _TURNS[int(view["turn"])])
    if (view["alpha"] != 1).any() or (view["beta"] != 0).any():
        picture = jitter_stains(picture, view["alpha"], view["beta"])
    factors = [view[name] for name in COLOUR]
    if factors != [1, 1, 1]:
        picture = adjust_colour(picture, *factors)
    if view["sigma"] > 0:
        side = 2 * blur_radius(view["sigma"]) + 1
        sigma = float(view["sigma"])
        picture = cv2.GaussianBlur(picture, (side, side), sigma, sigmaY=sigma, borderType=cv2.BORDER_REFLECT_101)
    return picture


def adjust_colour(image: np.ndarray, brightness: float, contrast: float, saturation: float) -> np.ndarray:
    """Brightness, then contrast about the picture's own mean grey, then saturation: factors, 1 changes nothing.

    All three are linear in the pixels: one product with a 3x3 matrix does them, and values are cut to 0..255 once, at
    the end; torchvision's ColorJitter, which defines them, cuts after each.

    Args:
        image: RGB uint8 (H, W, 3).
        brightness: factor on the pixels.
        contrast: factor on their difference from the mean grey.
        saturation: factor on their difference from their own grey.

    Returns:
        RGB uint8 (H, W, 3).
    """
    grey = np.tile(GREY, (3, 1))
    matrix = brightness * contrast * (saturation * np.eye(3) + (1 - saturation) * grey)
    shift = (1 - contrast) * brightness * np.dot(GREY, cv2.mean(image)[:3])
    return cv2.transform(image, np.column_stack([matrix, np.full(3, shift)]))
