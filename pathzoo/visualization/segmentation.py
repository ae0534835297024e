"""Label maps beside each other: image, truth, what models predict, and where they are wrong."""

import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageFont

from pathzoo.errors import DataError
from pathzoo.evaluation.functional import confusion_counts, segmentation
from pathzoo.fileio import atomic_path
from pathzoo.wsi.colors import class_colors
from pathzoo.wsi.overlay_page import ClassLegend, fitted

Color = tuple[int, int, int]

#: What a pixel can be wrong in: unlike the classes' colours, and told apart by their lightness too.
MISSED: Color = (142, 60, 200)
FALSE: Color = (245, 170, 0)
OTHER: Color = (30, 30, 36)
#: Right pixels, and pixels without a label.
RIGHT: Color = (236, 236, 236)
UNLABELLED: Color = (173, 180, 191)

_INK: Color = (35, 38, 45)
_GREY: Color = (105, 110, 120)
_FRAME: Color = (205, 208, 214)
#: Around what is not labelled; the legend's mark fills itself half as strong, which gives UNLABELLED.
_LINE: Color = (91, 105, 127)
#: Pixels: longer side of a panel, least width of a column (a legend's), margins, gaps, and room for two lines of text.
_SIDE, _COLUMN, _MARGIN, _GAP, _HEAD = 520, 300, 28, 24, 54


def panels(
    image: ArrayLike,
    truth: ArrayLike,
    predictions: Mapping[str, ArrayLike],
    classes: Sequence[str],
    colors: Sequence[Color] | None = None,
    *,
    title: str = "",
    background: int = 0,
    ignore_index: int = 255,
) -> np.ndarray:
    """A page of a region: image, truth, predictions and where they are wrong.

    The mistakes of a single prediction stand beside it, those of several below each; legends below image and truth.
    Classes are half-transparent over the pale image in grey, with a line around each area. A mistake is *missed* where
    the truth is some class and the prediction is the background, *false* where it is the reverse, and *other class*
    where both are classes, but not the same. Above a prediction stand its mIoU and micro F1 on this region, above its
    mistakes their share of the labelled pixels.

    Args:
        image: RGB uint8 (H, W, 3), of any size: every panel is scaled to 520 pixels on its longer side.
        truth: class indices (H, W), or `ignore_index`.
        predictions: name -> class indices (H, W), or `ignore_index` where there is none.
        classes: C names.
        colors: RGB 0..255 of each class; by default pathzoo's.
        title: stands above all.
        background: index of the class that is no finding.
        ignore_index: of pixels that nobody labelled.

    Returns:
        RGB uint8. Text that is too long is shortened in its middle.

    Raises:
        DataError: a map is not of the image's size, or holds a value that is no class.
    """
    picture, true = np.asarray(image), np.asarray(truth)
    guesses = {name: np.asarray(guess) for name, guess in predictions.items()}
    for name, labels in {"truth": true, **guesses}.items():
        _check(name, labels, picture, len(classes), ignore_index)
    inks = list(colors) if colors is not None else [class_colors(classes)[name] for name in classes]
    size = _panel_size(*picture.shape[:2])
    shown = _scaled(picture, size)
    grey = np.repeat(cv2.cvtColor(shown, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2).astype(np.uint16)

    height, width = picture.shape[:2]
    above = [("image", f"{width} × {height} pixels", shown), ("truth", "", _tinted(grey, true, inks))]
    below = []
    for name, guess in guesses.items():
        above.append((name, _score(true, guess, len(classes), ignore_index), _tinted(grey, guess, inks)))
        drawn, wrong = _mistakes(grey, true, guess, background, ignore_index)
        below.append((f"{name}, mistakes", wrong, drawn))
    if len(guesses) == 1:
        above, below = above + below, []
    legends = (
        _class_legend(true, guesses, classes, inks, ignore_index),
        _mistake_legend(classes, background, bool((true == ignore_index).any())),
    )
    return _page(title, above, below, legends, size)


def save_page(page: np.ndarray, path: str | os.PathLike[str]) -> None:
    """Writes RGB uint8 (H, W, 3) as PNG, whole or not at all."""
    with atomic_path(path) as temporary:
        Image.fromarray(page).save(temporary, format="PNG")


def _check(name: str, labels: np.ndarray, image: np.ndarray, n_classes: int, ignore_index: int) -> None:
    if labels.shape != image.shape[:2]:
        raise DataError(f"{name} of {labels.shape} for an image of {image.shape}: give maps of the image's size")
    bad = (labels != ignore_index) & ((labels < 0) | (labels >= n_classes))
    if bad.any():
        row, column = (int(place) for place in np.argwhere(bad)[0])
        value = int(labels[row, column])
        raise DataError(f"{name} holds the value {value} at x {column}, y {row}: give 0..{n_classes - 1}")


def _panel_size(height: int, width: int) -> tuple[int, int]:
    """(height, width) of every panel."""
    factor = _SIDE / max(height, width)
    return max(1, round(height * factor)), max(1, round(width * factor))


def _scaled(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """To (height, width)."""
    smaller = size[0] < picture.shape[0]
    return cv2.resize(picture, size[::-1], interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)


def _tinted(grey: np.ndarray, labels: np.ndarray, inks: Sequence[Color]) -> np.ndarray:
    """Half-transparent classes over the image made pale, with a line around each area."""
    values = cv2.resize(labels.astype(np.uint8), grey.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    table = np.full((256, 3), _LINE, np.uint16)
    table[: len(inks)] = inks
    paler = np.where((values < len(inks))[..., None], 128 + grey // 2, 255)
    tinted = ((table[values] + paler) // 2).astype(np.uint8)
    for index in np.unique(values).tolist():
        around, _ = cv2.findContours((values == index).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(tinted, around, -1, table[index].tolist(), 1)
    return tinted


def _mistakes(
    grey: np.ndarray, truth: np.ndarray, guess: np.ndarray, background: int, ignore_index: int
) -> tuple[np.ndarray, str]:
    """The picture of them over the very pale image, and their shares in words.

    A mistake that is thinner than a pixel of the picture is seen as a paler one: areas are averaged, not sampled.
    """
    unlabelled = (truth == ignore_index) | (guess == ignore_index)
    wrong = ~unlabelled & (truth != guess)
    kinds = {
        "missed": (wrong & (guess == background), MISSED),
        "false": (wrong & (truth == background), FALSE),
        "other class": (wrong & (guess != background) & (truth != background), OTHER),
    }
    drawn = (5 * 255 + grey.astype(np.float32)) / 6
    for where, ink in ((unlabelled, UNLABELLED), *kinds.values()):
        drawn += _covered(where, grey.shape[:2])[..., None] * (np.array(ink, np.float32) - drawn)
    total = max(int((~unlabelled).sum()), 1)
    shares = [f"{name} {_percent(int(where.sum()) / total)}" for name, (where, _) in kinds.items() if where.any()]
    return np.rint(drawn).astype(np.uint8), ", ".join(shares) or "none"


def _covered(where: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Share of each of the picture's pixels, 0..1, that a mask takes."""
    smaller = size[0] < where.shape[0]
    how = cv2.INTER_AREA if smaller else cv2.INTER_NEAREST
    return cv2.resize(where.astype(np.float32), size[::-1], interpolation=how)


def _score(truth: np.ndarray, guess: np.ndarray, n_classes: int, ignore_index: int) -> str:
    nothing = guess == ignore_index
    counts = confusion_counts(
        np.where(nothing, ignore_index, truth), np.where(nothing, 0, guess), n_classes, ignore_index
    )
    if not counts.any():
        return "no labelled pixel"
    values = dict(zip(segmentation.MEANS, segmentation.mean_values(counts).tolist(), strict=True))
    return f"mIoU {values['miou']:.3f}, micro F1 {values['f1_micro']:.3f}"


def _class_legend(
    truth: np.ndarray,
    predictions: Mapping[str, np.ndarray],
    classes: Sequence[str],
    inks: Sequence[Color],
    ignore_index: int,
) -> ClassLegend:
    """Each class with its share of the labelled pixels."""
    shown = dict(zip(classes, inks, strict=True))
    counts = [int((truth == k).sum()) for k in range(len(classes))]
    numbers = {name: _percent(count / max(sum(counts), 1)) for name, count in zip(classes, counts, strict=True)}
    if any((labels == ignore_index).any() for labels in (truth, *predictions.values())):
        shown["not labelled"] = _LINE
    return ClassLegend("Classes, share of the truth", shown, "area", numbers)


def _mistake_legend(classes: Sequence[str], background: int, unlabelled: bool) -> ClassLegend:
    none = classes[background]
    shown = {f"missed: {none} predicted": MISSED, f"false: {none} in truth": FALSE}
    if len(classes) > 2:
        shown["other class predicted"] = OTHER
    shown["right"] = RIGHT
    if unlabelled:
        shown["not labelled"] = UNLABELLED
    return ClassLegend("Mistakes", shown)


def _page(
    title: str,
    above: Sequence[tuple[str, str, np.ndarray]],
    below: Sequence[tuple[str, str, np.ndarray]],
    legends: tuple[ClassLegend, ClassLegend],
    size: tuple[int, int],
) -> np.ndarray:
    """Two rows of columns: (heading, line below it, picture) above; the legends, then the same, below."""
    height, width = size
    column = max(width, _COLUMN)
    top = _MARGIN + (44 if title else 0)
    second = top + _HEAD + height + _GAP
    lower = max(_HEAD + height if below else 0, max(legend.height for legend in legends))
    room = len(above) * (column + _GAP) - _GAP
    sheet = Image.new("RGB", (room + 2 * _MARGIN, second + lower + _MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    if title:
        draw.text((_MARGIN, _MARGIN - 8), fitted(title, 26, room, True), font=_font(26, True), fill=_INK)
    cells = [(k, top, *cell) for k, cell in enumerate(above)]
    cells += [(k, second, *cell) for k, cell in enumerate(below, start=len(legends))]
    for k, y, heading, line, picture in cells:
        x = _MARGIN + k * (column + _GAP)
        draw.text((x, y), fitted(heading, 19, column, True), font=_font(19, True), fill=_INK)
        draw.text((x, y + 26), fitted(line, 16, column), font=_font(16), fill=_GREY)
        draw.rectangle((x - 1, y + _HEAD - 1, x + width, y + _HEAD + height), outline=_FRAME)
        sheet.paste(Image.fromarray(picture), (x, y + _HEAD))
    for k, legend in enumerate(legends):
        legend.draw(draw, _MARGIN + k * (column + _GAP), second, column)
    return np.asarray(sheet)


def _percent(share: float) -> str:
    return "under 0.1 %" if 0 < share < 0.001 else f"{share:.1%}".replace("%", " %")


@lru_cache
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """The overlays' font: DejaVu Sans, which matplotlib carries."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)
