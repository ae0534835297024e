"""What a task (classification, segmentation, detection, ...) is given to run over one slide, and what it gives back."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pathzoo.wsi.predictor import Prediction, Predictor
from pathzoo.wsi.pseudonyms import without_names
from pathzoo.wsi.slide import Slide
from pathzoo.wsi.stain import StainTransform
from pathzoo.wsi.tiling import TileGrid
from pathzoo.wsi.types import RGB, Int64, Mask, RGBBatch

#: Called with the tiles done and the tiles in all; with a third argument where these are something else ("crops").
Progress = Callable[..., None]


@dataclass(frozen=True)
class TileBatch:
    """Some tiles of a grid, in the grid's order.

    Every tile of the grid comes once, also one that cannot be decoded: what is missing is white and told in `damage`.
    """

    #: (n,) positions in `TileGrid.cells`.
    numbers: Int64
    #: (n, H, W, 3) uint8 RGB. The array may be used again for the next batch: copy what is kept.
    pixels: RGBBatch
    #: By number of the tile: (H, W) bool, True where nothing could be decoded (white in `pixels`), and why.
    damage: Mapping[int, tuple[Mask, str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.numbers)


@dataclass(frozen=True)
class SkippedTile:
    """A tile that could not be decoded, or not wholly: its level-0 corner and the reason."""

    x: int
    y: int
    reason: str


@dataclass(frozen=True)
class Grading:
    """A classifier for the objects that a detector finds."""

    classifier: Predictor
    #: Resolution of its crops in microns per pixel, as the slide gives it.
    mpp: float
    #: Turns the slide's stain into the one that the classifier asks for.
    stain: StainTransform | None = None


@dataclass(frozen=True)
class SlideJob:
    """One model over one slide: all that a task needs. Files go into `folder`, which exists and is temporary."""

    slide: Slide
    grid: TileGrid
    #: Resolution of the tiles in microns per pixel.
    mpp: float
    predictor: Predictor
    #: (h, w) bool over the slide's bounds, of any size; None where tissue was not looked for.
    tissue: Mask | None
    #: RGB uint8 (h', w', 3) over the slide's bounds, for the overlay.
    thumbnail: RGB
    folder: Path
    #: How outputs call the slide: its file name, or its pseudonym.
    title: str
    progress: Progress | None = None
    #: By choice of the user, see the tasks.
    settings: Mapping[str, Any] = field(default_factory=dict)
    #: Seconds by what they were spent on; `tracked` and `predict` add to it.
    seconds: dict[str, float] = field(default_factory=dict)
    #: Who grades the objects of a detector; None where nobody does.
    grading: Grading | None = None
    #: Keywords of `pathzoo.wsi.tile_stream.read_tiles` for what is read beside the tiles.
    reading: Mapping[str, Any] = field(default_factory=lambda: {"batch_size": 32, "isolate": False})

    def predict(self, tiles: RGBBatch) -> Prediction:
        """The model's answer; its time counts as "model"."""
        started = time.perf_counter()
        answer = self.predictor(tiles)
        self.seconds["model"] = self.seconds.get("model", 0.0) + time.perf_counter() - started
        return answer

    def tracked(self, batches: Iterable[TileBatch]) -> Iterator[TileBatch]:
        """The same batches; the time spent waiting for them counts, and progress is reported once one is dealt with."""
        done, iterator = 0, iter(batches)
        while True:
            started = time.perf_counter()
            batch = next(iterator, None)
            waited = time.perf_counter() - started
            self.seconds["waiting for tiles"] = self.seconds.get("waiting for tiles", 0.0) + waited
            if batch is None:
                return
            yield batch
            done += len(batch)
            if self.progress is not None:
                self.progress(done, len(self.grid))

    def skipped(self, batch: TileBatch) -> list[SkippedTile]:
        """The damaged tiles of a batch, for the record."""
        if not batch.damage:
            return []
        corners = self.grid.corners
        return [
            SkippedTile(int(corners[n, 0]), int(corners[n, 1]), self.said(why)) for n, (_, why) in batch.damage.items()
        ]

    def wholly_damaged(self, batch: TileBatch) -> set[int]:
        """Numbers of the tiles of which no pixel that the slide has could be decoded; padding does not count."""
        if not batch.damage:
            return set()
        corners, found = self.grid.corners, set()
        for number, (mask, _) in batch.damage.items():
            columns, rows = (
                math.floor((side - int(at)) / self.grid.downsample + 1e-9)
                for side, at in zip(self.slide.dimensions, corners[number], strict=True)
            )
            if mask[: max(rows, 1), : max(columns, 1)].all():
                found.add(number)
        return found

    def said(self, reason: str) -> str:
        """A reason as outputs may give it: a system's message can name the file, a pseudonym must not be undone."""
        path = self.slide.path
        return reason if self.title == path.name else without_names(reason, path, self.title)

    @property
    def page(self) -> dict[str, Any]:
        """What every overlay of this job shows beside its picture."""
        return {"tissue": self.tissue, "title": self.title, "subtitle": self.made_by}

    @property
    def made_by(self) -> str:
        """The model, and the classifier where there is one."""
        models = [self.predictor, *([self.grading.classifier] if self.grading else [])]
        return ", graded by ".join(f"{model.name} {model.version}" for model in models)

    @property
    def key(self) -> str:
        """What tells this slide and model from others, for the ids of objects."""
        model = self.predictor
        return f"{self.title}|{model.name}|{model.version}|{model.digest}"


@dataclass(frozen=True)
class Outcome:
    """What a task reports beside its files."""

    #: By class: tiles (classification), objects (detection), or square microns (segmentation); see `unit`.
    counts: dict[str, float]
    #: What `counts` counts: "tiles", "objects" or "µm²".
    unit: str
    #: Tiles with undecodable parts; not empty means a partial result (exit code 3).
    skipped: tuple[SkippedTile, ...] = ()
    notes: tuple[str, ...] = ()
    #: What beside the tiles could not be decoded; a partial result as well.
    lost: tuple[SkippedTile, ...] = ()
    #: By class: how many objects have which grade.
    grades: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    #: Further entries of predict_run.json.
    record: Mapping[str, Any] = field(default_factory=dict)


class Task(Protocol):
    """Runs over all batches and writes its files into `job.folder`."""

    def __call__(self, job: SlideJob, batches: Iterable[TileBatch], /) -> Outcome:
        """Raises SlideError where nothing useful can come out; the folder is thrown away then."""
        ...
