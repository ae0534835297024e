"""Detection over a slide: the objects of all tiles, each once, and the files that show them."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from pathzoo.errors import SlideError
from pathzoo.wsi.contact_sheet import write_contact_sheets
from pathzoo.wsi.geojson import Feature, detection, write_features
from pathzoo.wsi.grading import (
    Grades,
    Labels,
    by_class,
    grade_header,
    grade_notes,
    grade_objects,
    grade_record,
    label_objects,
    lost_crops,
)
from pathzoo.wsi.job import Outcome, SkippedTile, SlideJob, TileBatch
from pathzoo.wsi.merging import Float64, MergeRule, merge_boxes
from pathzoo.wsi.outputs import write_csv, write_picture
from pathzoo.wsi.overlay import overlay_boxes
from pathzoo.wsi.predictor import Boxes, Prediction, Predictor
from pathzoo.wsi.tiling import TileGrid
from pathzoo.wsi.types import Float32, Int64, Region

_HEADER = ("x0", "y0", "x1", "y1", "score", "class")


def detect(job: SlideJob, batches: Iterable[TileBatch]) -> Outcome:
    """Finds objects in every tile, merges what several tiles found, and writes the files; a `pathzoo.wsi.job.Task`.

    Writes detections.csv (x0, y0, x1, y1, score, class: level-0 pixels of the slide, rounded outwards to hundredths;
    by falling score, then x0, y0), prediction.geojson (the same objects in the same order, for QuPath), overlay.png
    and contact_sheet.png (the objects in this order, see `pathzoo.wsi.contact_sheet`). A tile with undecodable parts is
    predicted all the same, but a box centred on such a part is dropped.

    With `job.grading` each object is classified from a crop around it (see `pathzoo.wsi.grading`): crops/NNNN.png is
    written, detections.csv has the further columns grade and prob_CLASS, and what is made for the eye shows the grade.

    Of `job.settings`, "score_threshold" (0..1; by default the predictor's attribute of this name, or else 0: all that
    the model gives) drops boxes before merging;
    "merge_iou" and "merge_ios" are those of `pathzoo.wsi.merging.MergeRule`.

    Raises:
        SlideError: Not one tile can be read, the model answers with NaN, or a setting is out of range.
    """
    rule, least = merge_rule(job), _setting(job, "score_threshold", own_threshold(job), 0.0)
    grid, bounds, corners = job.grid, job.slide.bounds, job.grid.corners
    found, tile, skipped, lost = [np.zeros((0, 6))], [np.zeros(0, np.int64)], list[SkippedTile](), 0
    for batch in job.tracked(batches):
        skipped += job.skipped(batch)
        nothing = job.wholly_damaged(batch)
        lost += len(nothing)
        good = [i for i, number in enumerate(batch.numbers.tolist()) if number not in nothing]
        if not good:
            continue
        tiles = batch.pixels if len(good) == len(batch) else batch.pixels[good]
        for i, boxes in zip(good, check_boxes(job.predictor, job.predict(tiles), len(good)), strict=True):
            number = int(batch.numbers[i])
            boxes = boxes[boxes[:, 4] >= least]
            if number in batch.damage:
                boxes = _off_damage(boxes, batch.damage[number][0])
            found.append(to_slide(boxes, corners[number], grid.downsample, bounds))
            tile.append(np.full(len(found[-1]), number, np.int64))
    if lost and lost == len(grid):
        raise SlideError(f"{job.slide.path}: none of {lost} tiles can be decoded; the first: {skipped[0].reason}")
    objects, _ = merge_boxes(np.concatenate(found), np.concatenate(tile), tile_frames(grid), bounds, rule)
    objects = rounded(objects)
    merging = {"iou": rule.iou, "ios": rule.ios, "seam": rule.seam, "edge_px": rule.edge}
    record = {"score_threshold": least, "merging": merging, "boxes_of_all_tiles": sum(map(len, found))}
    grades = None if job.grading is None else grade_objects(job, job.grading, objects)
    labels = label_objects(objects, job.predictor.classes, grades)
    _write(job, objects, grades, labels, len(skipped))
    sheet = write_contact_sheets(job, objects, grades, labels)
    return _outcome(job, objects, grades, skipped, {"detection": record, "contact_sheet": sheet})


def own_threshold(job: SlideJob) -> float:
    """The score from which on the model's publisher gives its objects; 0 where none was named."""
    own = getattr(job.predictor, "score_threshold", None)
    return 0.0 if own is None else float(own)


def merge_rule(job: SlideJob) -> MergeRule:
    """The thresholds of a job: its settings, and how near to a tile's edge a box counts as cut.

    That is 2 pixels of the tile, and more where the overlap leaves room: a quarter of the overlap, up to a hundredth of
    the tile, since detectors place the sides of what is cut off less exactly the larger it is.
    """
    grid = job.grid
    shared = min(extent - stride for stride, extent in zip(grid.stride, grid.extent, strict=True)) / grid.downsample
    edge = max(2.0, min(shared / 4, min(grid.tile_size) / 100))
    iou = _setting(job, "merge_iou", MergeRule.iou, 1e-6)
    return MergeRule(iou, _setting(job, "merge_ios", MergeRule.ios, 1e-6), edge=edge * grid.downsample)


def check_boxes(predictor: Predictor, answer: Prediction, n: int) -> list[Float32]:
    """A detector's answer for n tiles as n arrays (k, 6), clipped to the tile.

    Raises:
        TypeError, ValueError: Another kind of answer, number of arrays or shape, a box without area or wholly outside
            its tile, a score outside 0..1, or a class that the model does not have: a defect of the predictor.
        SlideError: NaN or infinite numbers.
    """
    name = f"predictor {predictor.name}"
    if not isinstance(answer, Boxes):
        raise TypeError(f"{name} answered {type(answer).__name__}, expected Boxes")
    if len(answer.boxes) != n:
        raise ValueError(f"{name} answered boxes of {len(answer.boxes)} tiles, expected {n}")
    return [_checked(boxes, predictor) for boxes in answer.boxes]


def _checked(boxes: Float32, predictor: Predictor) -> Float32:
    name = f"predictor {predictor.name}"
    if not isinstance(boxes, np.ndarray) or boxes.dtype != np.float32:
        kind = boxes.dtype if isinstance(boxes, np.ndarray) else type(boxes).__name__
        raise TypeError(f"{name} answered boxes of type {kind}, expected an array of float32")
    if boxes.ndim != 2 or boxes.shape[1] != 6:
        raise ValueError(f"{name} answered boxes of shape {boxes.shape}, expected (n, 6)")
    if not np.isfinite(boxes).all():
        raise SlideError(f"model {predictor.name}: boxes are not finite numbers; its weights are unusable")
    width, height = predictor.input.tile_size
    scores, classes = boxes[:, 4], boxes[:, 5]
    clipped = boxes.copy()
    clipped[:, :4] = boxes[:, :4].clip(0, (width, height, width, height))
    faults = {
        "has no area (x0 < x1 and y0 < y1 are needed)": (boxes[:, :2] >= boxes[:, 2:4]).any(axis=1),
        f"lies outside its tile of {width} x {height} pixels": (clipped[:, :2] >= clipped[:, 2:4]).any(axis=1),
        "has a score (fifth value) outside 0..1": (scores < 0) | (scores > 1),
        f"has a class (sixth value) that is none of 0..{len(predictor.classes) - 1}": (classes != np.rint(classes))
        | (classes < 0)
        | (classes >= len(predictor.classes)),
    }
    for fault, wrong in faults.items():
        if wrong.any():
            values = ", ".join(f"{value:g}" for value in boxes[int(wrong.argmax())])
            raise ValueError(f"{name} answered a box ({values}) that {fault}")
    return clipped


def to_slide(boxes: Float32, corner: Int64, downsample: float, bounds: Region) -> Float64:
    """(k, 6) float64 in level-0 pixels of boxes in tile pixels, clipped to the slide's bounds.

    Those whose centre lies outside the bounds (in the white that pads a tile) are dropped.

    Args:
        boxes: (n, 6) x0, y0, x1, y1, score, class.
        corner: x and y of the tile's upper left corner in level-0 pixels.
        downsample: Level-0 pixels per tile pixel.
        bounds: x, y, width, height in level-0 pixels.
    """
    placed = boxes.astype(np.float64)
    placed[:, :4] = placed[:, :4] * downsample + np.tile(corner, 2)
    low, high = np.array(bounds[:2]), np.array(bounds[:2]) + bounds[2:]
    middle = (placed[:, :2] + placed[:, 2:4]) / 2
    placed = placed[((middle >= low) & (middle < high)).all(axis=1)]
    placed[:, :4] = placed[:, :4].clip(np.tile(low, 2), np.tile(high, 2))
    return placed


def tile_frames(grid: TileGrid) -> Float64:
    """(n, 4) x0, y0, x1, y1 of each tile in level-0 pixels."""
    corners = grid.corners.astype(np.float64)
    return np.hstack([corners, corners + np.array(grid.extent)])


def rounded(objects: Float64) -> Float64:
    """(n, 6) with the boxes rounded outwards to hundredths of a pixel, so that none loses its area."""
    hundredths = np.round(objects[:, :4] * 100, 4)
    sides = np.hstack([np.floor(hundredths[:, :2]), np.ceil(hundredths[:, 2:])]) / 100
    return np.hstack([sides, objects[:, 4:]])


def detection_rows(objects: Float64, classes: Sequence[str], grades: Grades | None = None) -> Iterator[list[object]]:
    """Rows of detections.csv, in the order given; with grades, empty where an object was not classified."""
    for number, (x0, y0, x1, y1, score, index) in enumerate(objects.tolist()):
        row = [f"{x0:.2f}", f"{y0:.2f}", f"{x1:.2f}", f"{y1:.2f}", f"{score:.4f}", classes[int(index)]]
        yield [*row, *(grades.cells(number) if grades else ())]


def detection_features(
    objects: Float64,
    classes: Sequence[str],
    *,
    mpp: float,
    origin: tuple[int, int] = (0, 0),
    key: str = "",
    grades: Grades | None = None,
) -> Iterator[Feature]:
    """QuPath detections, in the order given.

    Measurements are "Score", "Area µm^2", "Width µm" and "Height µm" of the box, and "Diameter µm", that of the circle
    as large as the ellipse inscribed in the box: the geometric mean of width and height. With grades there is a
    "Probability CLASS" for each of the classifier's classes, and QuPath's derived class "glomerulus: sclerosed".

    Args:
        objects: (n, 6) x0, y0, x1, y1 in level-0 pixels, score, class index.
        classes: Names, in the order of the indices.
        mpp: Microns per level-0 pixel.
        origin: Corner of the slide's bounds, subtracted from every coordinate.
        key: What tells this slide and model from others; with class, box and position it makes the ids, so that
            writing twice gives the same ids. Grades do not change them: the objects are the same.
        grades: What a classifier says of them.
    """
    labels = label_objects(objects, classes, grades)
    for number, (x0, y0, x1, y1, score, index) in enumerate(objects.tolist()):
        name, width, height = classes[int(index)], (x1 - x0) * mpp, (y1 - y0) * mpp
        box = (x0 - origin[0], y0 - origin[1], x1 - origin[0], y1 - origin[1])
        measurements = {
            "Score": round(score, 4),
            "Area µm^2": round(width * height, 4),
            "Width µm": round(width, 4),
            "Height µm": round(height, 4),
            "Diameter µm": round(math.sqrt(width * height), 4),
            **(grades.measurements(number) if grades else {}),
        }
        shown = labels.names[labels.which[number]]
        whole = tuple(round(value, 2) for value in box)
        yield detection(
            (whole[0], whole[1], whole[2], whole[3]),
            shown,
            labels.colors[shown],
            measurements,
            f"{key}|{number}|{name}",
        )


def _setting(job: SlideJob, name: str, default: float, least: float) -> float:
    value = job.settings.get(name)
    if value is None:
        return default
    if not isinstance(value, int | float) or not least <= value <= 1:
        raise SlideError(
            f"{job.slide.path}: {name} is {value}; it must be {'above' if least else 'from'} 0 and at most 1"
        )
    return float(value)


def _off_damage(boxes: Float32, damaged: np.ndarray) -> Float32:
    """The boxes whose centre pixel could be decoded."""
    x, y = ((boxes[:, i] + boxes[:, i + 2]) / 2 for i in (0, 1))
    height, width = damaged.shape
    return boxes[~damaged[y.astype(int).clip(0, height - 1), x.astype(int).clip(0, width - 1)]]


def _outcome(
    job: SlideJob, objects: Float64, grades: Grades | None, skipped: Sequence[SkippedTile], record: dict[str, Any]
) -> Outcome:
    classes, grading = job.predictor.classes, job.grading
    numbers = np.bincount(objects[:, 5].astype(np.int64), minlength=len(classes)).tolist()
    counts = dict(zip(classes, numbers, strict=True))
    if grading is None or grades is None:
        return Outcome(counts, "objects", tuple(skipped), record=record)
    return Outcome(
        counts,
        "objects",
        tuple(skipped),
        tuple(grade_notes(grading, grades)),
        lost=lost_crops(job, grading, objects, grades),
        grades=by_class(objects, classes, grades),
        record=record | grade_record(objects, classes, grading, grades),
    )


def _write(job: SlideJob, objects: Float64, grades: Grades | None, labels: Labels, n_skipped: int) -> None:
    slide, grid, classes = job.slide, job.grid, job.predictor.classes
    assert slide.mpp is not None
    header = [*_HEADER, *(grade_header(grades.classes) if grades else ())]
    write_csv(job.folder / "detections.csv", header, detection_rows(objects, classes, grades))
    origin = slide.bounds[:2]
    features = detection_features(objects, classes, mpp=slide.mpp, origin=origin, key=job.key, grades=grades)
    write_features(job.folder / "prediction.geojson", features)
    notes = [f"{len(grid)} tiles of {grid.tile_size[0]} × {grid.tile_size[1]} px"]
    notes += [f"at {slide.mpp * grid.downsample:.3g} µm per pixel"]
    notes += [f"{n_skipped} tiles not wholly readable"] if n_skipped else []
    notes += ["no tissue found"] if job.tissue is not None and not job.tissue.any() else []
    picture = overlay_boxes(
        job.thumbnail,
        slide.bounds,
        np.column_stack([objects[:, :5], labels.which]),
        labels.names,
        slide.mpp,
        **job.page,
        notes=notes,
        colors=labels.colors,
    )
    write_picture(job.folder / "overlay.png", picture)
