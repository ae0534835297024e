"""What a prediction would cost: tiles, memory, disk and time, before anything is written."""

import os
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from pathzoo.apis.launch import Place
from pathzoo.apis.predict import check_output, load_both, slides_and_images
from pathzoo.apis.predict_counts import check_counts
from pathzoo.apis.predict_inputs import Resolutions, sort_inputs
from pathzoo.apis.predict_progress import counter
from pathzoo.apis.setup import setup
from pathzoo.errors import PathzooError
from pathzoo.wsi.contact_sheet import MOST_SHOWN
from pathzoo.wsi.isolation import probe
from pathzoo.wsi.overview import take_overview
from pathzoo.wsi.predictor import Embeddings, Predictor
from pathzoo.wsi.run import lay_grid, working_mpp
from pathzoo.wsi.run_options import RunOptions
from pathzoo.wsi.slide import Slide
from pathzoo.wsi.tile_stream import estimate_memory, read_tiles
from pathzoo.wsi.tiling import TileGrid

_MIB = 1 << 20
#: A row of tiles.csv (four numbers and one per class) and overlay.png (1.3 to 2.3 MB on two real slides, rounded up).
_ROW_BYTES, _PROB_BYTES, _PICTURE_BYTES = 24, 9, 3 * _MIB
#: mask.tif and its outlines per pixel of the mask, by a segmenter of single nuclei on two real slides (0.05 and 0.4 to
#: 0.8); larger regions take far less (0.02 and 0.05 on the slide of benchmarks/segmentation_memory.py).
_MASK_BYTES_PER_PIXEL, _OUTLINE_BYTES_PER_PIXEL = 0.05, 0.8
#: An object in detections.csv and prediction.geojson (480 measured); how many there are is not known before: a guess.
_OBJECT_BYTES, _OBJECTS_PER_TILE = 500, 5
#: An object in contact_sheet.png (98,000 measured).
_CELL_BYTES = 100_000
#: The sample of vectors that an overlay's components are fitted to: 1,024 of 2,048 numbers, and its decomposition.
_SAMPLE_BYTES = 64 * _MIB
#: Batches that are timed.
_TIMED = 3


@dataclass(frozen=True)
class SlidePlan:
    """One slide of a plan; `error` says why it would fail."""

    name: str
    width: int = 0
    height: int = 0
    mpp: float | None = None
    read_mpp: float | None = None
    reader: str = ""
    tiles: int = 0
    memory_bytes: int = 0
    disk_bytes: int = 0
    seconds: float = 0.0
    error: str | None = None


@dataclass(frozen=True)
class Plan:
    """All slides of a call, and the images beside them, which cost little."""

    slides: tuple[SlidePlan, ...]
    n_images: int
    #: What else the user should know.
    notes: tuple[str, ...] = ()


def dry_run(
    inputs: Sequence[str | os.PathLike] | str | os.PathLike,
    model: str | os.PathLike,
    out: str | os.PathLike,
    *,
    classify: str | os.PathLike | None = None,
    mpp: float | None = None,
    mpp_csv: str | os.PathLike | None = None,
    device: str | None = None,
    **options: Any,
) -> Plan:
    """Lays the grids that `pathzoo.apis.predict.predict` would lay, and times some batches of the first sound slide.

    Args:
        inputs: As for `predict`.
        model: As for `predict`.
        out: As for `predict`; nothing is written there.
        classify: As for `predict`.
        mpp: As for `predict`.
        mpp_csv: As for `predict`.
        device: As for `predict`.
        options: Fields of `pathzoo.wsi.run_options.RunOptions`.

    Returns:
        Counts of tiles are exact; memory (of the tiles in flight and the stitching, beside the model itself), disk and
        time are estimates. Slides that would fail are told with the reason.

    Raises:
        PathzooError: As `predict` before it opens a slide.
    """
    setup()
    slides, images = sort_inputs([inputs] if isinstance(inputs, str | os.PathLike) else inputs)
    resolutions = Resolutions(mpp, mpp_csv, [*slides, *images])
    given = RunOptions(**options)
    given.check()
    predictor, classifier = load_both(model, classify, device, Place())
    slides, images = slides_and_images(slides, images, predictor, given)
    check_output(slides, Path(out))
    if predictor.task == "detection":
        check_counts(Path(out))
    plans: list[SlidePlan] = []
    per_tile: float | None = None
    progress = counter("dry run", "slides")
    for path in slides:
        try:
            plan, per_tile = _plan(path, predictor, classifier, replace(given, mpp=resolutions.of(path)), per_tile)
            plans.append(plan)
        except (PathzooError, OSError) as error:
            plans.append(SlidePlan(path.name, error=str(error)))
        progress(len(plans), len(slides))
    return Plan(tuple(plans), len(images), () if classifier is None else (_of_grading(classifier),))


def format_plan(plan: Plan) -> str:
    """The plan as a table, one line per slide, with a last line for all."""
    heads = {"pixels": 15, "um/px": 7, "read at": 7, "reader": 10, "tiles": 9, "memory": 9, "disk": 9, "time": 9}
    lines = [f"{'slide':32} " + " ".join(f"{name:>{width}}" for name, width in heads.items())]
    for s in plan.slides:
        if s.error:
            lines.append(f"{s.name[:32]:32} would fail: {s.error}")
            continue
        lines.append(
            f"{s.name[:32]:32} {f'{s.width} x {s.height}':>15} {s.mpp or 0:7.3g} {s.read_mpp or 0:7.3g} {s.reader:>10} "
            f"{s.tiles:9,} {_size(s.memory_bytes):>9} {_size(s.disk_bytes):>9} {_time(s.seconds):>9}"
        )
    sound = [s for s in plan.slides if not s.error]
    if sound:
        disk, seconds = sum(s.disk_bytes for s in sound), sum(s.seconds for s in sound)
        memory, tiles = max(s.memory_bytes for s in sound), sum(s.tiles for s in sound)
        total = f"{len(sound)} of {len(plan.slides)} slides"
        lines.append(f"{total:75} {tiles:9,} {_size(memory):>9} {_size(disk):>9} {_time(seconds):>9}")
    if plan.n_images:
        lines.append(f"{plan.n_images} images")
    lines += plan.notes
    lines.append("Memory (beside the model's own), disk and time are estimates. Nothing was written.")
    return "\n".join(lines)


def _plan(
    path: Path, predictor: Predictor, classifier: Predictor | None, options: RunOptions, per_tile: float | None
) -> tuple[SlidePlan, float | None]:
    """One slide's plan, and the seconds that a tile takes, measured where they are not known yet."""
    isolation = {"isolate": options.isolate, "timeout": options.timeout}
    if options.isolate:
        probe(path, options.mpp, options.reader, options.timeout)
    with Slide(path, mpp=options.mpp, reader=options.reader) as slide:
        mpp = working_mpp(slide, predictor)
        if classifier is not None:
            working_mpp(slide, classifier)  # one that the slide cannot give makes it fail
        grid = lay_grid(slide, predictor, mpp, options, take_overview(slide, options.tissue, **isolation).tissue)
        memory = estimate_memory(slide, grid, mpp, options.batch_size, options.num_workers)
        if per_tile is None and len(grid):
            per_tile = _seconds_per_tile(slide, grid, mpp, predictor, options)
        plan = SlidePlan(
            path.name,
            *slide.dimensions,
            slide.mpp,
            mpp,
            slide.reader_name,
            len(grid),
            memory + _stitching(grid, predictor),
            _disk(grid, predictor) + _vectors(grid, predictor),
            len(grid) * (per_tile or 0.0),
        )
    return plan, per_tile


def _of_grading(classifier: Predictor) -> str:
    (width, height), mpp = classifier.input.tile_size, classifier.input.mpp
    return (
        f"Each object is graded by {classifier.name} {classifier.version} on a crop of {width} x {height} px at "
        f"{mpp:g} um/px, which is written too (up to {_size(3 * width * height)}). How many there are is not known "
        "before: their time and disk are not counted."
    )


def _stitching(grid: TileGrid, predictor: Predictor) -> int:
    """Bytes of what is kept of the answers until they are written."""
    n_classes = len(predictor.classes)
    if predictor.task == "segmentation":
        columns = grid.region[2] / grid.downsample
        return int(columns * grid.tile_size[1] * (n_classes + 1) * 4 * 2)  # a band of rows: sums, and one of finished
    if predictor.task == "detection":
        return len(grid) * _OBJECTS_PER_TILE * 200
    if predictor.task == "representation":
        return _SAMPLE_BYTES + len(grid) * 12
    return len(grid) * n_classes * 8


def _vectors(grid: TileGrid, predictor: Predictor) -> int:
    """Bytes of embeddings.npy; how many numbers a vector has, a tile of glass tells."""
    if predictor.task != "representation":
        return 0
    width, height = predictor.input.tile_size
    answer = predictor(np.full((1, height, width, 3), 255, np.uint8))
    return len(grid) * answer.vectors.shape[1] * 4 if isinstance(answer, Embeddings) else 0


def _disk(grid: TileGrid, predictor: Predictor) -> int:
    if predictor.task == "segmentation":
        pixels = grid.region[2] * grid.region[3] / grid.downsample**2
        return int(pixels * (_MASK_BYTES_PER_PIXEL + _OUTLINE_BYTES_PER_PIXEL)) + _PICTURE_BYTES
    if predictor.task == "detection":
        objects = len(grid) * _OBJECTS_PER_TILE
        return objects * _OBJECT_BYTES + min(objects, MOST_SHOWN) * _CELL_BYTES + _PICTURE_BYTES
    return len(grid) * (_ROW_BYTES + _PROB_BYTES * len(predictor.classes)) + _PICTURE_BYTES


def _seconds_per_tile(slide: Slide, grid: TileGrid, mpp: float, predictor: Predictor, options: RunOptions) -> float:
    """Of some batches from the middle of the slide, the first of which only warms up."""
    size = min(options.batch_size, len(grid))
    first = max(0, (len(grid) - _TIMED * size) // 2)
    part = replace(grid, cells=grid.cells[first : first + _TIMED * size])
    done, started = 0, time.perf_counter()
    stream = read_tiles(
        slide, part, mpp, size, num_workers=options.num_workers, isolate=options.isolate, timeout=options.timeout
    )
    with closing(stream) as batches:
        for number, batch in enumerate(islice(batches, _TIMED)):
            predictor(np.ascontiguousarray(batch.pixels))
            if number == 0 and len(part) > size:
                started = time.perf_counter()
                continue
            done += len(batch)
    return (time.perf_counter() - started) / max(done, 1)


def _size(n: int) -> str:
    if n < _MIB:
        return f"{max(1, round(n / 1024))} KiB"
    return f"{n / 1024**3:.1f} GiB" if n >= 1024**3 else f"{n / _MIB:.0f} MiB"


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
