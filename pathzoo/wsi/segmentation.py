"""Segmentation over a slide: the class of every pixel, stitched, and the files that show it."""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import shapely
from shapely.geometry import Polygon

from pathzoo.errors import SlideError
from pathzoo.wsi.blending import Blender, Block, Canvas, PlacedTile, canvas
from pathzoo.wsi.colors import is_background, segment_colors
from pathzoo.wsi.geojson import Feature, annotation, area_measurements, write_features
from pathzoo.wsi.job import Outcome, SkippedTile, SlideJob, TileBatch
from pathzoo.wsi.mask_tiff import NOT_PREDICTED, Labels, full_disk_told, write_mask
from pathzoo.wsi.outlines import MIN_PIXELS, TOLERANCE, Outline, Outliner
from pathzoo.wsi.outputs import write_picture
from pathzoo.wsi.overlay import overlay_mask
from pathzoo.wsi.predictor import Prediction, Predictor, SegProbs
from pathzoo.wsi.tile_sources import tile_sources
from pathzoo.wsi.tiling import TileGrid
from pathzoo.wsi.types import RGB, Float32, Int64, RGBBatch

#: Of the class that has neither regions nor a colour in the overlay, in mask.tif.
#: Probabilities may leave 0..1 by this much, for rounding in half precision.
_SLACK = 1e-2


def segment(job: SlideJob, batches: Iterable[TileBatch]) -> Outcome:
    """Segments a slide and writes mask.tif, prediction.geojson and overlay.png; a `pathzoo.wsi.job.Task`.

    A pixel has the class of the highest probability, blended over the tiles that cover it (see `Blender`); it is 255 in
    mask.tif where no tile lies or none could be decoded. Every pixel of a tile counts, also beside the tissue for which
    the tile was laid. Regions in the GeoJSON are outlines of the mask, simplified (see `Outliner`).

    A class that is background (see `is_background`) has no regions and is not drawn.

    `job.settings` may hold `outline_tolerance` (pixels of the mask; 0 gives exact outlines) and `min_region_pixels`.

    Returns:
        Square microns by class; damaged tiles in `skipped`; what the outlines were made with in `record`.

    Raises:
        SlideError: Not one tile can be read, the model answers with NaN, or the disk is full.
        TypeError, ValueError: Another kind of answer or another shape: a defect of the predictor.
    """
    place, classes = canvas_of(job), job.predictor.classes
    tolerance = float(job.settings.get("outline_tolerance", TOLERANCE))
    min_pixels = int(job.settings.get("min_region_pixels", MIN_PIXELS))
    drawn = [index for index, name in enumerate(classes) if not is_background(name)]
    outliner = Outliner(place.width, drawn, tolerance, min_pixels)
    pixels = np.zeros(len(classes), np.int64)
    skipped: list[SkippedTile] = []

    def bands() -> Iterator[Labels]:
        tiles = placed_tiles(job, batches, skipped)
        for band in label_bands(Blender(place, len(classes)).blocks(tiles), place):
            pixels[:] += [np.count_nonzero(band == index) for index in range(len(classes))]
            outliner.add(band)
            yield band

    size = place.width, place.height
    colors = segment_colors(classes)
    coarse = write_mask(job.folder / "mask.tif", bands(), size, job.mpp, classes, colors)
    outlines = outliner.finish()
    record = {
        "mask": {"size": list(size), "mpp": job.mpp, "not_predicted_pixels": int(size[0] * size[1] - pixels.sum())},
        "outlines": {"tolerance_pixels": tolerance, "min_pixels": min_pixels, "regions": len(outlines)},
    }
    areas = {name: float(n) * job.mpp**2 for name, n in zip(classes, pixels.tolist(), strict=True)}
    outcome = Outcome(areas, "µm²", tuple(skipped), record=record)
    with full_disk_told(job.folder / "prediction.geojson"):
        write_features(job.folder / "prediction.geojson", features(job, outlines))
    with full_disk_told(job.folder / "overlay.png"):
        write_picture(job.folder / "overlay.png", _overlay(job, coarse, outcome))
    return outcome


def canvas_of(job: SlideJob) -> Canvas:
    """The picture that the job's tiles make, each laid where the slide is read for it."""

    def level_pixels(grid: TileGrid) -> Int64:
        sources = tile_sources(job.slide, grid, job.mpp)
        return np.array([next(sources.windows(number)).source[:2] for number in range(len(grid))], np.int64)

    return canvas(job.grid, level_pixels if tile_sources(job.slide, job.grid, job.mpp).exact else None)


def placed_tiles(job: SlideJob, batches: Iterable[TileBatch], skipped: list[SkippedTile]) -> Iterator[PlacedTile]:
    """The answers for the tiles that can be read, at least in part, in order; adds the damaged ones to `skipped`.

    Raises:
        SlideError: There are tiles, and not one can be read.
    """
    lost = 0
    for batch in job.tracked(batches):
        skipped += job.skipped(batch)
        gone = job.wholly_damaged(batch)
        good = [i for i, number in enumerate(batch.numbers.tolist()) if number not in gone]
        lost += len(gone)
        if not good:
            continue
        tiles = batch.pixels if len(good) == len(batch) else batch.pixels[good]
        probs = check_maps(job.predictor, job.predict(tiles), tiles)
        for i, values in zip(good, probs, strict=True):
            number = int(batch.numbers[i])
            row, column = job.grid.cells[number].tolist()
            yield PlacedTile(row, column, values, batch.damage[number][0] if number in batch.damage else None)
    if lost and lost == len(job.grid):
        raise SlideError(f"{job.slide.path}: none of {lost} tiles can be decoded; the first: {skipped[0].reason}")


def check_maps(predictor: Predictor, answer: Prediction, tiles: RGBBatch) -> Float32:
    """A segmenter's answer for (N, H, W, 3) tiles as (N, C, H, W) float32 probabilities.

    Raises:
        TypeError, ValueError: Another kind of answer, another shape (a coarser answer is not upsampled here: how is the
            model's affair) or values outside 0..1: a defect of the predictor.
        SlideError: NaN or infinite probabilities.
    """
    if not isinstance(answer, SegProbs):
        raise TypeError(f"predictor {predictor.name} answered {type(answer).__name__}, expected SegProbs")
    n, height, width = tiles.shape[:3]
    expected = (n, len(predictor.classes), height, width)
    if answer.probs.shape != expected:
        raise ValueError(f"predictor {predictor.name} answered shape {answer.probs.shape}, expected {expected}")
    low, high = float(answer.probs.min(initial=0)), float(answer.probs.max(initial=0))  # NaN comes through both
    if not (np.isfinite(low) and np.isfinite(high)):
        raise SlideError(f"model {predictor.name}: probabilities are not finite numbers; its weights are unusable")
    if low < -_SLACK or high > 1 + _SLACK:
        raise ValueError(f"predictor {predictor.name} answered values in {low:g}..{high:g}, not probabilities in 0..1")
    return np.asarray(answer.probs, np.float32)


def label_bands(blocks: Iterable[Block], place: Canvas) -> Iterator[Labels]:
    """Finished blocks, row by row, as bands of class indices over the whole width; 255 where nothing is known."""
    band: Labels | None = None
    for block in blocks:
        if band is None:
            band = np.full((block.height, place.width), NOT_PREDICTED, np.uint8)
        if block.sums is not None and block.weights is not None:
            band[:, block.x : block.x + block.width] = _best(block.sums, block.weights)
        if block.x + block.width == place.width:
            yield band
            band = None


def features(job: SlideJob, outlines: Iterable[Outline]) -> Iterator[Feature]:
    """Outlines as QuPath annotations, in level-0 pixels from the corner of the slide's bounds.

    Measurements (see `area_measurements`) are of what the class has in the mask, not of the simplified polygon.
    """
    colors = segment_colors(job.predictor.classes)
    for outline in outlines:
        name = job.predictor.classes[outline.label]
        measurements = area_measurements(outline.pixels * job.mpp**2)
        yield annotation(_on_slide(outline.polygon, job), name, colors[name], measurements, f"{job.key}|{name}")


def _best(sums: Float32, weights: Float32) -> Labels:
    """Index of the largest of (C, h, w); the first of equals. 255 where the weight is 0."""
    best, labels = sums[0].copy(), np.zeros(weights.shape, np.uint8)
    for index in range(1, len(sums)):
        np.putmask(labels, sums[index] > best, np.uint8(index))
        np.maximum(best, sums[index], out=best)
    np.putmask(labels, weights <= 0, np.uint8(NOT_PREDICTED))
    return labels


def _on_slide(polygon: Polygon, job: SlideJob) -> Polygon:
    """From pixels of the mask to level-0 pixels, to two decimals, inside the region."""
    region, bounds = job.grid.region, job.slide.bounds
    offset = np.array(region[:2]) - bounds[:2]
    inside = shapely.transform(polygon, lambda xy: np.minimum(xy * job.grid.downsample, region[2:]) + offset)
    rounded = shapely.transform(inside, lambda xy: np.round(xy, 2))
    # Moving corners by so little may still make a slanting edge cross one that it nearly touches.
    plain = shapely.transform(polygon, lambda xy: xy * job.grid.downsample + offset)
    return next((figure for figure in (rounded, inside) if figure.is_valid), plain)


def _overlay(job: SlideJob, coarse: Labels, outcome: Outcome) -> RGB:
    slide, classes = job.slide, job.predictor.classes
    assert slide.mpp is not None
    hidden = [name for name in classes if is_background(name)]
    return overlay_mask(
        job.thumbnail,
        job.grid.region,
        coarse.astype(np.int64),
        classes,
        slide.mpp,
        **job.page,
        notes=_notes(job, outcome, hidden),
        colors=segment_colors(classes),
        hidden=hidden,
    )


def _notes(job: SlideJob, outcome: Outcome, hidden: list[str]) -> list[str]:
    shown: Mapping[str, float] = {name: area for name, area in outcome.counts.items() if name not in hidden}
    whole = sum(outcome.counts.values())
    notes = [f"at {job.mpp:.3g} µm per pixel"]
    notes += [f"{name}: {_area(area)} ({area / whole:.0%})" for name, area in shown.items() if whole]
    notes += [f"{len(outcome.skipped)} tiles not wholly readable"] if outcome.skipped else []
    notes += ["no tissue found"] if job.tissue is not None and not job.tissue.any() else []
    return notes


def _area(square_microns: float) -> str:
    return f"{square_microns / 1e6:.3g} mm²" if square_microns >= 1e4 else f"{square_microns:.3g} µm²"
