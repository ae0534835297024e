"""Where the tissue is, judged on a thumbnail."""

import cv2
import numpy as np

from pathzoo.wsi.types import RGB, Mask

#: Bounds of the threshold (grey levels of max - min over RGB). Below the lower one is glass whatever Otsu says (a blank
#: slide has only noise to split); above the upper one is stain (where tissue fills the picture, Otsu would split it).
_LOWEST, _HIGHEST = 10, 20


def tissue_mask(thumbnail: RGB, min_area: int = 16, max_hole: int = 256) -> Mask:
    """Separates stained tissue from glass by Otsu's threshold on saturation.

    Saturation is max - min over R, G and B. It is not divided by the brightness as in HSV: in dark pixels (a scanner's
    black border, black ink) that quotient is noise.

    Args:
        thumbnail: (H, W, 3) uint8.
        min_area: Islands of fewer pixels are dust.
        max_hole: Holes of at most this many pixels belong to the tissue.

    Returns:
        (H, W) bool, True on tissue; all False on a blank slide, all True where tissue fills the picture.

    Source: N. Otsu, "A threshold selection method from gray-level histograms", IEEE Trans. SMC 9(1), 1979.
    """
    saturation = np.ptp(thumbnail, axis=2).astype(np.uint8)
    if min(saturation.shape) >= 3:
        saturation = np.asarray(cv2.medianBlur(saturation, 3), np.uint8)
    threshold = min(max(otsu_threshold(saturation), _LOWEST), _HIGHEST)
    mask: Mask = saturation > threshold
    mask = without_small(mask, min_area)
    return ~without_small(~mask, max_hole + 1)


def otsu_threshold(grey: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> int:
    """The level t that best separates pixels <= t from pixels > t (largest variance between the two); 0 if constant."""
    counts = np.bincount(grey.ravel(), minlength=256).astype(np.float64)
    below = np.cumsum(counts)
    sums = np.cumsum(counts * np.arange(256))
    above = below[-1] - below
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (sums[-1] * below / below[-1] - sums) ** 2 / (below * above)
    return int(np.argmax(np.where(below * above > 0, between, -1.0)))


def without_small(mask: Mask, min_area: int) -> Mask:
    """`mask` without its 8-connected islands of fewer than `min_area` pixels."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    keep = stats[:, cv2.CC_STAT_AREA] >= min_area
    keep[0] = False  # label 0 is what lies outside the mask
    return np.asarray(keep[labels], np.bool_)
