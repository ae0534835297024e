"""PNG files of any height, written while their rows come in."""

import struct
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TRUECOLOUR, _PALETTE = 2, 3
_NO_FILTER, _UP = 0, 2
#: Photographs hardly get smaller beyond; masks are small in any case.
_LEVEL = 3


def write_png(
    path: Path,
    bands: Iterable[npt.NDArray[np.uint8]],
    size: tuple[int, int],
    palette: Sequence[tuple[int, int, int]] | None = None,
) -> None:
    """Writes an 8-bit PNG (W3C PNG, second edition); one band of rows is in memory.

    (Not atomic: it belongs into a folder that is.)

    Args:
        path: The file.
        bands: From top to bottom (n, width, 3) RGB or, with a palette, (n, width) indices; together `size`.
        size: Width and height.
        palette: RGB 0..255 of up to 256 indices.

    Raises:
        ValueError: The bands are not of the size, or an index has no colour.
    """
    width, height = size
    channels = 3 if palette is None else 1
    kind, filtering = (_TRUECOLOUR, _UP) if palette is None else (_PALETTE, _NO_FILTER)
    packer = zlib.compressobj(_LEVEL)
    above = np.zeros((1, width * channels), np.uint8)
    done = 0
    with path.open("wb") as file:
        file.write(_SIGNATURE)
        _chunk(file, b"IHDR", struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0))
        if palette is not None:
            _chunk(file, b"PLTE", np.asarray(palette, np.uint8).tobytes())
        for band in bands:
            if band.shape[1:] != ((width, 3) if palette is None else (width,)):
                raise ValueError(f"{path}: a band of shape {band.shape} for a picture {width} px wide")
            if palette is not None and band.size and int(band.max()) >= len(palette):
                raise ValueError(f"{path}: index {int(band.max())} for a palette of {len(palette)}")
            if not len(band):
                continue
            rows = np.ascontiguousarray(band, np.uint8).reshape(len(band), -1)
            lines = np.empty((len(rows), 1 + width * channels), np.uint8)
            lines[:, 0] = filtering
            lines[:, 1:] = rows
            if filtering == _UP:
                lines[0, 1:] -= above[0]
                lines[1:, 1:] -= rows[:-1]
            above, done = rows[-1:], done + len(rows)
            if data := packer.compress(lines.tobytes()):
                _chunk(file, b"IDAT", data)
        if done != height:
            raise ValueError(f"{path}: {done} rows came for a picture {height} px high")
        _chunk(file, b"IDAT", packer.flush())
        _chunk(file, b"IEND", b"")


def _chunk(file: IO[bytes], name: bytes, data: bytes) -> None:
    file.write(struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)))
