"""Tiles in batches, read ahead of the model."""

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from pathzoo.errors import SlideError
from pathzoo.wsi.job import TileBatch
from pathzoo.wsi.slide import Slide
from pathzoo.wsi.tiling import TileGrid
from pathzoo.wsi.types import RGB, Mask


def read_batches(slide: Slide, grid: TileGrid, mpp: float, batch_size: int, num_workers: int) -> Generator[TileBatch]:
    """Reads the tiles of a grid in order, threads running at most two batches ahead."""
    width, height = grid.tile_size
    corners = grid.corners

    def read(number: int) -> RGB:
        x, y = corners[number]
        return slide.read(int(x), int(y), width, height, mpp)

    starts = iter(range(0, len(grid), batch_size))
    ahead: deque[list[tuple[int, Future[RGB]]]] = deque()
    with ThreadPoolExecutor(num_workers, thread_name_prefix="pathzoo-read") as pool:

        def submit() -> None:
            if (start := next(starts, None)) is not None:
                numbers = range(start, min(start + batch_size, len(grid)))
                ahead.append([(number, pool.submit(read, number)) for number in numbers])

        try:
            submit()
            submit()
            while ahead:
                batch = ahead.popleft()
                submit()
                numbers = np.array([number for number, _ in batch], np.int64)
                pixels = np.full((len(batch), height, width, 3), 255, np.uint8)
                damage: dict[int, tuple[Mask, str]] = {}
                for place, (number, future) in enumerate(batch):
                    try:
                        pixels[place] = future.result()
                    except SlideError as error:
                        reason = str(error).removeprefix(f"{slide.path}: ")
                        damage[number] = np.ones((height, width), np.bool_), reason
                yield TileBatch(numbers, pixels, damage)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
