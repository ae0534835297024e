"""Probabilities of whole regions on disk, one file each: what a review of labels reads.

    FOLDER/<name>.npz                       probs: (C, H, W), uint8 in 0..255 or float in 0..1
    FOLDER/classes/<name>.png               or, where only the most probable class and its probability are known:
    FOLDER/confidence/<name>.png            index and round(255 * probability), one channel each

<name> is the picture's file name without its ending, or `file_name` of the region's item, as `write_region_probs` calls
it. A file that it wrote also says of which picture, which classes and which model it is, and is held to that.
"""

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pathzoo.datasets.inventory import read_picture
from pathzoo.engine.self_training.pictures import file_name
from pathzoo.errors import DataError
from pathzoo.fileio import atomic_path
from pathzoo.wsi.names import slide_name

#: What to do about a file that is of no use. A file that is there is not predicted again.
_AGAIN = "remove it and predict that region again"


def write_region_probs(
    folder: Path, region: Any, probs: npt.NDArray[np.uint8], classes: Sequence[str], model: str, fold: int
) -> None:
    """Writes the probabilities of one region, whole or not at all.

    Args:
        folder: Where it goes.
        region: Of the data set (item, sha256).
        probs: (C, H, W) uint8, round(255 * p).
        classes: C names.
        model: What tells the model from others, its checkpoint's digest.
        fold: Number of the fold that the region was tested in.
    """
    with atomic_path(_own_path(folder, region.item)) as temporary:
        np.savez_compressed(
            temporary,
            probs=probs,
            classes=np.array(list(classes)),
            image_sha256=np.array(region.sha256),
            model=np.array(model),
            fold=np.array(fold),
        )


def written_by(folder: Path, region: Any, classes: Sequence[str]) -> str | None:
    """The `model` of a file that `write_region_probs` left for this very region, None where there is none."""
    try:
        found = _arrays(_own_path(folder, region.item))
    except DataError:
        return None
    if str(found.get("image_sha256")) != region.sha256 or _class_names(found) != list(classes):
        return None
    return str(found["model"]) if "probs" in found and "model" in found else None


def missing_probs(folder: Path, regions: Sequence[Any]) -> list[str]:
    """The items of which the folder holds nothing."""
    return [region.item for region in regions if _path_of(folder, region) is None]


def read_region_probs(
    folder: Path, region: Any, classes: Sequence[str]
) -> tuple[npt.NDArray[np.uint8] | npt.NDArray[np.float32], int | None]:
    """Reads the probabilities of one region.

    Where only class and confidence are stored, the rest is spread evenly over the other classes.

    Args:
        folder: See the module.
        region: Of the data set (item, image, sha256, width, height).
        classes: C names.

    Returns:
        (C, H, W) uint8 in 0..255 or float32 in 0..1, and the fold, where known.

    Raises:
        DataError: No file, a damaged one, or one of another picture, size or number of classes.
    """
    path = _path_of(folder, region)
    if path is None:
        raise DataError(f"{folder}: holds no probabilities of {region.item}; expected {slide_name(region.image)}.npz")
    shape = (len(classes), region.height, region.width)
    probs, fold = _read_npz(path, region, classes) if path.suffix == ".npz" else (_read_pictures(path, shape), None)
    if probs.shape != shape:
        raise DataError(f"{path}: probabilities of shape {probs.shape}, but {region.item} needs {shape}")
    if probs.dtype != np.uint8 and not (probs.min() >= 0 and probs.max() <= 1 + 1e-3):  # NaN is neither
        raise DataError(f"{path}: values in {probs.min():g}..{probs.max():g} are no probabilities; store the softmax")
    return probs, fold


def _read_npz(path: Path, region: Any, classes: Sequence[str]) -> tuple[npt.NDArray[Any], int | None]:
    found = _arrays(path)
    if "probs" not in found:
        raise DataError(f"{path}: has no array 'probs', but {', '.join(found)}; {_AGAIN}")
    if "classes" in found and (names := _class_names(found)) != list(classes):
        raise DataError(f"{path}: is of the classes {', '.join(names)}, not {', '.join(classes)}; {_AGAIN}")
    if "image_sha256" in found and str(found["image_sha256"]) != region.sha256:
        raise DataError(f"{path}: was predicted from another picture than {region.image} is now; {_AGAIN}")
    probs = found["probs"]
    if probs.dtype != np.uint8 and probs.dtype.kind != "f":
        raise DataError(f"{path}: probs are of type {probs.dtype}; store uint8 in 0..255, or float in 0..1")
    fold = int(found["fold"]) if "fold" in found and found["fold"].size == 1 else None
    return (probs if probs.dtype == np.uint8 else probs.astype(np.float32)), fold


def _arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    try:
        with zipfile.ZipFile(path), np.load(path, allow_pickle=False) as content:
            return {name: content[name] for name in content.files}
    except (OSError, ValueError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error}); {_AGAIN}") from error


def _class_names(found: dict[str, npt.NDArray[Any]]) -> list[str] | None:
    return [str(name) for name in found["classes"].reshape(-1)] if "classes" in found else None


def _read_pictures(path: Path, shape: tuple[int, int, int]) -> npt.NDArray[np.float32]:
    best, sure = (_read_grey(file) for file in (path, path.parents[1] / "confidence" / path.name))
    count = shape[0]
    if best.shape != shape[1:] or sure.shape != shape[1:]:
        raise DataError(f"{path}: {best.shape} and its confidence {sure.shape} px (H, W), the region is {shape[1:]}")
    if best.size and int(best.max()) >= count:
        raise DataError(f"{path}: holds the value {int(best.max())}; there are {count} classes")
    confidence = sure.astype(np.float32) / 255
    rest = (1 - confidence) / max(1, count - 1)
    return np.stack([np.where(best == index, confidence, rest) for index in range(count)]).astype(np.float32)


def _read_grey(path: Path) -> npt.NDArray[np.uint8]:
    read = read_picture(path)
    if read.picture is None:
        raise DataError(f"{path}: {read.error}; {_AGAIN}")
    if read.picture.mode not in ("L", "P"):
        raise DataError(f"{path}: pixels of mode {read.picture.mode}; expected one channel of 8 bits")
    return np.asarray(read.picture)


def _own_path(folder: Path, item: str) -> Path:
    return folder / f"{file_name(item)}.npz"


def _path_of(folder: Path, region: Any) -> Path | None:
    names = file_name(region.item), slide_name(Path(region.image))
    candidates = (folder / part for name in names for part in (f"{name}.npz", f"classes/{name}.png"))
    return next((path for path in candidates if path.is_file()), None)
