"""From a whole image to the tile that a model takes, as its manifest says. No torch."""

from typing import Any

import cv2
import numpy as np

from pathzoo.errors import DataError
from pathzoo.zoo.manifest import ModelInput


def prepare_image(image: np.ndarray, spec: ModelInput, mpp: float | None = None) -> np.ndarray:
    """Resizes `image` (area interpolation where it shrinks) and takes, or pads to, the centre tile.

    Args:
        image: RGB uint8 (H, W, 3).
        spec: The model's input block.
        mpp: The image's microns per pixel; needed by models that resize by mpp, unused by others.

    Returns:
        RGB uint8 (tile height, tile width, 3).

    Raises:
        DataError: Not an RGB uint8 image; `mpp` is needed and missing; or the image is coarser than the model, beyond
            its tolerance: detail that is not there is not made up by enlarging.
    """
    check_pictures(image, 3)
    height, width = image.shape[:2]
    if spec.resize.kind == "mpp":
        scale = _scale_by_mpp(spec, mpp)
    else:
        scale = spec.resize.size / min(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    if size != (width, height):
        # Area averaging is right for shrinking; enlarging by it would repeat pixels.
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    return _centre(image, spec.tile_size, spec.resize.pad_value)


def check_pictures(array: Any, n_axes: int) -> None:
    """Raises DataError unless `array` is RGB uint8: (H, W, 3) for 3 axes, (N, H, W, 3) for 4."""
    form = {3: "(H, W, 3)", 4: "(N, H, W, 3)"}[n_axes]
    if not isinstance(array, np.ndarray) or array.dtype != np.uint8 or array.ndim != n_axes or array.shape[-1] != 3:
        found = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        raise DataError(f"a model takes RGB uint8 {form} in 0..255, not {found}")
    if 0 in array.shape[-3:]:
        raise DataError(f"an empty picture of shape {array.shape}")


def _scale_by_mpp(spec: ModelInput, mpp: float | None) -> float:
    if mpp is None:
        raise DataError(f"the model works at {spec.mpp:g} µm/px and the image's is not known: give it (--mpp)")
    if not mpp > 0:
        raise DataError(f"mpp {mpp} is no resolution: microns per pixel are above 0")
    assert spec.mpp is not None  # the manifest's own rule for kind 'mpp'
    scale = mpp / spec.mpp
    if scale > 1 + spec.mpp_tolerance:
        raise DataError(f"the image ({mpp:g} µm/px) is coarser than the model ({spec.mpp:g} µm/px): it is not enlarged")
    return scale


def _centre(image: np.ndarray, tile_size: tuple[int, int], pad_value: int) -> np.ndarray:
    width, height = tile_size
    tile = np.full((height, width, 3), pad_value, dtype=np.uint8)
    (y, to_y, h), (x, to_x, w) = (
        (max(0, (have - want) // 2), max(0, (want - have) // 2), min(have, want))
        for have, want in ((image.shape[0], height), (image.shape[1], width))
    )
    tile[to_y : to_y + h, to_x : to_x + w] = image[y : y + h, x : x + w]
    return tile
