"""From a picture of any size to a tile of one resolution: how many it holds, and a window of it."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pathzoo.datasets.sampling import mix_seed
from pathzoo.datasets.transforms.geometry import ResizeToMpp, resample
from pathzoo.errors import DataError


def pixel_ratio(info: Mapping[str, Any], mpp: float | None) -> float:
    """How many of a picture's own pixels one pixel at `mpp` covers; 1 where it is taken as it is.

    The limits are those of `ResizeToMpp`: 2 % off is left as it is, enlarging by more than 1.1 is refused.

    Args:
        info: item, mpp (None where not known), where.
        mpp: microns per pixel wanted; None takes the picture as it is.

    Raises:
        DataError: the picture's resolution is not known, or too coarse.
    """
    if mpp is None:
        return 1.0
    resize = ResizeToMpp(mpp)
    if info["mpp"] is None:
        raise DataError(
            f"{info['where']}: microns per pixel of {info['item']} are not known, which mpp={mpp:g} needs: give a CSV "
            "with the column mpp, or take pictures as they are (mpp=None)"
        )
    if resize.is_too_coarse(info["mpp"]):
        raise DataError(f"{info['where']}: {info['item']}: {resize.too_coarse_text(info['mpp'])}")
    ratio = mpp / info["mpp"]
    return 1.0 if abs(1 / ratio - 1) <= resize.tolerance else ratio


def size_at(width: int, height: int, ratio: float) -> tuple[int, int]:
    """(width, height) of a picture once `ratio` of its pixels have become one."""
    return max(1, round(width / ratio)), max(1, round(height / ratio))


def whole_tiles(width: int, height: int, ratio: float, size: int) -> int:
    """How many whole tiles of `size` pixels lie side by side in a picture."""
    columns, rows = size_at(width, height, ratio)
    return (columns // size) * (rows // size)


def cut_window(picture: np.ndarray, window: int, ratio: float, seed: int) -> np.ndarray:
    """A window at a place that `seed` draws, resampled; of a side that is no longer than the window, all of it.

    Args:
        picture: RGB uint8 (H, W, 3); it is not changed.
        window: side in pixels of the result.
        ratio: of `pixel_ratio`.
        seed: uint32.

    Returns:
        RGB uint8 (at most window, at most window, 3), contiguous and writable.
    """
    corner, extent = [], []
    for number, length in enumerate(picture.shape[:2]):
        side = min(length, round(window * ratio))
        corner.append(mix_seed(seed, number) % (length - side + 1))
        extent.append(side)
    cut = picture[corner[0] : corner[0] + extent[0], corner[1] : corner[1] + extent[1]]
    size = size_at(extent[1], extent[0], ratio)
    return np.array(cut) if ratio == 1 else resample(np.ascontiguousarray(cut), size)
