"""Pictures with boxes at one size: fitted into a frame, or four of them joined to a mosaic, as YOLOv5 is trained on."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from mmcv.transforms import BaseTransform

from pathzoo.datasets.sampling import mix_seed
from pathzoo.datasets.transforms.boxes import PER_BOX, get_boxes, set_boxes
from pathzoo.datasets.transforms.draws import ProcessDraws
from pathzoo.datasets.transforms.geometry import check_movable, resample, resize_results
from pathzoo.errors import ConfigError
from pathzoo.registry import TRANSFORMS

#: Of the streams of random numbers drawn from one sample seed.
_SALT = 0x4D6F7361


@TRANSFORMS.register_module()
class LetterBox(BaseTransform):
    """Resizes so that the picture just fits into a frame, keeping its aspect, and fills the frame at right and below.

    Filling on two sides only leaves boxes in proportion: what is found is brought back by `scale_factor` alone. Reads
    and writes img and, where present, gt_bboxes; updates scale_factor and mpp. img_shape is the fitted picture's, so
    that detections are cut at its edges and none is found in the filling; pad_shape is the frame's (both (H, W)).

    Args:
        size: (width, height) of the frame in pixels, or one number for both.
        pad_value: grey value of the filling.
        enlarge: enlarge smaller pictures; otherwise they are filled up only.
    """

    def __init__(self, size: int | Sequence[int], pad_value: int = 114, enlarge: bool = True):
        self.size, self.pad_value, self.enlarge = _checked_size(size, "LetterBox"), pad_value, enlarge
        if not 0 <= pad_value <= 255:
            raise ConfigError(f"LetterBox(pad_value={pad_value}): needs a grey value, 0 to 255")

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Raises ConfigError for annotations that it cannot move."""
        _refuse_mask(results, "LetterBox")
        before = results["img"].shape[1]
        resize_results(results, _fitted(results["img"].shape, self.size, self.enlarge))
        height, width = results["img"].shape[:2]
        if results.get("mpp") is not None:
            results["mpp"] = results["mpp"] * before / width
        frame = np.full((self.size[1], self.size[0], 3), self.pad_value, np.uint8)
        frame[:height, :width] = results["img"]
        results["img"], results["img_shape"], results["pad_shape"] = frame, (height, width), frame.shape[:2]
        return results

    def __repr__(self) -> str:
        return f"{type(self).__name__}(size={self.size}, pad_value={self.pad_value}, enlarge={self.enlarge})"


@TRANSFORMS.register_module()
class Mosaic(BaseTransform):
    """Joins four pictures around a drawn point, then scales and moves the whole: YOLOv5's main augmentation.

    The canvas is twice as wide and high as what comes out. The four pictures, each fitted into `size`, meet at a point
    drawn in the canvas' inner half. The whole is scaled about the canvas' middle, which comes out in the middle, moved
    by up to `translate`. With a chance of 1 - `p` the picture alone is fitted, scaled and moved. Boxes are cut at the
    edges; one is dropped where less than `min_visibility` of its area is left, or under `min_size` pixels of a side.
    Labels and ignore flags go with their boxes.

    Stands first in the pipeline of `TileDetection`, which hands it the other three: tiles of the same subset and epoch.
    Everything is drawn from `sample_seed`. Of the first picture stay img_path, item, patient and slide; x, y,
    downsample and mpp become None, since a mosaic lies nowhere and has no one resolution.

    Args:
        size: (width, height) that comes out, or one number for both.
        scale: least and greatest factor.
        translate: part of width and height by which the middle moves at most, either way.
        p: chance of a mosaic.
        pad_value: grey value where no picture lies.
        min_visibility, min_size: see above.

    Source: A. Bochkovskiy et al., "YOLOv4: Optimal Speed and Accuracy of Object Detection", 2020 (mosaic); values are
    those that YOLOv5 is documented with.
    """

    #: Asks the data set for other tiles; see `TileDetection.prepare_data`.
    mixes_tiles = True

    def __init__(
        self,
        size: int | Sequence[int],
        scale: tuple[float, float] = (0.5, 1.5),
        translate: float = 0.1,
        p: float = 1.0,
        pad_value: int = 114,
        min_visibility: float = 0.1,
        min_size: float = 2.0,
    ):
        self.size = _checked_size(size, "Mosaic")
        rules = (
            (0 < scale[0] <= scale[1], "scale", scale, "the least and greatest factor, above 0"),
            (0 <= translate < 0.5, "translate", translate, "at least 0 and below 0.5"),
            (0 <= p <= 1, "p", p, "0 to 1"),
            (0 <= pad_value <= 255, "pad_value", pad_value, "a grey value, 0 to 255"),
            (0 <= min_visibility <= 1, "min_visibility", min_visibility, "0 to 1"),
            (min_size >= 0, "min_size", min_size, "at least 0"),
        )
        for good, name, value, want in rules:
            if not good:
                raise ConfigError(f"Mosaic({name}={value!r}): needs {want}")
        self.scale, self.translate, self.p, self.pad_value = (float(scale[0]), float(scale[1])), translate, p, pad_value
        self.min_visibility, self.min_size = min_visibility, min_size
        self._process_draws = ProcessDraws([_SALT])

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Raises ConfigError for annotations that it cannot move, or where no data set offers other tiles."""
        _refuse_mask(results, "Mosaic")
        pool = results.pop("tile_pool", None)
        seed = results.get("sample_seed")
        if seed is None:
            seed = int(self._process_draws.generator().integers(2**32))
        rng = np.random.default_rng([_SALT, seed])
        joined = bool(rng.random() < self.p)
        if joined and pool is None:
            raise ConfigError(
                "Mosaic finds no other tiles: put it first in the pipeline of TileDetection, in no other transform"
            )
        tiles = [results, *(pool(mix_seed(_SALT, seed, number)) for number in range(3))] if joined else [results]
        for tile in tiles:
            check_movable(tile)
        canvas, boxes, areas, origin = self._joined(tiles, rng) if joined else self._alone(results)
        image, boxes, gain = self._moved(canvas, boxes, origin, rng)
        kept = self._visible(boxes, areas * gain**2)
        _take_annotations(results, tiles)
        if get_boxes(results) is not None:
            set_boxes(results, boxes[kept], kept)
        results["img"], results["img_shape"] = image, image.shape[:2]
        results |= dict.fromkeys(("x", "y", "downsample", "mpp"))
        return results

    def _joined(self, tiles: Sequence[dict[str, Any]], rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        """The canvas, the boxes on it as far as they are seen, their whole areas, and the canvas' middle."""
        width, height = self.size
        canvas = np.full((2 * height, 2 * width, 3), self.pad_value, np.uint8)
        x = round(rng.uniform(0.5 * width, 1.5 * width))
        y = round(rng.uniform(0.5 * height, 1.5 * height))
        boxes, areas = [], []
        for number, tile in enumerate(tiles):
            image, moved = _shrunk(tile, self.size)
            high, wide = image.shape[:2]
            left, top = x if number % 2 else x - wide, y if number // 2 else y - high
            x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + wide, 2 * width), min(top + high, 2 * height)
            canvas[y0:y1, x0:x1] = image[y0 - top : y1 - top, x0 - left : x1 - left]
            areas.append(_areas(moved))
            boxes.append(np.clip(moved + np.array([left, top] * 2), [x0, y0, x0, y0], [x1, y1, x1, y1]))
        return canvas, np.concatenate(boxes), np.concatenate(areas), np.array([width, height], float)

    def _alone(self, results: dict[str, Any]) -> tuple[np.ndarray, ...]:
        image, boxes = _shrunk(results, self.size)
        return image, boxes, _areas(boxes), np.array([image.shape[1], image.shape[0]]) / 2

    def _moved(
        self, canvas: np.ndarray, boxes: np.ndarray, origin: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """The middle of the canvas, scaled and moved, with boxes cut at its edges, and the factor."""
        gain = float(rng.uniform(*self.scale))
        size = np.array(self.size)
        shift = size * rng.uniform(0.5 - self.translate, 0.5 + self.translate, 2) - gain * origin
        # Corners of pixels move by `shift`; OpenCV counts from the middle of the first pixel.
        place = shift + 0.5 * (gain - 1)
        matrix = np.array([[gain, 0, place[0]], [0, gain, place[1]]])
        border = (self.pad_value,) * 3
        image = cv2.warpAffine(canvas, matrix, self.size, flags=cv2.INTER_LINEAR, borderValue=border)
        moved = boxes * gain + np.tile(shift, 2)
        return image, np.clip(moved, 0, np.tile(size, 2)), gain

    def _visible(self, boxes: np.ndarray, areas: np.ndarray) -> np.ndarray:
        """Which boxes are large enough, and show enough of what they were."""
        sides = boxes[:, 2:] - boxes[:, :2]
        enough = _areas(boxes) >= self.min_visibility * areas * (
            1 - 1e-6
        )  # a whole box passes whatever its last bit is
        return np.flatnonzero(enough & (sides.min(axis=1, initial=np.inf) >= max(self.min_size, 1e-3)))

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(size={self.size}, scale={self.scale}, translate={self.translate}, p={self.p}, "
            f"pad_value={self.pad_value}, min_visibility={self.min_visibility}, min_size={self.min_size})"
        )


def _take_annotations(results: dict[str, Any], tiles: Sequence[dict[str, Any]]) -> None:
    """Puts what belongs to each box of all tiles together, in their order."""
    for key in PER_BOX:
        if len(tiles) > 1 and results.get(key) is not None:
            results[key] = np.concatenate([np.asarray(tile[key]) for tile in tiles])


def _shrunk(tile: dict[str, Any], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A picture fitted into `size`, and its boxes there; smaller ones are enlarged."""
    image, boxes = tile["img"], get_boxes(tile)
    height, width = image.shape[:2]
    fitted = _fitted(image.shape, size, True)
    factors = np.array([fitted[0] / width, fitted[1] / height] * 2)
    return resample(image, fitted), (np.empty((0, 4)) if boxes is None else boxes) * factors


def _fitted(shape: Sequence[int], size: tuple[int, int], enlarge: bool) -> tuple[int, int]:
    """(width, height) of a picture of `shape` (h, w, ...) that just fits into `size`."""
    factor = min(size[0] / shape[1], size[1] / shape[0])
    factor = factor if enlarge else min(1.0, factor)
    return max(1, min(size[0], round(shape[1] * factor))), max(1, min(size[1], round(shape[0] * factor)))


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _checked_size(size: int | Sequence[int], name: str) -> tuple[int, int]:
    width, height = (size, size) if isinstance(size, int) else size
    if min(width, height) < 1:
        raise ConfigError(f"{name}(size={size}): needs at least 1 pixel each way")
    return int(width), int(height)


def _refuse_mask(results: dict[str, Any], name: str) -> None:
    check_movable(results)
    if results.get("gt_seg_map") is not None:
        raise ConfigError(f"{name} moves img and gt_bboxes, not 'gt_seg_map': leave the mask out")
