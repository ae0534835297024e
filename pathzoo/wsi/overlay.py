"""Predictions over the slide as one picture: a heat map, a mask or boxes on a thumbnail, set on a page."""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import numpy.typing as npt

from pathzoo.wsi.colors import class_colors
from pathzoo.wsi.overlay_page import ClassLegend, Color, RampLegend, enlarged, page, ramp, smooth, with_outline
from pathzoo.wsi.stitching import HeatMap
from pathzoo.wsi.types import RGB, Float32, Int64, Mask, Region

__all__ = ["blend", "cell_colors", "overlay", "overlay_boxes", "overlay_mask", "ramp"]

#: Of a heat map's cells, and of regions, whose outline tells them as well.
_OPACITY, _REGION_OPACITY = 0.5, 0.4
#: With more outlines than this they are drawn thin.
_MANY_OUTLINES = 300
#: More boxes than this, or smaller ones (median side in pixels of the picture), are drawn as dots.
_MOST_BOXES, _SMALLEST_BOX = 2000, 7.0
#: Fractional bits of the places that are given to OpenCV.
_SHIFT = 4
#: Rows of the picture that are blended at once.
_STRIP = 32


def overlay(
    thumbnail: RGB,
    region: Region,
    heat: HeatMap,
    classes: Sequence[str],
    mpp: float,
    *,
    tissue: Mask | None = None,
    title: str = "",
    subtitle: str = "",
    notes: Sequence[str] = (),
    colors: Mapping[str, Color] | None = None,
) -> RGB:
    """Draws class probabilities over a slide.

    With two classes the colour runs from the first class over pale yellow (0.5) to the second; with more, each cell
    has the colour of its most probable class, the denser the surer.

    Args:
        thumbnail: RGB uint8 (h, w, 3) of `region`.
        region: x, y, width, height in level-0 pixels.
        heat: Probabilities on cells, in level-0 pixels.
        classes: Names, in the order of the probabilities.
        mpp: Microns per level-0 pixel, for the scale bar.
        tissue: (h', w') bool over `region`, of any size; its outline is drawn.
        title: First line.
        subtitle: Second line.
        notes: Short lines below the legend.
        colors: RGB 0..255 by class; by default pathzoo's palette.

    Returns:
        RGB uint8; larger than the thumbnail by its margins.
    """
    colors = colors or class_colors(classes)
    thumbnail = enlarged(thumbnail)
    height, width = thumbnail.shape[:2]
    stained = None if tissue is None else smooth(tissue, width, height)
    color, opacity = cell_colors(heat.probs, [colors[c] for c in classes])
    picture = blend(thumbnail, color, opacity, region, heat, weight=stained)
    if stained is not None:
        picture = with_outline(picture, np.asarray(stained > 0.5))
    legend = (
        RampLegend(classes, colors)
        if len(classes) == 2
        else ClassLegend("Most probable class", {name: colors[name] for name in classes})
    )
    outlined = tissue is not None
    return page(
        picture, mpp * region[2] / width, legend, outlined=outlined, title=title, subtitle=subtitle, notes=notes
    )


def overlay_mask(
    thumbnail: RGB,
    region: Region,
    labels: Int64,
    classes: Sequence[str],
    mpp: float,
    *,
    tissue: Mask | None = None,
    title: str = "",
    subtitle: str = "",
    notes: Sequence[str] = (),
    colors: Mapping[str, Color] | None = None,
    hidden: Sequence[str] = (),
) -> RGB:
    """Draws the regions of classes over a slide: half-transparent, with a line around each.

    Args:
        thumbnail: RGB uint8 (h, w, 3) of `region`.
        region: x, y, width, height in level-0 pixels.
        labels: (h', w') class index of any integer type over `region`, of any size; -1 (and whatever is no index of
            `classes`) is nothing. Each pixel of the picture takes the label that its centre lies in.
        classes: Names, in the order of the indices.
        mpp: Microns per level-0 pixel, for the scale bar.
        tissue: (h'', w'') bool over `region`, of any size; its outline is drawn.
        title: First line.
        subtitle: Second line.
        notes: Short lines below the legend.
        colors: RGB 0..255 by class; by default pathzoo's palette.
        hidden: Classes that are neither drawn nor named, such as a background.

    Returns:
        RGB uint8; larger than the thumbnail by its margins.
    """
    palette = colors or class_colors(classes)
    picture = enlarged(thumbnail).copy()
    height, width = picture.shape[:2]
    rows = ((np.arange(height) + 0.5) * labels.shape[0] / height).astype(np.int64)
    columns = ((np.arange(width) + 0.5) * labels.shape[1] / width).astype(np.int64)
    shown = labels[rows[:, None], columns]
    visible = {index: name for index, name in enumerate(classes) if name not in set(hidden)}
    outlines = {}
    for index, name in visible.items():
        member = np.asarray(shown == index)
        tint = picture[member] * (1 - _REGION_OPACITY) + np.array(palette[name]) * _REGION_OPACITY
        picture[member] = np.rint(tint)
        outlines[name], _ = cv2.findContours(member.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    line = 1 if sum(map(len, outlines.values())) > _MANY_OUTLINES else 2
    for name, contours in outlines.items():  # after all tints, so that no neighbour covers half a line
        cv2.drawContours(picture, contours, -1, palette[name], line, cv2.LINE_AA)
    if tissue is not None:
        picture = with_outline(picture, np.asarray(smooth(tissue, width, height) > 0.5))
    legend = ClassLegend("Predicted regions", {name: palette[name] for name in visible.values()}, "area")
    outlined = tissue is not None
    return page(
        picture, mpp * region[2] / width, legend, outlined=outlined, title=title, subtitle=subtitle, notes=notes
    )


def overlay_boxes(
    thumbnail: RGB,
    region: Region,
    boxes: npt.NDArray[np.float64],
    classes: Sequence[str],
    mpp: float,
    *,
    tissue: Mask | None = None,
    title: str = "",
    subtitle: str = "",
    notes: Sequence[str] = (),
    colors: Mapping[str, Color] | None = None,
) -> RGB:
    """Draws detected objects over a slide, and their number by class.

    Up to 2000 boxes are drawn as frames; more, or such as would measure under 7 pixels in the picture (the median of
    their geometric mean sides), as dots at their centres. The surest lie on top.

    Args:
        thumbnail: RGB uint8 (h, w, 3) of `region`.
        region: x, y, width, height in level-0 pixels.
        boxes: (n, 6) x0, y0, x1, y1 in level-0 pixels, score, class index.
        classes: Names, in the order of the indices.
        mpp: Microns per level-0 pixel, for the scale bar.
        tissue: (h', w') bool over `region`, of any size; its outline is drawn.
        title: First line.
        subtitle: Second line.
        notes: Short lines below the legend.
        colors: RGB 0..255 by class; by default pathzoo's palette.

    Returns:
        RGB uint8; larger than the thumbnail by its margins.
    """
    palette = colors or class_colors(classes)
    picture = enlarged(thumbnail).copy()
    height, width = picture.shape[:2]
    if tissue is not None:
        picture = with_outline(picture, np.asarray(smooth(tissue, width, height) > 0.5))
    scale = np.array([width / region[2], height / region[3]] * 2)
    placed = (boxes[:, :4] - np.array(region[:2] * 2)) * scale
    order = np.argsort(boxes[:, 4], kind="stable")
    which = boxes[order, 5].astype(np.int64)
    inks = [palette[classes[index]] for index in which.tolist()]
    sides = np.sqrt(np.prod(placed[:, 2:] - placed[:, :2], axis=1))
    dots = len(boxes) > _MOST_BOXES or (len(boxes) > 0 and float(np.median(sides)) < _SMALLEST_BOX)
    if dots:
        _draw_dots(picture, placed[order], inks)
    else:
        _draw_frames(picture, placed[order], inks)
    counts = np.bincount(which, minlength=len(classes))
    numbers = {name: f"{n:,}" for name, n in zip(classes, counts.tolist(), strict=True)}
    heading = "Objects, each a dot" if dots else "Objects"
    legend = ClassLegend(heading, {name: palette[name] for name in classes}, "dot" if dots else "box", numbers)
    outlined = tissue is not None
    return page(
        picture, mpp * region[2] / width, legend, outlined=outlined, title=title, subtitle=subtitle, notes=notes
    )


def _draw_frames(picture: RGB, placed: npt.NDArray[np.float64], inks: Sequence[Color]) -> None:
    """Frames on a thin light edge, which sets them off from dark tissue. A box below 3 pixels is drawn as 3."""
    middle, half = (placed[:, :2] + placed[:, 2:]) / 2, np.maximum(placed[:, 2:] - placed[:, :2], 3) / 2
    corners = np.rint(np.hstack([middle - half, middle + half])).astype(np.int64).tolist()
    lines = np.select([half.min(axis=1) >= 40, half.min(axis=1) >= 8], [3, 2], 1).tolist()
    for (x0, y0, x1, y1), line, ink in zip(corners, lines, inks, strict=True):
        cv2.rectangle(picture, (x0, y0), (x1, y1), (255, 255, 255), line + 2)
        cv2.rectangle(picture, (x0, y0), (x1, y1), ink, line)


def _draw_dots(picture: RGB, placed: npt.NDArray[np.float64], inks: Sequence[Color]) -> None:
    """Dots of the objects' size, but of 1.5 to 4 pixels radius."""
    middle = np.rint((placed[:, :2] + placed[:, 2:]) / 2 * 2**_SHIFT).astype(np.int64).tolist()
    sides = np.sqrt(np.prod(placed[:, 2:] - placed[:, :2], axis=1))
    radii = np.rint((sides / 2).clip(1.5, 4) * 2**_SHIFT).astype(np.int64).tolist()
    for (x, y), radius, ink in zip(middle, radii, inks, strict=True):
        cv2.circle(picture, (x, y), radius, ink, -1, cv2.LINE_AA, _SHIFT)


def cell_colors(probs: Float32, colors: Sequence[Color]) -> tuple[Float32, Float32]:
    """Colour (rows, columns, 3) in 0..255 and opacity (rows, columns) in 0..1 of each cell; opacity 0 where NaN."""
    known = np.asarray(~np.isnan(probs).any(axis=2))
    filled = np.where(known[..., None], probs, 0).astype(np.float32)
    palette = np.array(colors, np.float32)
    if len(colors) == 2:
        return ramp(filled[..., 1], colors[0], colors[1]), (known * _OPACITY).astype(np.float32)
    chance = 1 / len(colors)
    sure = ((filled.max(axis=2) - chance) / max(1 - chance, 1e-6)).clip(0, 1)
    opacity: Float32 = np.asarray(known * (0.15 + 0.5 * sure), np.float32)
    return palette[filled.argmax(axis=2)], opacity


def blend(
    thumbnail: RGB, color: Float32, opacity: Float32, region: Region, heat: HeatMap, weight: Float32 | None = None
) -> RGB:
    """Lays coloured cells over the thumbnail of `region`, each pixel taking the cell that its centre lies in.

    `weight` (h, w) in 0..1 says where the tissue is: glass inside a cell is tinted less, so that tissue stands out.
    """
    height, width = thumbnail.shape[:2]
    x = region[0] + (np.arange(width) + 0.5) * region[2] / width
    y = region[1] + (np.arange(height) + 0.5) * region[3] / height
    columns = np.searchsorted(heat.x_edges, x, side="right") - 1
    rows = np.searchsorted(heat.y_edges, y, side="right") - 1
    inside = ((rows >= 0) & (rows < opacity.shape[0]))[:, None] & ((columns >= 0) & (columns < opacity.shape[1]))
    rows, columns = rows.clip(0, opacity.shape[0] - 1), columns.clip(0, opacity.shape[1] - 1)
    out = np.empty(thumbnail.shape, np.uint8)
    for first in range(0, height, _STRIP):  # strips stay in the processor's cache
        part = slice(first, first + _STRIP)
        a = (opacity[rows[part]][:, columns] * inside[part])[..., None]
        if weight is not None:
            a *= (0.35 + 0.65 * weight[part])[..., None]
        paler = thumbnail[part] + (color[rows[part]][:, columns] - thumbnail[part]) * a
        out[part] = np.rint(paler, out=paler)
    return out
