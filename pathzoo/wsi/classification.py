"""Classification over a slide: probabilities of every tile, and the files that show them."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pathzoo.errors import SlideError
from pathzoo.wsi.batches import read_batches
from pathzoo.wsi.geojson import class_regions, write_features
from pathzoo.wsi.outputs import write_csv
from pathzoo.wsi.overlay import overlay
from pathzoo.wsi.predictor import ClassProbs, Predictor
from pathzoo.wsi.slide import Slide
from pathzoo.wsi.stitching import heat_map
from pathzoo.wsi.tiling import TileGrid
from pathzoo.wsi.types import Float32, Mask, RGBBatch

#: Called with the tiles done and the tiles in all.
Progress = Callable[[int, int], None]

_OVERLAY_SIZE = 1400


@dataclass(frozen=True)
class SkippedTile:
    """A tile that could not be decoded: its level-0 corner and the reason."""

    x: int
    y: int
    reason: str


def classify_tiles(
    slide: Slide,
    grid: TileGrid,
    mpp: float,
    predictor: Predictor,
    batch_size: int,
    num_workers: int,
    progress: Progress | None,
    seconds: dict[str, float],
) -> tuple[Float32, tuple[SkippedTile, ...]]:
    """Predicts every tile of a grid.

    Args:
        slide: Where the tiles are read.
        grid: n tiles.
        mpp: Resolution to read them at (see `working_mpp`).
        predictor: A classifier of C classes.
        batch_size: Tiles per call.
        num_workers: Threads that read ahead.
        progress: Called after every batch with tiles done and tiles in all.
        seconds: Takes "model" and "waiting for tiles".

    Returns:
        (n, C) float32, rows of NaN for tiles that could not be read, and the list of these.

    Raises:
        SlideError: Not one tile can be read, or the model answers with NaN.
    """
    probs = np.full((len(grid), len(predictor.classes)), np.nan, np.float32)
    skipped: list[SkippedTile] = []
    corners, done, in_model, started = grid.corners, 0, 0.0, time.perf_counter()
    with closing(read_batches(slide, grid, mpp, batch_size, num_workers)) as batches:
        for good, tiles, bad in batches:
            skipped += [SkippedTile(int(corners[i, 0]), int(corners[i, 1]), reason) for i, reason in bad]
            if good:
                before = time.perf_counter()
                probs[good] = checked_probs(predictor, tiles)
                in_model += time.perf_counter() - before
            done += len(good) + len(bad)
            if progress is not None:
                progress(done, len(grid))
    if skipped and len(skipped) == len(grid):
        raise SlideError(f"{slide.path}: none of {len(grid)} tiles can be decoded; the first: {skipped[0].reason}")
    seconds["model"] = in_model
    seconds["waiting for tiles"] = time.perf_counter() - started - in_model
    return probs, tuple(skipped)


def checked_probs(predictor: Predictor, tiles: RGBBatch) -> Float32:
    """Calls a classifier and checks what comes back: (N, C) finite probabilities.

    Raises:
        TypeError, ValueError: Another kind of answer or another shape: a defect of the predictor.
        SlideError: NaN or infinite probabilities.
    """
    answer = predictor(tiles)
    if not isinstance(answer, ClassProbs):
        raise TypeError(f"predictor {predictor.name} answered {type(answer).__name__}, expected ClassProbs")
    expected = (len(tiles), len(predictor.classes))
    if answer.probs.shape != expected:
        raise ValueError(f"predictor {predictor.name} answered shape {answer.probs.shape}, expected {expected}")
    if not np.isfinite(answer.probs).all():
        raise SlideError(f"model {predictor.name}: probabilities are not finite numbers; its weights are unusable")
    return answer.probs


def write_classification(
    folder: Path,
    slide: Slide,
    predictor: Predictor,
    grid: TileGrid,
    probs: Float32,
    mask: Mask | None,
    counts: Mapping[str, int],
) -> None:
    """Writes tiles.csv, prediction.geojson and overlay.png into `folder`.

    Args:
        folder: An existing folder.
        slide: The slide; its mpp is known.
        predictor: Gives names for the files.
        grid: n tiles.
        probs: (n, C), rows of NaN for tiles that were skipped.
        mask: Tissue over the slide's bounds, or None where it was not looked for.
        counts: Tiles by predicted class.
    """
    classes = predictor.classes
    assert slide.mpp is not None
    write_csv(folder / "tiles.csv", tile_header(classes), tile_rows(grid, probs))
    heat = heat_map(grid, probs)
    key = f"{slide.path.name}|{predictor.name}|{predictor.version}|{predictor.digest}"
    features = class_regions(heat, classes, mpp=slide.mpp, origin=slide.bounds[:2], key=key)
    write_features(folder / "prediction.geojson", features)
    predicted = sum(counts.values())
    notes = [f"{predicted} tiles of {grid.tile_size[0]} × {grid.tile_size[1]} px"]
    notes += [f"at {slide.mpp * grid.downsample:.3g} µm per pixel"]
    notes += [f"{name}: {n} ({n / predicted:.0%})" for name, n in counts.items() if predicted]
    notes += [f"{len(grid) - predicted} tiles not readable"] if predicted < len(grid) else []
    notes += ["no tissue found"] if mask is not None and not mask.any() else []
    picture = overlay(
        slide.thumbnail(_OVERLAY_SIZE, slide.bounds),
        slide.bounds,
        heat,
        classes,
        slide.mpp,
        tissue=mask,
        title=slide.path.name,
        subtitle=f"{predictor.name} {predictor.version}",
        notes=notes,
    )
    Image.fromarray(picture).save(folder / "overlay.png")


def tile_header(classes: Sequence[str]) -> list[str]:
    """Column names of tiles.csv."""
    return ["minx", "miny", "width", "height", *(f"prob_{name}" for name in classes)]


def tile_rows(grid: TileGrid, probs: Float32) -> Iterator[list[object]]:
    """Rows of tiles.csv, in the grid's order, without the tiles that have no probabilities."""
    width, height = (int(np.ceil(side - 1e-6)) for side in grid.extent)
    for (x, y), row in zip(grid.corners, probs, strict=True):
        if not np.isnan(row).any():
            yield [int(x), int(y), width, height, *(f"{p:.6f}" for p in row)]
