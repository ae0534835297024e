"""Predicts a whole region by tiles: the class of every pixel, and how sure the network is of it.

One region at a time, and of it one row of tiles on the model's device: memory is (C + 1) * tile * width * 4 bytes there
and 2 bytes a pixel here. A region's tiles never share a batch with another region's, so that its answer does not
depend on who else is predicted by the same process.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmengine.structures import BaseDataElement
from numpy.typing import NDArray
from torch import nn

from pathzoo.engine.self_training.confidence import levels_of
from pathzoo.errors import ConfigError
from pathzoo.nearest import did_you_mean
from pathzoo.wsi.blending import window

#: name -> (quarter turns, whether mirrored before) of the views whose answers are averaged.
VIEWS: dict[str, tuple[tuple[int, bool], ...]] = {
    "none": ((0, False),),
    "flips": ((0, False), (0, True), (2, False), (2, True)),
    "d4": tuple((turns, mirrored) for mirrored in (False, True) for turns in range(4)),
}
#: What lies beyond a region that is smaller than a tile: glass.
_WHITE = 255


@dataclass(frozen=True)
class Tiling:
    """How a region is cut and seen.

    Args:
        tile: Side of a tile in pixels of the region.
        stride: Pixels from one tile to the next, None for three quarters of a tile; the last of a row or column is
            moved inwards to end with the region.
        tta: "none", "flips" (4 views) or "d4" (8 views: flips and quarter turns); their probabilities are averaged.
        batch_size: Tiles that go through the network at once.

    Raises:
        ConfigError: A number out of range, or an unknown kind of views.
    """

    tile: int = 256
    stride: int | None = None
    tta: str = "none"
    batch_size: int = 8

    def __post_init__(self) -> None:
        for name in ("tile", "batch_size"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"{name}={value!r}: give a whole number, 1 or more")
        if self.stride is None:
            object.__setattr__(self, "stride", max(1, self.tile * 3 // 4))
        if not isinstance(self.stride, int) or not 1 <= self.stride <= self.tile:
            raise ConfigError(f"stride={self.stride!r}: give pixels from 1 to the tile's {self.tile}")
        if self.tta not in VIEWS:
            raise ConfigError(f"tta={self.tta!r}{did_you_mean(str(self.tta), VIEWS)}")


@torch.inference_mode()
def predict_region(
    model: nn.Module, image: NDArray[np.uint8], n_classes: int, tiling: Tiling
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Predicts one picture; a pixel's probabilities are the mean over tiles, weighted as in `pathzoo.wsi.blending`.

    Args:
        model: One of mmseg's segmentors (or one with its `forward` and `data_preprocessor`), in evaluation mode.
        image: (H, W, 3) uint8 RGB.
        n_classes: C.
        tiling: How it is cut and seen.

    Returns:
        (H, W) uint8 class of the highest probability, and (H, W) uint8 level of that probability (`confidence.py`).

    Raises:
        ConfigError: The network gives other than C channels at the tile's size, or no finite probabilities.
    """
    height, width = image.shape[:2]
    tile = tiling.tile
    below, beyond = max(0, tile - height), max(0, tile - width)
    if below or beyond:
        image = np.pad(image, ((0, below), (0, beyond), (0, 0)), constant_values=_WHITE)
    tops, lefts = (tile_starts(length, tile, tiling.stride) for length in image.shape[:2])
    device = next(model.parameters()).device
    band = _Band(n_classes, image.shape[1], tops, lefts, image.shape[0], tile, device)
    for cells in _chunks([(row, column) for row in range(len(tops)) for column in range(len(lefts))], tiling):
        crops = [image[tops[r] : tops[r] + tile, lefts[c] : lefts[c] + tile] for r, c in cells]
        tiles = torch.from_numpy(np.stack(crops)).to(device).permute(0, 3, 1, 2)
        for (row, column), probs in zip(cells, seen_probabilities(model, tiles, n_classes, tiling.tta), strict=True):
            band.add(row, column, probs)
    predicted, confidence = band.finish()
    return predicted[:height, :width], confidence[:height, :width]


def seen_probabilities(model: nn.Module, tiles: torch.Tensor, n_classes: int, tta: str) -> torch.Tensor:
    """Probabilities (N, C, H, W) of square tiles (N, 3, H, W), averaged over the views that `tta` names."""
    views = VIEWS[tta]
    total: torch.Tensor | None = None
    for turns, mirrored in views:
        view = torch.rot90(tiles.flip(3) if mirrored else tiles, turns, (2, 3)).contiguous()
        probs = torch.rot90(probabilities(model, view, n_classes), -turns, (2, 3))
        probs = probs.flip(3) if mirrored else probs
        total = probs if total is None else total + probs
    assert total is not None
    return total / len(views)


def probabilities(model: nn.Module, tiles: torch.Tensor, n_classes: int) -> torch.Tensor:
    """The network's own prediction in the tile's pixels, as training and testing normalise: (N, C, H, W) float32.

    Raises:
        ConfigError: Another number of channels or another size.
    """
    shape = tuple(tiles.shape[2:])
    sizes = dict.fromkeys(("ori_shape", "img_shape", "pad_shape", "batch_input_shape"), shape)
    samples = [BaseDataElement(metainfo={**sizes, "scale_factor": (1.0, 1.0)}) for _ in range(len(tiles))]
    preprocess: Any = model.data_preprocessor
    data = preprocess({"inputs": list(tiles), "data_samples": samples}, False)
    answers = model(data["inputs"], data["data_samples"], mode="predict")
    logits = torch.stack([answer.seg_logits.data for answer in answers]).float()
    if tuple(logits.shape[1:]) != (n_classes, *shape):
        raise ConfigError(
            f"the model answers {tuple(logits.shape[1:])} for a tile, self-training needs {(n_classes, *shape)}: one "
            "channel for each class of the data (num_classes, and no out_channels=1), at the size of the tile"
        )
    return torch.softmax(logits, dim=1)


class _Band:
    """One row of tiles on the device, summed by weight; what no later row reaches becomes class and level."""

    def __init__(
        self,
        n_classes: int,
        width: int,
        tops: list[int],
        lefts: list[int],
        height: int,
        tile: int,
        device: torch.device,
    ) -> None:
        self._tile, self._tops, self._lefts, self._row = tile, [*tops, height], lefts, 0
        weights = torch.from_numpy(window(tile)).to(device)
        self._window = weights[:, None] * weights[None, :]
        self._sums = torch.zeros((n_classes, tile, width), device=device)
        self._weights = torch.zeros((tile, width), device=device)
        self._predicted = np.empty((height, width), np.uint8)
        self._confidence = np.empty((height, width), np.uint8)

    def add(self, row: int, column: int, probs: torch.Tensor) -> None:
        """Adds (C, tile, tile); tiles come row by row."""
        if row != self._row:
            self._end_row()
        part = slice(self._lefts[column], self._lefts[column] + self._tile)
        self._sums[:, :, part] += probs * self._window
        self._weights[:, part] += self._window

    def finish(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Ends the last row and gives the whole picture."""
        self._end_row()
        return self._predicted, self._confidence

    def _end_row(self) -> None:
        top, bottom = self._tops[self._row], self._tops[self._row + 1]
        done, left = bottom - top, self._tile - (bottom - top)
        best, index = (self._sums[:, :done] / self._weights[:done]).max(dim=0)
        if not bool(torch.isfinite(best).all()):
            raise ConfigError(
                "the model's probabilities are not finite numbers: the training has diverged; lower the learning "
                "rate, or clip gradients, and resume from a checkpoint before that"
            )
        self._predicted[top:bottom] = index.to(torch.uint8).cpu().numpy()
        self._confidence[top:bottom] = levels_of(best).cpu().numpy()
        for sums in (self._sums, self._weights):
            sums[..., :left, :] = sums[..., done:, :].clone()
            sums[..., left:, :] = 0
        self._row += 1


def tile_starts(length: int, tile: int, stride: int) -> list[int]:
    """First pixels of tiles along an axis of at least a tile's length; the last tile ends with the axis."""
    count = -(-(length - tile) // stride) + 1
    return [min(number * stride, length - tile) for number in range(count)]


def _chunks(cells: list[tuple[int, int]], tiling: Tiling) -> Iterator[list[tuple[int, int]]]:
    for start in range(0, len(cells), tiling.batch_size):
        yield cells[start : start + tiling.batch_size]
