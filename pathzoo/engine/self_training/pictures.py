"""Label maps and confidences as PNG files that are known by their digest."""

import io
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pathzoo.errors import DataError
from pathzoo.fileio import atomic_path, sha256_bytes

_WHITE = (255, 255, 255)
#: A third of the time of zlib's default level 6, for a fifth more bytes.
_EFFORT = 1


def file_name(item: str) -> str:
    """The name of an item's files without a suffix: its own stem, and 8 digits of the item's digest.

    Items are paths; two of them may share a stem, or differ only in what a file system does not tell apart.
    """
    stem = re.sub(r"[^A-Za-z0-9._-]+", "_", PurePosixPath(item).stem)[:60]
    return f"{stem}-{sha256_bytes(item.encode())[:8]}"


def write_labels(path: Path, labels: NDArray[np.uint8], colors: Sequence[Sequence[int]]) -> str:
    """Writes (H, W) uint8 as a palette PNG: the indices are the values, colours serve the eye alone, 255 is white.

    Returns:
        SHA-256 of the file.
    """
    picture = Image.frombytes("P", labels.shape[::-1], np.ascontiguousarray(labels).tobytes())
    entries = [tuple(colors[index]) if index < len(colors) else _WHITE for index in range(256)]
    picture.putpalette([channel for entry in entries for channel in entry])
    return _write(path, picture)


def write_grey(path: Path, values: NDArray[np.uint8]) -> str:
    """Writes (H, W) uint8 as a grey PNG; returns its SHA-256."""
    return _write(path, Image.fromarray(values))


def read_values(path: Path, sha256: str, size: tuple[int, int], remedy: str) -> NDArray[np.uint8]:
    """Reads what `write_labels` or `write_grey` wrote.

    Args:
        path: the file.
        sha256: of the whole file as it was written.
        size: width and height.
        remedy: what to do where it is not that file any more.

    Returns:
        (H, W) uint8: indices of a palette, or grey values.

    Raises:
        DataError: missing, truncated or changed; the message ends with `remedy`.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); {remedy}") from error
    if sha256_bytes(data) != sha256:
        raise DataError(f"{path}: truncated or changed since it was written ({len(data)} bytes); {remedy}")
    with Image.open(io.BytesIO(data)) as picture:
        if picture.mode not in ("P", "L") or picture.size != size:
            raise DataError(f"{path}: {picture.mode} of {picture.size}, expected one channel of {size}; {remedy}")
        return np.array(picture)


def _write(path: Path, picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", compress_level=_EFFORT)
    data = buffer.getvalue()
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
    return sha256_bytes(data)
