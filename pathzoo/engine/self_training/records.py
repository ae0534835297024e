"""A region's prediction on disk: two pictures, and a record that says what they are of and by whom."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from pathzoo.engine.self_training.confidence import LEVELS
from pathzoo.engine.self_training.labeller import Tiling, predict_region
from pathzoo.engine.self_training.pictures import file_name, read_values, write_grey, write_labels
from pathzoo.errors import DataError
from pathzoo.fileio import sha256_file, write_text

_REMEDY = "go on by --resume, which predicts that region again"


def check_unchanged(region: Any) -> None:
    """Raises DataError where a region's image is gone, or other bytes than those that the data set was loaded with."""
    try:
        same = sha256_file(region.image) == region.sha256
    except OSError:
        same = False
    if not same:
        raise DataError(f"{region.image}: changed since the data was loaded: restore it, and go on by --resume")


def predict_and_store(
    folder: Path,
    region: Any,
    image: NDArray[np.uint8],
    model: nn.Module,
    colors: Sequence[Sequence[int]],
    tiling: Tiling,
    fingerprint: str,
) -> None:
    """Predicts a region and writes predicted/, confidence/ and, last, regions/; each file whole or not at all.

    Args:
        folder: of the round.
        region: of the dataset (item, image, sha256, width, height).
        image: (H, W, 3) uint8 RGB, the region's.
        model: the teacher, in evaluation mode.
        colors: RGB of each of the C classes.
        tiling: how it is cut and seen.
        fingerprint: of what the prediction depends on beside the image.
    """
    predicted, confidence = predict_region(model, image, len(colors), tiling)
    name = file_name(region.item)
    record = {
        "item": region.item,
        "fingerprint": fingerprint,
        "image_sha256": region.sha256,
        "width": region.width,
        "height": region.height,
        "predicted": write_labels(folder / "predicted" / f"{name}.png", predicted, colors),
        "confidence": write_grey(folder / "confidence" / f"{name}.png", confidence),
        "counts": count_levels(predicted, confidence, len(colors)).tolist(),
    }
    write_text(_path(folder, region.item), json.dumps(record) + "\n")


def count_levels(predicted: NDArray[np.uint8], confidence: NDArray[np.uint8], n_classes: int) -> NDArray[np.int64]:
    """(C, 256) pixels by predicted class and level of confidence, by one bincount over a joint code."""
    code = predicted.astype(np.int64) * LEVELS + confidence
    return np.bincount(code.ravel(), minlength=n_classes * LEVELS).reshape(n_classes, LEVELS)


def load_record(folder: Path, item: str) -> dict[str, Any] | None:
    """The record of a region, or None where it is not there or no whole record."""
    try:
        record = json.loads(_path(folder, item).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and record.get("item") == item else None


def is_done(folder: Path, region: Any, fingerprint: str) -> bool:
    """Whether the region was predicted under this fingerprint and its pictures are as they were written.

    Raises:
        DataError: it was, but from another image under the same name.
    """
    record = load_record(folder, region.item)
    if record is None or record.get("fingerprint") != fingerprint:
        return False
    if record["image_sha256"] != region.sha256:
        raise DataError(
            f"{region.image}: changed since this round began ({folder}): restore the image, or remove {folder} to "
            "predict all regions again"
        )
    try:
        read_prediction(folder, record)
    except DataError:
        return False
    return True


def read_prediction(folder: Path, record: dict[str, Any]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The (H, W) classes and levels that a record describes.

    Raises:
        DataError: a picture is missing, truncated or changed.
    """
    name, size = f"{file_name(record['item'])}.png", (record["width"], record["height"])
    predicted = read_values(folder / "predicted" / name, record["predicted"], size, _REMEDY)
    return predicted, read_values(folder / "confidence" / name, record["confidence"], size, _REMEDY)


def _path(folder: Path, item: str) -> Path:
    return folder / "regions" / f"{file_name(item)}.json"
