"""Writes the store that `pathzoo.datasets.packed_tiles` reads, tile by tile: memory does not grow with the tiles."""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pathzoo.datasets.packed_tiles import COLUMNS, SUFFIX, Layout, store_metadata
from pathzoo.errors import ConfigError, DataError, OutputError
from pathzoo.fileio import atomic_path

#: What the header may still grow by once it is known how long the text is.
_SPARE = 64


@contextmanager
def packed_writer(
    path: str | os.PathLike,
    n: int,
    size: tuple[int, int],
    classes: Sequence[str] = (),
    phantom: bool = False,
) -> Iterator["PackedWriter"]:
    """Gives a writer of a store that appears whole or not at all.

    Args:
        path: the file, ends in .safetensors; one that is there is replaced.
        n: how many tiles there will be, above 0.
        size: (width, height) of a tile in pixels.
        classes: names of the labels.
        phantom: whether drawn tissue is among the tiles.

    Raises:
        ConfigError: another suffix, no tile.
        DataError: fewer tiles were added than announced.
        OutputError: it cannot be written (disk full, no permission).
    """
    path = Path(path)
    if path.suffix.lower() != SUFFIX:
        raise ConfigError(f"{path}: a store of tiles ends in {SUFFIX}, which other tools know it by")
    if n < 1:
        raise ConfigError(f"{path}: a store of {n} tiles; there has to be one at least")
    try:
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            writer = PackedWriter(file, path, n, size, tuple(classes), phantom)
            yield writer
            writer.finish()
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error}); nothing was left behind") from error


class PackedWriter:
    """Writes tiles one after the other; made by `packed_writer`.

    Args:
        file: open for writing, empty, seekable.
        path: for messages.
        n, size, classes, phantom: see `packed_writer`.
    """

    def __init__(
        self, file: BinaryIO, path: Path, n: int, size: tuple[int, int], classes: tuple[str, ...], phantom: bool
    ) -> None:
        self._file, self._path, self._n, self._size = file, path, n, size
        self._classes, self._phantom = classes, phantom
        self._columns = {name: np.zeros((n, *rest), kind) for name, (_, kind, rest) in COLUMNS.items()}
        self._items: dict[str, None] = {}
        self._patients: list[str | None] = []
        self._slides: list[str | None] = []
        # The header stands before the tiles, but its digests are known after them: room is kept, filled with spaces.
        self._room = -(-(len(self._header(b"")) + _SPARE) // 8) * 8
        file.seek(self._start + self._layout(0).tensors["tiles"][0])

    def add(
        self,
        tile: np.ndarray,
        item: str,
        *,
        patient: str | None = None,
        slide: str | None = None,
        label: int = -1,
        mpp: float | None = None,
        x: int | None = None,
        y: int | None = None,
        source_sha256: str | None = None,
    ) -> None:
        """Appends a tile.

        Args:
            tile: RGB uint8 (H, W, 3) of the size announced.
            item: its id, unlike all others.
            patient, slide: None where not known.
            label: index into the classes, -1 without one.
            mpp: microns per pixel, None where not known.
            x, y: left upper corner in level-0 pixels, None where not known.
            source_sha256: SHA-256 of the picture file, 64 hexadecimal digits.

        Raises:
            DataError: another shape or type, an id that stands already, a label that is no class, one tile too many.
        """
        index, width, height = len(self._items), *self._size
        if tile.shape != (height, width, 3) or tile.dtype != np.uint8:
            raise DataError(f"{item}: {tile.dtype} {tile.shape}; this store takes uint8 ({height}, {width}, 3)")
        if item in self._items:
            raise DataError(f"{item}: two tiles have this name: rename one, or pack one of them")
        if index >= self._n:
            raise DataError(f"{self._path}: announced for {self._n} tiles, {item} is one too many")
        if not -1 <= label < len(self._classes):
            raise DataError(f"{item}: label {label} is no index of the {len(self._classes)} classes")
        pixels = np.ascontiguousarray(tile)
        self._file.write(pixels)
        values = {
            "x": -1 if x is None else x,
            "y": -1 if y is None else y,
            "mpp": np.nan if mpp is None else mpp,
            "label": label,
            "sha256": np.frombuffer(hashlib.sha256(pixels).digest(), np.uint8),
            "source_sha256": np.frombuffer(bytes.fromhex(source_sha256 or "00" * 32), np.uint8),
        }
        for name, value in values.items():
            self._columns[name][index] = value
        self._items[item] = None
        self._patients.append(patient)
        self._slides.append(slide)

    def finish(self) -> None:
        """Writes what is known only now: names, columns, digests.

        Raises:
            DataError: fewer tiles than announced.
        """
        if len(self._items) != self._n:
            raise DataError(f"{self._path}: announced for {self._n} tiles, given {len(self._items)}")
        names = {"items": list(self._items), "patients": self._patients, "slides": self._slides}
        text = json.dumps(names, ensure_ascii=False, separators=(",", ":")).encode()
        self._file.write(text)
        layout = self._layout(len(text))
        for name, values in self._columns.items():
            self._file.seek(self._start + layout.tensors[name][0])
            self._file.write(values.tobytes())
        self._file.seek(0)
        self._file.write(self._room.to_bytes(8, "little") + self._header(text).ljust(self._room))
        self._file.flush()

    @property
    def _start(self) -> int:
        return 8 + self._room

    def _layout(self, text: int) -> Layout:
        return Layout.of(self._n, self._size[1], self._size[0], text)

    def _header(self, text: bytes) -> bytes:
        metadata = store_metadata(self._n, self._size, self._classes, self._phantom, self._columns, text)
        return json.dumps(self._layout(len(text)).header(metadata), ensure_ascii=False).encode()
