"""A table of numbers as .npy, written row by row: it never lies in memory whole."""

import os
from io import BytesIO
from pathlib import Path
from types import TracebackType

import numpy as np

from pathzoo.wsi.types import Float32

_MAGIC = b"\x93NUMPY\x01\x00"
#: Bytes of the header with its padding: room for any number of rows, a multiple of 64 as the format asks.
_HEADER = 128


class NpyWriter:
    """Writes float32 rows of one length; the header, which tells how many there are, is put right at the end.

    The format is NumPy's 1.0 (numpy.lib.format); `numpy.load(path, mmap_mode="r")` reads it back. Not atomic: the file
    belongs into a folder, or under a temporary name, that is.

    Args:
        path: The file; made, or emptied.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.rows = 0
        #: Numbers in a row; None before the first one.
        self.columns: int | None = None
        self._file = Path(path).open("wb")  # noqa: SIM115  # closed by `close`
        self._file.write(_header(0, 0))

    def append(self, rows: Float32) -> None:
        """Adds (n, D) rows.

        Raises:
            ValueError: Not two axes, or another D than before.
        """
        if rows.ndim != 2 or self.columns not in (None, rows.shape[1]):
            raise ValueError(f"rows of shape {rows.shape} do not continue a table of {self.columns} columns")
        self.columns = rows.shape[1]
        self._file.write(np.ascontiguousarray(rows, dtype="<f4").tobytes())
        self.rows += len(rows)

    def close(self) -> None:
        """Writes the number of rows and closes the file."""
        if not self._file.closed:
            self._file.seek(0)
            self._file.write(_header(self.rows, self.columns or 0))
            self._file.close()

    def __enter__(self) -> "NpyWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _header(rows: int, columns: int) -> bytes:
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {columns}), }}"
    buffer = BytesIO()
    buffer.write(_MAGIC)
    length = _HEADER - len(_MAGIC) - 2
    buffer.write(length.to_bytes(2, "little"))
    buffer.write(text.ljust(length - 1).encode("latin-1") + b"\n")
    return buffer.getvalue()
