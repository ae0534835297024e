"""Fills buffers with the tiles of a grid, batch after batch, by threads: the part of the stream that touches pixels.

It runs in the process that reads: the caller's own, or a child (see `pathzoo.wsi.read_worker`).
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from pathzoo.errors import SlideError
from pathzoo.wsi.native_band import BAND_BYTES, Damage, NativeBand, fill_outside
from pathzoo.wsi.readers.base import TiledReader
from pathzoo.wsi.slide import Slide
from pathzoo.wsi.tile_sources import tile_sources
from pathzoo.wsi.tiling import TileGrid
from pathzoo.wsi.types import RGB, Mask, RGBBatch

#: What a thread may have in hand: (kind, and up to three numbers).
Item = tuple[int, int, int, int]
#: Kinds: nothing; a native tile (level, column, row); a tile of the grid (number); the slide itself, being opened.
IDLE, NATIVE, TILE, OPENING = range(4)


class StainTransform(Protocol):
    """A change of colour, fitted before. It travels to another process, so it must be picklable."""

    def apply(self, rgb: RGB, /) -> RGB:
        """uint8 (..., 3) to uint8 of the same shape; called by several threads."""
        ...


class Announcer(Protocol):
    """Is told what each thread has in hand; `begin` and `end` are called by the thread itself."""

    def begin(self, item: Item) -> None:
        """The calling thread takes something in hand."""

    def end(self) -> None:
        """The calling thread has nothing in hand any more."""


@dataclass(frozen=True)
class StreamJob:
    """What is to be read, and what is known from earlier attempts."""

    slide: Slide
    grid: TileGrid
    mpp: float
    batch_size: int
    num_workers: int
    stain: StainTransform | None = None
    band_bytes: int = BAND_BYTES
    #: Number of the first batch that is wanted.
    first_batch: int = 0
    #: What is not to be decoded, and why.
    left_out: Mapping[Item, str] = field(default_factory=dict)

    @property
    def batches(self) -> int:
        """How many batches the whole grid makes."""
        return -(-len(self.grid) // self.batch_size)

    def numbers(self, batch: int) -> range:
        """The tiles of a batch."""
        return range(batch * self.batch_size, min((batch + 1) * self.batch_size, len(self.grid)))


@dataclass(frozen=True)
class FilledBatch:
    """A batch that lies in a buffer."""

    batch: int
    buffer: int
    damage: dict[int, tuple[Mask, str]]


#: What of a tile could not be decoded, or None, and why.
_Tile = tuple[Mask | None, str]


def fill_batches(
    job: StreamJob,
    buffers: Sequence[RGBBatch],
    take_buffer: Callable[[bool], int | None],
    announcer: Announcer,
) -> Iterator[FilledBatch]:
    """Reads the batches of a job in order, starting on as many as there are free buffers.

    Args:
        job: What to read.
        buffers: Arrays of (batch_size, H, W, 3).
        take_buffer: Gives the number of a free buffer. With True it waits for one, with False it may return None.
        announcer: Told what is in hand.

    Raises:
        SlideError: As `Slide.resolve_mpp`.
    """
    pool = ThreadPoolExecutor(job.num_workers, thread_name_prefix="pathzoo-read")
    started: deque[tuple[int, int, list[Future[_Tile]]]] = deque()
    try:
        reader = _maker(job, announcer, pool)
        waiting = iter(range(job.first_batch, job.batches))
        todo = next(waiting, None)
        while started or todo is not None:
            while todo is not None and (buffer := take_buffer(not started)) is not None:
                numbers = job.numbers(todo)
                started.append((todo, buffer, [reader(n, buffers[buffer][i]) for i, n in enumerate(numbers)]))
                todo = next(waiting, None)
            batch, buffer, futures = started.popleft()
            tiles = zip(job.numbers(batch), [future.result() for future in futures], strict=True)
            yield FilledBatch(batch, buffer, {n: (mask, why) for n, (mask, why) in tiles if mask is not None})
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def decode_item(job: StreamJob, item: Item) -> None:
    """Decodes something that was in hand when a process died, to see whether it does that again."""
    kind, first, column, row = item
    reader = job.slide.native
    try:
        if kind == NATIVE and reader is not None:
            reader.decode_tile(first, column, row)
        elif kind == TILE:
            x, y = job.grid.corners[first].tolist()
            job.slide.read(x, y, *job.grid.tile_size, job.mpp)
    except SlideError:
        pass  # it will be met again, and be told then


def _maker(job: StreamJob, announcer: Announcer, pool: ThreadPoolExecutor) -> "_Tiles":
    reader = job.slide.native
    return _WholeReads(job, announcer, pool) if reader is None else _NativeTiles(job, announcer, pool, reader)


class _Tiles:
    """Has tiles of the grid made by a pool; call it with number and place (H, W, 3) in the grid's order."""

    def __init__(self, job: StreamJob, announcer: Announcer, pool: ThreadPoolExecutor) -> None:
        self.job, self.announcer, self.pool = job, announcer, pool
        self.sources = tile_sources(job.slide, job.grid, job.mpp)

    def __call__(self, number: int, out: RGB) -> Future[_Tile]:
        return self.pool.submit(self._make, number, out)

    def _make(self, number: int, out: RGB) -> _Tile:
        mask, reason = self.read(number, out)
        if self.job.stain is not None:
            out[...] = self.job.stain.apply(out)
            fill_outside(out, self.sources.inside(number))
            if mask is not None:
                out[mask] = 255
        return mask, reason.removeprefix(f"{self.job.slide.path}: ")

    def read(self, number: int, out: RGB) -> _Tile:
        raise NotImplementedError


class _NativeTiles(_Tiles):
    """Tiles put together from native tiles, each of which is decoded once."""

    def __init__(self, job: StreamJob, announcer: Announcer, pool: ThreadPoolExecutor, reader: TiledReader) -> None:
        super().__init__(job, announcer, pool)
        level, left_out = self.sources.level, job.left_out

        def decode(column: int, row: int) -> RGB:
            with _held((NATIVE, level, column, row), left_out, announcer):
                try:
                    return reader.decode_tile(level, column, row)
                except OSError as error:  # a bad disk is bad in places
                    raise SlideError(f"cannot be read: {error}") from error

        self.band = NativeBand(self.sources, reader.native_grid(level), decode, pool, job.band_bytes)

    def __call__(self, number: int, out: RGB) -> Future[_Tile]:
        # The next tile's decoding is queued before this one's assembly, which then seldom waits.
        for ahead in (number, number + 1):
            if ahead < len(self.job.grid):
                self.band.prefetch(ahead)
        return super().__call__(number, out)

    def read(self, number: int, out: RGB) -> _Tile:
        damage = self.band.assemble(number, out)
        return (_mask(damage, out), _reason(damage)) if damage else (None, "")


class _WholeReads(_Tiles):
    """Tiles read one by one: formats without a grid of native tiles."""

    def __init__(self, job: StreamJob, announcer: Announcer, pool: ThreadPoolExecutor) -> None:
        super().__init__(job, announcer, pool)
        self.corners = job.grid.corners

    def read(self, number: int, out: RGB) -> _Tile:
        x, y = self.corners[number].tolist()
        height, width = out.shape[:2]
        scale, slide = self.sources.scale, self.job.slide
        try:
            with _held((TILE, number, 0, 0), self.job.left_out, self.announcer):
                try:
                    out[...] = slide._read_box(x, y, scale, scale, width, height)
                    return None, ""
                except SlideError as error:
                    mask = np.zeros((height, width), np.bool_)
                    out[...] = slide._read_box(x, y, scale, scale, width, height, mask)
                    return (mask, str(error)) if mask.any() else (None, "")
        except (SlideError, OSError) as error:  # left out, or a bad disk
            out[...] = 255
            return np.ones((height, width), np.bool_), str(error)


class _Held:
    """For as long as something is in hand. A class of its own: a generator's context costs three times as much."""

    __slots__ = ("announcer", "item")

    def __init__(self, announcer: Announcer, item: Item) -> None:
        self.announcer, self.item = announcer, item

    def __enter__(self) -> None:
        self.announcer.begin(self.item)

    def __exit__(self, *_: object) -> None:
        self.announcer.end()


def _held(item: Item, left_out: Mapping[Item, str], announcer: Announcer) -> _Held:
    if (reason := left_out.get(item)) is not None:
        raise SlideError(reason)
    return _Held(announcer, item)


def _mask(damage: Sequence[Damage], out: RGB) -> Mask:
    mask = np.zeros(out.shape[:2], np.bool_)
    for (x0, y0, x1, y1), _ in damage:
        mask[y0:y1, x0:x1] = True
    return mask


def _reason(damage: Sequence[Damage]) -> str:
    reasons = list(dict.fromkeys(reason for _, reason in damage))
    return reasons[0] if len(reasons) == 1 else f"{reasons[0]} (and {len(reasons) - 1} more)"
