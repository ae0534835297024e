"""Glomeruli of all sizes and looks, and what is round in a kidney's cortex without being one."""

from typing import Literal, NamedTuple

import numpy as np

from pathzoo.datasets.phantom.canvas import Canvas, Outline
from pathzoo.datasets.phantom.nuclei import FIBROBLAST, LYMPHOCYTE, NucleusBank, NucleusKind

Look = Literal["normal", "sclerosed", "crescent"]
LOOKS: tuple[Look, ...] = ("normal", "sclerosed", "crescent")
#: How often each look occurs.
_SHARES = (0.6, 0.22, 0.18)
#: Diameters in microns: the mean of each look, and the limits.
_MEANS, _SPREAD, _LIMITS = {"normal": 165.0, "sclerosed": 115.0, "crescent": 175.0}, 0.22, (80.0, 250.0)
#: Cells of the tuft: small, dark, of all shapes; those of a crescent: paler and longer.
_TUFT = NucleusKind(5.6, 0.12, 1.5, 0.03, 0.15, 1.1, 0.12)
_CRESCENT = NucleusKind(6.2, 0.15, 1.9, 0.04, 0.15, 0.95, 0.12)
#: Smooth muscle of a vessel's wall.
_MUSCLE = NucleusKind(4.8, 0.12, 3.4, 0.03, 0.12, 0.95, 0.12)


class Glomerulus(NamedTuple):
    """What was painted: its outline (Bowman's capsule) in microns of the canvas, and its look."""

    outline: Outline
    look: Look


def paint_glomeruli(canvas: Canvas, rng: np.random.Generator, count: int) -> list[Glomerulus]:
    """Paints up to `count` glomeruli on free ground, as many as find room.

    Normal ones have a tuft of capillary loops in a white space; sclerosed ones are small, shrunk to pink matrix with
    few nuclei and hardly any space; in a crescent cells fill part of the space and press the tuft aside.

    Args:
        canvas: changed in place; the ground of each is taken.
        rng: source of the draws.
        count: how many are tried.
    """
    found = []
    for _ in range(count):
        look = LOOKS[int(rng.choice(len(LOOKS), p=_SHARES))]
        radius = float(np.clip(_MEANS[look] * np.exp(rng.normal(0, _SPREAD)), *_LIMITS)) / 2
        centre = _room(canvas, rng, radius)
        if centre is None:
            continue
        outline = Outline.draw(rng, *centre, radius, rng.uniform(1, 1.3), rng.uniform(0, np.pi), 0.025)
        canvas.occupy(outline.moved_in(-3.0))
        _PAINTERS[look](canvas, rng, outline)
        found.append(Glomerulus(outline, look))
    return found


def paint_distractors(canvas: Canvas, rng: np.random.Generator, count: int) -> None:
    """Paints up to `count` round structures that are no glomeruli: arteries, dilated tubules, nests of lymphocytes."""
    for _ in range(count):
        radius = float(rng.uniform(28, 85))
        centre = _room(canvas, rng, radius)
        if centre is None:
            continue
        outline = Outline.draw(rng, *centre, radius, rng.uniform(1, 1.6), rng.uniform(0, np.pi), 0.03)
        canvas.occupy(outline)
        (_artery, _artery, _cyst, _nest)[int(rng.integers(4))](canvas, rng, outline)


def _room(canvas: Canvas, rng: np.random.Generator, radius: float) -> tuple[float, float] | None:
    """A free place for a disc that lies on the canvas, in microns."""
    for x, y in zip(*canvas.free_points(rng, 40), strict=True):
        reach = 1.25 * radius  # outlines are no circles
        on_canvas = reach < x < canvas.width_um - reach and reach < y < canvas.height_um - reach
        if on_canvas and canvas.is_free(x, y, 1.05 * radius) and canvas.is_free(x, y, 0.55 * radius):
            return float(x), float(y)
    return None


def _capsule(canvas: Canvas, rng: np.random.Generator, outline: Outline) -> None:
    canvas.fill(outline, 0.10, rng.uniform(0.40, 0.60), soft=0.8)
    canvas.fill(outline.moved_in(rng.uniform(1.5, 3.5)), 0.0, 0.02)


def _normal(canvas: Canvas, rng: np.random.Generator, outline: Outline) -> None:
    _capsule(canvas, rng, outline)
    tuft = outline.moved_in(float(rng.uniform(5, 0.22 * outline.radii.mean() + 5)))
    tuft.radii = tuft.radii * (1 + 0.05 * rng.standard_normal(len(tuft.radii)))
    _tuft(canvas, rng, tuft, cells=rng.uniform(0.7, 1.4))


def _tuft(canvas: Canvas, rng: np.random.Generator, tuft: Outline, cells: float) -> None:
    canvas.fill(tuft, 0.16, rng.uniform(0.34, 0.48), soft=1.0)
    loops, nuclei = int(tuft.area / 95), int(cells * tuft.area / 85)
    for column, row in zip(*_within(rng, tuft, loops), strict=True):
        loop = Outline.draw(rng, column, row, rng.uniform(2.0, 4.5), 1.5, rng.uniform(0, np.pi), 0.05)
        canvas.fill(loop, 0.02, 0.08, strength=0.9, soft=0.8)
    bank = NucleusBank(rng, _TUFT, canvas.mpp, 32)
    canvas.nuclei(bank, *_within(rng, tuft, nuclei), rng.integers(0, len(bank), nuclei))


def _sclerosed(canvas: Canvas, rng: np.random.Generator, outline: Outline) -> None:
    canvas.fill(outline, 0.12, 0.55, soft=1.0)
    if rng.random() < 0.5:
        canvas.fill(outline.moved_in(2.0), 0.02, 0.10, strength=0.8)
    matrix = outline.moved_in(float(rng.uniform(2, 7)))
    canvas.fill(matrix, 0.12, rng.uniform(0.62, 0.85), soft=1.5)
    for column, row in zip(*_within(rng, matrix, int(matrix.area / 260)), strict=True):  # folds of the matrix
        fold = Outline.draw(rng, column, row, rng.uniform(3, 7), rng.uniform(1.5, 4), rng.uniform(0, np.pi), 0.1)
        canvas.fill(fold, 0.08, rng.uniform(0.40, 0.95), strength=0.6, soft=1.5)
    count = int(rng.uniform(0.10, 0.35) * matrix.area / 85)
    bank = NucleusBank(rng, _TUFT, canvas.mpp, 24)
    canvas.nuclei(bank, *_within(rng, matrix, count), rng.integers(0, len(bank), count))


def _crescent(canvas: Canvas, rng: np.random.Generator, outline: Outline) -> None:
    _capsule(canvas, rng, outline)
    radius = float(outline.radii.mean())
    side, shift = rng.uniform(0, 2 * np.pi), radius * rng.uniform(0.12, 0.25)
    full = outline.moved_in(3.0)
    canvas.fill(full, 0.20, rng.uniform(0.42, 0.55), strength=rng.uniform(0.8, 1.0), soft=1.0)
    bank = NucleusBank(rng, _CRESCENT, canvas.mpp, 36)
    x, y = _within(rng, full, int(full.area / 75))
    turned = np.arctan2(y - outline.y, x - outline.x) + np.pi / 2 + rng.normal(0, 0.3, len(x))  # in rings
    canvas.nuclei(bank, x, y, bank.nearest(turned))
    tuft = outline.scaled(rng.uniform(0.62, 0.74))
    tuft = Outline(outline.x + shift * np.cos(side), outline.y + shift * np.sin(side), tuft.radii)
    canvas.fill(tuft.moved_in(-rng.uniform(1.5, 4)), 0.01, 0.05)
    _clear(canvas, tuft)
    _tuft(canvas, rng, tuft, cells=rng.uniform(0.5, 0.9))


def _artery(canvas: Canvas, rng: np.random.Generator, outline: Outline) -> None:
    canvas.fill(outline, 0.10, rng.uniform(0.50, 0.75), soft=1.5)
    lumen = outline.scaled(float(rng.uniform(0.25, 0.65)))
    bank = NucleusBank(rng, _MUSCLE, canvas.mpp, 48)
    for part in np.arange(0.95, lumen.radii.mean() / outline.radii.mean(), -7.5 / outline.radii.mean()):
        x, y, outward = outline.scaled(float(part)).along(rng.uniform(12, 19))
        canvas.nuclei(
            bank, x + rng.normal(0, 1.5, len(x)), y + rng.normal(0, 1.5, len(x)), bank.nearest(outward + 1.57)
        )
    canvas.fill(lumen, 0.0, 0.02, soft=1.0)
    if rng.random() < 0.4:  # red cells
        canvas.fill(lumen.scaled(0.85), 0.02, rng.uniform(0.7, 1.0), strength=0.8, soft=2.0)


def _cyst(canvas: Canvas, rng: np.random.Generator, outline: Outline) -> None:
    """A dilated tubule: flat cells around a wide lumen, empty or filled with a pink cast."""
    canvas.fill(outline, 0.12, 0.45, soft=0.8)
    inner = outline.moved_in(float(rng.uniform(4, 8)))
    canvas.fill(inner, 0.0, 0.02, soft=0.8)
    if rng.random() < 0.65:
        canvas.fill(inner.moved_in(float(rng.uniform(0, 6))), 0.04, rng.uniform(0.35, 0.9), soft=1.5)
    bank = NucleusBank(rng, FIBROBLAST, canvas.mpp, 32)
    x, y, outward = outline.moved_in(3.0).along(rng.uniform(9, 16))
    canvas.nuclei(bank, x, y, bank.nearest(outward + np.pi / 2))


def _nest(canvas: Canvas, rng: np.random.Generator, outline: Outline) -> None:
    bank = NucleusBank(rng, LYMPHOCYTE, canvas.mpp, 24)
    count = int(rng.uniform(0.5, 0.9) * outline.area / 42)
    canvas.nuclei(bank, *_within(rng, outline.scaled(1.15), count), rng.integers(0, len(bank), count))


def _clear(canvas: Canvas, outline: Outline) -> None:
    """Takes away the nuclei inside of an outline: another structure pushes them aside."""
    canvas.fill(outline, 0.02, 0.10)


def _within(rng: np.random.Generator, outline: Outline, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Points spread evenly over the inner nine tenths of an outline, in microns."""
    rho, phi = np.sqrt(rng.uniform(0, 0.88, count)), rng.uniform(0, 2 * np.pi, count)
    return outline.x + rho * outline.at(phi) * np.cos(phi), outline.y + rho * outline.at(phi) * np.sin(phi)


_PAINTERS = {"normal": _normal, "sclerosed": _sclerosed, "crescent": _crescent}
