"""What `pathzoo predict` found on slides, read from the folders that it wrote."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pathzoo.errors import DataError

_DETECTIONS, _RUN = "detections.csv", "predict_run.json"
_COLUMNS = ("x0", "y0", "x1", "y1", "score", "class")


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
    def least_score(self) -> float:
        """From which score on detections were written. Written scores have four digits, so this has no more."""
        return round(float(self.run["detection"]["score_threshold"]), 4)

    @property
    def mm2(self) -> float:
        """Area within the bounds in square millimetres."""
        _, _, width, height = self.bounds
        return float(width * height * self.run["slide"]["mpp"] ** 2 / 1e6)


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
