"""Decoded regions, shared by the workers of a loader: in memory, or in files that are mapped into it.

Cutting a patch from a decoded region takes microseconds, decoding the region a tenth of a second. So every region is
decoded once and kept as it is: 3 bytes a pixel for the picture, 1 for the labels.
"""

import contextlib
import math
import mmap
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pathzoo.datasets.inventory import cache_folder
from pathzoo.errors import DataError
from pathzoo.fileio import atomic_path

#: Maps that a process keeps open; each holds a file descriptor.
_OPEN_MAPS = 256


class MemoryStore:
    """Arrays in one anonymous shared map, reserved at once and filled as they are asked for.

    Workers that are forked afterwards share it in both directions: what one of them decodes, all of them and the main
    process have, also the workers of the next epoch. (Two that decode the same region at once write the same bytes.)
    Workers that are spawned start with an empty one of their own: take `MemmapStore` for those.

    Args:
        shapes: of each uint8 array.

    Raises:
        DataError: the machine has no room for them.
    """

    def __init__(self, shapes: Sequence[tuple[int, ...]]) -> None:
        self._shapes = [tuple(shape) for shape in shapes]
        self._reserve()

    def get(self, index: int, make: Callable[[], np.ndarray]) -> np.ndarray:
        """The array `index`, read-only, made by `make` where it is not there yet."""
        array = self._arrays[index]
        if not self._ready[index]:
            array[...] = make()
            self._ready[index] = 1
        return self._views[index]

    def _reserve(self) -> None:
        count = len(self._shapes)
        ends = np.cumsum([count, *(math.prod(shape) for shape in self._shapes)])
        try:
            # Pages that nobody has written to take no memory.
            shared = mmap.mmap(-1, max(1, int(ends[-1])))
        except OSError as error:
            raise DataError(
                f"{ends[-1] / 2**30:.1f} GiB of decoded regions do not fit into memory ({error.strerror}): "
                'set cache="memmap"'
            ) from None
        whole = np.frombuffer(shared, np.uint8)
        self._ready = whole[:count]
        self._arrays = [
            whole[start:end].reshape(shape) for start, end, shape in zip(ends[:-1], ends[1:], self._shapes, strict=True)
        ]
        self._views = [array.view() for array in self._arrays]
        for view in self._views:
            view.flags.writeable = False

    def __getstate__(self) -> dict[str, Any]:
        return {"shapes": self._shapes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["shapes"])

    def __deepcopy__(self, memo: dict) -> "MemoryStore":
        return self


class MemmapStore:
    """Arrays in files below `cache_folder()/regions`, mapped into memory: for data larger than that.

    A file is written whole or not at all by whoever asks for it first; all processes, ranks and later runs share it.
    The folder may be deleted while nothing runs.

    Args:
        shapes: of each uint8 array.
        keys: name of each file without suffix: a digest of all that its content depends on.
        folder: another place for the files.
    """

    def __init__(self, shapes: Sequence[tuple[int, ...]], keys: Sequence[str], folder: Path | None = None) -> None:
        self._shapes, self._keys = [tuple(shape) for shape in shapes], list(keys)
        self.folder = folder or cache_folder() / "regions"
        self._open: OrderedDict[int, np.ndarray] = OrderedDict()

    def get(self, index: int, make: Callable[[], np.ndarray]) -> np.ndarray:
        """The array `index`, read-only, made by `make` where there is no file of it yet.

        Raises:
            DataError: the file cannot be written.
        """
        if index in self._open:
            self._open.move_to_end(index)
            return self._open[index]
        path = self.folder / f"{self._keys[index]}.npy"
        array = self._map(path, index)
        if array is None:
            self._write(path, make())
            array = self._map(path, index)
            if array is None:
                raise DataError(f"{path} is gone right after it was written: is another process emptying that folder?")
        self._open[index] = array
        if len(self._open) > _OPEN_MAPS:
            self._open.popitem(last=False)
        return array

    def _map(self, path: Path, index: int) -> np.ndarray | None:
        """The file as an array, None where it is not there or not what it should be."""
        with contextlib.suppress(OSError, ValueError):
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            if array.shape == self._shapes[index] and array.dtype == np.uint8:
                return np.asarray(array)
        return None

    def _write(self, path: Path, array: np.ndarray) -> None:
        try:
            with atomic_path(path) as temporary, temporary.open("wb") as file:
                np.save(file, np.ascontiguousarray(array), allow_pickle=False)
        except OSError as error:
            raise DataError(
                f"{path}: a decoded region of {array.nbytes / 2**20:.0f} MiB cannot be written ({error.strerror}): "
                'make room, point PATHZOO_CACHE elsewhere, or set cache="memory"'
            ) from None

    def __getstate__(self) -> dict[str, Any]:
        return {"shapes": self._shapes, "keys": self._keys, "folder": self.folder}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)

    def __deepcopy__(self, memo: dict) -> "MemmapStore":
        return self


Store = MemoryStore | MemmapStore


def make_store(cache: str, shapes: Sequence[tuple[int, ...]], keys: Sequence[str]) -> Store:
    """The store for `cache` "memory" or "memmap"; see the classes."""
    return MemoryStore(shapes) if cache == "memory" else MemmapStore(shapes, keys)
