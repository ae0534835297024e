"""Representation over a slide: a vector of every tile, and a picture of how they differ."""

from collections.abc import Iterable

import numpy as np

from pathzoo.errors import SlideError
from pathzoo.wsi.job import Outcome, SkippedTile, SlideJob, TileBatch
from pathzoo.wsi.npy_stream import NpyWriter
from pathzoo.wsi.outputs import write_csv, write_picture
from pathzoo.wsi.overlay import blend
from pathzoo.wsi.overlay_page import ClassLegend, enlarged, page, smooth, with_outline
from pathzoo.wsi.predictor import Embeddings, Prediction, Predictor
from pathzoo.wsi.principal import Principal, principal_components
from pathzoo.wsi.stitching import heat_map
from pathzoo.wsi.types import Float32

VECTORS = "embeddings.npy"
#: Tiles that the components are computed from, spread over the slide; and rows that are projected at once.
_FITTED, _BLOCK = 1024, 8192
#: Of the components' colours over the tissue, and the share of tiles beyond either end of the scale.
_OPACITY, _TAIL = 0.6, 0.02
_RED, _GREEN, _BLUE = (200, 40, 40), (40, 160, 40), (50, 70, 210)


def represent(job: SlideJob, batches: Iterable[TileBatch]) -> Outcome:
    """Writes embeddings.npy, tiles.csv and overlay.png; a `pathzoo.wsi.job.Task`.

    `embeddings.npy` is float32 (N, D); row n is the vector of row n of tiles.csv (minx, miny, width, height: level-0
    pixels of the slide). A tile of which any part cannot be decoded has a row in neither. There is no
    prediction.geojson: vectors are no finding. In the overlay red, green and blue are the first three principal
    components of this slide's own vectors; colours of two slides do not compare.

    Vectors go to the file as they come; only a sample of them is held in memory.

    Raises:
        SlideError: Not one tile can be read, or the model answers with NaN.
    """
    grid = job.grid
    known = np.zeros(len(grid), bool)
    skipped: list[SkippedTile] = []
    with NpyWriter(job.folder / VECTORS) as table:
        for batch in job.tracked(batches):  # in the grid's order, so that rows are, too
            skipped += job.skipped(batch)
            good = [i for i, number in enumerate(batch.numbers.tolist()) if number not in batch.damage]
            if good:
                tiles = batch.pixels if len(good) == len(batch) else batch.pixels[good]
                table.append(check_vectors(job.predictor, job.predict(tiles), len(good)))
                known[batch.numbers[good]] = True
    if skipped and len(skipped) == len(grid):
        raise SlideError(f"{job.slide.path}: none of {len(grid)} tiles can be decoded; the first: {skipped[0].reason}")
    width, height = (int(np.ceil(side - 1e-6)) for side in grid.extent)
    corners = ((int(x), int(y), width, height) for x, y in grid.corners[known])
    write_csv(job.folder / "tiles.csv", ("minx", "miny", "width", "height"), corners)
    components = _draw(job, known, len(skipped))
    record = {
        "rows": table.rows,
        "dimensions": table.columns,
        "dtype": "float32",
        "overlay_variance": [round(float(value), 6) for value in components.share] if components else [],
    }
    return Outcome({"embedded": table.rows}, "tiles", tuple(skipped), record={"embeddings": record})


def checked_vectors(predictor: Predictor, tiles: np.ndarray) -> Float32:
    """Calls an encoder on (N, H, W, 3) tiles and checks what comes back; see `check_vectors`."""
    return check_vectors(predictor, predictor(tiles), len(tiles))


def check_vectors(predictor: Predictor, answer: Prediction, n: int) -> Float32:
    """An encoder's answer for n tiles as (n, D) finite numbers.

    Raises:
        TypeError, ValueError: Another kind of answer or another shape: a defect of the predictor.
        SlideError: NaN or infinite numbers.
    """
    if not isinstance(answer, Embeddings):
        raise TypeError(f"predictor {predictor.name} answered {type(answer).__name__}, expected Embeddings")
    if answer.vectors.ndim != 2 or len(answer.vectors) != n:
        raise ValueError(f"predictor {predictor.name} answered shape {answer.vectors.shape}, expected ({n}, D)")
    if not np.isfinite(answer.vectors).all():
        raise SlideError(f"model {predictor.name}: vectors hold values that are no numbers; its weights are unusable")
    return answer.vectors


def component_colors(vectors: Float32) -> tuple[Float32, Principal]:
    """The first three principal components of vectors as red, green and blue.

    Args:
        vectors: (N, D), N >= 1, in memory or mapped from a file; read in blocks.

    Returns:
        (N, 3) float32 in 0..255, each component stretched from its 2nd to its 98th percentile (128 where all are one),
        and the components, fitted to at most 1,024 vectors spread evenly over the rows.
    """
    step = -(-len(vectors) // _FITTED)
    components = principal_components(np.asarray(vectors[::step], np.float32), 3)
    blocks = (vectors[first : first + _BLOCK] for first in range(0, len(vectors), _BLOCK))
    values = np.concatenate([components.project(np.asarray(block, np.float32)).astype(np.float32) for block in blocks])
    low, high = np.quantile(values, (_TAIL, 1 - _TAIL), axis=0)
    spread = np.where(high > low, high - low, 1)
    scaled = np.where(high > low, (values - low) / spread, 0.5)
    return (scaled.clip(0, 1) * 255).astype(np.float32), components


def _draw(job: SlideJob, known: np.ndarray, n_skipped: int) -> Principal | None:
    """Writes overlay.png; the components that it shows, None where there is no tile."""
    slide, grid = job.slide, job.grid
    assert slide.mpp is not None
    thumbnail = enlarged(job.thumbnail)
    height, width = thumbnail.shape[:2]
    stained = None if job.tissue is None else smooth(job.tissue, width, height)
    components: Principal | None = None
    colors = np.full((len(grid), 3), np.nan, np.float32)
    if known.any():
        colors[known], components = component_colors(np.load(job.folder / VECTORS, mmap_mode="r"))
    heat = heat_map(grid, colors)
    there = np.asarray(~np.isnan(heat.probs).any(axis=2))
    tint = np.where(there[..., None], heat.probs, 0).astype(np.float32)
    picture = blend(thumbnail, tint, (there * _OPACITY).astype(np.float32), slide.bounds, heat, weight=stained)
    if stained is not None:
        picture = with_outline(picture, np.asarray(stained > 0.5))
    notes = [f"{int(known.sum())} tiles of {grid.tile_size[0]} × {grid.tile_size[1]} px"]
    notes += [f"at {slide.mpp * grid.downsample:.3g} µm per pixel", "colours hold for this slide alone"]
    notes += [f"{n_skipped} tiles not readable"] if n_skipped else []
    notes += ["no tissue found"] if job.tissue is not None and not job.tissue.any() else []
    share = components.share if components else np.zeros(3)
    names = (f"{place}: {part:.0%} of variance" for place, part in zip(("1st", "2nd", "3rd"), share, strict=True))
    legend = ClassLegend("Principal components", dict(zip(names, (_RED, _GREEN, _BLUE), strict=True)))
    shown = {"title": job.page["title"], "subtitle": job.page["subtitle"], "outlined": stained is not None}
    sheet = page(picture, slide.mpp * slide.bounds[2] / width, legend, **shown, notes=notes)
    write_picture(job.folder / "overlay.png", sheet)
    return components
