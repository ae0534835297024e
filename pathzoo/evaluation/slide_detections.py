"""The objects that were annotated on slides, beside what `pathzoo predict` found there: the sides of an evaluation."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from pathzoo.datasets.csv_table import parse_patient
from pathzoo.errors import DataError
from pathzoo.evaluation.detection_report import DetectionSet
from pathzoo.evaluation.functional.detection_matching import Picture
from pathzoo.evaluation.predicted_slides import PredictedSlide
from pathzoo.wsi.annotation_sources import read_slide_table
from pathzoo.wsi.annotations import ANNOTATION_SUFFIXES, read_areas
from pathzoo.wsi.box_rules import BAD_BOXES
from pathzoo.wsi.names import slide_name
from pathzoo.wsi.slide_objects import cut_outline

_FORMAT = "pathzoo.objects"
#: Level-0 pixels by which an object may leave its slide without a word, and which a box must be wide and high: as in
#: tools/dataset_converters/annotations_to_boxes.py.
_SLACK = _LEAST = 1.0


@dataclass(frozen=True)
class AnnotatedObjects:
    """All m objects of one slide: ids, class names, outlines in level-0 pixels, and bool (m,) which are ignored."""

    ids: list[str]
    classes: list[str]
    outlines: list[BaseGeometry]
    ignored: np.ndarray
    patient: str | None = None


class PairedSlides(NamedTuple):
    """What `pair_slides` made of both sides."""

    found: DetectionSet
    #: Annotated slides without prediction.
    left_out: list[str]
    #: A line for each object that left its slide, or had no area.
    bad_boxes: list[str]
    #: Detections of a lower score than all slides hold.
    n_below: int


def read_patients(path: Path) -> dict[str, str]:
    """Reads a table with the columns slide and patient: patient of each slide, by its name without ending.

    Raises:
        DataError: what `read_slide_table` refuses, or one name of two patients.
    """
    found: dict[str, str] = {}
    for file, patient in read_slide_table(path, "patient").items():
        name = slide_name(Path(file))
        if found.setdefault(name, patient) != patient:
            raise DataError(
                f"{path}: slide {name} has patients {found[name]!r} and {patient!r}: correct one of the lines"
            )
    return found


def read_objects_file(path: Path, slides: Mapping[str, PredictedSlide]) -> dict[str, AnnotatedObjects]:
    """Reads objects.json of tools/dataset_converters/annotations_to_boxes.py: slide -> its objects.

    Raises:
        DataError: no such file, another format, or a slide of other dimensions than the one that was predicted.
    """
    found = {}
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document.get("format") != _FORMAT:
            raise DataError(f"{path}: its format is {document.get('format')!r}, not {_FORMAT!r}; give objects.json")
        for entry in document["slides"]:
            name, objects = str(entry["slide"]), entry["objects"]
            if (
                name in slides
                and (size := [entry["width"], entry["height"]]) != slides[name].run["slide"]["dimensions"]
            ):
                other = slides[name].run["slide"]["dimensions"]
                raise DataError(f"{path}: slide {name} is of {size} pixels, the predicted one of {other}: not the same")
            found[name] = AnnotatedObjects(
                [str(one["id"]) for one in objects],
                [str(one["class"]) for one in objects],
                [_box(one["box"]) for one in objects],
                np.array([bool(one.get("ignore", False)) for one in objects], dtype=bool),
                parse_patient(entry.get("patient") or ""),
            )
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not an objects.json of annotations_to_boxes.py ({error!r})") from error
    return found


def _box(corners: Sequence[float]) -> BaseGeometry:
    x0, y0, x1, y1 = map(float, corners)
    if not (x0 <= x1 and y0 <= y1):
        raise ValueError(f"{corners} is no box x0, y0, x1, y1")
    return shapely.box(x0, y0, x1, y1)


def read_object_folder(folder: Path, slides: Mapping[str, PredictedSlide]) -> dict[str, AnnotatedObjects]:
    """Reads annotations (QuPath GeoJSON, ImageScope XML): each area is one object.

    Files are named after the slides, with or without the slide's own ending (a.geojson, a.svs.geojson). An area without
    a class is of class "". Files of slides that were not predicted give empty entries.

    Raises:
        DataError: two files of one slide, or what `read_areas` refuses.
    """
    files: dict[str, Path] = {}
    for file in sorted(file for file in folder.iterdir() if file.suffix.lower() in ANNOTATION_SUFFIXES):
        name = file.stem if file.stem in slides else slide_name(Path(file.stem))
        if files.setdefault(name, file) != file:
            raise DataError(f"{file}: slide {name} has {files[name].name} too; remove one")
    if not files:
        raise DataError(f"{folder}: holds no annotations ({', '.join(ANNOTATION_SUFFIXES)})")
    found = {}
    for name, file in files.items():
        areas = read_areas(file, slides[name].bounds[:2]) if name in slides else []
        ids = [f"{name}:{number}" for number in range(1, len(areas) + 1)]
        outlines, labels = [area for area, _ in areas], [label or "" for _, label in areas]
        found[name] = AnnotatedObjects(ids, labels, outlines, np.zeros(len(areas), bool))
    return found


def pair_slides(
    predicted: Sequence[PredictedSlide],
    objects: Mapping[str, AnnotatedObjects],
    *,
    patients: Mapping[str, str] | None = None,
    rename: Mapping[str, str] | None = None,
    leave_out: Sequence[str] = (),
    only_predicted: bool = False,
    on_bad_box: str = "error",
) -> PairedSlides:
    """Slides with both, ready to be evaluated.

    Where slides were predicted at different score thresholds, detections below the highest are left out of all: not
    every slide holds them.

    Args:
        predicted: of one model, whose classes count.
        objects: slide -> its objects.
        patients: slide -> patient, before what `objects` say.
        rename: annotated class -> class of the model.
        leave_out: annotated classes that are no objects; "" for areas without a class.
        only_predicted: slides without prediction are left out, in place of an error.
        on_bad_box: "error" refuses objects that leave what was predicted of their slide (its bounds) or have no area;
            "clip" cuts those that leave it and leaves the others out; "drop" leaves all of them out.

    Raises:
        DataError: a slide without annotations or without prediction, an object of a class that the model does not have,
            or one that does not fit its slide.
    """
    if on_bad_box not in BAD_BOXES:
        raise DataError(f"on-bad-box={on_bad_box!r}: give {', '.join(BAD_BOXES)}")
    names = [slide.name for slide in predicted]
    missing = _unpaired(names, objects, only_predicted)
    classes = list(predicted[0].run["model"]["classes"])
    least = max(slide.least_score for slide in predicted)
    pictures, ids, problems = [], [], []
    for slide in predicted:
        named = _of_classes(slide.name, objects[slide.name], classes, rename or {}, leave_out)
        fitting, bad = _fitting(slide, named, on_bad_box)
        problems += bad
        pictures.append(_picture(slide, fitting, classes, least))
        ids.append(fitting.ids)
    if problems and on_bad_box == "error":
        raise DataError(
            f"{len(problems)} objects do not fit their slides: {'; '.join(problems[:10])}"
            f"{'; ...' if problems[10:] else ''}: correct them, or choose --on-bad-box clip or drop"
        )
    who = [(patients or {}).get(name) or objects[name].patient for name in names]
    areas = [slide.mm2 for slide in predicted]
    found = DetectionSet(pictures, names, who, names, classes, "slide", areas, ids, least)
    n_below = sum(int((slide.scores < least).sum()) for slide in predicted)
    return PairedSlides(found, missing, problems, n_below)


def _unpaired(names: Sequence[str], objects: Mapping[str, AnnotatedObjects], only_predicted: bool) -> list[str]:
    """Annotated slides that were not predicted, where they may be left out."""
    bare = [name for name in names if name not in objects]
    if bare:
        raise DataError(
            f"{len(bare)} slides have no annotations: {_some(bare)}; annotate them (a file without areas says that "
            "there is no object), or leave their predictions out"
        )
    missing = sorted(set(objects).difference(names))
    if missing and not only_predicted:
        raise DataError(
            f"{len(missing)} annotated slides have no prediction: {_some(missing)}; predict them, or leave them out by "
            "--only-predicted"
        )
    return missing


def _of_classes(
    slide: str, objects: AnnotatedObjects, classes: Sequence[str], rename: Mapping[str, str], leave_out: Sequence[str]
) -> AnnotatedObjects:
    """The objects of classes that are not left out, by the model's names."""
    kept = [k for k, name in enumerate(objects.classes) if name not in leave_out]
    labels = [rename.get(objects.classes[k], objects.classes[k]) for k in kept]
    unknown = Counter(label for label in labels if label not in classes)
    if unknown:
        name, n = unknown.most_common(1)[0]
        raise DataError(
            f"slide {slide}: {n} objects of class {name or '(none)'!r}, but the model has {', '.join(classes)}; "
            f"give --rename {name or 'OLD'}={classes[0]} if they are the same, or --leave-out {name!r}"
        )
    return replace(_taken(objects, kept), classes=labels)


def _fitting(slide: PredictedSlide, objects: AnnotatedObjects, on_bad_box: str) -> tuple[AnnotatedObjects, list[str]]:
    """The objects as far as they lie in the slide's bounds, and a line for each that does not fit."""
    x, y, width, height = slide.bounds
    whole = shapely.box(x, y, x + width, y + height)
    roomy = shapely.box(x - _SLACK, y - _SLACK, x + width + _SLACK, y + height + _SLACK)
    kept, outlines, problems = [], [], []
    for k, outline in enumerate(objects.outlines):
        inside = outline if whole.contains(outline) else cut_outline(outline, whole)
        extent = ", ".join(f"{value:g}" for value in whole.bounds)
        problem = ""
        if not _has_extent(outline):
            problem = "has no area"
        elif not _has_extent(inside):
            problem = f"lies outside of {extent} of the slide; is it this slide's?"
        elif not roomy.contains(outline):
            problem = f"leaves {extent} of the slide"
        if problem:
            box = ", ".join(f"{value:g}" for value in outline.bounds)
            problems.append(f"{slide.name}: object {objects.ids[k]} ({box}) {problem}")
        if not problem or (on_bad_box == "clip" and _has_extent(inside)):
            kept.append(k)
            outlines.append(inside)
    return replace(_taken(objects, kept), outlines=outlines), problems


def _taken(objects: AnnotatedObjects, kept: Sequence[int]) -> AnnotatedObjects:
    ids, classes, outlines = ([one[k] for k in kept] for one in (objects.ids, objects.classes, objects.outlines))
    return AnnotatedObjects(ids, classes, outlines, objects.ignored[list(kept)], objects.patient)


def _has_extent(outline: BaseGeometry) -> bool:
    x0, y0, x1, y1 = outline.bounds  # NaN where it is empty
    return bool(x1 - x0 >= _LEAST and y1 - y0 >= _LEAST)


def _picture(slide: PredictedSlide, objects: AnnotatedObjects, classes: Sequence[str], least: float) -> Picture:
    number = {name: index for index, name in enumerate(classes)}
    held = slide.scores >= least
    of_boxes = np.array([number[name] for name in slide.classes], dtype=np.int64)
    of_objects = np.array([number[name] for name in objects.classes], dtype=np.int64)
    boxes = np.array([outline.bounds for outline in objects.outlines], dtype=np.float64).reshape(-1, 4)
    return Picture(slide.boxes[held], slide.scores[held], of_boxes[held], boxes, of_objects, objects.ignored)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if names[5:] else "")
