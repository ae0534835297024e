"""Segmenters by rule, and what runs them over a slide without the stream: for the tests of segmentation."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from pathzoo.wsi.job import Outcome, SlideJob, TileBatch
from pathzoo.wsi.predictor import InputSpec, SegProbs
from pathzoo.wsi.segmentation import segment
from pathzoo.wsi.slide import Slide
from pathzoo.wsi.tiling import tile_grid


class Bins:
    """A segmenter by rule: the class of a pixel is the bin of its green value."""

    name, version, digest, task = "bins", "1.0.0", "", "segmentation"

    def __init__(self, classes: int = 3, tile=(48, 32), mpp: float = 0.5) -> None:
        self.classes = ("Background", *(f"class {i}" for i in range(1, classes)))
        self.input = InputSpec(tile, mpp)
        self.calls: list[int] = []

    def __call__(self, tiles: np.ndarray, /) -> SegProbs:
        self.calls.append(len(tiles))
        label = self.rule(tiles)
        n = len(self.classes)
        probs = np.where(label[:, None] == np.arange(n)[:, None, None], 0.6, 0.4 / (n - 1))
        return SegProbs(probs.astype(np.float32))

    def rule(self, image: np.ndarray) -> np.ndarray:
        return image[..., 1].astype(int) * len(self.classes) // 256


class Mirror(Bins):
    """Returns its input."""

    def __call__(self, tiles: np.ndarray, /) -> SegProbs:
        return SegProbs(tiles.transpose(0, 3, 1, 2).astype(np.float32) / 255)


def read(slide: Slide, grid, mpp: float, batch_size: int, damage=None) -> Iterator[TileBatch]:
    """Tiles as a stream gives them; `damage` (number -> mask) is made white."""
    corners, (width, height) = grid.corners.tolist(), grid.tile_size
    for start in range(0, len(grid), batch_size):
        numbers = np.arange(start, min(start + batch_size, len(grid)))
        pixels = np.stack([slide.read(*corners[n], width, height, mpp) for n in numbers])
        bad = {int(n): (damage[n], "corrupt JPEG tile") for n in numbers if damage and n in damage}
        for n, (mask, _) in bad.items():
            pixels[n - start][mask] = 255
        yield TileBatch(numbers, pixels, bad)


def run(
    path: Path, folder: Path, predictor, overlap=0.0, batch_size=4, tissue=None, damage=None, bounds=None, **settings
) -> Outcome:
    folder.mkdir(exist_ok=True)
    with Slide(path) as slide:
        slide.bounds = bounds or slide.bounds
        mpp = slide.resolve_mpp(predictor.input.mpp)
        grid = tile_grid(slide.bounds, predictor.input.tile_size, mpp / slide.mpp, overlap, tissue)
        job = SlideJob(
            slide, grid, mpp, predictor, tissue, slide.thumbnail(1400, slide.bounds), folder, "slide", settings=settings
        )
        return segment(job, read(slide, grid, mpp, batch_size, damage))


def mask_of(folder: Path) -> np.ndarray:
    return tifffile.imread(folder / "mask.tif", key=0)


def draw(width: int, height: int, seed: int = 0) -> np.ndarray:
    """Soft blobs of every grey."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (max(2, height // 12), max(2, width // 12), 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))
