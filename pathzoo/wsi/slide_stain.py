"""The stain of a slide, from some places of its tissue."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from pathzoo.errors import SlideError
from pathzoo.wsi.slide import Slide
from pathzoo.wsi.stain import FITS, METHODS, StainFit, StainTransform, UInt8, is_stained, void_fit
from pathzoo.wsi.tissue import tissue_mask
from pathzoo.wsi.types import Mask

#: Where no mask is given, tissue is looked for on a thumbnail of this size.
_THUMBNAIL = 1024
#: By how much green exceeds red in ink; a greater part of the pixels is no ink.
_INK_GREEN, _MUCH_INK = 15, 0.1


def fit_slide(
    slide: Slide,
    tissue: Mask | None,
    method: str,
    *,
    mpp: float | None = None,
    n_pixels: int = 100_000,
    n_places: int = 24,
    side: int = 128,
    seed: int = 0,
) -> StainFit:
    """Fits a slide's stain on tissue from some places of it, at the resolution that a model sees.

    Not on the thumbnail: averaging mixes the stains of neighbouring structures, so that their extremes are lost.

    Args:
        slide: The slide.
        tissue: (h, w) bool over `slide.bounds`; None looks for tissue here, and takes places anywhere if it finds none.
        method: One of `pathzoo.wsi.stain.METHODS`.
        mpp: Resolution at which is read, in microns per pixel; None reads level 0.
        n_pixels: The fit uses at most so many pixels, drawn at random.
        n_places: Squares that are read, centred at random on tissue.
        side: Their width and height in pixels.
        seed: The same seed takes the same pixels.

    Returns:
        A fit, or one with a `reason`: no tissue, nothing readable, or what the method itself says.

    Raises:
        SlideError: As `Slide.resolve_mpp`. Squares that cannot be decoded are left out.
        ValueError: An unknown method.
    """
    if method not in FITS:
        raise ValueError(f"stain method {method!r} is not one of {', '.join(METHODS)}")
    if tissue is None:
        found = tissue_mask(slide.thumbnail(_THUMBNAIL, slide.bounds))
        tissue = found if found.any() else np.ones((1, 1), np.bool_)
    if not tissue.any():
        return void_fit(method, "no tissue")
    rng = np.random.default_rng(seed)
    places = list(_tissue_pixels(slide, tissue, mpp, n_places, side, rng))
    if not places:
        return void_fit(method, "no place of the tissue could be decoded")
    pixels = np.concatenate(places)
    pixels = _without_ink(pixels[is_stained(pixels)])
    if len(pixels) > n_pixels:
        pixels = pixels[rng.choice(len(pixels), n_pixels, replace=False)]
    return FITS[method](pixels)


def stain_record(stain: StainTransform | None) -> dict[str, Any] | None:
    """What predict_run.json says of the slide's own stain; `reason` says why it was left as it is."""
    if stain is None:
        return None
    return {"method": stain.source.method, "slide": dict(stain.source.parameters), "reason": stain.reason}


def _tissue_pixels(
    slide: Slide, tissue: Mask, mpp: float | None, n_places: int, side: int, rng: np.random.Generator
) -> Iterator[UInt8]:
    """The pixels (n, 3) under the mask of each square that can be decoded."""
    scale = 1.0
    if mpp is not None:
        mpp = slide.resolve_mpp(mpp)
        assert slide.mpp is not None
        scale = mpp / slide.mpp
    x0, y0, width, height = slide.bounds
    cell_x, cell_y = width / tissue.shape[1], height / tissue.shape[0]
    rows, columns = np.nonzero(tissue)
    for index in rng.integers(0, len(rows), n_places):
        dx, dy = rng.random(2)
        x = round(x0 + (columns[index] + dx) * cell_x - side * scale / 2)
        y = round(y0 + (rows[index] + dy) * cell_y - side * scale / 2)
        try:
            square = slide.read(x, y, side, side, mpp)
        except SlideError:
            continue
        centres = (np.arange(side) + 0.5) * scale
        inside = _cells(y - y0 + centres, cell_y, tissue.shape[0]), _cells(x - x0 + centres, cell_x, tissue.shape[1])
        # A border of False stands for what lies outside the bounds.
        yield square[np.pad(tissue, 1)[np.ix_(*inside)]]


def _without_ink(pixels: UInt8) -> UInt8:
    """The pixels without the blue and green ones, if those are few.

    No mixture of haematoxylin, eosin, DAB or PAS's magenta lets through more green than red. Ink on a specimen's
    margin is too fine for the tissue mask, and one pixel in a hundred moves the extremes of a fit. Where many are so,
    the scanner's white balance makes them.
    """
    inked = pixels[:, 1].astype(np.int16) - pixels[:, 0] >= _INK_GREEN
    return pixels if inked.sum() > _MUCH_INK * len(pixels) else pixels[~inked]


def _cells(places: npt.NDArray[np.float64], size: float, n: int) -> npt.NDArray[np.int64]:
    """The cell of each place in a row of `n` cells with one more at either end."""
    return np.asarray((np.floor(places / size) + 1).clip(0, n + 1), np.int64)
