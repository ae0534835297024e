"""Scale and size: to a resolution in microns, to a short side in pixels, to a tile."""

from typing import Any

import cv2
import numpy as np
from mmcv.transforms import BaseTransform

from pathzoo.datasets.transforms.boxes import NOT_MOVED, clip_boxes, get_boxes, set_boxes
from pathzoo.errors import ConfigError, DataError
from pathzoo.registry import TRANSFORMS


def resample(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resamples a picture: area means where it shrinks, linear where it grows.

    Args:
        image: uint8 (H, W, C) or (H, W).
        size: (width, height) in pixels.
    """
    if size == (image.shape[1], image.shape[0]):
        return image
    # Area means are right for shrinking (no aliasing); enlarging by them would repeat pixels.
    shrinks = size[0] <= image.shape[1] and size[1] <= image.shape[0]
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def resize_results(results: dict[str, Any], size: tuple[int, int]) -> None:
    """Brings image, mask (nearest neighbour) and boxes to `size` (width, height); sets img_shape and scale_factor."""
    check_movable(results)
    height, width = results["img"].shape[:2]
    factors = (size[0] / width, size[1] / height)
    results["img"] = resample(results["img"], size)
    if results.get("gt_seg_map") is not None:
        results["gt_seg_map"] = cv2.resize(results["gt_seg_map"], size, interpolation=cv2.INTER_NEAREST)
    boxes = get_boxes(results)
    if boxes is not None:
        set_boxes(results, boxes * np.array(factors * 2, np.float32), np.arange(len(boxes)))
    results["img_shape"] = (size[1], size[0])
    before = results.get("scale_factor", (1.0, 1.0))
    results["scale_factor"] = (before[0] * factors[0], before[1] * factors[1])


def check_movable(results: dict[str, Any]) -> None:
    """Raises ConfigError for entries that lie in the picture's plane but that would be left behind."""
    for key in NOT_MOVED:
        if results.get(key) is not None:
            raise ConfigError(
                f"'{key}' would no longer fit the image: pathzoo's transforms move img, gt_seg_map, gt_bboxes"
            )


@TRANSFORMS.register_module()
class ResizeToMpp(BaseTransform):
    """Resamples so that a pixel is `mpp` microns wide; detail that is not there is not made up.

    Sets `mpp` in the results to the new resolution where it resampled, and `scale_factor` (width, height).

    Args:
        mpp: microns per pixel that come out.
        tolerance: relative difference that is left as it is.
        max_upsample: largest enlargement that is still done; beyond it the item is refused.
    """

    def __init__(self, mpp: float, tolerance: float = 0.02, max_upsample: float = 1.1):
        if not mpp > 0 or not tolerance >= 0 or not max_upsample >= 1:
            raise ConfigError(
                f"ResizeToMpp(mpp={mpp}, tolerance={tolerance}, max_upsample={max_upsample}): needs mpp > 0, "
                "tolerance >= 0 and max_upsample >= 1"
            )
        self.mpp, self.tolerance, self.max_upsample = mpp, tolerance, max_upsample

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Raises DataError for an item whose mpp is not known, or too coarse for this resolution."""
        name, own = results.get("item") or results.get("img_path", "item"), results.get("mpp")
        if own is None:
            raise DataError(
                f"{name}: microns per pixel not known; give them in the table's column mpp, or use ResizeShortSide"
            )
        if not own > 0:
            raise DataError(f"{name}: mpp {own} is no resolution; microns per pixel are above 0")
        if self.is_too_coarse(own):
            raise DataError(f"{name}: {self.too_coarse_text(own)}")
        scale = own / self.mpp
        if abs(scale - 1) <= self.tolerance:
            return results
        height, width = results["img"].shape[:2]
        resize_results(results, (max(1, round(width * scale)), max(1, round(height * scale))))
        results["mpp"] = self.mpp
        return results

    def is_too_coarse(self, own: float) -> bool:
        """Whether an item of `own` microns per pixel would be enlarged beyond the limit."""
        scale = own / self.mpp
        # A hair of slack, so that a ratio that equals the limit passes whatever its last bit is.
        return abs(scale - 1) > self.tolerance and scale > self.max_upsample * (1 + 1e-9)

    def too_coarse_text(self, own: float) -> str:
        """What to say of such an item."""
        return (
            f"{own:g} um/px is coarser than the {self.mpp:g} um/px asked for and would be enlarged "
            f"{own / self.mpp:.2f} times; train at {own:g} um/px or coarser, or use images scanned finer"
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}(mpp={self.mpp}, tolerance={self.tolerance}, max_upsample={self.max_upsample})"


@TRANSFORMS.register_module()
class ResizeShortSide(BaseTransform):
    """Resamples so that the shorter side has `size` pixels: for models and images of unknown resolution.

    Args:
        size: in pixels.
    """

    def __init__(self, size: int):
        if size < 1:
            raise ConfigError(f"ResizeShortSide(size={size}): needs at least 1 pixel")
        self.size = size

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Resizes; where the item's mpp is known, it is kept in step."""
        height, width = results["img"].shape[:2]
        scale = self.size / min(height, width)
        resize_results(results, (max(1, round(width * scale)), max(1, round(height * scale))))
        if results.get("mpp") is not None:
            results["mpp"] = results["mpp"] / scale
        return results

    def __repr__(self) -> str:
        return f"{type(self).__name__}(size={self.size})"


@TRANSFORMS.register_module()
class CenterCropOrPad(BaseTransform):
    """Takes the middle of a larger picture and pads a smaller one evenly, each side on its own.

    Args:
        size: (width, height) in pixels, or one number for both.
        pad_value: grey value around the picture; 255 is glass.
        seg_pad_value: label around the mask; 255 is what mmseg ignores.
    """

    def __init__(self, size: int | tuple[int, int], pad_value: int = 255, seg_pad_value: int = 255):
        self.size = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
        if min(self.size) < 1 or not 0 <= pad_value <= 255 or not 0 <= seg_pad_value <= 255:
            raise ConfigError(
                f"CenterCropOrPad(size={size}, pad_value={pad_value}, seg_pad_value={seg_pad_value}): needs a size of "
                "at least 1 and values in 0..255"
            )
        self.pad_value, self.seg_pad_value = pad_value, seg_pad_value

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Crops and pads image, mask and boxes alike; boxes outside are dropped with their labels."""
        check_movable(results)
        height, width = results["img"].shape[:2]
        left, top = (centre_offset(have, want) for have, want in zip((width, height), self.size, strict=True))
        results["img"] = window(results["img"], left, top, self.size, self.pad_value)
        if results.get("gt_seg_map") is not None:
            results["gt_seg_map"] = window(results["gt_seg_map"], left, top, self.size, self.seg_pad_value)
        boxes = get_boxes(results)
        if boxes is not None:
            set_boxes(results, *clip_boxes(boxes - np.array([left, top] * 2, np.float32), *self.size))
        results["img_shape"] = (self.size[1], self.size[0])
        return results

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(size={self.size}, pad_value={self.pad_value}, seg_pad_value={self.seg_pad_value})"
        )


def centre_offset(have: int, want: int) -> int:
    """First coordinate of a centred window of `want` pixels; negative where the picture is smaller."""
    return (have - want) // 2 if have >= want else -((want - have) // 2)


def window(picture: np.ndarray, left: int, top: int, size: tuple[int, int], fill: int) -> np.ndarray:
    """The window of `size` (width, height) at (left, top), filled with `fill` where it leaves the picture."""
    height, width = picture.shape[:2]
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + size[0], width), min(top + size[1], height)
    if (x1 - x0, y1 - y0) == size:
        return np.ascontiguousarray(picture[y0:y1, x0:x1])
    out = np.full((size[1], size[0], *picture.shape[2:]), fill, picture.dtype)
    out[y0 - top : y1 - top, x0 - left : x1 - left] = picture[y0:y1, x0:x1]
    return out
