"""Tiles in batches, read ahead of the model."""

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from pathzoo.errors import SlideError
from pathzoo.wsi.slide import Slide
from pathzoo.wsi.tiling import TileGrid
from pathzoo.wsi.types import RGB, RGBBatch


def read_batches(
    slide: Slide, grid: TileGrid, mpp: float, batch_size: int, num_workers: int
) -> Generator[tuple[list[int], RGBBatch, list[tuple[int, str]]]]:
    """Reads the tiles of a grid in order, threads running at most two batches ahead.

    Yields:
        The numbers of the tiles that could be read, their pixels (N, H, W, 3) uint8, and number and reason of each
        tile that could not.
    """
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
                good: list[int] = []
                tiles: list[RGB] = []
                bad: list[tuple[int, str]] = []
                for number, future in batch:
                    try:
                        tiles.append(future.result())
                        good.append(number)
                    except SlideError as error:
                        bad.append((number, str(error).removeprefix(f"{slide.path}: ")))
                pixels = np.stack(tiles) if tiles else np.empty((0, height, width, 3), np.uint8)
                yield good, pixels, bad
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
