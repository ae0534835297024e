"""Area resampling of a rectangle whose edges may lie inside pixels."""

import itertools
import math

import cv2
import numpy as np
import numpy.typing as npt

from pathzoo.wsi.types import RGB


def nearest_pixel(place: float) -> int:
    """The whole pixel nearest to a place, half a pixel always to the right: neighbouring tiles keep their distance."""
    return math.floor(place + 0.5)


def area_resample(image: RGB, box: tuple[float, float, float, float], width: int, height: int) -> RGB:
    """Averages `image` over the cells of a width x height grid laid over `box`.

    Every output pixel is the mean over its own rectangle of the input, a pixel that the rectangle cuts counting by the
    area inside: the one filter for which neighbouring tiles agree wherever their grids do, and which keeps the mean.

    Args:
        image: (H, W, 3) uint8.
        box: x0, y0, x1, y1 in pixels of `image`, inside it; cells must be at least one pixel wide and high.
        width: Output columns.
        height: Output rows.

    Returns:
        (height, width, 3) uint8, rounded to the nearest.
    """
    x0, y0, x1, y1 = box
    corners = [round(v) for v in box]
    if np.allclose(box, corners, rtol=0, atol=1e-6):
        crop = image[corners[1] : corners[3], corners[0] : corners[2]]
        if crop.shape[:2] == (height, width):
            return np.ascontiguousarray(crop)
        return np.asarray(cv2.resize(crop, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    rows = _cell_means(image, np.linspace(y0, y1, height + 1))
    both = _cell_means(rows.swapaxes(0, 1), np.linspace(x0, x1, width + 1)).swapaxes(0, 1)
    return np.ascontiguousarray(np.rint(both).clip(0, 255).astype(np.uint8))


def _cell_means(image: npt.NDArray[np.generic], edges: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Means of (n, ...) along axis 0 over the cells between `edges`: whole rows summed by OpenCV, cut ones by parts."""
    lines = np.ascontiguousarray(image).reshape(image.shape[0], -1)
    kind = cv2.CV_32S if image.dtype == np.uint8 else cv2.CV_64F
    whole = np.clip(np.floor(edges).astype(np.int64), 0, image.shape[0] - 1)
    cut = lines[whole] * (edges - whole)[:, None]
    sums = np.diff(cut, axis=0)
    for cell, (first, last) in enumerate(itertools.pairwise(whole.tolist())):
        if first < last:
            sums[cell] += cv2.reduce(lines[first:last], 0, cv2.REDUCE_SUM, dtype=kind)[0]
    return np.asarray((sums / np.diff(edges)[:, None]).reshape(-1, *image.shape[1:]), np.float64)
