"""One model over one slide: grid, read, predict, write."""

import os
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pathzoo.errors import SlideError
from pathzoo.fileio import write_json
from pathzoo.wsi.batches import read_batches
from pathzoo.wsi.classification import classify
from pathzoo.wsi.job import Outcome, Progress, SkippedTile, SlideJob, Task
from pathzoo.wsi.outputs import atomic_folder, package_versions
from pathzoo.wsi.predictor import Predictor
from pathzoo.wsi.slide import Slide
from pathzoo.wsi.tiling import tile_grid
from pathzoo.wsi.tissue import tissue_mask
from pathzoo.wsi.types import Mask

#: Tissue is looked for at this resolution (microns per pixel), or coarser on slides that would exceed the size.
_TISSUE_MPP, _TISSUE_SIZE = 4.0, 2048
#: task -> what runs it.
_TASKS: dict[str, Task] = {"classification": classify}


@dataclass(frozen=True)
class SlideResult:
    """What came of one slide. `skipped` not empty means a partial result (exit code 3)."""

    slide: str
    folder: Path
    #: Tiles of the grid that touch tissue, the skipped ones included.
    tiles: int
    #: By predicted class; `unit` says what is counted.
    counts: dict[str, float]
    unit: str = "tiles"
    skipped: tuple[SkippedTile, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)


def predict_slide(
    slide_path: str | os.PathLike[str],
    predictor: Predictor,
    out_dir: str | os.PathLike[str],
    *,
    mpp: float | None = None,
    batch_size: int = 32,
    tissue: bool = True,
    overlap: float = 0.0,
    overwrite: bool = False,
    num_workers: int = 2,
    progress: Progress | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> SlideResult:
    """Runs a classifier over the tissue of a slide and writes `out_dir/<slide's stem>/`, whole or not at all.

    The folder holds `tiles.csv` (minx, miny, width, height, prob_CLASS...: level-0 pixels of the slide, tiles as they
    were laid, uncropped at the slide's edge, rounded outwards; skipped tiles have no row), `prediction.geojson`
    (regions of one predicted class, for QuPath), `overlay.png` and `predict_run.json`.

    Args:
        slide_path: Any file that `Slide` opens.
        predictor: The model; its `input` says tile size and resolution.
        out_dir: Where the slide's folder goes; made if missing.
        mpp: Microns per level-0 pixel, in place of what the slide states.
        batch_size: Tiles per call of the predictor; does not change the result.
        tissue: Predict only tiles that touch tissue; False predicts the whole scanned area.
        overlap: Part of a tile that its neighbour covers too, 0 <= overlap < 1; probabilities are averaged.
        overwrite: Replace an existing output folder.
        num_workers: Threads that read ahead.
        progress: Called after every batch with tiles done and tiles in all.
        arguments: What the caller wants recorded in predict_run.json beside these arguments.

    Raises:
        SlideError: Unreadable slide, resolution unknown or too coarse for the model, a model without resolution, a task
            other than classification, or existing output. Nothing is written then.
    """
    _check(predictor, batch_size, overlap, num_workers)
    started = time.perf_counter()
    with Slide(slide_path, mpp=mpp) as slide:
        target = working_mpp(slide, predictor)
        with atomic_folder(Path(out_dir) / slide.path.stem, overwrite) as folder:
            mask = find_tissue(slide) if tissue else None
            assert slide.mpp is not None
            grid = tile_grid(slide.bounds, predictor.input.tile_size, target / slide.mpp, overlap, mask)
            job = SlideJob(slide, grid, target, predictor, mask, folder, slide.path.name, progress)
            job.seconds["tissue"] = time.perf_counter() - started
            with closing(read_batches(slide, grid, target, batch_size, num_workers)) as batches:
                outcome = _TASKS[predictor.task](job, batches)
            result = _summary(job, Path(out_dir) / slide.path.stem, outcome)
            job.seconds["all"] = time.perf_counter() - started
            result.seconds.update({key: round(value, 3) for key, value in job.seconds.items()})
            given = {"mpp": mpp, "batch_size": batch_size, "tissue": tissue, "overlap": overlap}
            given |= {"overwrite": overwrite, "num_workers": num_workers, **(arguments or {})}
            write_json(folder / "predict_run.json", _run_record(job, given, result, outcome))
    return result


def working_mpp(slide: Slide, predictor: Predictor) -> float:
    """The resolution at which a slide is read for a model: see `Slide.resolve_mpp`.

    Raises:
        SlideError: The model states no resolution, the slide states none, or it is too coarse for the model.
    """
    spec = predictor.input
    if spec.mpp is None:
        raise SlideError(
            f"{slide.path}: model {predictor.name} was trained at unknown resolution (mpp: null): it takes images, not "
            "slides; cut images out of the slide, or choose a model that states its mpp"
        )
    return slide.resolve_mpp(spec.mpp, spec.mpp_tolerance)


def find_tissue(slide: Slide) -> Mask:
    """Tissue on a thumbnail of the slide's bounds; what could not be decoded there counts as tissue, to be tried."""
    longer = max(slide.bounds[2:])
    size = _TISSUE_SIZE if slide.mpp is None else min(_TISSUE_SIZE, max(1, round(longer * slide.mpp / _TISSUE_MPP)))
    thumbnail, damaged = slide.survey(size, slide.bounds)
    return np.asarray(tissue_mask(thumbnail) | damaged, np.bool_)


def _check(predictor: Predictor, batch_size: int, overlap: float, num_workers: int) -> None:
    if predictor.task not in _TASKS:
        raise SlideError(
            f"model {predictor.name}: its task is {predictor.task}; over whole slides run {', '.join(_TASKS)}"
        )
    if batch_size < 1 or num_workers < 1:
        raise SlideError(f"batch size is {batch_size} and workers are {num_workers}; both must be at least 1")
    if not 0 <= overlap < 1:
        raise SlideError(f"overlap is {overlap}; it must be at least 0 and below 1")


def _summary(job: SlideJob, folder: Path, outcome: Outcome) -> SlideResult:
    notes = list(outcome.notes)
    if job.tissue is not None and not job.tissue.any():
        notes.append("no tissue found; nothing was predicted (tissue detection can be switched off)")
    if outcome.skipped:
        notes.append(f"{len(outcome.skipped)} of {len(job.grid)} tiles could not be decoded and were skipped")
    tiles, name = len(job.grid), job.slide.path.name
    return SlideResult(name, folder, tiles, outcome.counts, outcome.unit, outcome.skipped, tuple(notes))


def _run_record(job: SlideJob, given: Mapping[str, Any], result: SlideResult, outcome: Outcome) -> dict[str, Any]:
    slide, predictor, grid = job.slide, job.predictor, job.grid
    return {
        "format": 1,
        "slide": {
            "name": slide.path.name,
            "dimensions": list(slide.dimensions),
            "bounds": list(slide.bounds),
            "mpp": slide.mpp,
            "mpp_source": slide.mpp_source,
            "reader": slide.reader_name,
        },
        "model": {
            "name": predictor.name,
            "version": predictor.version,
            "digest": predictor.digest,
            "task": predictor.task,
            "classes": list(predictor.classes),
            "input": asdict(predictor.input),
        },
        "arguments": dict(given),
        "versions": package_versions(),
        "read_mpp": job.mpp,
        "tiles": {
            "grid": list(grid.shape),
            "laid": result.tiles,
            "predicted": result.tiles - len(result.skipped),
            "by_class": result.counts,
            "unit": result.unit,
        },
        **outcome.record,
        "skipped_tiles": [asdict(tile) for tile in result.skipped],
        "notes": list(result.notes),
        "seconds": result.seconds,
    }
