"""A class mask as a tiled pyramidal TIFF, written while its rows come in."""

import errno
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeAlias

import imagecodecs
import numpy as np
import numpy.typing as npt
import tifffile

from pathzoo.errors import OutputError

#: (H, W) uint8: index of a class, or NOT_PREDICTED.
Labels: TypeAlias = npt.NDArray[np.uint8]
Color: TypeAlias = tuple[int, int, int]

#: Outside the predicted tiles, or not decodable.
NOT_PREDICTED = 255
#: Levels are halved until neither side is longer.
_COARSEST = 1024
_TILE = 512
#: From here on offsets may not fit into 32 bits.
_BIG = 3_900_000_000


def write_mask(
    path: Path,
    bands: Iterable[Labels],
    size: tuple[int, int],
    mpp: float,
    classes: Sequence[str],
    colors: Mapping[str, Color],
) -> Labels:
    """Writes a pyramid of class indices; one band of rows is in memory, whatever the slide's height.

    Level 0 holds the rows as given; level k + 1 every second pixel of every second row of level k, the first
    included, until neither side is longer than 1024. Tiles of 512 x 512, Deflate, palette colours (which viewers show
    while programs read the indices), resolution in pixels per centimetre. The description is a JSON object with the
    class of each index. BigTIFF where the uncompressed pyramid would exceed 3.9 GB.

    (Not atomic: it belongs into a folder that is.)

    Args:
        path: The file.
        bands: (n, width) uint8 arrays from top to bottom, n >= 0 and of any size, together `size`; consumed as they
            are needed. An array is not used any more when the next is asked for.
        size: Width and height.
        mpp: Microns per pixel.
        classes: Names by index, at most 255.
        colors: RGB 0..255 by class name.

    Returns:
        The coarsest level.

    Raises:
        SlideError: The disk is full.
        ValueError: Bands that do not add up to `size`, or too many classes.
    """
    if len(classes) > NOT_PREDICTED:
        raise ValueError(f"{len(classes)} classes; a mask of 8 bits holds at most {NOT_PREDICTED}")
    sizes = level_sizes(size)
    levels = [_Level(width, keep=level == len(sizes) - 1) for level, (width, _) in enumerate(sizes)]
    common: dict[str, Any] = {
        "dtype": np.uint8,
        "tile": (_TILE, _TILE),
        "compression": "adobe_deflate",
        "photometric": "palette",
        "colormap": _color_map([colors[name] for name in classes]),
        "resolution": (1e4 / mpp, 1e4 / mpp),
        "resolutionunit": "CENTIMETER",
        "software": "pathzoo",
        "metadata": None,
    }
    pixels = sum(width * height for width, height in sizes)
    progress = _Progress()
    with full_disk_told(path, progress), tempfile.TemporaryFile(dir=path.parent) as spool:
        coarse = _Coarse(levels[1:], spool)
        with tifffile.TiffWriter(path, bigtiff=pixels > _BIG) as writer:
            description = json.dumps({"classes": dict(enumerate(classes)), "not_predicted": NOT_PREDICTED, "mpp": mpp})
            tiles = _level_0(progress.watch(bands), levels[0], coarse, size, progress)
            writer.write(tiles, shape=size[::-1], description=description, **common)
            for index, (width, height) in enumerate(sizes[1:]):
                resolution = (1e4 / mpp / 2 ** (index + 1),) * 2
                more = common | {"resolution": resolution, "subfiletype": 1}
                writer.write(coarse.tiles(index), shape=(height, width), **more)
    return np.concatenate(levels[-1].kept)


def level_sizes(size: tuple[int, int]) -> list[tuple[int, int]]:
    """Width and height of every level: halved, rounded up, until neither side is longer than 1024."""
    sizes = [size]
    while max(sizes[-1]) > _COARSEST:
        width, height = sizes[-1]
        sizes.append(((width + 1) // 2, (height + 1) // 2))
    return sizes


class _Progress:
    """How far writing is, to say how much space is needed; and which errors are not the output's."""

    def __init__(self) -> None:
        self.bytes, self.part = 0, 0.0
        self.foreign: BaseException | None = None

    def watch(self, bands: Iterable[Labels]) -> Iterator[Labels]:
        try:
            yield from bands
        except BaseException as error:
            self.foreign = error
            raise

    def needed(self) -> str:
        if self.part < 0.01:
            return "an unknown amount of space"
        return f"about {max(1, round(self.bytes / self.part * 4 / 3 / 2**20))} MiB"


@contextmanager
def full_disk_told(path: Path, progress: _Progress | None = None) -> Iterator[None]:
    """Turns a full disk or an exhausted quota into one SlideError that names the file and the remedy."""
    try:
        yield
    except OSError as error:
        known = error.errno in (errno.ENOSPC, errno.EDQUOT)
        if not known or (progress is not None and progress.foreign is error):
            raise
        needs = "" if progress is None else f"; the file needs {progress.needed()}"
        # What stands in the folder is temporary: name the file by what the folder becomes.
        raise OutputError(
            f"{path.name}: the disk of {path.parent.parent} is full{needs}; free space there, or choose an output "
            "folder on another disk (nothing is left of this slide's output)"
        ) from error


class _Level:
    """Gathers the rows of one level to rows of tiles, and gives these encoded."""

    def __init__(self, width: int, keep: bool) -> None:
        columns = -(-width // _TILE)
        self.width, self.height = width, 0
        self._buffer = np.full((_TILE, columns * _TILE), NOT_PREDICTED, np.uint8)
        self._filled = 0
        self._uniform: dict[int, bytes] = {}
        #: The rows themselves, where asked for.
        self.kept: list[Labels] = []
        self._keep = keep

    def add(self, rows: Labels) -> Iterator[bytes]:
        """Takes (n, width) rows; yields the tiles that they complete, in order."""
        self.height += len(rows)
        if self._keep:
            self.kept.append(rows.copy())
        while len(rows):
            n = min(len(rows), _TILE - self._filled)
            self._buffer[self._filled : self._filled + n, : self.width] = rows[:n]
            self._filled += n
            rows = rows[n:]
            if self._filled == _TILE:
                yield from self.finish()

    def finish(self) -> Iterator[bytes]:
        """The tiles of the rows that are left."""
        if self._filled:
            self._buffer[self._filled :] = NOT_PREDICTED
            for x in range(0, self._buffer.shape[1], _TILE):
                yield self._encoded(np.ascontiguousarray(self._buffer[:, x : x + _TILE]))
            self._filled = 0

    def _encoded(self, tile: Labels) -> bytes:
        value = int(tile[0, 0])
        if not (tile == value).all():
            return bytes(imagecodecs.deflate_encode(tile.tobytes(), level=6))
        if value not in self._uniform:
            self._uniform[value] = bytes(imagecodecs.deflate_encode(tile.tobytes(), level=6))
        return self._uniform[value]


class _Coarse:
    """The levels below the first, encoded into one temporary file until their turn comes."""

    def __init__(self, levels: Sequence[_Level], spool: IO[bytes]) -> None:
        self._levels, self._spool = levels, spool
        self._places: list[list[tuple[int, int]]] = [[] for _ in levels]
        self._end = 0

    def add(self, rows: Labels, first: int) -> None:
        """Takes rows of level 0, of which the first is its row `first`."""
        for index, level in enumerate(self._levels):
            start = first % 2
            rows, first = rows[start::2, ::2], (first + 1) // 2
            self._put(index, level.add(rows))

    def finish(self) -> None:
        for index, level in enumerate(self._levels):
            self._put(index, level.finish())

    def tiles(self, index: int) -> Iterator[bytes]:
        """The tiles of a level."""
        for place, length in self._places[index]:
            self._spool.seek(place)
            yield self._spool.read(length)

    def _put(self, index: int, tiles: Iterator[bytes]) -> None:
        for data in tiles:
            self._spool.write(data)
            self._places[index].append((self._end, len(data)))
            self._end += len(data)


def _level_0(
    bands: Iterable[Labels], level: _Level, coarse: _Coarse, size: tuple[int, int], progress: _Progress
) -> Iterator[bytes]:
    """The tiles of level 0; fills the coarser levels on the way."""

    def counted(tiles: Iterator[bytes]) -> Iterator[bytes]:
        for data in tiles:
            yield data
            progress.bytes += len(data)
            progress.part = level.height / size[1]

    for band in bands:
        if band.ndim != 2 or band.shape[1] != size[0] or level.height + len(band) > size[1]:
            raise ValueError(f"a band of shape {band.shape} after {level.height} rows of a mask of {size}")
        coarse.add(band, level.height)
        yield from counted(level.add(band))
    if level.height != size[1]:
        raise ValueError(f"{level.height} rows came for a mask of height {size[1]}")
    coarse.finish()
    yield from counted(level.finish())


def _color_map(colors: Sequence[Color]) -> npt.NDArray[np.uint16]:
    """(3, 256) of 16 bits: the classes' colours, white for everything else."""
    table = np.full((3, 256), 255, np.uint16)
    table[:, : len(colors)] = np.array(colors, np.uint16).reshape(-1, 3).T
    return table * 257
