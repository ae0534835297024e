"""Classification over a slide: probabilities of every tile, and the files that show them."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from pathzoo.errors import SlideError
from pathzoo.wsi.geojson import class_regions, write_features
from pathzoo.wsi.job import Outcome, SkippedTile, SlideJob, TileBatch
from pathzoo.wsi.outputs import write_csv, write_picture
from pathzoo.wsi.overlay import overlay
from pathzoo.wsi.predictor import ClassProbs, Prediction, Predictor
from pathzoo.wsi.stitching import heat_map
from pathzoo.wsi.tiling import TileGrid
from pathzoo.wsi.types import Float32, RGBBatch


def classify(job: SlideJob, batches: Iterable[TileBatch]) -> Outcome:
    """Classifies every tile and writes tiles.csv, prediction.geojson and overlay.png; a `pathzoo.wsi.job.Task`.

    A tile of which any part cannot be decoded gets no prediction.

    Raises:
        SlideError: Not one tile can be read, or the model answers with NaN.
    """
    grid, classes = job.grid, job.predictor.classes
    probs = np.full((len(grid), len(classes)), np.nan, np.float32)
    skipped: list[SkippedTile] = []
    for batch in job.tracked(batches):
        skipped += job.skipped(batch)
        good = [i for i, number in enumerate(batch.numbers.tolist()) if number not in batch.damage]
        if good:
            tiles = batch.pixels if len(good) == len(batch) else batch.pixels[good]
            probs[batch.numbers[good]] = check_probs(job.predictor, job.predict(tiles), len(good))
    if skipped and len(skipped) == len(grid):
        raise SlideError(f"{job.slide.path}: none of {len(grid)} tiles can be decoded; the first: {skipped[0].reason}")
    known = probs[~np.isnan(probs).any(axis=1)]
    best = np.bincount(known.argmax(axis=1), minlength=len(classes)) if len(known) else np.zeros(len(classes), int)
    outcome = Outcome({name: int(n) for name, n in zip(classes, best, strict=True)}, "tiles", tuple(skipped))
    _write(job, probs, outcome)
    return outcome


def checked_probs(predictor: Predictor, tiles: RGBBatch) -> Float32:
    """Calls a classifier on (N, H, W, 3) tiles and checks what comes back; see `check_probs`."""
    return check_probs(predictor, predictor(tiles), len(tiles))


def check_probs(predictor: Predictor, answer: Prediction, n: int) -> Float32:
    """A classifier's answer for n tiles as (n, C) finite probabilities.

    Raises:
        TypeError, ValueError: Another kind of answer or another shape: a defect of the predictor.
        SlideError: NaN or infinite probabilities.
    """
    if not isinstance(answer, ClassProbs):
        raise TypeError(f"predictor {predictor.name} answered {type(answer).__name__}, expected ClassProbs")
    expected = (n, len(predictor.classes))
    if answer.probs.shape != expected:
        raise ValueError(f"predictor {predictor.name} answered shape {answer.probs.shape}, expected {expected}")
    if not np.isfinite(answer.probs).all():
        raise SlideError(f"model {predictor.name}: probabilities are not finite numbers; its weights are unusable")
    return answer.probs


def _write(job: SlideJob, probs: Float32, outcome: Outcome) -> None:
    slide, grid, classes = job.slide, job.grid, job.predictor.classes
    assert slide.mpp is not None
    write_csv(job.folder / "tiles.csv", tile_header(classes), tile_rows(grid, probs))
    heat = heat_map(grid, probs)
    features = class_regions(heat, classes, mpp=slide.mpp, origin=slide.bounds[:2], key=job.key)
    write_features(job.folder / "prediction.geojson", features)
    predicted = int(sum(outcome.counts.values()))
    notes = [f"{predicted} tiles of {grid.tile_size[0]} × {grid.tile_size[1]} px"]
    notes += [f"at {slide.mpp * grid.downsample:.3g} µm per pixel"]
    notes += [f"{name}: {n} ({n / predicted:.0%})" for name, n in outcome.counts.items() if predicted]
    notes += [f"{len(grid) - predicted} tiles not readable"] if predicted < len(grid) else []
    notes += ["no tissue found"] if job.tissue is not None and not job.tissue.any() else []
    picture = overlay(
        job.thumbnail,
        slide.bounds,
        heat,
        classes,
        slide.mpp,
        **job.page,
        notes=notes,
    )
    write_picture(job.folder / "overlay.png", picture)


def tile_header(classes: Sequence[str]) -> list[str]:
    """Column names of tiles.csv."""
    return ["minx", "miny", "width", "height", *(f"prob_{name}" for name in classes)]


def tile_rows(grid: TileGrid, probs: Float32) -> Iterator[list[object]]:
    """Rows of tiles.csv, in the grid's order, without the tiles that have no probabilities."""
    width, height = (int(np.ceil(side - 1e-6)) for side in grid.extent)
    for (x, y), row in zip(grid.corners, probs, strict=True):
        if not np.isnan(row).any():
            yield [int(x), int(y), width, height, *(f"{p:.6f}" for p in row)]
