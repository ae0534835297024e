"""Where the tissue is, judged on a thumbnail."""

import cv2
import numpy as np
import numpy.typing as npt

from pathzoo.wsi.types import RGB, Mask

Grey = npt.NDArray[np.uint8]

#: Bounds of the threshold (grey levels of max - min over RGB). Below the lower one is glass whatever Otsu says (a blank
#: slide has only noise to split); above the upper one is stain (where tissue fills the picture, Otsu would split it).
_LOWEST, _HIGHEST = 10, 20
#: A stroke holds a square of this many pixels a side that is ink all over, and so many such pixels in all; its blurred
#: edge reaches at most so many pixels further.
_STROKE, _LEAST_INK, _EDGE = 3, 32, 12
#: Greenish glass: how bright it is at least, how much its channels differ at most, and how much of a picture it covers.
_BRIGHT, _TINT, _LEAST_GLASS = 200, 40, 0.02


def tissue_mask(thumbnail: RGB, min_area: int = 16, max_hole: int = 256) -> Mask:
    """Separates stained tissue from glass by Otsu's threshold on saturation; pen marks are no tissue.

    Saturation is max - min over R, G and B, where glass is greenish of the light that it lets through: no stain gives
    that tint, and pale tissue would not differ from it. It is not divided by the brightness as in HSV: in dark pixels
    (a scanner's black border, black ink) that quotient is noise. Blur, as of a slide out of focus, widens the mask's
    edge only.

    Args:
        thumbnail: (H, W, 3) uint8.
        min_area: Islands of fewer pixels are dust.
        max_hole: Holes of at most this many pixels belong to the tissue, unless they are ink.

    Returns:
        (H, W) bool, True on tissue; all False on a blank slide, all True where tissue fills the picture.

    Source: N. Otsu, "A threshold selection method from gray-level histograms", IEEE Trans. SMC 9(1), 1979.
    """
    _, saturation = _brightest_and_spread(_balanced(thumbnail))
    if min(saturation.shape) >= 3:
        saturation = np.asarray(cv2.medianBlur(saturation, 3), np.uint8)
    clean = ~pen_ink(thumbnail)
    threshold = min(max(otsu_threshold(saturation[clean]), _LOWEST), _HIGHEST)
    mask: Mask = (saturation > threshold) & clean
    mask = without_small(mask, min_area)
    return ~without_small(~mask, max_hole + 1) & clean


def pen_ink(thumbnail: RGB) -> Mask:
    """Marks of blue, green, red or black pens.

    The rules rest on which colour a dye leaves: haematoxylin, eosin, PAS's magenta and DAB absorb green or blue most,
    so that in none of their mixtures green exceeds red while blue exceeds red by 80, nor green exceeds red by 50, nor
    red exceeds green by 110 with blue as low as green (computed from the absorption vectors of Ruifrok and Johnston
    2001 and Macenko et al. 2009 for white points 225 to 255, and checked on real H&E and PAS). Only pixels beyond those
    bounds, or black and grey ones, start a mark, and only where they lie thick as a stroke: what is doubtful stays
    tissue. From there a mark grows over its own blurred edge. Stains that are themselves blue or green (Alcian blue,
    light green, trichrome) can be taken for ink: such slides need the tissue mask switched off.

    Args:
        thumbnail: (H, W, 3) uint8.

    Returns:
        (H, W) bool, True on ink.
    """
    r, g, b = (np.asarray(plane, np.int16) for plane in cv2.split(thumbnail))
    brightest, spread = _brightest_and_spread(thumbnail)
    blue, green, blue_green = b - r, g - r, b - g
    rules = (  # of each pen: what starts a mark, and its edge, mixed with glass
        ((blue >= 80) & (green >= 0) & (r <= 100), (blue >= 10) & (green >= 0)),
        ((green >= 50) & (blue_green <= 20), (green >= 10) & (blue_green <= 10)),
        ((green <= -110) & (blue_green <= 10), (green <= -10) & (blue_green <= 8)),
        ((brightest <= 60) & (spread <= 30), (brightest <= 130) & (spread <= 40)),
    )
    ink = np.zeros(r.shape, np.bool_)
    square = np.ones((_STROKE, _STROKE), np.uint8)
    for core, edge in rules:
        opened = cv2.morphologyEx(core.astype(np.uint8), cv2.MORPH_OPEN, square, borderValue=0)
        marks = without_small(opened > 0, _LEAST_INK)
        if marks.any():
            ink |= _grown(marks, core | edge)
    return ink


def _brightest_and_spread(picture: RGB) -> tuple[Grey, Grey]:
    """The largest of R, G and B, and by how much it exceeds the smallest: (H, W) uint8 each."""
    r, g, b = cv2.split(picture)
    brightest = cv2.max(cv2.max(r, g), b)
    spread = cv2.subtract(brightest, cv2.min(cv2.min(r, g), b))
    return np.asarray(brightest, np.uint8), np.asarray(spread, np.uint8)


def _balanced(picture: RGB) -> RGB:
    """The picture with greenish glass made white; as it is where there is none.

    Glass counts as greenish where green exceeds red and blue in bright pixels: haematoxylin, eosin, PAS's magenta and
    DAB take away more of it than of one of the others, so that no tissue in them is taken for glass.
    """
    _, spread = _brightest_and_spread(picture)
    green = np.asarray(picture[..., 1])
    pale = (green >= _BRIGHT) & (spread <= _TINT) & (green > picture[..., 0]) & (green > picture[..., 2])
    if pale.mean() < _LEAST_GLASS:
        return picture
    white = np.median(picture[pale], axis=0)
    scaled = picture * (255.0 / white)
    return np.asarray(np.rint(scaled).clip(0, 255), np.uint8)


def _grown(start: Mask, within: Mask) -> Mask:
    """What of `within` a path of at most `_EDGE` pixels in it joins to `start`."""
    grown, limits = start.astype(np.uint8), (start | within).astype(np.uint8)
    for _ in range(_EDGE):
        grown = np.asarray(cv2.dilate(grown, np.ones((3, 3), np.uint8)), np.uint8) & limits
    return grown > 0


def otsu_threshold(grey: Grey) -> int:
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
