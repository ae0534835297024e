"""Label masks: one channel of class indices, 255 where a pixel is to be ignored. Needs no torch.

A mask is a lossless picture of one 8-bit channel (PNG, TIFF, BMP). Of a palette picture the indices are the values; its
colours serve the eye alone.
"""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from PIL import Image

from pathzoo.datasets.inventory import ImageRecord, inspect_all, read_picture
from pathzoo.datasets.region_table import IGNORE
from pathzoo.errors import ConfigError, DataError

#: Pillow's modes whose samples are the values: 8-bit grey, palette indices, one bit (0 and 1).
_MODES = ("L", "P", "1")
_LOSSY = ("JPEG", "JPEG2000", "MPO", "WEBP")
#: What to say of a file that is not what it was at the scan.
CHANGED = "its bytes changed since the data set was loaded: restore it, or start again"
_SETTLED_NS = 2_000_000_000
_BLOCK = 1 << 20

#: What this process has scanned: several subsets of one data set look at the same masks.
_known: dict[tuple, "MaskRecord"] = {}


@dataclass(frozen=True)
class MaskRecord:
    """One scanned mask.

    Attributes:
        path: as it was asked for.
        sha256: of the file's bytes; None where it could not be read.
        width: in pixels; None where it could not be decoded.
        height: in pixels; None likewise.
        counts: pixels by value, 256 numbers; None likewise.
        error: None for a mask that can be read, otherwise what is wrong with it, in a few words.
        missing: there is no file at that path.
    """

    path: str
    sha256: str | None
    width: int | None = None
    height: int | None = None
    counts: tuple[int, ...] | None = None
    error: str | None = None
    missing: bool = False


def inspect_mask(path: str | os.PathLike) -> MaskRecord:
    """Reads a mask to its end and counts its values; never raises for what is wrong with it, but says so."""
    path = str(path)
    read = read_picture(path)
    problem = read.error or _problem(read.picture, read.kind)
    if problem or read.picture is None:
        return MaskRecord(path, read.sha256, error=problem, missing=read.missing)
    values = _values(read.picture)
    return MaskRecord(path, read.sha256, values.shape[1], values.shape[0], tuple(count_values(values).tolist()))


def scan_masks(
    paths: Sequence[str | os.PathLike], workers: int | None = None, progress: bool = True
) -> list[MaskRecord]:
    """Inspects masks in threads; those that this process has seen and that have not changed since are not read again.

    Args:
        paths: mask files.
        workers: threads; None for one per core, at most 16.
        progress: shows a bar on standard error once the scan has taken a second.

    Returns:
        One record per path, in the order of `paths`.
    """
    names = [str(path) for path in paths]
    stamps = [_stamp(name) for name in names]
    todo = [index for index, stamp in enumerate(stamps) if stamp not in _known]
    fresh = inspect_all([names[index] for index in todo], inspect_mask, workers, progress, "checking masks")
    records = [_known.get(stamp) for stamp in stamps]
    for index, record in zip(todo, fresh, strict=True):
        records[index] = record
        if stamps[index] is not None and record.error is None:
            _known[stamps[index]] = record
    return [record for record in records if record is not None]


def read_mask(path: str | os.PathLike) -> np.ndarray:
    """The values of a mask: uint8 (H, W).

    Raises:
        DataError: missing, damaged, or not one 8-bit channel; the message names the file.
    """
    read = read_picture(path)
    problem = read.error or _problem(read.picture, read.kind)
    if problem or read.picture is None:
        raise DataError(f"{path}: {problem}; restore the mask")
    return _values(read.picture)


def read_known_mask(path: str | os.PathLike, sha256: str) -> np.ndarray:
    """As `read_mask`, of a mask whose digest is known.

    Raises:
        DataError: also where the file has changed.
    """
    read = read_picture(path)
    if read.sha256 != sha256:
        raise DataError(f"{path}: {read.error or CHANGED}")
    assert read.picture is not None
    return _values(read.picture)


def as_palette(labels: np.ndarray, palette: Sequence[Sequence[int]]) -> Image.Image:
    """A label map, uint8 (H, W), as a palette picture: the indices are the labels, the rest of the palette is white."""
    picture = Image.frombytes("P", (labels.shape[1], labels.shape[0]), np.ascontiguousarray(labels).tobytes())
    colors = [*palette, *[(255, 255, 255)] * (256 - len(palette))]
    picture.putpalette([int(value) for color in colors for value in color])
    return picture


def count_values(values: np.ndarray) -> np.ndarray:
    """Pixels by value, int64 (256,), of uint8 values of any shape."""
    flat, counts = values.reshape(-1), np.zeros(256, np.int64)
    for start in range(0, len(flat), _BLOCK):  # bincount widens what it counts to 8 bytes
        counts += np.bincount(flat[start : start + _BLOCK], minlength=256)
    return counts


def value_lookup(n_classes: int, value_map: Mapping[Any, int] | None = None) -> np.ndarray:
    """What each mask value means: int16 (256,), a class index, 255 (ignored), or -1 for a value that may not occur.

    Args:
        n_classes: without a map, values 0 .. n_classes - 1 and 255 are themselves.
        value_map: value -> class index or 255. With a map, only the values that it names and 255 may occur.

    Raises:
        ConfigError: a key that is no value of 0..255, or a class that there is not.
    """
    lookup = np.full(256, -1, np.int16)
    lookup[IGNORE] = IGNORE
    if value_map is None:
        lookup[:n_classes] = np.arange(n_classes)
        return lookup
    for key, index in value_map.items():
        try:
            value = int(key)
        except (TypeError, ValueError):
            value = -1
        if not 0 <= value <= 255:
            raise ConfigError(f"value_map: {key!r} is no mask value; give whole numbers of 0..255")
        if isinstance(index, bool) or not isinstance(index, int) or not (0 <= index < n_classes or index == IGNORE):
            raise ConfigError(f"value_map: {value} -> {index!r}: give a class index of 0..{n_classes - 1}, or {IGNORE}")
        lookup[value] = index
    return lookup


def parse_value_map(words: Sequence[str], classes: Sequence[str]) -> dict[int, int]:
    """A value_map as a command line has it: VALUE=CLASS, the class by its name or its index.

    Raises:
        ConfigError: a word of another form, or a name that is no class.
    """
    found = {}
    for word in words:
        value, _, kind = word.partition("=")
        index = str(list(classes).index(kind)) if kind in classes else kind
        if not (value.isdecimal() and index.isdecimal()):
            raise ConfigError(f"--value-map {word!r}: expected VALUE=CLASS, such as 255=1 or 255={classes[-1]}")
        found[int(value)] = int(index)
    return found


def apply_lookup(values: np.ndarray, lookup: np.ndarray) -> np.ndarray:
    """Class indices, uint8 like `values`; every value has to be allowed by `lookup` (see `unknown_values`)."""
    return cv2.LUT(values, lookup.astype(np.uint8))


def unknown_values(counts: Sequence[int], lookup: np.ndarray) -> list[int]:
    """The values that occur and may not."""
    return [value for value, count in enumerate(counts) if count and lookup[value] < 0]


def class_counts(counts: Sequence[int], lookup: np.ndarray, n_classes: int) -> tuple[int, ...]:
    """Pixels of each class, of a mask with `counts` pixels by value."""
    pixels = np.bincount(np.maximum(lookup, 0), np.where(lookup < 0, 0, counts), minlength=256)
    return tuple(int(count) for count in pixels[:n_classes])


def size_problem(image: ImageRecord, mask: MaskRecord) -> str | None:
    """What to say where a mask does not fit its image; None where it does."""
    if (image.width, image.height) == (mask.width, mask.height):
        return None
    return f"{mask.width} x {mask.height} px, and its image {image.path} {image.width} x {image.height}"


def unknown_value_text(record: MaskRecord, lookup: np.ndarray, classes: Sequence[str]) -> str | None:
    """What to say of a mask with values that may not occur: which, where, how many pixels; None for a good one."""
    assert record.counts is not None
    unknown = unknown_values(record.counts, lookup)
    if not unknown:
        return None
    first = unknown[0]
    y, x = np.argwhere(read_mask(record.path) == first)[0]
    others = f", and the values {', '.join(map(str, unknown[1:4]))}" if unknown[1:] else ""
    return (
        f"value {first} at x={x}, y={y} ({record.counts[first]} pixels{others}) is no class "
        f"({', '.join(f'{index} {name}' for index, name in enumerate(classes))}; {IGNORE} is ignored)"
    )


def _values(picture: Image.Image) -> np.ndarray:
    return np.array(picture).astype(np.uint8, copy=False)


def _problem(picture: Image.Image | None, kind: str | None) -> str | None:
    if picture is None:
        return "cannot be decoded"
    if kind in _LOSSY:
        return f"{kind} changes values on the way; save the class indices as PNG"
    if picture.mode not in _MODES:
        return f"pixels of mode {picture.mode} are no class indices; save one 8-bit channel (grey or palette PNG)"
    return None


def _stamp(name: str) -> tuple | None:
    """What tells an unchanged file; None where there is none, or where it is too new to be told from its next state."""
    try:
        status = os.stat(name)  # noqa: PTH116 - a third of Path.stat's time
    except OSError:
        return None
    if time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) < _SETTLED_NS:
        return None
    return os.path.abspath(name), status.st_size, status.st_mtime_ns, status.st_ctime_ns  # noqa: PTH100
