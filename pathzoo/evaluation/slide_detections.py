"""What `pathzoo predict` found on slides, and the objects that were annotated there: the two sides of an evaluation."""

import csv
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pathzoo.errors import DataError
from pathzoo.evaluation.detection_report import DetectionSet
from pathzoo.evaluation.functional.detection_matching import Picture
from pathzoo.wsi.annotations import ANNOTATION_SUFFIXES, read_areas

_DETECTIONS, _RUN = "detections.csv", "predict_run.json"
_COLUMNS = ("x0", "y0", "x1", "y1", "score", "class")
_FORMAT = "pathzoo.objects"


@dataclass(frozen=True)
class PredictedSlide:
    """One slide's folder of `pathzoo predict`, as it was written by a detector.

    Attributes:
        name: of the folder, which is the slide's file name without ending.
        folder: where it lies.
        boxes: float64 (n, 4) x0, y0, x1, y1 in level-0 pixels.
        scores: float64 (n,).
        classes: n names.
        run: predict_run.json.
    """

    name: str
    folder: Path
    boxes: np.ndarray
    scores: np.ndarray
    classes: list[str]
    run: Mapping[str, Any]

    @property
    def bounds(self) -> tuple[int, int, int, int]:
        """x, y, width, height of what was predicted, in level-0 pixels."""
        x, y, width, height = self.run["slide"]["bounds"]
        return x, y, width, height

    @property
    def mm2(self) -> float:
        """Area within the bounds in square millimetres."""
        _, _, width, height = self.bounds
        return float(width * height * self.run["slide"]["mpp"] ** 2 / 1e6)


@dataclass(frozen=True)
class AnnotatedObjects:
    """All objects of one slide: ids, class names, boxes float64 (m, 4) in level-0 pixels, which are to be ignored."""

    ids: list[str]
    classes: list[str]
    boxes: np.ndarray
    ignored: np.ndarray
    patient: str | None = None


def read_predicted_slides(paths: Sequence[Path]) -> list[PredictedSlide]:
    """Reads folders that `pathzoo predict` wrote, by name: each the folder of a slide, or one that holds such folders.

    Raises:
        DataError: a folder without predictions, another task's, two slides of one name, or predictions by two models.
    """
    folders: dict[str, Path] = {}
    for path in paths:
        inside = [path] if (path / _RUN).is_file() else sorted(run.parent for run in path.glob(f"*/{_RUN}"))
        if not inside:
            raise DataError(f"{path}: holds no prediction ({_RUN}); give what `pathzoo predict` wrote by -o")
        for folder in inside:
            if folders.setdefault(folder.name, folder) != folder:
                raise DataError(f"{folder}: slide {folder.name} was given as {folders[folder.name]} too; give one")
    slides = [_read_prediction(folder) for _, folder in sorted(folders.items())]
    models = {_model(slide): slide for slide in slides}
    if len(models) > 1:
        (first, one), (second, other) = list(models.items())[:2]
        raise DataError(f"{one.name} was predicted by {first}, {other.name} by {second}: evaluate one model at a time")
    return slides


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
                np.array([one["box"] for one in objects], dtype=np.float64).reshape(-1, 4),
                np.array([bool(one.get("ignore", False)) for one in objects], dtype=bool),
                entry.get("patient"),
            )
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not an objects.json of annotations_to_boxes.py ({error!r})") from error
    return found


def read_object_folder(folder: Path, slides: Mapping[str, PredictedSlide]) -> dict[str, AnnotatedObjects]:
    """Reads annotations (QuPath GeoJSON, ImageScope XML) named after the slides: each area is one object.

    An annotated area without a class is of class "". Files of slides that were not predicted give empty entries.

    Raises:
        DataError: two files of one slide, or what `read_areas` refuses.
    """
    files: dict[str, Path] = {}
    for file in sorted(file for file in folder.iterdir() if file.suffix.lower() in ANNOTATION_SUFFIXES):
        if files.setdefault(file.stem, file) != file:
            raise DataError(f"{file}: slide {file.stem} has {files[file.stem].name} too; remove one")
    if not files:
        raise DataError(f"{folder}: holds no annotations ({', '.join(ANNOTATION_SUFFIXES)})")
    found = {}
    for name, file in files.items():
        areas = read_areas(file, slides[name].bounds[:2]) if name in slides else []
        ids = [f"{name}:{number}" for number in range(1, len(areas) + 1)]
        boxes = np.array([area.bounds for area, _ in areas], dtype=np.float64).reshape(-1, 4)
        found[name] = AnnotatedObjects(ids, [label or "" for _, label in areas], boxes, np.zeros(len(areas), bool))
    return found


def pair_slides(
    predicted: Sequence[PredictedSlide],
    objects: Mapping[str, AnnotatedObjects],
    *,
    patients: Mapping[str, str] | None = None,
    rename: Mapping[str, str] | None = None,
    leave_out: Sequence[str] = (),
    only_predicted: bool = False,
) -> tuple[DetectionSet, list[str]]:
    """Slides with both, ready to be evaluated.

    Args:
        predicted: of one model, whose classes count.
        objects: slide -> its objects.
        patients: slide -> patient, before what `objects` say.
        rename: annotated class -> class of the model.
        leave_out: annotated classes that are no objects; "" for areas without a class.
        only_predicted: slides without prediction are left out, in place of an error.

    Returns:
        The set, and the names of the slides that were left out.

    Raises:
        DataError: a slide without annotations or without prediction, an object of a class that the model does not have,
            or one that lies outside of its slide.
    """
    names = [slide.name for slide in predicted]
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
    classes = list(predicted[0].run["model"]["classes"])
    pictures, ids = [], []
    for slide in predicted:
        kept, picture = _picture(slide, objects[slide.name], classes, rename or {}, leave_out)
        pictures.append(picture)
        ids.append(kept)
    who = [(patients or {}).get(name) or objects[name].patient for name in names]
    areas = [slide.mm2 for slide in predicted]
    return DetectionSet(pictures, names, who, names, classes, "slide", areas, ids), missing


def _picture(
    slide: PredictedSlide,
    objects: AnnotatedObjects,
    classes: Sequence[str],
    rename: Mapping[str, str],
    leave_out: Sequence[str],
) -> tuple[list[str], Picture]:
    kept = [k for k, name in enumerate(objects.classes) if name not in leave_out]
    labels = [rename.get(objects.classes[k], objects.classes[k]) for k in kept]
    unknown = Counter(label for label in labels if label not in classes)
    if unknown:
        name, n = unknown.most_common(1)[0]
        raise DataError(
            f"slide {slide.name}: {n} objects of class {name or '(none)'!r}, but the model has {', '.join(classes)}; "
            f"give --rename {name or 'OLD'}={classes[0]} if they are the same, or --leave-out {name!r}"
        )
    number = {name: index for index, name in enumerate(classes)}
    boxes, (x, y, width, height) = objects.boxes[kept], slide.bounds
    outside = ~((boxes[:, :2] < (x + width, y + height)) & (boxes[:, 2:] > (x, y))).all(axis=1)
    if outside.any():
        first = kept[int(outside.argmax())]
        box = ", ".join(f"{value:g}" for value in objects.boxes[first])
        raise DataError(
            f"slide {slide.name}: object {objects.ids[first]} ({box}) lies outside of it; is it this slide's?"
        )
    of_boxes = np.array([number[name] for name in slide.classes], dtype=np.int64)
    of_objects = np.array([number[name] for name in labels], dtype=np.int64)
    picture = Picture(slide.boxes, slide.scores, of_boxes, boxes, of_objects, objects.ignored[kept])
    return [objects.ids[k] for k in kept], picture


def _read_prediction(folder: Path) -> PredictedSlide:
    try:
        run = json.loads((folder / _RUN).read_text(encoding="utf-8"))
        task, classes = run["model"]["task"], run["model"]["classes"]
        if task == "detection":
            wanted = {"slide": ("bounds", "dimensions", "mpp"), "model": ("name", "version", "digest")}
            wanted |= {"detection": ("score_threshold",)}
            missing = [f"{part}.{key}" for part, keys in wanted.items() for key in keys if key not in run[part]]
            if missing:
                raise KeyError(missing[0])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder / _RUN}: cannot be read ({error!r}); predict the slide anew") from error
    if task != "detection":
        raise DataError(f"{folder}: was predicted by a model for {task}; give predictions of a detector")
    rows, names = [], []
    path = folder / _DETECTIONS
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            for line in reader:
                try:
                    rows.append([float(line[column]) for column in _COLUMNS[:5]])
                    names.append(line["class"])
                    if names[-1] not in classes:
                        raise ValueError(f"class {names[-1]!r} is none of the model's")
                except (KeyError, TypeError, ValueError) as error:
                    raise DataError(f"{path}, line {reader.line_num}: cannot be read ({error}); predict anew") from None
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; predict the slide anew") from None
    table = np.array(rows, dtype=np.float64).reshape(-1, 5)
    return PredictedSlide(folder.name, folder, table[:, :4], table[:, 4], names, run)


def _model(slide: PredictedSlide) -> str:
    model = slide.run["model"]
    return f"{model['name']} {model['version']} ({str(model['digest'])[:12]})"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if names[5:] else "")
