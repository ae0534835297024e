"""The files of an evaluation: metrics.json, predictions.csv, curves/*.csv and plots/*.png."""

import csv
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pathzoo.errors import DataError
from pathzoo.evaluation.functional import (
    Row,
    check_predictions,
    classification_report,
    confusion_matrix,
    precision_recall_curve,
    reliability_curve,
    roc_curve,
    top_confidence,
)
from pathzoo.evaluation.functional.rows import digits
from pathzoo.fileio import write_csv, write_json

_PROB = "prob_"
_COLUMNS = ("item", "patient", "slide", "label", "predicted")


@dataclass
class Predictions:
    """What predictions.csv holds of N images and C classes; its fields are `write_evaluation`'s arguments.

    `probs` float64 (N, C), `labels` int64 (N,), `items`, `patients` and `slides` N names each, None where unknown.
    """

    probs: np.ndarray
    labels: np.ndarray
    items: list[str]
    patients: list[str | None]
    slides: list[str | None]
    classes: list[str]


def write_evaluation(
    out_dir: str | os.PathLike[str],
    probs: ArrayLike,
    labels: ArrayLike,
    items: Sequence[str],
    patients: Sequence[str | None] | None,
    slides: Sequence[str | None] | None,
    classes: Sequence[str],
    positive: int = 1,
    n_bootstrap: int = 1000,
    seed: int = 0,
    level: str = "image",
    extra: dict[str, Any] | None = None,
) -> list[Row]:
    """Evaluates a classifier's probabilities and writes everything about it into one folder.

    metrics.json (`rows`, counts, confusion matrix; written last), predictions.csv, curves/{confusion_matrix, roc,
    precision_recall, reliability}.csv and plots/ of the same names. Each file appears whole or not at all.

    Args:
        out_dir: folder, made where absent; files of an earlier evaluation in it are replaced.
        probs: class probabilities (N, C), rows summing to 1.
        labels: class indices (N,).
        items: name of each image, as in splits.json.
        patients: patient of each image, None where unknown; None for all unknown.
        slides: slide of each image, likewise.
        classes: C names.
        positive: index of the positive class; used with two classes only.
        n_bootstrap: resamples of patients; 0 for no intervals.
        seed: of the resampling.
        level: what one image is: "image" or "tile".
        extra: further entries for metrics.json (of JSON types).

    Returns:
        The rows, see `classification_report`.

    Raises:
        DataError: nothing to evaluate, or a label or probability out of range (the item is named).
    """
    folder = Path(out_dir)
    if len(items) != len(np.asarray(labels)):
        raise DataError(f"{len(items)} item names for {len(np.asarray(labels))} predictions: give one for each")
    matrix, truth = check_predictions(probs, labels, classes, items)
    who = [None] * len(items) if patients is None else list(patients)
    where = [None] * len(items) if slides is None else list(slides)
    rows = classification_report(matrix, truth, who, where, classes, positive, n_bootstrap, seed, level)
    confusion = confusion_matrix(truth, matrix.argmax(axis=1), len(classes))
    # The CSV keeps the digits that the model gave: float32 in, float32 digits out.
    write_predictions(folder / "predictions.csv", np.asarray(probs), truth, items, who, where, classes)
    _write_curves(folder / "curves", matrix, truth, classes, positive, confusion)
    _write_plots(folder / "plots", matrix, truth, classes, positive, confusion, rows)
    summary = {
        "rows": rows,
        **_counts(truth, who, where, classes),
        "classes": list(classes),
        "positive": classes[positive] if len(classes) == 2 else None,
        "confusion_matrix": confusion.astype(int).tolist(),
        "intervals": {"level": 0.95, "resampled": "patient", "n_replicates": n_bootstrap, "seed": seed},
        **(extra or {}),
    }
    write_json(folder / "metrics.json", summary)
    return rows


def write_predictions(
    path: str | os.PathLike[str],
    probs: np.ndarray,
    labels: ArrayLike,
    items: Sequence[str],
    patients: Sequence[str | None],
    slides: Sequence[str | None],
    classes: Sequence[str],
) -> None:
    """Writes item, patient, slide, label, predicted (class names) and prob_CLASS of each image as CSV.

    An unknown patient or slide is an empty cell. Probabilities have the shortest digits that read back to the same
    number of the array's type.
    """
    lines = (
        [item, patient or "", slide or "", classes[label], classes[int(row.argmax())], *map(digits, row)]
        for item, patient, slide, label, row in zip(items, patients, slides, np.asarray(labels), probs, strict=True)
    )
    write_csv(Path(path), [*_COLUMNS, *(_PROB + name for name in classes)], lines)


def read_predictions(path: str | os.PathLike[str]) -> Predictions:
    """Reads what `write_predictions` wrote, for instance to pool the folds of a cross-validation.

    Raises:
        DataError: a column is missing, or a row cannot be read; it names the file and the line.
    """
    with Path(path).open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        head = list(reader.fieldnames or [])
        classes = [name.removeprefix(_PROB) for name in head if name.startswith(_PROB)]
        missing = [name for name in _COLUMNS if name not in head]
        if missing or len(classes) < 2:
            raise DataError(
                f"{path}: no column {', '.join(missing) or _PROB + 'CLASS'}; give a predictions.csv of pathzoo"
            )
        number = {name: index for index, name in enumerate(classes)}
        read = Predictions(np.empty(0), np.empty(0), [], [], [], classes)
        probs, labels = [], []
        for line in reader:
            try:
                probs.append([float(line[_PROB + name]) for name in classes])
                labels.append(number[line["label"]])
            except (KeyError, TypeError, ValueError) as error:
                raise DataError(
                    f"{path}, line {reader.line_num}: cannot be read ({error!r}); write the file anew"
                ) from None
            read.items.append(line["item"])
            read.patients.append(line["patient"] or None)
            read.slides.append(line["slide"] or None)
    read.probs = np.array(probs, dtype=np.float64).reshape(len(labels), len(classes))
    read.labels = np.array(labels, dtype=np.int64)
    return read


def _counts(
    labels: np.ndarray, patients: Sequence[str | None], slides: Sequence[str | None], classes: Sequence[str]
) -> dict[str, Any]:
    per_label = Counter(labels.tolist())
    return {
        "n_images": len(labels),
        "n_images_of_class": {name: per_label[index] for index, name in enumerate(classes)},
        "n_patients": len({patient for patient in patients if patient is not None}),
        "n_images_of_unknown_patient": sum(patient is None for patient in patients),
        "n_slides": len({slide for slide in slides if slide is not None}),
    }


def _write_curves(
    folder: Path, probs: np.ndarray, labels: np.ndarray, classes: Sequence[str], positive: int, confusion: np.ndarray
) -> None:
    matrix = ([name, *map(int, row)] for name, row in zip(classes, confusion, strict=True))
    write_csv(folder / "confusion_matrix.csv", ["true", *(f"predicted_{name}" for name in classes)], matrix)
    shown = [positive] if len(classes) == 2 else range(len(classes))
    roc = [(classes[k], roc_curve(probs[:, k], labels == k)) for k in shown]
    write_csv(
        folder / "roc.csv",
        ["class", "threshold", "false_positive_rate", "true_positive_rate"],
        ([name, *map(digits, point)] for name, (fpr, tpr, cut) in roc for point in zip(cut, fpr, tpr, strict=True)),
    )
    recall = [(classes[k], precision_recall_curve(probs[:, k], labels == k)) for k in shown]
    write_csv(
        folder / "precision_recall.csv",
        ["class", "threshold", "precision", "recall"],
        ([name, *map(digits, point)] for name, (rec, pre, cut) in recall for point in zip(cut, pre, rec, strict=True)),
    )
    bins = reliability_curve(top_confidence(probs), probs.argmax(axis=1) == labels)
    write_csv(
        folder / "reliability.csv",
        ["from", "to", "n", "confidence", "accuracy"],
        (
            [digits(low), digits(high), int(n), digits(confidence), digits(accuracy)]
            for low, high, n, confidence, accuracy in zip(bins.edges[:-1], bins.edges[1:], *bins[1:], strict=True)
        ),
    )


def _write_plots(
    folder: Path,
    probs: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    positive: int,
    confusion: np.ndarray,
    rows: Sequence[Row],
) -> None:
    from pathzoo.visualization import curves  # matplotlib loads only where something is drawn

    bounds = {row["metric"]: (row["low"], row["high"]) for row in reversed(rows)}  # the first row of a name counts
    for name, figure in {
        "confusion_matrix": curves.plot_confusion_matrix(confusion, classes),
        "roc": curves.plot_roc(probs, labels, classes, positive, _known(bounds["roc_auc"])),
        "precision_recall": curves.plot_precision_recall(
            probs, labels, classes, positive, _known(bounds["average_precision"])
        ),
        "reliability": curves.plot_reliability(probs, labels),
    }.items():
        curves.save_figure(figure, folder / f"{name}.png")


def _known(interval: tuple[float | None, float | None]) -> tuple[float, float] | None:
    low, high = interval
    return None if low is None or high is None else (low, high)
