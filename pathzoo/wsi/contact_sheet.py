"""All objects of a slide side by side, the surest first: what a pathologist leafs through."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw

from pathzoo.wsi.grading import Grades, Labels, grade_notes
from pathzoo.wsi.job import SlideJob
from pathzoo.wsi.merging import Float64
from pathzoo.wsi.object_crops import crop_corners, read_crops
from pathzoo.wsi.outputs import write_picture
from pathzoo.wsi.overlay_page import Color, fitted, scale_bar_length, text_font
from pathzoo.wsi.slide import Slide
from pathzoo.wsi.types import RGB, Mask

SHEET = "contact_sheet.png"
#: Pixels of a cell's picture, cells of a page, and pages: the least sure objects beyond are left out.
CELL, COLUMNS, ROWS, PAGES = 200, 6, 10, 4
MOST_SHOWN = COLUMNS * ROWS * PAGES
#: A cell is so many times as wide as nearly all objects are long; far larger ones stand out of theirs.
_CONTEXT, _NEARLY_ALL, _FAR_LARGER = 1.4, 0.95, 3.0
#: Level 0 is shown enlarged by so much at most.
_MOST_ZOOM = 4.0
_MARGIN, _GAP, _CAPTION = 28, 14, 40
_INK: Color = (35, 38, 45)
_GREY: Color = (105, 110, 120)
#: What cannot be decoded.
_LOST: Color = (200, 202, 206)


@dataclass(frozen=True)
class View:
    """At which resolution (microns per pixel) and how large objects are read; cells show that as CELL pixels."""

    mpp: float
    side: int

    @property
    def zoom(self) -> float:
        """Pixels of a cell per pixel that is read."""
        return CELL / self.side

    @property
    def shown_mpp(self) -> float:
        """Microns per pixel of a cell."""
        return self.mpp / self.zoom


@dataclass(frozen=True)
class Cell:
    """One object of a sheet."""

    #: (CELL, CELL, 3) with what cannot be decoded in grey.
    picture: RGB
    #: x0, y0, x1, y1 of the object in pixels of the picture; may stand out of it.
    box: tuple[float, float, float, float]
    color: Color
    #: Upper line left and right, lower line left and right.
    texts: tuple[str, str, str, str]
    #: Said inside the picture.
    remark: str = ""


def choose_view(objects: Float64, slide: Slide) -> View:
    """One scale for all objects of a sheet, so that sizes compare: nearly all fit, with some of their surroundings."""
    assert slide.mpp is not None
    longer = (objects[:, 2:4] - objects[:, :2]).max(axis=1) if len(objects) else np.array([CELL * 1.0])
    extent = min(float(np.quantile(longer, _NEARLY_ALL)), _FAR_LARGER * float(np.median(longer)))
    downsample = max(_CONTEXT * extent / CELL, 1 / _MOST_ZOOM)  # level-0 pixels per pixel of a cell
    if downsample >= 1:
        return View(slide.resolve_mpp(downsample * slide.mpp), CELL)
    return View(slide.mpp, math.ceil(CELL * downsample))


def write_contact_sheets(job: SlideJob, objects: Float64, grades: Grades | None, labels: Labels) -> dict[str, Any]:
    """Writes contact_sheet.png, and contact_sheet_2.png and on where one page does not hold all.

    Args:
        job: What is run.
        objects: (n, 6) x0, y0, x1, y1 in level-0 pixels, score, class index; by falling score.
        grades: What a classifier says of them.
        labels: How they are called and coloured.

    Returns:
        What predict_run.json says of it: pages, objects shown and left out, resolution, cells that show damage.
    """
    started, per_page = time.perf_counter(), COLUMNS * ROWS
    shown = objects[: PAGES * per_page]
    sheet = _Sheet(job, shown, grades, labels, choose_view(shown, job.slide))
    pictures = _pictures(job, shown, sheet.view)
    left_out = len(objects) - len(shown)
    pages = max(1, -(-len(shown) // per_page))
    for page in range(pages):
        first, last = page * per_page, min((page + 1) * per_page, len(shown))
        cells = [sheet.cell(n, *pictures[n]) for n in range(first, last)]
        notes = [_note(first, last, len(objects), page, pages, left_out)]
        notes += ["drawn to one scale; frames are the detector's boxes"] if cells else []
        notes += grade_notes(job.grading, grades) if job.grading and grades and page == 0 else []
        picture = draw_page(
            cells, sheet.view.shown_mpp, title=job.title, subtitle=job.made_by, notes=notes, legend=_legend(labels)
        )
        write_picture(job.folder / (SHEET if page == 0 else f"contact_sheet_{page + 1}.png"), picture)
    damaged = sum(mask is not None for _, mask in pictures.values())
    job.seconds["contact sheet"] = time.perf_counter() - started
    return {
        "pages": pages,
        "objects": len(shown),
        "left_out": left_out,
        "mpp": round(sheet.view.shown_mpp, 6),
        "not_wholly_readable": damaged,
    }


def draw_page(
    cells: Sequence[Cell],
    microns_per_pixel: float,
    *,
    title: str,
    subtitle: str,
    notes: Sequence[str],
    legend: Mapping[str, tuple[Color, int]],
) -> RGB:
    """One page: titles, legend (name -> colour, number of objects) and scale bar above rows of COLUMNS cells.

    Args:
        cells: In the order of reading.
        microns_per_pixel: Of every cell.
        title: First line.
        subtitle: Second line.
        notes: Small lines below.
        legend: What the frames' colours mean.
    """
    width = 2 * _MARGIN + COLUMNS * CELL + (COLUMNS - 1) * _GAP
    room = width - 2 * _MARGIN
    lines = _legend_lines(legend, room)
    top = _MARGIN + 34 + 30 + 24 * len(notes) + 30 * len(lines) + 16
    rows = -(-len(cells) // COLUMNS)
    height = top + rows * (CELL + _CAPTION + _GAP) + _MARGIN
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    bar = _scale_bar(draw, width - _MARGIN, _MARGIN - 4, microns_per_pixel) if cells else 0
    draw.text((_MARGIN, _MARGIN - 8), fitted(title, 26, room - bar, True), font=text_font(26, True), fill=_INK)
    y = _MARGIN + 30
    draw.text((_MARGIN, y), fitted(subtitle, 18, room - bar), font=text_font(18), fill=_GREY)
    y += 34
    for note in notes:
        draw.text((_MARGIN, y), fitted(note, 15, room), font=text_font(15), fill=_GREY)
        y += 24
    for line in lines:
        _draw_legend_line(draw, y + 4, line)
        y += 30
    for number, cell in enumerate(cells):
        row, column = divmod(number, COLUMNS)
        _draw_cell(sheet, _MARGIN + column * (CELL + _GAP), top + row * (CELL + _CAPTION + _GAP), cell)
    return np.asarray(sheet)


def _pictures(job: SlideJob, objects: Float64, view: View) -> dict[int, tuple[RGB, Mask | None]]:
    """Each object's picture, not yet enlarged, and what of it could not be decoded."""
    found: dict[int, tuple[RGB, Mask | None]] = {}
    for batch in read_crops(job, objects, (view.side, view.side), view.mpp):
        for number, pixels in zip(batch.numbers.tolist(), batch.pixels, strict=True):
            found[number] = pixels.copy(), batch.damage[number][0] if number in batch.damage else None
    return found


@dataclass(frozen=True)
class _Sheet:
    """What all cells of a slide have in common."""

    job: SlideJob
    objects: Float64
    grades: Grades | None
    labels: Labels
    view: View

    def cell(self, number: int, pixels: RGB, damaged: Mask | None) -> Cell:
        """The cell of an object."""
        one, mpp = self.objects[number], self.job.slide.mpp
        assert mpp is not None
        downsample = self.view.mpp / mpp
        corner = crop_corners(one[None], (self.view.side, self.view.side), downsample)[0]
        box = (one[:4] - np.tile(corner, 2)) / downsample * self.view.zoom
        picture, remark = pixels, ""
        if damaged is not None:
            picture = np.where(damaged[..., None], np.array(_LOST, np.uint8), pixels)
            remark = "not readable" if damaged.mean() > 0.5 else "partly not readable"
        elif (box[2:] - box[:2]).max() > CELL:
            remark = "larger than this view"
        if self.view.side != CELL:
            picture = np.asarray(cv2.resize(picture, (CELL, CELL), interpolation=cv2.INTER_CUBIC), np.uint8)
        diameter = math.sqrt(float(np.prod(one[2:4] - one[:2]))) * mpp
        texts = (str(number + 1), f"{one[4]:.3f}", self.grade(number), f"{diameter:.3g} µm")
        color = self.labels.colors[self.labels.names[self.labels.which[number]]]
        return Cell(picture, (box[0], box[1], box[2], box[3]), color, texts, remark)

    def grade(self, number: int) -> str:
        """What stands below a picture: the class, or the grade with its probability; both where there are several."""
        classes = self.job.predictor.classes
        name = classes[int(self.objects[number, 5])]
        if self.grades is None:
            return name
        best = int(self.grades.best[number])
        said = "not classified" if best < 0 else f"{self.grades.classes[best]} {self.grades.probs[number, best]:.2f}"
        return said if len(classes) == 1 else f"{name}: {said}"


def _legend(labels: Labels) -> dict[str, tuple[Color, int]]:
    return {name: (labels.colors[name], n) for name, n in labels.counts.items()}


def _note(first: int, last: int, n: int, page: int, pages: int, left_out: int) -> str:
    if not n:
        return "no objects were found"
    number = f"page {page + 1} of {pages}: " if pages > 1 else ""
    rest = f"; the {left_out:,} with the lowest scores are left out" if left_out else ""
    return f"{number}objects {first + 1} to {last} of {n:,} by falling score, numbered as in detections.csv{rest}"


def _scale_bar(draw: ImageDraw.ImageDraw, right: int, y: int, microns_per_pixel: float) -> int:
    """Draws it with its right end at `right`; the pixels that it takes, with a gap."""
    microns = scale_bar_length(4 * CELL * microns_per_pixel)  # at most a cell's width
    label = f"{microns / 1000:g} mm" if microns >= 1000 else f"{microns:g} µm"
    pixels = round(microns / microns_per_pixel)
    room = max(pixels, math.ceil(text_font(18, True).getlength(label)))
    middle = right - room / 2
    draw.text((middle, y + 10), label, font=text_font(18, True), fill=_INK, anchor="mm")
    left = round(middle - pixels / 2)
    draw.rectangle((left, y + 26, left + pixels - 1, y + 31), fill=_INK)
    return room + 2 * _GAP


def _legend_lines(legend: Mapping[str, tuple[Color, int]], room: int) -> list[list[tuple[int, str, Color]]]:
    """Where each entry stands: lines of (x, text, colour)."""
    lines: list[list[tuple[int, str, Color]]] = [[]]
    x = 0
    for name, (color, n) in legend.items():
        text = fitted(f"{name}  {n:,}", 16, room - 30)
        taken = 30 + math.ceil(text_font(16).getlength(text)) + 28
        if lines[-1] and x + taken > room:
            lines.append([])
            x = 0
        lines[-1].append((_MARGIN + x, text, color))
        x += taken
    return lines


def _draw_legend_line(draw: ImageDraw.ImageDraw, y: int, line: Sequence[tuple[int, str, Color]]) -> None:
    for x, text, color in line:
        draw.rectangle((x, y, x + 18, y + 16), outline=color, width=3)
        draw.text((x + 28, y - 2), text, font=text_font(16), fill=_INK)


def _draw_cell(sheet: Image.Image, x: int, y: int, cell: Cell) -> None:
    picture = Image.fromarray(cell.picture)
    inside = ImageDraw.Draw(picture)
    x0, y0, x1, y1 = (round(value) for value in cell.box)
    x1, y1 = max(x1, x0 + 1), max(y1, y0 + 1)  # where one scale leaves less than a pixel of a box
    inside.rectangle((x0 - 1, y0 - 1, x1, y1), outline="white")  # sets it off from dark tissue
    inside.rectangle((x0, y0, x1 - 1, y1 - 1), outline=cell.color)
    if cell.remark:
        font = text_font(13)
        half = math.ceil(font.getlength(cell.remark) / 2) + 5
        inside.rectangle((CELL // 2 - half, CELL - 22, CELL // 2 + half, CELL - 4), fill="white")
        inside.text((CELL // 2, CELL - 13), cell.remark, font=font, fill=_INK, anchor="mm")
    sheet.paste(picture, (x, y))
    draw = ImageDraw.Draw(sheet)
    number, score, grade, size = cell.texts
    draw.text((x, y + CELL + 3), number, font=text_font(15, True), fill=_INK)
    draw.text((x + CELL, y + CELL + 3), score, font=text_font(15), fill=_INK, anchor="ra")
    draw.text((x + CELL, y + CELL + 21), size, font=text_font(13), fill=_GREY, anchor="ra")
    draw.rectangle((x, y + CELL + 25, x + 8, y + CELL + 33), fill=cell.color)
    room = CELL - math.ceil(text_font(13).getlength(size)) - 22
    draw.text((x + 14, y + CELL + 21), fitted(grade, 13, room), font=text_font(13), fill=_INK)
