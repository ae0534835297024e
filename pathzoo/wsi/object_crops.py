"""Pictures of the single objects of a slide, each around its centre, read by the same stream as tiles are."""

from collections.abc import Generator
from contextlib import closing

import numpy as np

from pathzoo.errors import SlideError
from pathzoo.wsi.job import SlideJob, TileBatch
from pathzoo.wsi.merging import Float64
from pathzoo.wsi.stain import StainTransform
from pathzoo.wsi.tile_stream import read_tiles
from pathzoo.wsi.tiling import TileGrid
from pathzoo.wsi.types import Int64, Region


def crop_corners(boxes: Float64, size: tuple[int, int], downsample: float) -> Int64:
    """(n, 2) level-0 x and y of the crops' upper left corners, so that each box has its centre in a crop's middle.

    Args:
        boxes: (n, 4 or more) x0, y0, x1, y1 in level-0 pixels.
        size: Width and height of a crop in its own pixels.
        downsample: Level-0 pixels per pixel of a crop.
    """
    middle = (boxes[:, :2] + boxes[:, 2:4]) / 2
    return np.asarray(np.floor(middle - np.array(size) * downsample / 2 + 0.5), np.int64)


def crop_grid(corners: Int64, size: tuple[int, int], downsample: float, bounds: Region) -> TileGrid:
    """Crops as tiles of a grid with a stride of one level-0 pixel, which lie where they like.

    Args:
        corners: (n, 2) level-0 x and y.
        size: Width and height of a crop in its own pixels.
        downsample: Level-0 pixels per pixel of a crop.
        bounds: Of the slide; crops may stand out of them.
    """
    cells = (corners - np.array(bounds[:2], np.int64))[:, ::-1]
    return TileGrid(bounds, size, downsample, (1.0, 1.0), (bounds[3], bounds[2]), cells)


def read_crops(
    job: SlideJob, boxes: Float64, size: tuple[int, int], mpp: float, stain: StainTransform | None = None
) -> Generator[TileBatch, None, None]:
    """Reads a crop around each box, from the top of the slide to its bottom, so that little is decoded twice.

    Each is what `slide.read(x, y, width, height, mpp)` gives at its corner (see `crop_corners`). What cannot be decoded
    is white and told in `damage`; a slide that cannot be read on at all leaves all further crops so.

    Args:
        job: Its slide is read, in the way that `job.reading` says.
        boxes: (n, 4 or more) x0, y0, x1, y1 in level-0 pixels.
        size: Width and height of the crops.
        mpp: Their resolution, one that `Slide.resolve_mpp` gave.
        stain: Applied to each crop.

    Yields:
        Batches whose numbers, here and in `damage`, are positions in `boxes`.
    """
    slide = job.slide
    assert slide.mpp is not None
    downsample = mpp / slide.mpp
    corners = crop_corners(boxes, size, downsample)
    band = max(1, round(size[1] * downsample))
    order = np.lexsort((corners[:, 0], corners[:, 1] // band))
    grid, done = crop_grid(corners[order], size, downsample, slide.bounds), 0
    try:
        with closing(read_tiles(slide, grid, mpp, **job.reading, stain=stain)) as batches:
            for batch in batches:
                damage = {int(order[n]): (mask, job.said(why)) for n, (mask, why) in batch.damage.items()}
                yield TileBatch(order[batch.numbers], batch.pixels, damage)
                done += len(batch)
    except SlideError as error:
        why, lost = job.said(str(error).removeprefix(f"{slide.path}: ")), np.ones(size[::-1], np.bool_)
        white = np.full((1, *lost.shape, 3), 255, np.uint8)
        for number in order[done:].tolist():
            yield TileBatch(np.array([number]), white, {number: (lost, why)})
