"""Drawn pictures beside what they were drawn from: real picture, label map, drawn picture, nearest real one."""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw

from pathzoo.errors import DataError
from pathzoo.visualization.segmentation import UNLABELLED
from pathzoo.wsi.overlay_page import Color, fitted, text_font

_INK: Color = (35, 38, 45)
_GREY: Color = (105, 110, 120)
_FRAME: Color = (205, 208, 214)
_EMPTY: Color = (244, 245, 247)
#: Pixels: longer side of a picture, margin of the page, gap within a group, between groups, and between rows.
SIDE, MARGIN, GAP, BETWEEN, BELOW = 256, 28, 8, 36, 22
#: Room above a group for its caption, below it for a line under each picture, and for the headings of the columns.
_CAPTION, _LINE, _HEADINGS = 26, 24, 30
_HEADS = ("real", "label map", "drawn", "nearest real")
_NOT_LABELLED = "not labelled"


class Triptych(NamedTuple):
    """One drawn picture, its label map and the real pictures to hold it against; all of one size (H, W).

    Pictures are grey (H, W), (H, W, 1) or RGB (H, W, 3), in 0..255; what is beyond is cut off.
    """

    #: The real picture of the label map; None where there is none.
    real: np.ndarray | None
    #: Class indices, or 255 where not labelled (H, W).
    labels: np.ndarray
    drawn: np.ndarray
    #: The real picture that is most like the drawn one, of any size.
    nearest: np.ndarray | None = None
    #: Stands above the pictures.
    caption: str = ""
    #: Stand below the pictures, in the order of the pictures; "" and missing ones leave it blank.
    notes: tuple[str, ...] = ()


def triptychs(
    rows: Sequence[Triptych],
    classes: Sequence[str],
    palette: Sequence[Color],
    columns: int = 1,
    title: str = "",
    ignore_index: int = 255,
) -> np.ndarray:
    """A page of drawn pictures: in each group real picture, label map in colours, drawn picture.

    A fourth column shows the nearest real picture where any group has one. Pictures are scaled to 256 pixels on their
    longer side, label maps without inventing colours. The colours stand at the top, with the classes of all groups.

    Args:
        rows: One or more; in the order of reading.
        classes: C names.
        palette: RGB 0..255 of each class.
        columns: Groups side by side.
        title: Stands above all.
        ignore_index: Value of a label map that is not labelled.

    Returns:
        RGB uint8. Text that is too long is shortened in its middle.

    Raises:
        DataError: Nothing to draw; a picture that is none, or of another size than its label map; a label that is no
            class.
    """
    if not rows or columns < 1:
        raise DataError(f"{len(rows)} drawn pictures in {columns} columns: give one or more of both")
    if len(palette) != len(classes):
        raise DataError(f"{len(palette)} colours for {len(classes)} classes: give one for each")
    table = np.full((256, 3), UNLABELLED, np.uint8)
    table[: len(classes)] = np.array(palette, np.uint8).reshape(-1, 3)
    for number, row in enumerate(rows):
        _check(row, row.caption or f"group {number + 1}", len(classes), ignore_index)
    legend = dict(zip(classes, palette, strict=True))
    if any((row.labels == ignore_index).any() for row in rows):
        legend[_NOT_LABELLED] = UNLABELLED
    heads = _HEADS if any(row.nearest is not None for row in rows) else _HEADS[:3]
    return _page(rows, [_panels(row, table, len(heads)) for row in rows], heads, min(columns, len(rows)), title, legend)


def _check(row: Triptych, name: str, n_classes: int, ignore_index: int) -> None:
    labels = row.labels
    if labels.ndim != 2 or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{name}: a label map of {labels.dtype} {labels.shape}; give whole numbers (H, W)")
    for what, picture in (("real", row.real), ("drawn", row.drawn), ("nearest", row.nearest)):
        if picture is None:
            continue
        fits = what == "nearest" or picture.shape[:2] == labels.shape
        if picture.ndim not in (2, 3) or picture.shape[2:] not in ((), (1,), (3,)) or not fits:
            raise DataError(
                f"{name}: {what} picture {picture.shape} for a label map {labels.shape}; give (H, W), (H, W, 1) or "
                "(H, W, 3) of its size"
            )
    bad = (labels != ignore_index) & ((labels < 0) | (labels >= n_classes))
    if bad.any():
        raise DataError(f"{name}: the label map holds {labels[bad][0]}; give 0..{n_classes - 1} or {ignore_index}")


def shown_picture(values: np.ndarray) -> np.ndarray:
    """A picture as `triptychs` shows it, which leaves it as it is: RGB uint8, 256 pixels on its longer side.

    Args:
        values: (H, W), (H, W, 1) or (H, W, 3) in 0..255.
    """
    channels = values if values.ndim == 3 else values[..., None]
    whole = np.rint(np.nan_to_num(np.clip(channels, 0, 255))).astype(np.uint8)
    rgb = np.ascontiguousarray(np.broadcast_to(whole, (*whole.shape[:2], 3)))
    smaller = max(rgb.shape[:2]) > SIDE
    return _scaled(rgb, cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)


def shown_labels(labels: np.ndarray) -> np.ndarray:
    """A label map (H, W) of 0..255 as `triptychs` shows it, still as indices: uint8, of `shown_picture`'s size."""
    return _scaled(np.clip(labels, 0, 255).astype(np.uint8), cv2.INTER_NEAREST)


def _scaled(picture: np.ndarray, how: int) -> np.ndarray:
    height, width = picture.shape[:2]
    factor = SIDE / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return np.asarray(cv2.resize(picture, size, interpolation=how))


def _panels(row: Triptych, table: np.ndarray, count: int) -> list[np.ndarray | None]:
    real, nearest = (None if picture is None else shown_picture(picture) for picture in (row.real, row.nearest))
    return [real, table[shown_labels(row.labels)], shown_picture(row.drawn), nearest][:count]


def _page(
    rows: Sequence[Triptych],
    panels: Sequence[Sequence[np.ndarray | None]],
    heads: Sequence[str],
    columns: int,
    title: str,
    legend: dict[str, Color],
) -> np.ndarray:
    cell_height = max(panel.shape[0] for group in panels for panel in group if panel is not None)
    cell_width = max(panel.shape[1] for group in panels for panel in group if panel is not None)
    caption = _CAPTION if any(row.caption for row in rows) else 0
    line = _LINE if any(any(row.notes) for row in rows) else 0
    group_width = len(heads) * (cell_width + GAP) - GAP
    group_height = caption + cell_height + line
    room = columns * (group_width + BETWEEN) - BETWEEN
    lines = _legend_lines(legend, room)
    top = MARGIN + (40 if title else 0) + 28 * len(lines) + 8
    lower = -(-len(rows) // columns) * (group_height + BELOW) - BELOW
    sheet = Image.new("RGB", (room + 2 * MARGIN, top + _HEADINGS + lower + MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    if title:
        draw.text((MARGIN, MARGIN - 8), fitted(title, 24, room, True), font=text_font(24, True), fill=_INK)
    for number, entries in enumerate(lines):
        _draw_legend(draw, MARGIN + (40 if title else 0) + 28 * number, entries)
    for column in range(columns):
        for k, head in enumerate(heads):
            x = MARGIN + column * (group_width + BETWEEN) + k * (cell_width + GAP)
            draw.text((x, top), fitted(head, 17, cell_width, True), font=text_font(17, True), fill=_INK)
    for number, (row, group) in enumerate(zip(rows, panels, strict=True)):
        at_row, at_column = divmod(number, columns)
        x, y = MARGIN + at_column * (group_width + BETWEEN), top + _HEADINGS + at_row * (group_height + BELOW)
        if caption:
            draw.text((x, y), fitted(row.caption, 15, group_width), font=text_font(15), fill=_GREY)
        for k, panel in enumerate(group):
            note = row.notes[k] if k < len(row.notes) else ""
            corner = (x + k * (cell_width + GAP), y + caption)
            _draw_panel(sheet, draw, corner, (cell_height, cell_width), panel, note)
    return np.asarray(sheet)


def _draw_panel(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    cell: tuple[int, int],
    panel: np.ndarray | None,
    note: str,
) -> None:
    """A picture in the middle of its cell with a hairline round it, and the line below."""
    x, y = corner
    height, width = cell if panel is None else panel.shape[:2]
    left, upper = x + (cell[1] - width) // 2, y + (cell[0] - height) // 2
    frame = (left - 1, upper - 1, left + width, upper + height)
    draw.rectangle(frame, outline=_FRAME, fill=_EMPTY)
    if panel is None:
        draw.text((left + width / 2, upper + height / 2), "none", font=text_font(15), fill=_GREY, anchor="mm")
    else:
        sheet.paste(Image.fromarray(panel), (left, upper))
    if note:
        draw.text((x, y + cell[0] + 5), fitted(note, 13, cell[1]), font=text_font(13), fill=_GREY)


def _legend_lines(legend: dict[str, Color], room: int) -> list[list[tuple[int, str, Color]]]:
    """Where each entry stands: lines of (x, name, colour)."""
    lines: list[list[tuple[int, str, Color]]] = [[]]
    x = 0
    for name, color in legend.items():
        text = fitted(name, 15, room - 26)
        taken = 26 + round(text_font(15).getlength(text)) + 24
        if lines[-1] and x + taken - 24 > room:
            lines.append([])
            x = 0
        lines[-1].append((MARGIN + x, text, color))
        x += taken
    return lines


def _draw_legend(draw: ImageDraw.ImageDraw, y: int, entries: Sequence[tuple[int, str, Color]]) -> None:
    for x, name, color in entries:
        draw.rectangle((x, y + 1, x + 17, y + 18), fill=color, outline=_FRAME)
        draw.text((x + 26, y), name, font=text_font(15), fill=_INK)
