"""A heat map over the slide as one picture: thumbnail, probabilities, tissue outline, legend and scale bar."""

import importlib.util
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pathzoo.wsi.colors import class_colors
from pathzoo.wsi.stitching import HeatMap
from pathzoo.wsi.types import RGB, Float32, Mask, Region

Color = tuple[int, int, int]

_INK: Color = (35, 38, 45)
_GREY: Color = (105, 110, 120)
_MIDDLE: Color = (255, 244, 190)  # a probability of one half
_OUTLINE: Color = (30, 45, 90)
_OPACITY = 0.5
_MARGIN, _PANEL, _SMALLEST = 28, 270, 560


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
    thumbnail = _enlarged(thumbnail)
    height, width = thumbnail.shape[:2]
    stained = None if tissue is None else _smooth(tissue, width, height)
    color, opacity = cell_colors(heat.probs, [colors[c] for c in classes])
    picture = blend(thumbnail, color, opacity, region, heat, weight=stained)
    if stained is not None:
        picture = _with_outline(picture, stained > 0.5)
    top = _MARGIN + (34 if title else 0) + (28 if subtitle else 0) + (12 if title or subtitle else 0)
    page_height = max(top + height + _MARGIN, top + _panel_height(classes, notes) + _MARGIN)
    page = Image.new("RGB", (_MARGIN + width + _MARGIN + _PANEL, page_height), "white")
    page.paste(Image.fromarray(picture), (_MARGIN, top))
    draw = ImageDraw.Draw(page)
    draw.rectangle((_MARGIN - 1, top - 1, _MARGIN + width, top + height), outline=(205, 208, 214))
    room = page.width - 2 * _MARGIN
    if title:
        draw.text((_MARGIN, _MARGIN - 8), _fitted(title, 26, room, True), font=_font(26, True), fill=_INK)
    if subtitle:
        draw.text((_MARGIN, top - 38), _fitted(subtitle, 18, room), font=_font(18), fill=_GREY)
    _draw_scale_bar(page, (_MARGIN, top, width, height), mpp * region[2] / width)
    _draw_panel(draw, _MARGIN + width + _MARGIN, top, classes, colors, tissue is not None, notes)
    return np.asarray(page)


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


def ramp(p: Float32, first: Color, second: Color) -> Float32:
    """Colour of the probability of the second of two classes: first at 0, pale yellow at 0.5, second at 1."""
    stops = np.array([first, _MIDDLE, second], np.float32)
    return np.stack([np.interp(p, (0, 0.5, 1), stops[:, i]) for i in range(3)], axis=-1).astype(np.float32)


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
    a = (opacity[rows][:, columns] * inside * (1 if weight is None else 0.35 + 0.65 * weight))[..., None]
    return np.asarray(np.rint(thumbnail * (1 - a) + color[rows][:, columns] * a), np.uint8)


def scale_bar_length(microns_across: float) -> float:
    """The longest of 1, 2 or 5 times a power of ten that is at most a quarter of the width, in microns."""
    limit = microns_across / 4
    power = 10.0 ** np.floor(np.log10(limit))
    return float(max(step * power for step in (1, 2, 5) if step * power <= limit * (1 + 1e-9)))


def _enlarged(thumbnail: RGB) -> RGB:
    """Small pictures are shown enlarged, so that legend and cells stay in proportion."""
    longer = max(thumbnail.shape[:2])
    if longer >= _SMALLEST:
        return thumbnail
    factor = _SMALLEST / longer
    return np.asarray(cv2.resize(thumbnail, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC), np.uint8)


def _smooth(tissue: Mask, width: int, height: int) -> Float32:
    return np.asarray(
        cv2.resize(tissue.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR), np.float32
    )


def _with_outline(picture: RGB, tissue: Mask) -> RGB:
    contours, _ = cv2.findContours(tissue.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    drawn = np.ascontiguousarray(picture)
    cv2.drawContours(drawn, contours, -1, _OUTLINE, 2, cv2.LINE_AA)
    return drawn


def _draw_scale_bar(page: Image.Image, box: tuple[int, int, int, int], microns_per_pixel: float) -> None:
    x, y, width, height = box
    microns = scale_bar_length(width * microns_per_pixel)
    label = f"{microns / 1000:g} mm" if microns >= 1000 else f"{microns:g} µm"
    pixels, font = round(microns / microns_per_pixel), _font(18, True)
    plate = max(pixels, round(font.getlength(label))) + 28
    left, upper = x + 14, y + height - 14 - 52
    area = (left, upper, left + plate, upper + 52)
    light = Image.blend(page.crop(area), Image.new("RGB", (plate, 52), "white"), 0.82)
    page.paste(light, area)
    draw = ImageDraw.Draw(page)
    draw.text((left + plate / 2, upper + 18), label, font=font, fill=_INK, anchor="mm")
    start = left + (plate - pixels) // 2
    draw.rectangle((start, upper + 34, start + pixels, upper + 39), fill=_INK)


def _panel_height(classes: Sequence[str], notes: Sequence[str]) -> int:
    return (46 + 270 if len(classes) == 2 else 46 + 32 * len(classes)) + 70 + 26 * len(notes)


def _draw_panel(
    draw: ImageDraw.ImageDraw,
    x: int,
    y: int,
    classes: Sequence[str],
    colors: Mapping[str, Color],
    outlined: bool,
    notes: Sequence[str],
) -> None:
    room = _PANEL - _MARGIN
    if len(classes) == 2:
        draw.text((x, y), "Probability of", font=_font(17), fill=_GREY)
        draw.text((x, y + 22), _fitted(classes[1], 20, room, True), font=_font(20, True), fill=_INK)
        y = _draw_color_bar(draw, x, y + 62, classes, colors)
    else:
        draw.text((x, y), "Most probable class", font=_font(17), fill=_GREY)
        y += 34
        for name in classes:
            draw.rectangle((x, y, x + 22, y + 20), fill=colors[name])
            draw.text((x + 34, y - 1), _fitted(name, 17, room - 34), font=_font(17), fill=_INK)
            y += 32
    y += 18
    if outlined:
        draw.line((x, y + 10, x + 22, y + 10), fill=_OUTLINE, width=3)
        draw.text((x + 34, y), "tissue", font=_font(17), fill=_INK)
        y += 40
    for line in notes:
        draw.text((x, y), _fitted(line, 15, room), font=_font(15), fill=_GREY)
        y += 26


def _draw_color_bar(
    draw: ImageDraw.ImageDraw, x: int, y: int, classes: Sequence[str], colors: Mapping[str, Color], height: int = 220
) -> int:
    """The ramp with its ticks, 1 on top; returns the y below it. It shows the ramp unblended."""
    strip = ramp(np.linspace(1, 0, height, dtype=np.float32), colors[classes[0]], colors[classes[1]])
    for i, color in enumerate(strip):
        draw.line((x, y + i, x + 26, y + i), fill=(int(color[0]), int(color[1]), int(color[2])))
    draw.rectangle((x, y, x + 26, y + height), outline=_GREY)
    for p in (0, 0.25, 0.5, 0.75, 1):
        at = y + round((1 - p) * height)
        draw.line((x + 26, at, x + 33, at), fill=_GREY)
        text = f"{p:g}" if 0 < p < 1 else f"{p:g}  {classes[int(p)]}"
        draw.text((x + 40, at), _fitted(text, 16, _PANEL - _MARGIN - 40), font=_font(16), fill=_INK, anchor="lm")
    return y + height


@lru_cache
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib carries: it has µ and most scripts that class names are written in."""
    package = importlib.util.find_spec("matplotlib")
    assert package is not None and package.origin is not None
    folder = Path(package.origin).parent / "mpl-data" / "fonts" / "ttf"
    return ImageFont.truetype(str(folder / ("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf")), size)


def _fitted(text: str, size: int, room: float, bold: bool = False) -> str:
    """`text`, shortened in its middle to `room` pixels."""
    font = _font(size, bold)
    kept = len(text)
    shown = text
    while font.getlength(shown) > room and kept > 2:
        kept -= 1
        shown = text[: (kept + 1) // 2] + "…" + text[len(text) - kept // 2 :]
    return shown
