"""Breast tissue between benign and malignant: one hidden grade, `atypia`, sets everything that a pathologist looks at.

Both classes are painted by the same code from the same distributions of stain, cellularity, white space and stroma;
the class acts through `atypia` alone (size, variety and disorder of nuclei, loss of glands, infiltration). So neither
brightness nor colour tells the classes apart, and the overlap of the two distributions of atypia is the difficulty.
"""

from typing import Literal

import numpy as np

from pathzoo.datasets.phantom.canvas import Canvas, Outline
from pathzoo.datasets.phantom.epithelium import EpitheliumPainter, Flavour
from pathzoo.datasets.phantom.nuclei import FIBROBLAST, LYMPHOCYTE, NucleusBank
from pathzoo.datasets.phantom.stain import Stain, draw_stain, render

#: Overlap of the classes, 0 (none) to 1 (the same tissue). Frozen: set by the gap between full and few labels alone,
#: before any method ran on it.
DIFFICULTY = 0.35

Kind = Literal["benign", "malignant"]


#: BreakHis' subtypes by the letters of its file names.
FLAVOURS = {
    "A": Flavour(radius=27, aspect=1.25, crowding=1.15),
    "F": Flavour(radius=38, aspect=2.3, lumen=0.42, stroma=1.35),
    "PT": Flavour(radius=44, aspect=2.4, lumen=0.55, stroma=1.5, crowding=0.9),
    "TA": Flavour(radius=28, aspect=1.4, lumen=0.38, crowding=1.4, stroma=0.8),
    "DC": Flavour(radius=38, aspect=1.5, lumen=0.45, crowding=1.1),
    "LC": Flavour(radius=27, aspect=1.5, cords=0.4, crowding=0.9),
    "MC": Flavour(radius=34, aspect=1.4, pools=0.3, cords=0.06),
    "PC": Flavour(radius=36, aspect=2.3, lumen=0.5, stroma=0.85),
}


def draw_atypia(rng: np.random.Generator, kind: Kind, difficulty: float = DIFFICULTY) -> float:
    """Draws a patient's atypia in 0..1. The classes' means lie `0.8 * (1 - difficulty)` apart, about 0.5.

    Raises:
        ValueError: for a kind other than benign or malignant.
    """
    if kind not in ("benign", "malignant"):
        raise ValueError(f"kind {kind!r}: use 'benign' or 'malignant'")
    side = 1 if kind == "malignant" else -1
    return float(np.clip(0.5 + side * 0.4 * (1 - difficulty) + rng.normal(0, 0.09), 0, 1))


def draw_tissue(
    seed: int | np.random.Generator,
    kind: Kind = "benign",
    size: tuple[int, int] = (350, 230),
    mpp: float = 0.98,
    *,
    stain: Stain | None = None,
    atypia: float | None = None,
    flavour: Flavour | None = None,
    difficulty: float = DIFFICULTY,
) -> np.ndarray:
    """Draws one field of H&E-stained breast tissue.

    Args:
        seed: a seed or a generator; the same seed gives the same picture.
        kind: benign or malignant.
        size: (width, height) in pixels.
        mpp: microns per pixel; nuclei get their physical size (about 6-8 um benign, 8-12 um malignant).
        stain: the patient's stain; drawn if None.
        atypia: the patient's atypia in 0..1; drawn for `kind` if None.
        flavour: architecture of the subtype; a middling one if None.
        difficulty: overlap of the classes, 0..1; acts only where atypia is None.

    Returns:
        RGB uint8 (height, width, 3).
    """
    rng = np.random.default_rng(seed)
    stain = draw_stain(rng) if stain is None else stain
    atypia = draw_atypia(rng, kind, difficulty) if atypia is None else atypia
    canvas = Canvas(rng, size, mpp, waviness=float(rng.uniform(0.6, 1.4)), tears=float(rng.uniform(0.1, 1.0)))
    paint_breast(canvas, rng, atypia, flavour or Flavour())
    canvas.roughen(rng)
    return render(canvas.haematoxylin, canvas.eosin, stain, rng)


def paint_breast(canvas: Canvas, rng: np.random.Generator, atypia: float, flavour: Flavour, region=None) -> None:
    """Paints fat, epithelium, stromal cells and lymphocytes on a canvas.

    Args:
        canvas: changed in place.
        rng: source of the draws.
        atypia: 0..1; varied a little about this value.
        flavour: architecture.
        region: uint8 mask of the part to paint, at any scale; None is all of it.
    """
    canvas.restrict(region)
    atypia = float(np.clip(atypia + rng.normal(0, 0.05), 0, 1))
    # Cellularity and white space are drawn without a look at the class: that is what keeps colour uninformative.
    ground = canvas.free_area()
    nuclei_area = ground * rng.uniform(0.07, 0.20)
    epithelial_share = np.clip(1 - rng.uniform(0.12, 0.40) * flavour.stroma, 0.35, 0.95)
    paint_fat(canvas, rng, ground * rng.choice([0.0, 0.0, 0.05, 0.15, 0.25]) * rng.uniform(0.5, 1))
    painter = EpitheliumPainter(canvas, rng, atypia, flavour)
    painter.paint(nuclei_area * epithelial_share)
    paint_stroma_cells(canvas, rng, nuclei_area - painter.area)


def paint_fat(canvas: Canvas, rng: np.random.Generator, area: float) -> None:
    """Paints clusters of fat cells, white discs with thin walls, until about `area` square microns are taken."""
    painted = 0.0
    for x, y in zip(*canvas.free_points(rng, 12), strict=True):
        if painted >= area:
            return
        spread, pitch = rng.uniform(50, 130), rng.uniform(38, 58)
        reach, turn = int(spread / pitch) + 1, rng.uniform(0, np.pi / 3)
        for i in range(-reach, reach + 1):
            for j in range(-reach, reach + 1):
                right, down = pitch * (i + 0.5 * (j % 2)), 0.87 * pitch * j
                cell_x, cell_y = (
                    x + right * np.cos(turn) - down * np.sin(turn),
                    y + right * np.sin(turn) + down * np.cos(turn),
                )
                if np.hypot(cell_x - x, cell_y - y) > spread or not canvas.is_free(cell_x, cell_y, 0.3 * pitch):
                    continue
                cell = Outline.hexagon(cell_x + rng.normal(0, 1.2), cell_y + rng.normal(0, 1.2), pitch, turn)
                canvas.fill(cell, 0.10, 0.42, soft=0.5)
                canvas.fill(cell.scaled(rng.uniform(0.90, 0.98)), 0.0, 0.0, soft=0.5)
                canvas.occupy(cell)
                painted += cell.area
                if painted >= area:
                    return


def paint_stroma_cells(canvas: Canvas, rng: np.random.Generator, area: float) -> None:
    """Fibroblasts along the collagen and nests of lymphocytes, until about `area` square microns of nuclei are set."""
    if area <= 0:
        return
    fibroblasts = NucleusBank(rng, FIBROBLAST, canvas.mpp, 48)
    lymphocytes = NucleusBank(rng, LYMPHOCYTE, canvas.mpp, 24)
    # Points may fall into the margin, so more are drawn than the canvas alone would need.
    overshoot = 1.15 * (1 + 144 / canvas.width_um) * (1 + 144 / canvas.height_um)
    inflamed = rng.uniform(0, 0.5) * area
    count = int(overshoot * (area - inflamed) / fibroblasts.areas.mean())
    x, y = canvas.free_points(rng, count)
    if len(x):
        course = canvas.fibres.direction(x, y) + rng.normal(0, 0.25, len(x))
        canvas.nuclei(fibroblasts, x, y, fibroblasts.nearest(course))
    left = overshoot * inflamed / lymphocytes.areas.mean()
    while left >= 1:
        x, y = canvas.free_points(rng, 1)
        if not len(x):
            return
        count = int(min(left, rng.integers(8, 90)))
        points = np.stack([x, y]) + rng.normal(0, 3.2 * np.sqrt(count), (2, count)) * rng.uniform(0.5, 1.2, (2, 1))
        keep = [canvas.is_free(*point) for point in points.T]
        canvas.nuclei(lymphocytes, *points[:, keep], rng.integers(0, len(lymphocytes), sum(keep)))
        left -= max(count, 1)
