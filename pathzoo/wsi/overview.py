"""A first look at a slide: one thumbnail, and the tissue on it."""

from dataclasses import dataclass
from functools import partial

import numpy as np

from pathzoo.errors import SlideError
from pathzoo.wsi.isolation import call_isolated
from pathzoo.wsi.resample import area_resample
from pathzoo.wsi.slide import Slide
from pathzoo.wsi.slide_stain import fit_slide
from pathzoo.wsi.stain import StainFit, void_fit
from pathzoo.wsi.tissue import tissue_mask
from pathzoo.wsi.types import RGB, Mask

#: Tissue is looked for at this resolution (microns per pixel), or coarser on slides that would exceed the size.
_TISSUE_MPP, _TISSUE_SIZE = 4.0, 2048
#: Longer side of the thumbnail that overlays are drawn on.
_PICTURE_SIZE = 1400
#: No slower is a decoder that still works (pixels per second); the thumbnail of a slide of one level takes its time.
_SLOWEST = 1e6
#: From so many pixels on a thumbnail is worth a word: over a minute, roughly.
_MANY_PIXELS = 1_000_000_000


@dataclass(frozen=True)
class Overview:
    """What the first look at a slide's bounds gave."""

    #: RGB uint8, white where nothing could be decoded.
    thumbnail: RGB
    #: Over the bounds; what could not be decoded counts as tissue, to be tried. None where not looked for.
    tissue: Mask | None
    #: What the user should know.
    notes: tuple[str, ...] = ()


def take_overview(slide: Slide, tissue: bool = True, *, isolate: bool = True, timeout: float = 60.0) -> Overview:
    """Surveys a slide once, for the tissue mask and for the picture below the overlay.

    Args:
        slide: An open slide.
        tissue: Look for tissue.
        isolate: Decode in a process of its own.
        timeout: Seconds without an answer after which the decoder is ended, beside the time that many pixels take.

    Returns:
        The overview. A survey that hangs or crashes gives a white thumbnail, no mask and a note: every tile is tried
        then, and the one that does it is found by the reading of tiles.
    """
    longer = max(slide.bounds[2:])
    wanted = _TISSUE_SIZE if slide.mpp is None else min(_TISSUE_SIZE, max(1, round(longer * slide.mpp / _TISSUE_MPP)))
    size = min(longer, max(wanted, _PICTURE_SIZE))
    pixels = slide.survey_pixels(size, slide.bounds)
    notes = tuple(slide.notes)
    if pixels >= _MANY_PIXELS:
        notes += (f"the file has no small level: {pixels / 1e6:,.0f} million pixels were read for its thumbnail",)
    try:
        if isolate:
            patience = timeout + pixels / _SLOWEST
            thumbnail, damaged = call_isolated(slide.path, patience, _survey, slide, size)
        else:
            thumbnail, damaged = _survey(slide, size)
    except SlideError as error:
        reason = str(error).removeprefix(f"{slide.path}: ")
        blank = np.full((8, 8, 3), 255, np.uint8)
        return Overview(blank, None, (*notes, f"no thumbnail ({reason}): every tile was tried, tissue or not"))
    if not tissue:
        return Overview(thumbnail, None, notes)
    height, width = thumbnail.shape[:2]
    scale = max(1.0, max(width, height) / wanted)
    columns, rows = max(1, round(width / scale)), max(1, round(height / scale))
    small = area_resample(thumbnail, (0, 0, width, height), columns, rows)
    lost = area_resample(np.repeat(damaged[..., None] * np.uint8(255), 3, 2), (0, 0, width, height), columns, rows)
    return Overview(thumbnail, np.asarray(tissue_mask(small) | (lost[..., 0] > 0), np.bool_), notes)


def stain_of(slide: Slide, overview: Overview, method: str, mpp: float, *, isolate: bool, timeout: float) -> StainFit:
    """`fit_slide` with the overview's tissue; a decoder that hangs gives a fit that says so and changes nothing."""
    fit = partial(fit_slide, mpp=mpp)
    if not isolate:
        return fit(slide, overview.tissue, method)
    try:
        return call_isolated(slide.path, timeout, fit, slide, overview.tissue, method)
    except SlideError as error:
        return void_fit(method, str(error).removeprefix(f"{slide.path}: "))


def _survey(slide: Slide, size: int) -> tuple[RGB, Mask]:
    return slide.survey(size, slide.bounds)
