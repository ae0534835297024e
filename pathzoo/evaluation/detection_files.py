"""The files of a detector's evaluation: metrics.json, matches.csv, curves/*.csv and plots/*.png."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pathzoo.evaluation.detection_report import DetectionResult, DetectionRules, DetectionSet, evaluate_detection
from pathzoo.evaluation.functional.detection import (
    ConfidenceCurve,
    average_precision_area,
    confidence_curve,
    told_points,
)
from pathzoo.evaluation.functional.detection_matching import FOUND, LEFT_OUT
from pathzoo.evaluation.functional.froc import froc_curve
from pathzoo.evaluation.functional.rows import digits
from pathzoo.fileio import write_csv, write_json

#: What all classes together are called in curves, where there are several.
ALL = "(all classes)"


def write_detection(
    out_dir: str | os.PathLike[str],
    found: DetectionSet,
    rules: DetectionRules | None = None,
    extra: dict[str, Any] | None = None,
) -> DetectionResult:
    """Evaluates a detector and writes everything about it into one folder.

    metrics.json (`rows`, counts, and `curve`: what some thresholds give; written last); matches.csv, a row for each
    detection and for each object that none found; curves/{precision_recall, confidence, froc}.csv, a row for each
    distinct score and class, every value that of the detections from this score up; plots/ of the same names. Each file
    appears whole or not at all.

    Args:
        out_dir: folder, made where absent; files of an earlier evaluation in it are replaced.
        found: what to evaluate.
        rules: how; by default `DetectionRules()`.
        extra: further entries for metrics.json (of JSON types).

    Raises:
        DataError, ConfigError: see `evaluate_detection`. Nothing is written then.
    """
    rules = DetectionRules() if rules is None else rules
    folder, result = Path(out_dir), evaluate_detection(found, rules)
    write_csv(folder / "matches.csv", _MATCH_HEAD, _match_lines(found, result))
    for name, (head, lines) in _curve_tables(found, result).items():
        write_csv(folder / "curves" / f"{name}.csv", head, lines)
    _write_plots(folder / "plots", found, result)
    write_json(folder / "metrics.json", {"rows": result.rows, **_counts(found, result, rules), **(extra or {})})
    return result


_MATCH_HEAD = ("item", "patient", "slide", "class", "outcome", "score", "x0", "y0", "x1", "y1", "object")


def _match_lines(found: DetectionSet, result: DetectionResult) -> Iterator[list[Any]]:
    """By item and class: detections by falling score (found, false, again, left out), then the objects missed."""
    for label, (name, match) in enumerate(zip(found.classes, result.matches, strict=True)):
        starts = np.searchsorted(match.unit, np.arange(len(found.pictures) + 1))
        for unit, picture in enumerate(found.pictures):
            about = [found.items[unit], found.patients[unit] or "", found.slides[unit] or "", name]
            ids = found.objects[unit] if found.objects is not None else range(len(picture.objects))
            seen = set()
            for k in range(starts[unit], starts[unit + 1]):
                outcome, number = int(match.outcome[0, k]), int(match.object[0, k])
                what = {FOUND: "found", LEFT_OUT: "left out"}.get(outcome, "false" if number < 0 else "again")
                seen |= {number} if outcome == FOUND else set()
                box = picture.boxes[match.place[k]].tolist()
                yield [*about, what, f"{match.scores[k]:.6g}", *_pixels(box), "" if number < 0 else ids[number]]
            for number in np.flatnonzero((picture.object_labels == label) & ~picture.ignored).tolist():
                if number not in seen:
                    yield [*about, "missed", "", *_pixels(picture.objects[number].tolist()), ids[number]]


def _curve_tables(found: DetectionSet, result: DetectionResult) -> dict[str, tuple[list[str], list[list[Any]]]]:
    """Name -> head and lines."""
    named = {ALL: result.outcomes} if len(found.classes) > 1 else {}
    named |= dict(zip(found.classes, result.by_class, strict=True))
    unit = found.level if found.mm2 is None else "mm2"
    tables: dict[str, tuple[list[str], list[list[Any]]]] = {
        "precision_recall": (["class", "threshold", "recall", "precision"], []),
        "confidence": (["class", "threshold", "precision", "recall", "f1", "found", "false", "missed"], []),
        "froc": (["class", "threshold", f"false_positives_per_{unit}", "sensitivity"], []),
    }
    for name, outcomes in named.items():
        curve, froc = confidence_curve(outcomes), froc_curve(found.by_area(outcomes))
        missed = outcomes.n_objects.sum() - curve.found
        for key, columns in (
            ("precision_recall", (curve.thresholds, curve.recall, curve.precision)),
            ("confidence", (*curve[:4], curve.found, curve.false, missed)),
            ("froc", tuple(froc)),
        ):
            tables[key][1].extend([name, *map(digits, values)] for values in zip(*columns, strict=True))
    return tables


def _write_plots(folder: Path, found: DetectionSet, result: DetectionResult) -> None:
    from pathzoo.visualization import detection  # matplotlib loads only where something is drawn
    from pathzoo.visualization.curves import save_figure

    outcomes = dict(zip(found.classes, result.by_class, strict=True))
    areas = {name: float(average_precision_area(each)) for name, each in outcomes.items()}
    row = next(row for row in result.rows if row["metric"] == "average_precision")
    interval = None if row["low"] is None or row["high"] is None else (row["low"], row["high"])
    unit = found.level if found.mm2 is None else "mm²"
    total = int(result.outcomes.n_objects.sum())
    note = f"{_number(total, 'object')} in {_number(len(found.pictures), found.level)}"
    curves = {name: confidence_curve(each) for name, each in outcomes.items()}
    froc = {name: froc_curve(found.by_area(each)) for name, each in outcomes.items()}
    for name, figure in {
        "precision_recall": detection.plot_detection_recall(curves, areas, result.points, interval, note),
        "confidence": detection.plot_confidence(result.curve, result.points, note),
        "froc": detection.plot_froc(froc, unit, result.points, note),
    }.items():
        save_figure(figure, folder / f"{name}.png")


def _counts(found: DetectionSet, result: DetectionResult, rules: DetectionRules) -> dict[str, Any]:
    patients, slides = ({name for name in names if name is not None} for names in (found.patients, found.slides))
    again = [(match.outcome[0] == 0) & (match.object[0] >= 0) for match in result.matches]
    return {
        "level": found.level,
        "classes": list(found.classes),
        f"n_{found.level}s": len(found.pictures),
        **({} if found.level == "slide" else {"n_slides": len(slides)}),
        "n_patients": len(patients),
        f"n_{found.level}s_of_unknown_patient": sum(patient is None for patient in found.patients),
        "n_objects": int(result.outcomes.n_objects.sum()),
        "n_objects_of_class": {
            name: int(each.n_objects.sum()) for name, each in zip(found.classes, result.by_class, strict=True)
        },
        "n_objects_ignored": int(sum(picture.ignored.sum() for picture in found.pictures)),
        "n_detections": int(sum(len(match.scores) for match in result.matches)),
        "n_detections_left_out": int(sum((match.outcome[0] == LEFT_OUT).sum() for match in result.matches)),
        "n_detections_of_objects_found_before": int(sum(each.sum() for each in again)),
        "matching": {"iou": rules.iou, "order": "falling score, each object once"},
        "points": [
            {"name": point.name, "threshold": point.threshold, "note": point.note or None} for point in result.points
        ],
        "curve": _told(result.curve, len(found.pictures)),
        "intervals": {
            "level": 0.95,
            "resampled": result.resampled,
            "n_replicates": rules.n_bootstrap,
            "seed": rules.seed,
        },
    }


def _told(curve: ConfidenceCurve, n_pictures: int) -> list[dict[str, float]]:
    """The curve in the few points that a published model carries; false detections for each picture."""
    columns = {
        "threshold": curve.thresholds,
        "precision": curve.precision,
        "recall": curve.recall,
        "f1": curve.f1,
        "false_positives": curve.false / n_pictures,
    }
    return [{name: float(values[k]) for name, values in columns.items()} for k in told_points(curve)]


def _pixels(box: Sequence[float]) -> list[str]:
    return [f"{value:.2f}" for value in box]


def _number(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"
