"""The tiles of a grid in batches, read ahead of the model: fast, in bounded memory, whatever state the file is in."""

import warnings
from collections import deque
from collections.abc import Generator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from pathzoo.errors import SlideError
from pathzoo.wsi.isolation import borrow, give_back
from pathzoo.wsi.job import TileBatch
from pathzoo.wsi.native_band import BAND_BYTES, native_use
from pathzoo.wsi.read_process import ReadProcess, ReadStoppedError, UnavailableError
from pathzoo.wsi.read_worker import Layout, SharedMemory, unpacked
from pathzoo.wsi.readers.image_reader import ImageReader
from pathzoo.wsi.slide import Slide
from pathzoo.wsi.tile_filling import (
    NATIVE,
    OPENING,
    FilledBatch,
    Item,
    StainTransform,
    StreamJob,
    fill_batches,
)
from pathzoo.wsi.tile_sources import TileSources, tile_sources
from pathzoo.wsi.tiling import TileGrid
from pathzoo.wsi.types import Int64, Mask, RGBBatch

__all__ = ["StainTransform", "estimate_memory", "read_tiles"]

#: Buffers: one with the caller, the others being filled; fewer where they are large.
_BUFFERS, _FEW_BUFFERS, _LARGE_BUFFER = 3, 2, 64 << 20
#: So often may a slide hang or crash the process that reads it.
_STOPS = 5
#: What the reading process needs for itself: Python, numpy and the decoders (measured), and what each thread works in.
_PROCESS_BYTES = 110 << 20


def read_tiles(
    slide: Slide,
    grid: TileGrid,
    mpp: float,
    batch_size: int,
    *,
    num_workers: int = 2,
    isolate: bool = True,
    timeout: float = 60.0,
    stain: StainTransform | None = None,
    band_bytes: int = BAND_BYTES,
) -> Generator[TileBatch, None, None]:
    """Reads the tiles of a grid in its order, two batches ahead; each is what `slide.read(x, y, w, h, mpp)` gives.

    Where the slide's reader knows the native tiles, each is decoded once and kept in a rolling band. What cannot be
    decoded is white and told in `TileBatch.damage`, the rest of such a tile is intact. The arrays of a batch are used
    again: for a later batch, and those of the last one for the next slide.

    Args:
        slide: An open slide.
        grid: The tiles.
        mpp: Their resolution in microns per pixel.
        batch_size: Tiles per batch; the last may be smaller.
        num_workers: Threads that read.
        isolate: Read in a process of its own: a decoder that hangs is killed, one that crashes harms nobody else, and
            reading does not compete with the caller for Python's lock. Where no process can be had (or `slide` or
            `stain` cannot be pickled) tiles are read in this one, with a warning.
        timeout: Seconds that the decoder may take over one native tile (over one tile of the grid in formats without
            native tiles). After that the tile counts as damaged. Only with `isolate`.
        stain: Applied to each tile; damaged parts and padding stay white.
        band_bytes: Decoded native tiles above this are not kept for later rows of the grid but decoded again.

    Raises:
        SlideError: As `Slide.resolve_mpp`; or the slide hung or crashed the reading process five times, or while it was
            being opened there.
        ValueError: `batch_size` or `num_workers` is below 1.
        Exception: A defect of a reader or of `stain`, as raised.
    """
    if batch_size < 1 or num_workers < 1:
        raise ValueError(f"batch size is {batch_size} and workers are {num_workers}; both must be at least 1")
    if not len(grid):
        return
    job = StreamJob(slide, grid, mpp, min(batch_size, len(grid)), num_workers, stain, band_bytes)
    if isolate:
        stream = _IsolatedStream(job, timeout)
        try:
            yield from stream.batches()
            return
        except UnavailableError as error:
            if stream.stops:
                raise SlideError(f"{slide.path}: {stream.last_reason}; and then: {error}") from error
            text = f"slides are read in this process, where a decoder that hangs or crashes cannot be stopped: {error}"
            warnings.warn(text, RuntimeWarning, stacklevel=2)
            job = stream.job
    yield from _in_process(job)


def estimate_memory(slide: Slide, grid: TileGrid, mpp: float, batch_size: int, num_workers: int = 2) -> int:
    """Bytes that `read_tiles` needs, with a process of its own: buffers, native tiles, temporary arrays.

    For most of twelve peaks that were measured it was right within a tenth; for two it was up to 16 % too high. An
    image without tiles (PNG, JPEG) counts as a whole, since it is held in memory.

    Raises:
        SlideError: As `Slide.resolve_mpp`.
    """
    width, height = grid.tile_size
    buffer = min(batch_size, len(grid)) * width * height * 3
    total = _PROCESS_BYTES + _buffer_count(buffer) * buffer
    if not len(grid):
        return total
    sources = tile_sources(slide, grid, mpp)
    per_worker = _working_bytes(sources)
    reader = slide.native
    if reader is None:
        # The reader's own copies, with alpha; an image is decoded whole, by Pillow (4 bytes), then copied.
        whole = 7 * slide.dimensions[0] * slide.dimensions[1] if slide.reader_name == ImageReader.name else 0
        return total + 3 * num_workers * per_worker + whole
    native = reader.native_grid(sources.level)
    spans, last = native_use(sources, native)
    one = native.tile_width * native.tile_height * 3
    # Tiles that are waited for keep theirs, whatever the limit.
    waited_for = _BUFFERS * batch_size * int(((spans[:, 2] - spans[:, 0]) * (spans[:, 3] - spans[:, 1])).max())
    held = min(_most_held(spans, last), BAND_BYTES // one + waited_for)
    return total + held * one + num_workers * (per_worker + one)


def _working_bytes(sources: TileSources) -> int:
    """What one thread needs to make one tile."""
    width, height = sources.tile_size
    pixels = min(width * height * sources.step**2, 1 << 24)  # larger ones are made in bands
    ends = np.array([*sources.corners[0], width * sources.step, height * sources.step])
    if sources.exact or np.allclose(ends, np.rint(ends), rtol=0, atol=1e-6):
        return int(3 * pixels) + 6 * width * height
    # `area_resample` sums along an axis in 64 bits; then it holds four arrays of sums between cells.
    return int(3 * pixels * (9 + 4 * 8 / sources.step))


class _IsolatedStream:
    """A job done by a child process, and by another where that one has to be ended."""

    def __init__(self, job: StreamJob, timeout: float) -> None:
        self.job, self._timeout, self._layout = job, timeout, _layout(job)
        self.stops, self.last_reason = 0, ""
        self._suspects: tuple[Item, ...] = ()
        self._arrived: deque[FilledBatch] = deque()
        self._process: ReadProcess | None = None

    def batches(self) -> Generator[TileBatch, None, None]:
        """See `read_tiles`."""
        self._process = borrow()
        try:
            memory = self._process.memory(self._layout.size)
            buffers = memory.buffers(self._layout)
            self._start(memory)
            while self.job.first_batch < self.job.batches:
                filled = self._next(memory)
                yield _batch(self.job, filled, buffers)
                self.job = replace(self.job, first_batch=self.job.first_batch + 1)
                if self._process is not None:
                    self._process.release(filled.buffer)
            if self._process is not None:
                give_back(self._process)
                self._process = None
        finally:
            if self._process is not None:
                self._process.end()

    def _start(self, memory: SharedMemory) -> None:
        """Has the process read on from the first batch that is not here yet."""
        self._process = self._process or borrow()
        busy = {filled.buffer for filled in self._arrived}
        free = [number for number in range(self._layout.buffers) if number not in busy]
        job = replace(self.job, first_batch=self.job.first_batch + len(self._arrived))
        self._process.order(job, memory, self._layout, free, self._suspects)

    def _next(self, memory: SharedMemory) -> FilledBatch:
        while True:
            try:
                if self._process is None and self.job.first_batch + len(self._arrived) < self.job.batches:
                    self._start(memory)
                if self._arrived:
                    return self._arrived.popleft()
                assert self._process is not None
                message = self._process.receive(memory.board(self._layout), self._timeout)
                if message[0] == "batch":
                    return unpacked(message)
                self._suspects = ()  # opened: every suspect was tried and did no harm
            except ReadStoppedError as stop:
                assert self._process is not None
                self._arrived += [unpacked(said) for said in self._process.drain() if said[0] == "batch"]
                self._process.end()
                self._process = None
                self._blame(stop)

    def _blame(self, stop: ReadStoppedError) -> None:
        """Leaves out what is guilty for sure; of several things the next process tries each alone."""
        path, self.last_reason = self.job.slide.path, stop.reason
        if any(item[0] == OPENING for item in stop.in_hand):
            raise SlideError(f"{path}: {stop.reason} while it was being opened; damaged, or its disk does not answer")
        on_trial = bool(self._suspects)
        guilty = len(stop.in_hand) == 1 and (on_trial or not stop.killed)
        if guilty:
            reasons = {item: f"{_place(item)}{stop.reason}" for item in stop.in_hand}
            self.job = replace(self.job, left_out={**self.job.left_out, **reasons})
            self._suspects = tuple(item for item in self._suspects if item not in reasons)
        else:
            self._suspects = stop.in_hand
        self.stops += stop.hung or not (guilty and on_trial)
        if self.stops >= _STOPS:
            raise SlideError(
                f"{path}: given up after the process that reads it died or had to be ended {self.stops} times, at "
                f"last because {stop.reason}; copy the file again, or give the run more memory"
            )


def _in_process(job: StreamJob) -> Generator[TileBatch, None, None]:
    layout = _layout(job)
    buffers = [np.empty(layout.shape, np.uint8) for _ in range(layout.buffers)]
    free = deque(range(layout.buffers))

    def take(wait: bool) -> int | None:
        return free.popleft() if free else None

    for filled in fill_batches(job, buffers, take, _Silent()):
        yield _batch(job, filled, buffers)
        free.append(filled.buffer)


class _Silent:
    """Nobody watches."""

    def begin(self, item: Item) -> None:
        pass

    def end(self) -> None:
        pass


def _batch(job: StreamJob, filled: FilledBatch, buffers: list[RGBBatch]) -> TileBatch:
    numbers = job.numbers(filled.batch)
    damage: dict[int, tuple[Mask, str]] = filled.damage
    return TileBatch(np.arange(numbers.start, numbers.stop), buffers[filled.buffer][: len(numbers)], damage)


def _layout(job: StreamJob) -> Layout:
    width, height = job.grid.tile_size
    shape = (job.batch_size, height, width, 3)
    return Layout(1 + job.num_workers, min(_buffer_count(int(np.prod(shape))), job.batches), shape)


def _buffer_count(size: int) -> int:
    return _BUFFERS if size <= _LARGE_BUFFER else _FEW_BUFFERS


def _place(item: Item) -> str:
    kind, level, column, row = item
    return f"native tile at column {column}, row {row} of level {level}: " if kind == NATIVE else ""


def _most_held(spans: Int64, last: npt.NDArray[np.int32]) -> int:
    """Native tiles that are held at once at most, where tiles are assembled one after the other."""
    first = np.full(last.shape, -1, np.int64)
    for number in range(len(spans) - 1, -1, -1):
        x0, y0, x1, y1 = spans[number].tolist()
        first[y0:y1, x0:x1] = number
    used = last >= 0
    change = np.zeros(len(spans) + 1, np.int64)
    # One tile ahead is decoded already.
    np.add.at(change, np.maximum(first[used] - 1, 0), 1)
    np.add.at(change, last[used] + 1, -1)
    return int(change.cumsum().max(initial=0))
