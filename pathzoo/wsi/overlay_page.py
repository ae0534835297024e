"""The page that every overlay is set on: white margins, titles, picture with scale bar, and the legend beside it."""

import importlib.util
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal, Protocol

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pathzoo.wsi.types import RGB, Float32, Mask

Color = tuple[int, int, int]

_INK: Color = (35, 38, 45)
_GREY: Color = (105, 110, 120)
_FRAME: Color = (205, 208, 214)
_MIDDLE: Color = (255, 244, 190)  # a probability of one half
_OUTLINE: Color = (30, 45, 90)
_MARGIN, _SMALLEST = 28, 560
#: Least and most width of the legend: long names widen it, and are shortened beyond.
_ROOM, _MOST_ROOM = 242, 400
_RAMP_HEIGHT, _ROW = 220, 32


class Legend(Protocol):
    """What the colours mean; drawn at the top of the panel."""

    @property
    def height(self) -> int:
        """Pixels from the top of the panel to the end of the legend."""
        ...

    @property
    def width(self) -> int:
        """Pixels that it takes to show every name in full."""
        ...

    def draw(self, draw: ImageDraw.ImageDraw, x: int, y: int, room: int) -> None:
        """Draws it with its upper left corner at (x, y), `room` pixels wide."""
        ...


@dataclass(frozen=True)
class RampLegend:
    """The colour bar of a probability between two classes, unblended."""

    classes: Sequence[str]
    colors: Mapping[str, Color]

    @property
    def height(self) -> int:
        """See `Legend`."""
        return 62 + _RAMP_HEIGHT

    @property
    def width(self) -> int:
        """See `Legend`."""
        ends = max(text_font(16).getlength(f"0  {name}") for name in self.classes)
        return math.ceil(max(text_font(20, True).getlength(self.classes[1]), 40 + ends))

    def draw(self, draw: ImageDraw.ImageDraw, x: int, y: int, room: int) -> None:
        """See `Legend`."""
        draw.text((x, y), "Probability of", font=text_font(17), fill=_GREY)
        draw.text((x, y + 22), fitted(self.classes[1], 20, room, True), font=text_font(20, True), fill=_INK)
        y += 62
        strip = ramp(
            np.linspace(1, 0, _RAMP_HEIGHT, dtype=np.float32),
            self.colors[self.classes[0]],
            self.colors[self.classes[1]],
        )
        for i, color in enumerate(strip):
            draw.line((x, y + i, x + 26, y + i), fill=(int(color[0]), int(color[1]), int(color[2])))
        draw.rectangle((x, y, x + 26, y + _RAMP_HEIGHT), outline=_GREY)
        for p in (0, 0.25, 0.5, 0.75, 1):
            at = y + round((1 - p) * _RAMP_HEIGHT)
            draw.line((x + 26, at, x + 33, at), fill=_GREY)
            text = f"{p:g}" if 0 < p < 1 else f"{p:g}  {self.classes[int(p)]}"
            draw.text((x + 40, at), fitted(text, 16, room - 40), font=text_font(16), fill=_INK, anchor="lm")


@dataclass(frozen=True)
class ClassLegend:
    """One row per class: a mark of its colour, its name, and a number where `numbers` has one."""

    heading: str
    colors: Mapping[str, Color]
    #: "area" (half-transparent with a contour), "box" (a frame), "dot", or "solid".
    mark: Literal["area", "box", "dot", "solid"] = "solid"
    numbers: Mapping[str, str] | None = None

    @property
    def height(self) -> int:
        """See `Legend`."""
        return 34 + _ROW * len(self.colors)

    @property
    def width(self) -> int:
        """See `Legend`."""
        return math.ceil(
            max((34 + self._taken(name) + text_font(17).getlength(name) for name in self.colors), default=0)
        )

    def draw(self, draw: ImageDraw.ImageDraw, x: int, y: int, room: int) -> None:
        """See `Legend`."""
        draw.text((x, y), fitted(self.heading, 17, room), font=text_font(17), fill=_GREY)
        y += 34
        for name, color in self.colors.items():
            self._draw_mark(draw, x, y, color)
            name_room = room - 34 - self._taken(name)
            draw.text((x + 34, y - 1), fitted(name, 17, name_room), font=text_font(17), fill=_INK)
            if self.numbers and name in self.numbers:
                draw.text((x + room, y - 1), self.numbers[name], font=text_font(17), fill=_INK, anchor="ra")
            y += _ROW

    def _taken(self, name: str) -> int:
        """Pixels that the number takes, with a gap before it."""
        return (
            math.ceil(text_font(17).getlength(self.numbers[name])) + 18 if self.numbers and name in self.numbers else 0
        )

    def _draw_mark(self, draw: ImageDraw.ImageDraw, x: int, y: int, color: Color) -> None:
        square = (x, y, x + 22, y + 20)
        if self.mark == "area":
            light = tuple((value + 255) // 2 for value in color)
            draw.rectangle(square, fill=(light[0], light[1], light[2]), outline=color, width=2)
        elif self.mark == "box":
            draw.rectangle(square, outline=color, width=3)
        elif self.mark == "dot":
            draw.ellipse((x + 6, y + 5, x + 16, y + 15), fill=color)
        else:
            draw.rectangle(square, fill=color)


def page(
    picture: RGB,
    microns_per_pixel: float,
    legend: Legend,
    *,
    outlined: bool = False,
    title: str = "",
    subtitle: str = "",
    notes: Sequence[str] = (),
) -> RGB:
    """Sets a picture on a white page, with titles above, a scale bar on it and the legend to its right.

    Args:
        picture: RGB uint8 (h, w, 3).
        microns_per_pixel: Of the picture.
        legend: What its colours mean.
        outlined: Whether an outline of the tissue is drawn and needs a line in the legend.
        title: First line.
        subtitle: Second line.
        notes: Short lines below the legend.

    Returns:
        RGB uint8, larger than the picture by its margins. Text that is too long is shortened in its middle.
    """
    height, width = picture.shape[:2]
    top = _MARGIN + (34 if title else 0) + (28 if subtitle else 0) + (12 if title or subtitle else 0)
    panel = legend.height + 18 + (40 if outlined else 0) + 26 * len(notes)
    room = min(max(_ROOM, legend.width), _MOST_ROOM)
    sheet = Image.new("RGB", (3 * _MARGIN + width + room, top + max(height, panel) + _MARGIN), "white")
    sheet.paste(Image.fromarray(picture), (_MARGIN, top))
    draw = ImageDraw.Draw(sheet)
    draw.rectangle((_MARGIN - 1, top - 1, _MARGIN + width, top + height), outline=_FRAME)
    line = sheet.width - 2 * _MARGIN
    if title:
        draw.text((_MARGIN, _MARGIN - 8), fitted(title, 26, line, True), font=text_font(26, True), fill=_INK)
    if subtitle:
        draw.text((_MARGIN, top - 38), fitted(subtitle, 18, line), font=text_font(18), fill=_GREY)
    _draw_scale_bar(sheet, (_MARGIN, top, width, height), microns_per_pixel)
    x, y = _MARGIN + width + _MARGIN, top
    legend.draw(draw, x, y, room)
    y += legend.height + 18
    if outlined:
        draw.line((x, y + 10, x + 22, y + 10), fill=_OUTLINE, width=3)
        draw.text((x + 34, y), "tissue", font=text_font(17), fill=_INK)
        y += 40
    for note in notes:
        draw.text((x, y), fitted(note, 15, room), font=text_font(15), fill=_GREY)
        y += 26
    return np.asarray(sheet)


def ramp(p: Float32, first: Color, second: Color) -> Float32:
    """Colour of the probability of the second of two classes: first at 0, pale yellow at 0.5, second at 1."""
    stops = np.array([first, _MIDDLE, second], np.float32)
    return np.stack([np.interp(p, (0, 0.5, 1), stops[:, i]) for i in range(3)], axis=-1).astype(np.float32)


def enlarged(thumbnail: RGB) -> RGB:
    """Small pictures are shown enlarged, so that the legend and what is drawn stay in proportion."""
    longer = max(thumbnail.shape[:2])
    if longer >= _SMALLEST:
        return thumbnail
    factor = _SMALLEST / longer
    return np.asarray(cv2.resize(thumbnail, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC), np.uint8)


def smooth(tissue: Mask, width: int, height: int) -> Float32:
    """A mask as (height, width) values in 0..1, so that its outline at 0.5 shows no steps."""
    scaled = cv2.resize(tissue.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(scaled, np.float32)


def with_outline(picture: RGB, tissue: Mask) -> RGB:
    """A copy of the picture with the outline of a mask of its size, holes included."""
    contours, _ = cv2.findContours(tissue.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    drawn = picture.copy()
    cv2.drawContours(drawn, contours, -1, _OUTLINE, 2, cv2.LINE_AA)
    return drawn


def scale_bar_length(microns: float) -> float:
    """The longest of 1, 2 or 5 times a power of ten that is at most a quarter of a picture's width in microns."""
    limit = microns / 4
    power = 10.0 ** math.floor(math.log10(limit) + 1e-9)
    return next(factor * power for factor in (5, 2, 1) if factor * power <= limit * (1 + 1e-9))


def _draw_scale_bar(sheet: Image.Image, box: tuple[int, int, int, int], microns_per_pixel: float) -> None:
    x, y, width, height = box
    microns = scale_bar_length(width * microns_per_pixel)
    label = f"{microns / 1000:g} mm" if microns >= 1000 else f"{microns:g} µm"
    pixels, font = round(microns / microns_per_pixel), text_font(18, True)
    plate = max(pixels, round(font.getlength(label))) + 28
    left, upper = x + 14, y + height - 14 - 52
    area = (left, upper, left + plate, upper + 52)
    light = Image.blend(sheet.crop(area), Image.new("RGB", (plate, 52), "white"), 0.82)
    sheet.paste(light, area)
    draw = ImageDraw.Draw(sheet)
    draw.text((left + plate / 2, upper + 18), label, font=font, fill=_INK, anchor="mm")
    start = left + (plate - pixels) // 2
    draw.rectangle((start, upper + 34, start + pixels, upper + 39), fill=_INK)


@lru_cache
def text_font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib carries: it has µ and most scripts that class names are written in."""
    package = importlib.util.find_spec("matplotlib")
    assert package is not None and package.origin is not None
    folder = Path(package.origin).parent / "mpl-data" / "fonts" / "ttf"
    return ImageFont.truetype(str(folder / ("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf")), size)


def fitted(text: str, size: int, room: float, bold: bool = False) -> str:
    """`text`, shortened in its middle to `room` pixels at this font size."""
    font = text_font(size, bold)
    kept = len(text)
    shown = text
    while font.getlength(shown) > room and kept > 2:
        kept -= 1
        shown = text[: (kept + 1) // 2] + "…" + text[len(text) - kept // 2 :]
    return shown
