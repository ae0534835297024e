"""Small slides and rule-based predictors for the tests of wsi/."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from pathzoo.wsi.predictor import ClassProbs, InputSpec


def save_slide(path: Path, image: np.ndarray, mpp: float | None, levels: int = 1, compression: str = "deflate") -> Path:
    """A tiled (pyramidal) TIFF that OpenSlide opens as generic-tiff; level k is every 2**k-th pixel."""
    resolution = {} if mpp is None else {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path) as writer:
        for level in range(levels):
            writer.write(
                np.ascontiguousarray(image[:: 2**level, :: 2**level]),
                tile=(128, 128),
                photometric="rgb",
                compression=compression,
                subfiletype=int(level > 0),
                metadata=None,
                **resolution,
            )
    return path


def draw_tissue(width: int = 1000, height: int = 800, seed: int = 0) -> np.ndarray:
    """White glass with noise, a pink disc, a dark purple disc inside it, and a hole."""
    rng = np.random.default_rng(seed)
    image = rng.integers(238, 246, (height, width, 3)).astype(np.uint8)
    y, x = np.mgrid[:height, :width]
    distance = np.hypot(x - 0.45 * width, y - 0.5 * height)
    noise = rng.integers(-12, 13, (height, width, 3))
    image[distance < 300] = (np.array([225, 150, 190]) + noise)[distance < 300]
    image[distance < 150] = (np.array([110, 60, 140]) + noise)[distance < 150]
    image[distance < 60] = 243
    return image


class Darkness:
    """A classifier by rule: the darker the tile, the more malignant."""

    name, version, digest, task = "darkness", "1.0.0", "", "classification"
    classes = ("benign", "malignant")

    def __init__(self, tile: int = 128, mpp: float | None = 0.5, tolerance: float = 0.1) -> None:
        self.input = InputSpec((tile, tile), mpp, tolerance)
        self.sizes: list[int] = []

    def __call__(self, tiles: np.ndarray, /) -> ClassProbs:
        assert tiles.dtype == np.uint8
        assert tiles.shape[1:] == (self.input.tile_size[1], self.input.tile_size[0], 3)
        self.sizes.append(len(tiles))
        return ClassProbs(np.array([self.rule(tile) for tile in tiles], np.float32))

    @staticmethod
    def rule(tile: np.ndarray) -> tuple[float, float]:
        p = 1 - float(tile.mean()) / 255
        return 1 - p, p


@pytest.fixture
def make_slide(tmp_path: Path) -> Callable[..., Path]:
    def make(image: np.ndarray | None = None, mpp: float | None = 0.5, name: str = "slide.tif", **options) -> Path:
        return save_slide(tmp_path / name, draw_tissue() if image is None else image, mpp, **options)

    return make


@pytest.fixture
def tissue_image() -> np.ndarray:
    return draw_tissue()


@pytest.fixture
def darkness() -> type[Darkness]:
    return Darkness
