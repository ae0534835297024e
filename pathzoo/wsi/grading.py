"""A classifier's word on each object that a detector found: `pathzoo predict --classify`."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from pathzoo.errors import SlideError
from pathzoo.wsi.classification import check_probs
from pathzoo.wsi.colors import class_colors
from pathzoo.wsi.job import Grading, SkippedTile, SlideJob
from pathzoo.wsi.merging import Float64
from pathzoo.wsi.object_crops import crop_corners, read_crops
from pathzoo.wsi.outputs import write_picture
from pathzoo.wsi.predictor import Predictor
from pathzoo.wsi.slide_stain import stain_record
from pathzoo.wsi.types import Float32, Int64

CROPS = "crops"


@dataclass(frozen=True)
class Grades:
    """What a classifier says of n objects."""

    classes: tuple[str, ...]
    #: (n, C) float32; NaN where an object was not classified.
    probs: Float32
    #: By position of the object: why it was not classified, since its crop could not be decoded wholly.
    lost: dict[int, str] = field(default_factory=dict)
    #: Positions of the objects that are larger than their crops.
    larger: tuple[int, ...] = ()

    @cached_property
    def best(self) -> Int64:
        """(n,) the most probable class of each object; -1 where it was not classified."""
        known = np.asarray(~np.isnan(self.probs).any(axis=1))
        best = np.full(len(self.probs), -1, np.int64)
        best[known] = self.probs[known].argmax(axis=1)
        return best

    def cells(self, number: int) -> list[str]:
        """An object's grade and probabilities for detections.csv."""
        if self.best[number] < 0:
            return [""] * (1 + len(self.classes))
        return [self.classes[self.best[number]], *(f"{p:.6f}" for p in self.probs[number].tolist())]

    def measurements(self, number: int) -> dict[str, float]:
        """An object's probabilities for QuPath."""
        if self.best[number] < 0:
            return {}
        pairs = zip(self.classes, self.probs[number].tolist(), strict=True)
        return {f"Probability {name}": round(p, 6) for name, p in pairs}


@dataclass(frozen=True)
class Labels:
    """How the objects of a slide are called and coloured wherever they are shown."""

    #: Every name that a legend shows: the classes; with grades "glomerulus: sclerosed", ..., and "glomerulus" alone
    #: where such were not classified.
    names: tuple[str, ...]
    #: (n,) positions in `names`.
    which: Int64
    #: RGB 0..255, the same on every slide.
    colors: dict[str, tuple[int, int, int]]

    @property
    def counts(self) -> dict[str, int]:
        """Objects by name."""
        numbers = np.bincount(self.which, minlength=len(self.names)).tolist()
        return dict(zip(self.names, numbers, strict=True))


def check_classifier(predictor: Predictor, classifier: Predictor) -> None:
    """Raises SlideError, in one line, where `classifier` cannot grade what `predictor` finds."""
    if predictor.task != "detection":
        raise SlideError(
            f"model {predictor.name}: its task is {predictor.task}; --classify goes with detectors, whose objects it "
            "grades"
        )
    if classifier.task != "classification":
        raise SlideError(
            f"model {classifier.name}: its task is {classifier.task}; --classify takes a model for classification"
        )
    if classifier.input.mpp is None:
        raise SlideError(
            f"model {classifier.name} was trained at unknown resolution (mpp: null), so objects cannot be cut out of a "
            "slide for it; --classify takes a classifier that states its mpp"
        )


def grade_objects(job: SlideJob, grading: Grading, objects: Float64) -> Grades:
    """Classifies every object from a crop around its centre, and writes these crops to `job.folder`/crops/NNNN.png.

    NNNN is the object's row in detections.csv, from 1. A crop has the classifier's tile size and resolution (and
    stain, if it asks for one); the classifier is given the pixels that are written. An object whose crop cannot be
    decoded wholly has neither crop nor grade, as a tile has no prediction then.

    Args:
        job: What is run.
        grading: By whom.
        objects: (n, 6) x0, y0, x1, y1 in level-0 pixels, score, class index.

    Raises:
        SlideError: The classifier answers with NaN.
        TypeError, ValueError: It answers with something else: a defect of the predictor.
    """
    started, classifier = time.perf_counter(), grading.classifier
    probs = np.full((len(objects), len(classifier.classes)), np.nan, np.float32)
    lost: dict[int, str] = {}
    done, folder = 0, job.folder / CROPS
    if len(objects):
        folder.mkdir()
    for batch in read_crops(job, objects, classifier.input.tile_size, grading.mpp, grading.stain):
        lost |= {number: why for number, (_, why) in batch.damage.items()}
        good = [i for i, number in enumerate(batch.numbers.tolist()) if number not in batch.damage]
        if good:
            tiles, numbers = batch.pixels[good], batch.numbers[good]
            for number, tile in zip(numbers.tolist(), tiles, strict=True):
                write_picture(folder / crop_name(number), tile)
            probs[numbers] = check_probs(classifier, classifier(tiles), len(good))
        done += len(batch)
        if job.progress is not None:
            job.progress(done, len(objects), "crops")
    job.seconds["classifier"] = time.perf_counter() - started
    return Grades(tuple(classifier.classes), probs, dict(sorted(lost.items())), _larger(job, grading, objects))


def crop_name(number: int) -> str:
    """The file of an object's crop; `number` counts from 0."""
    return f"{number + 1:04d}.png"


def grade_header(classes: Sequence[str]) -> list[str]:
    """Further column names of detections.csv."""
    return ["grade", *(f"prob_{name}" for name in classes)]


def label_objects(objects: Float64, classes: Sequence[str], grades: Grades | None) -> Labels:
    """Names and colours of objects by class and, with grades, by both: "glomerulus: sclerosed", as QuPath derives."""
    which = objects[:, 5].astype(np.int64)
    if grades is None:
        return Labels(tuple(classes), which, class_colors(classes))
    derived = [f"{name}: {grade}" for name in classes for grade in grades.classes]
    best, n = grades.best, len(grades.classes)
    bare = np.unique(which[best < 0])  # classes of which some were not classified
    numbers = np.where(best < 0, len(derived) + np.searchsorted(bare, which), which * n + best)
    names = (*derived, *(classes[i] for i in bare.tolist()))
    colors = class_colors([*derived, *classes])
    return Labels(names, numbers.astype(np.int64), {name: colors[name] for name in names})


def by_class(objects: Float64, classes: Sequence[str], grades: Grades) -> dict[str, dict[str, int]]:
    """Counts by class of the detector, and by grade in each."""
    best, which = grades.best, objects[:, 5].astype(np.int64)
    return {
        name: {grade: int(((which == i) & (best == k)).sum()) for k, grade in enumerate(grades.classes)}
        for i, name in enumerate(classes)
    }


def grade_record(objects: Float64, classes: Sequence[str], grading: Grading, grades: Grades) -> dict[str, Any]:
    """What predict_run.json says of the classifier, and of what it did; objects are counted from 1."""
    classifier, stain = grading.classifier, grading.stain
    return {
        "classifier": {
            "name": classifier.name,
            "version": classifier.version,
            "digest": classifier.digest,
            "classes": list(classifier.classes),
            "input": asdict(classifier.input),
            "read_mpp": grading.mpp,
            "stain": stain_record(stain),
        },
        "grades": {
            "by_class": by_class(objects, classes, grades),
            "not_classified": [{"object": n + 1, "reason": why} for n, why in grades.lost.items()],
            "larger_than_crop": [n + 1 for n in grades.larger],
        },
    }


def grade_notes(grading: Grading, grades: Grades) -> list[str]:
    """What the user should know."""
    notes = []
    if grades.larger:
        width, height = grading.classifier.input.tile_size
        numbers = ", ".join(str(n + 1) for n in grades.larger[:5]) + (", ..." if grades.larger[5:] else "")
        notes.append(
            f"{len(grades.larger)} objects are larger than the classifier's crop of {width} × {height} px at "
            f"{grading.mpp:.3g} µm per pixel and were graded by their middle: {numbers}"
        )
    if grades.lost:
        notes.append(f"{len(grades.lost)} objects were not classified: their crops could not be decoded wholly")
    if grading.stain is not None and grading.stain.reason:
        notes.append(f"the stain was left as it is for the classifier: {grading.stain.reason}")
    return notes


def lost_crops(job: SlideJob, grading: Grading, objects: Float64, grades: Grades) -> tuple[SkippedTile, ...]:
    """The crops that could not be decoded, for the record: they make a result a partial one, as tiles do."""
    assert job.slide.mpp is not None
    corners = crop_corners(objects, grading.classifier.input.tile_size, grading.mpp / job.slide.mpp).tolist()
    return tuple(
        SkippedTile(corners[n][0], corners[n][1], f"crop of object {n + 1}: {why}") for n, why in grades.lost.items()
    )


def _larger(job: SlideJob, grading: Grading, objects: Float64) -> tuple[int, ...]:
    assert job.slide.mpp is not None
    extent = np.array(grading.classifier.input.tile_size) * grading.mpp / job.slide.mpp
    over = ((objects[:, 2:4] - objects[:, :2]) > extent).any(axis=1)
    return tuple(np.flatnonzero(over).tolist())
