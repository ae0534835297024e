"""The three files of a subset of a slice store while it is written; see `pathzoo.ct.store`."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import numpy as np

from pathzoo.ct.store import COLUMNS

#: Bytes before the data of our .npy files (format 1.0): room for any number of slices; numpy aligns to 64.
_NPY_HEAD = 128


class SubsetFiles:
    """The three files of a subset, open for appending.

    Args:
        folder: of the subset; made here.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._images: BinaryIO = (folder / "images.npy").open("wb")
        self._labels: BinaryIO = (folder / "labels.npy").open("wb")
        self._index: TextIO = (folder / "index.csv").open("w", newline="", encoding="utf-8")
        self._lines = csv.writer(self._index, lineterminator="\n")
        for file in (self._images, self._labels):
            file.write(bytes(_NPY_HEAD))  # no head of an array: what is interrupted here is not opened by numpy
        self._lines.writerow(COLUMNS)

    def write(self, image: np.ndarray, label: np.ndarray, line: Sequence[Any]) -> None:
        """Appends a slice: HU int16 and label uint8, both (H, W), and its line of index.csv."""
        self._images.write(np.ascontiguousarray(image, "<i2").data)
        self._labels.write(np.ascontiguousarray(label).data)
        self._lines.writerow(line)

    def finish(self, n: int, height: int, width: int) -> None:
        """Puts the heads into the files, which are closed already."""
        for file, kind in ((self._images, "<i2"), (self._labels, "|u1")):
            with Path(file.name).open("r+b") as again:
                again.write(npy_head(kind, (n, height, width)))

    def close(self) -> None:
        """Closes the files, which writes what is still held back."""
        for file in (self._images, self._labels, self._index):
            file.close()


def npy_head(kind: str, shape: tuple[int, ...]) -> bytes:
    """The head of a .npy file of format 1.0 (numpy.lib.format), always of the same length."""
    text = repr({"descr": kind, "fortran_order": False, "shape": shape})
    room = _NPY_HEAD - 10
    return b"\x93NUMPY\x01\x00" + room.to_bytes(2, "little") + text.ljust(room - 1).encode("latin1") + b"\n"
