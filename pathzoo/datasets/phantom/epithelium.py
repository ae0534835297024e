"""Glands, nests and single files of epithelial cells, from orderly to disorderly."""

from dataclasses import dataclass

import numpy as np

from pathzoo.datasets.phantom.canvas import Canvas, Outline
from pathzoo.datasets.phantom.nuclei import NucleusBank, NucleusKind

_BLOCK = 250.0  # um; on large ground every block of this size gets its share of epithelium
_MYOEPITHELIUM = NucleusKind(4.4, 0.10, 2.6, 0.03, 0.12, 1.1, 0.12)


@dataclass(frozen=True)
class Flavour:
    """Architecture of a subtype; lengths in microns.

    Attributes:
        radius: mean radius of a gland or nest.
        aspect: mean ratio of its axes.
        lumen: lumen's radius as a fraction of the gland's, where there is one.
        crowding: how close the groups of a lobule stand, 1 is middling.
        cords: share of epithelial cells that run in single files.
        stroma: factor on the share of nuclei that belong to the stroma.
        pools: chance that a group floats in a pool of mucus.
    """

    radius: float = 34.0
    aspect: float = 1.5
    lumen: float = 0.5
    crowding: float = 1.0
    cords: float = 0.12
    stroma: float = 1.0
    pools: float = 0.04


def epithelial_nucleus(atypia: float) -> NucleusKind:
    """The look of epithelial nuclei at an atypia in 0..1: 6.6 um and even at 0, 10.8 um and varied at 1."""
    return NucleusKind(
        diameter=6.6 + 4.2 * atypia,
        size_spread=0.05 + 0.23 * atypia,
        elongation=1.16 + 0.30 * atypia,
        irregularity=0.015 + 0.055 * atypia,
        chromatin=0.12 + 0.26 * atypia,
        intensity=1.02 - 0.08 * atypia,
        intensity_spread=0.07 + 0.22 * atypia,
        nucleolus=0.05 + 0.45 * atypia,
    )


class EpitheliumPainter:
    """Paints lobules of epithelium on a canvas until there are enough nuclei.

    Args:
        canvas: changed in place.
        rng: source of the draws.
        atypia: 0..1, how large, varied and disorderly the cells are.
        flavour: architecture of the subtype.

    Attributes:
        area: area of the nuclei set down on the canvas so far, in square microns.
    """

    def __init__(self, canvas: Canvas, rng: np.random.Generator, atypia: float, flavour: Flavour):
        self.canvas, self.rng, self.atypia, self.flavour = canvas, rng, atypia, flavour
        self.kind = epithelial_nucleus(atypia)
        self.bank = NucleusBank(rng, self.kind, canvas.mpp, 72)
        self.myoepithelium = NucleusBank(rng, _MYOEPITHELIUM, canvas.mpp, 32)
        self.cytoplasm = (rng.uniform(0.14, 0.24), rng.uniform(0.30, 0.50))  # haematoxylin, eosin
        self.area = 0.0

    def paint(self, area: float) -> None:
        """Adds lobules until `area` square microns of nuclei stand on the canvas or no ground is left."""
        ground = self.canvas.free_area()
        x, y = self.canvas.free_points(self.rng, 16 + int(24 * ground / 1e5))
        blocks = max(1, round(ground / _BLOCK**2))
        order = _spread(x, y) if blocks > 1 else np.arange(len(x))
        for i in order:
            if self.area >= area:
                return
            self._lobule(x[i], y[i], min(area, self.area + 1.3 * area / blocks))

    def _lobule(self, x: float, y: float, area: float) -> None:
        rng, flavour = self.rng, self.flavour
        angle = float(self.canvas.fibres.direction(x, y))
        groups = int(rng.integers(3, 14))
        spread = flavour.radius * np.sqrt(groups) * 0.95 / flavour.crowding
        for _ in range(2 * groups):
            if self.area >= area:
                return
            where = np.array([x, y]) + rng.normal(0, spread, 2)
            if rng.random() < flavour.cords * (0.3 + 1.4 * self.atypia):
                self._file(*where)
                continue
            radius = flavour.radius * np.exp(rng.normal(0, 0.25))
            aspect = 1 + (flavour.aspect - 1) * rng.uniform(0.4, 1.6)
            bumps = 0.05 + 0.12 * self.atypia
            outline = Outline.draw(rng, *where, radius, aspect, angle + rng.normal(0, 0.5), bumps)
            if self.canvas.is_free(*where, radius / np.sqrt(aspect)):
                self._group(outline)

    def _group(self, outline: Outline) -> None:
        rng, canvas = self.rng, self.canvas
        gap = rng.uniform(1.0, 5.0)  # shrinkage leaves a white seam around glands and nests alike
        mucus = rng.random() < self.flavour.pools
        halo = outline.scaled(rng.uniform(1.25, 1.6)) if mucus else outline.moved_in(-gap)
        halo.x, halo.y = halo.x + rng.normal(0, 0.5 * gap), halo.y + rng.normal(0, 0.5 * gap)
        halo.radii = halo.radii * (1 + 0.05 * rng.standard_normal(len(halo.radii)))
        if mucus:
            canvas.fill(halo, 0.09, 0.06, soft=1.5)
        else:
            canvas.fill(halo, 0.02, 0.05, strength=rng.uniform(0.1, 0.95), soft=1.0)
        canvas.occupy(halo)
        canvas.fill(outline, *self.cytoplasm, soft=0.7)
        if rng.random() < 0.95 - 0.9 * self.atypia:
            self._gland(outline)
        else:
            self._nest(outline)

    def _gland(self, outline: Outline) -> None:
        """One or two rows of nuclei around a lumen; rows blur into each other as atypia grows."""
        rng, canvas, atypia = self.rng, self.canvas, self.atypia
        size = self.kind.diameter
        layers = 1 + int(rng.random() < 0.25 + 0.5 * atypia)
        wall = size * (0.9 + 1.0 * layers)
        lumen = outline.moved_in(max(wall, (1 - self.flavour.lumen) * float(outline.radii.mean())))
        if outline.radii.mean() > 1.2 * wall:
            secretion = rng.uniform(0.1, 0.4) if rng.random() < 0.25 else 0.02
            canvas.fill(lumen, 0.02, secretion, soft=0.8)
        for layer in range(layers):
            row = outline.moved_in(size * (0.75 + 0.95 * layer))
            x, y, outward = row.along(size * rng.uniform(1.15, 1.45))
            shake = size * (0.07 + 0.38 * atypia)
            x, y = x + rng.normal(0, shake, len(x)), y + rng.normal(0, shake, len(x))
            angle = outward + rng.normal(0, 0.15 + 1.2 * atypia, len(x))
            self.area += canvas.nuclei(self.bank, x, y, self.bank.nearest(angle))
        if rng.random() < 1 - 0.8 * atypia:
            x, y, outward = outline.moved_in(-0.6).along(rng.uniform(11, 17))
            self.area += canvas.nuclei(self.myoepithelium, x, y, self.myoepithelium.nearest(outward + np.pi / 2))

    def _nest(self, outline: Outline) -> None:
        """Cells side by side without a lumen, the looser and more jumbled the higher the atypia."""
        rng = self.rng
        pitch = self.kind.diameter * rng.uniform(1.2, 1.5)
        reach = float(outline.radii.max())
        rows = np.arange(-reach, reach + pitch, 0.87 * pitch)
        columns = np.arange(-reach, reach + pitch, pitch)
        dx, dy = np.meshgrid(columns, rows)
        dx = dx + (np.arange(len(rows)) % 2)[:, None] * pitch / 2
        shake = pitch * (0.12 + 0.25 * self.atypia)
        dx, dy = (part.ravel() + rng.normal(0, shake, part.size) for part in (dx, dy))
        rho, phi = np.hypot(dx, dy), np.arctan2(dy, dx)
        inside = rho < outline.at(phi % (2 * np.pi)) - 0.35 * self.kind.diameter
        x, y = outline.x + dx[inside], outline.y + dy[inside]
        self.area += self.canvas.nuclei(self.bank, x, y, rng.integers(0, len(self.bank), len(x)))

    def _file(self, x: float, y: float) -> None:
        """Cells one behind the other along the collagen, or a single one."""
        rng, canvas = self.rng, self.canvas
        size = self.kind.diameter
        for _ in range(int(rng.integers(1, 9))):
            if not canvas.is_free(x, y):
                return
            course = float(canvas.fibres.direction(x, y)) + rng.normal(0, 0.3)
            cell = Outline.draw(rng, x, y, 0.75 * size, 1.3, course, 0.04)
            canvas.fill(cell, *self.cytoplasm, strength=0.8, soft=0.7)
            canvas.occupy(cell.scaled(0.8))
            self.area += canvas.nuclei(self.bank, np.array([x]), np.array([y]), self.bank.nearest(np.array([course])))
            x, y = x + 1.5 * size * np.cos(course), y + 1.5 * size * np.sin(course)


def _spread(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """An order of the points in which every block has its first turn before any has its second."""
    blocks = np.stack([x // _BLOCK, y // _BLOCK], axis=1)
    turns: dict[tuple[float, float], int] = {}
    turn = np.empty(len(x), int)
    for i, block in enumerate(map(tuple, blocks)):
        turn[i] = turns[block] = turns.get(block, -1) + 1
    return np.argsort(turn, kind="stable")
