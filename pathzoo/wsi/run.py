"""One model over one slide: grid, read, predict, write."""

import json
import os
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pathzoo.errors import OutputError, SlideError
from pathzoo.fileio import write_json
from pathzoo.wsi.classification import classify
from pathzoo.wsi.detection import detect
from pathzoo.wsi.grading import check_classifier
from pathzoo.wsi.isolation import probe
from pathzoo.wsi.job import Grading, Outcome, Progress, SkippedTile, SlideJob, Task
from pathzoo.wsi.names import slide_name
from pathzoo.wsi.outputs import atomic_folder, package_versions
from pathzoo.wsi.overview import Overview, stain_of, take_overview
from pathzoo.wsi.predictor import Predictor
from pathzoo.wsi.representation import represent
from pathzoo.wsi.run_options import DEFAULT_OVERLAP, RunOptions
from pathzoo.wsi.segmentation import segment
from pathzoo.wsi.slide import Slide
from pathzoo.wsi.slide_stain import stain_record
from pathzoo.wsi.stain import StainTransform
from pathzoo.wsi.tile_stream import read_tiles
from pathzoo.wsi.tiling import TileGrid, tile_grid
from pathzoo.wsi.types import Mask

RUN_FILE = "predict_run.json"
#: task -> what runs it.
TASKS: dict[str, Task] = {
    "classification": classify,
    "segmentation": segment,
    "detection": detect,
    "representation": represent,
}
#: Tasks in which a tile that cannot be decoded wholly is left out.
_WHOLE_TILES = ("classification", "representation")


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
    #: By class: how many objects have which grade of the classifier's; empty without one.
    grades: dict[str, dict[str, int]] = field(default_factory=dict)


def predict_slide(
    slide_path: str | os.PathLike[str],
    predictor: Predictor,
    out_dir: str | os.PathLike[str],
    options: RunOptions | None = None,
    *,
    classifier: Predictor | None = None,
    name: str | None = None,
    title: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    arguments: Mapping[str, Any] | None = None,
    **changes: Any,
) -> SlideResult:
    """Runs a model over the tissue of a slide and writes `out_dir/<name>/`, whole or not at all.

    Every task writes `overlay.png` and `predict_run.json`, and all but representation `prediction.geojson` (for
    QuPath); classification adds `tiles.csv` (minx, miny, width, height, prob_CLASS...: level-0 pixels of the slide,
    tiles as they were laid, uncropped at the slide's edge, rounded outwards; skipped tiles have no row), segmentation
    `mask.tif`, detection `detections.csv` and `contact_sheet.png` (with a classifier `crops/`, too), representation
    `tiles.csv` without probabilities and `embeddings.npy` (float32, a row for each of its rows).

    Args:
        slide_path: Any file that `Slide` opens.
        predictor: The model; its `input` says tile size and resolution.
        out_dir: Where the slide's folder goes; made if missing.
        options: How to run.
        classifier: Grades the objects of a detector, see `pathzoo.wsi.grading`.
        name: What the slide's folder is called; its file name without ending where not given.
        title: What the files in it call the slide; its file name where not given.
        overwrite: Replace an existing output folder.
        progress: Called after every batch with tiles done and tiles in all.
        arguments: What the caller wants recorded in predict_run.json beside the options.
        changes: Fields of `RunOptions`, set in `options`.

    Raises:
        SlideError: Unreadable slide, resolution unknown or too coarse for the model, a model without resolution, a task
            that does not run over slides, or existing output. Nothing is written then.
        OutputError: The disk is full, or the like. Nothing is left of this slide then.
    """
    options = replace(options or RunOptions(), **changes)
    options.check()
    folder = Path(out_dir) / (slide_name(Path(slide_path)) if name is None else name)
    try:
        return _predict(
            Path(slide_path), predictor, classifier, folder, options, title, overwrite, progress, arguments or {}
        )
    except OSError as error:
        if error.filename is not None and Path(error.filename) == Path(slide_path):
            raise SlideError(f"{slide_path}: cannot be read: {error.strerror or error}") from error
        raise OutputError(
            f"{folder}: cannot be written: {error.strerror or error}; nothing of it was kept. Make room, or choose "
            "another output, and give the same command again"
        ) from error


def _predict(
    path: Path,
    predictor: Predictor,
    classifier: Predictor | None,
    out: Path,
    options: RunOptions,
    title: str | None,
    overwrite: bool,
    progress: Progress | None,
    arguments: Mapping[str, Any],
) -> SlideResult:
    if predictor.task not in TASKS:
        raise SlideError(
            f"model {predictor.name}: its task is {predictor.task}; over whole slides run {', '.join(TASKS)}"
        )
    options.check_settings(predictor.task)
    if classifier is not None:
        check_classifier(predictor, classifier)
    started = time.perf_counter()
    if options.isolate:
        probe(path, options.mpp, options.reader, options.timeout)
    with Slide(path, mpp=options.mpp, reader=options.reader) as slide, atomic_folder(out, overwrite) as folder:
        target = working_mpp(slide, predictor)
        grading_mpp = None if classifier is None else working_mpp(slide, classifier)
        look = take_overview(slide, options.tissue, isolate=options.isolate, timeout=options.timeout)
        grid = lay_grid(slide, predictor, target, options, look.tissue)
        stain, grading = fit_stain(slide, look, target, predictor, options), None
        if classifier is not None and grading_mpp is not None:
            own = fit_stain(slide, look, grading_mpp, classifier, options)
            grading = Grading(classifier, grading_mpp, own)
        reading = {name: getattr(options, name) for name in ("batch_size", "num_workers", "isolate", "timeout")}
        job = SlideJob(
            slide,
            grid,
            target,
            predictor,
            tissue=look.tissue,
            thumbnail=look.thumbnail,
            folder=folder,
            title=title or slide.path.name,
            progress=progress,
            settings=options.settings,
            grading=grading,
            reading=reading,
        )
        job.seconds["tissue"] = time.perf_counter() - started
        batches = read_tiles(slide, grid, target, **reading, stain=stain)
        with closing(batches):
            outcome = TASKS[predictor.task](job, batches)
        result = _summary(job, out, outcome, look, stain)
        job.seconds["all"] = time.perf_counter() - started
        result.seconds.update({key: round(value, 3) for key, value in job.seconds.items()})
        given = asdict(options) | {"overwrite": overwrite, **arguments}
        record = _run_record(job, given, result, outcome)
        record["stain"] = stain_record(stain)
        record["key"] = options.result_key(slide.path, predictor, classifier)
        write_json(folder / RUN_FILE, record)
    return result


def finished_result(folder: Path) -> tuple[str | None, SlideResult] | None:
    """What an earlier run left in `folder`: its key (see `RunOptions.result_key`) and result; None if nothing whole."""
    try:
        record = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
        tiles, skipped = record["tiles"], tuple(SkippedTile(**tile) for tile in record["skipped_tiles"])
        notes, seconds = tuple(record["notes"]), record["seconds"]
        name, laid, unit = record["slide"]["name"], tiles["laid"], tiles["unit"]
        grades = record.get("grades", {}).get("by_class", {})
        result = SlideResult(name, folder, laid, tiles["by_class"], unit, skipped, notes, seconds, grades)
        return record.get("key"), result
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


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


def lay_grid(slide: Slide, predictor: Predictor, mpp: float, options: RunOptions, mask: Mask | None) -> TileGrid:
    """The tiles of a run: the model's tile size at `mpp` over the slide's bounds, or over the tissue in it."""
    assert slide.mpp is not None
    size = predictor.input.tile_size
    overlap = options.overlap
    if overlap is None:
        overlap = DEFAULT_OVERLAP[predictor.task]
    if options.stride is not None and options.stride > min(size):
        raise SlideError(f"stride is {options.stride}; tiles of {size[0]} x {size[1]} px would leave gaps between them")
    stride = None if options.stride is None else (options.stride, options.stride)
    if min(size) * (1 - overlap) < 1:
        raise SlideError(f"overlap is {overlap}; tiles of {size[0]} x {size[1]} px would lie under one pixel apart")
    return tile_grid(slide.bounds, size, mpp / slide.mpp, overlap, mask, stride=stride)


def fit_stain(
    slide: Slide, look: Overview, mpp: float, predictor: Predictor, options: RunOptions
) -> StainTransform | None:
    """What turns the slide's stain into the one that the model asks for; None where it asks for none."""
    target = predictor.input.stain
    if target is None:
        return None
    own = stain_of(slide, look, target.method, mpp, isolate=options.isolate, timeout=options.timeout)
    return StainTransform(own, target)


def _summary(
    job: SlideJob, folder: Path, outcome: Outcome, look: Overview, stain: StainTransform | None
) -> SlideResult:
    notes = [*look.notes, *outcome.notes]
    if stain is not None and stain.reason:
        notes.append(f"the stain was left as it is: {stain.reason}")
    if job.tissue is not None and not job.tissue.any():
        notes.append("no tissue found; nothing was predicted (tissue detection can be switched off)")
    if outcome.skipped:
        notes.append(f"{len(outcome.skipped)} of {len(job.grid)} tiles could not be decoded, or not wholly")
    return SlideResult(
        job.title,
        folder,
        len(job.grid),
        outcome.counts,
        outcome.unit,
        skipped=(*outcome.skipped, *outcome.lost),
        notes=tuple(notes),
        grades={name: dict(counts) for name, counts in outcome.grades.items()},
    )


def _tissue_mm2(job: SlideJob) -> float | None:
    """Area that counts as tissue; None where tissue was not looked for."""
    if job.tissue is None or job.slide.mpp is None:
        return None
    _, _, width, height = job.slide.bounds
    return round(float(job.tissue.mean()) * width * height * job.slide.mpp**2 / 1e6, 4)


def _run_record(job: SlideJob, given: Mapping[str, Any], result: SlideResult, outcome: Outcome) -> dict[str, Any]:
    slide, predictor, grid = job.slide, job.predictor, job.grid
    return {
        "format": 1,
        "slide": {
            "name": job.title,
            "dimensions": list(slide.dimensions),
            "bounds": list(slide.bounds),
            "mpp": slide.mpp,
            "mpp_source": slide.mpp_source,
            "tissue_mm2": _tissue_mm2(job),
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
            "stride": [value / grid.downsample for value in grid.stride],
            "laid": result.tiles,
            "predicted": result.tiles - (len(result.skipped) if predictor.task in _WHOLE_TILES else 0),
            "by_class": result.counts,
            "unit": result.unit,
        },
        **outcome.record,
        "skipped_tiles": [asdict(tile) for tile in result.skipped],
        "notes": list(result.notes),
        "seconds": result.seconds,
    }
