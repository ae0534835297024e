"""The section being painted: two canvases of dye, a map of what is still free, and the structures set down on them."""

from dataclasses import dataclass

import cv2
import numpy as np

from pathzoo.datasets.noise_fields import smooth_noise
from pathzoo.datasets.phantom.nuclei import NucleusBank
from pathzoo.datasets.phantom.texture import Fibres

_CELL = 4.0  # um, the grain of the map of free ground
_MARGIN = 72.0  # um around the canvas where structures may have their centre, so that some are cut by the border
_OUTLINE = np.linspace(0, 2 * np.pi, 36, endpoint=False)


@dataclass
class Outline:
    """A closed curve r(phi) about a centre, all in microns: an ellipse with bumps.

    Attributes:
        x, y: centre.
        radii: (36,) distance of the curve at 36 even angles.
    """

    x: float
    y: float
    radii: np.ndarray

    @classmethod
    def draw(
        cls, rng: np.random.Generator, x: float, y: float, radius: float, aspect: float, angle: float, bumps: float
    ) -> "Outline":
        """Draws an outline of mean `radius`, axes' ratio `aspect` along `angle`, and uneven by `bumps` (0 is none)."""
        turned = _OUTLINE - angle
        a, b = radius * np.sqrt(aspect), radius / np.sqrt(aspect)
        radii = a * b / np.hypot(b * np.cos(turned), a * np.sin(turned))
        for order in (2, 3, 4, 6):
            radii = radii * (1 + bumps * rng.normal(0, 0.6) * np.cos(order * _OUTLINE + rng.uniform(0, 2 * np.pi)))
        return cls(x, y, np.maximum(radii, 0.3 * b))

    @property
    def area(self) -> float:
        """Area in square microns."""
        return float(0.5 * np.sum(self.radii * np.roll(self.radii, -1)) * np.sin(2 * np.pi / len(self.radii)))

    @classmethod
    def hexagon(cls, x: float, y: float, pitch: float, turn: float) -> "Outline":
        """A cell of a honeycomb, its corners rounded; neighbours stand `pitch` away at `turn` + 0, 60, ... degrees."""
        from_side = (_OUTLINE - turn + np.pi / 6) % (np.pi / 3) - np.pi / 6
        return cls(x, y, np.minimum(0.5 * pitch / np.cos(from_side), 0.545 * pitch))

    def scaled(self, factor: float) -> "Outline":
        """The same curve, larger or smaller about its centre."""
        return Outline(self.x, self.y, self.radii * factor)

    def moved_in(self, distance: float) -> "Outline":
        """The curve `distance` microns further in (never through the centre)."""
        return Outline(self.x, self.y, np.maximum(self.radii - distance, 0.12 * self.radii))

    def at(self, phi: np.ndarray) -> np.ndarray:
        """The radius at the angles `phi`."""
        return np.interp(phi, _OUTLINE, self.radii, period=2 * np.pi)

    def points(self) -> np.ndarray:
        """The curve's corners, (36, 2) as x, y in microns."""
        return np.stack([self.x + self.radii * np.cos(_OUTLINE), self.y + self.radii * np.sin(_OUTLINE)], axis=1)

    def along(self, spacing: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Points on the curve about `spacing` microns apart: x, y and the angle of the outward direction."""
        closed = np.vstack([self.points(), self.points()[:1]])
        steps = np.hypot(*np.diff(closed, axis=0).T)
        travelled = np.concatenate([[0], np.cumsum(steps)])
        count = max(3, int(travelled[-1] / spacing))
        where = np.arange(count) * travelled[-1] / count
        x, y = np.interp(where, travelled, closed[:, 0]), np.interp(where, travelled, closed[:, 1])
        return x, y, np.arctan2(y - self.y, x - self.x)


class Canvas:
    """A stretch of connective tissue that structures are painted on.

    Args:
        rng: source of the draws.
        size: (width, height) in pixels.
        mpp: microns per pixel.
        waviness: bending of the collagen.
        tears: 0..1, how white the clefts between bundles are.

    Attributes:
        haematoxylin, eosin: float32 (height, width), amounts of dye.
        fibres: the collagen's course.
        width_um, height_um: size in microns.
    """

    def __init__(self, rng: np.random.Generator, size: tuple[int, int], mpp: float, waviness: float, tears: float):
        width, height = size
        self.mpp = mpp
        self.width_um, self.height_um = width * mpp, height * mpp
        shape = (height, width)
        self.fibres = Fibres(rng, shape, mpp, waviness)
        patches = smooth_noise(rng, shape, 170 / mpp)
        self.eosin = self.fibres.density * np.float32(0.085)
        self.eosin += patches * np.float32(0.075)
        self.eosin += np.float32(0.46)
        np.maximum(self.eosin, 0.12, out=self.eosin)
        self.eosin *= 1 - self.fibres.clefts * np.float32(0.9 * tears)
        self.haematoxylin = np.float32(0.07) + self.fibres.density * np.float32(0.025)
        np.maximum(self.haematoxylin, 0.02, out=self.haematoxylin)
        self.haematoxylin *= 1 - self.fibres.clefts * np.float32(0.9 * tears)
        rows, columns = (int((length + 2 * _MARGIN) / _CELL) + 1 for length in (self.height_um, self.width_um))
        self._free = np.ones((rows, columns), np.uint8)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        height, width = self.eosin.shape
        return width, height

    def restrict(self, region: np.ndarray | None) -> None:
        """Frees exactly the ground inside `region`.

        Args:
            region: uint8 mask of the canvas at any scale, nonzero inside; None frees all of it and the margin.
        """
        if region is None:
            self._free[:] = 1
            return
        self._free[:] = 0
        edge = int(_MARGIN / _CELL)
        inner = self._free[edge : edge + round(self.height_um / _CELL), edge : edge + round(self.width_um / _CELL)]
        inner[:] = cv2.resize((region > 0).astype(np.uint8), inner.shape[::-1], interpolation=cv2.INTER_NEAREST)

    def free_area(self) -> float:
        """Free ground on the canvas itself, in square microns."""
        edge = int(_MARGIN / _CELL)
        return float(self._free[edge:-edge, edge:-edge].sum()) * _CELL**2

    def free_points(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Up to `count` random free points: x, y in microns."""
        cells = np.flatnonzero(self._free)
        if not len(cells):
            return np.empty(0), np.empty(0)
        row, column = np.divmod(rng.choice(cells, count), self._free.shape[1])
        jitter = rng.uniform(0, _CELL, (2, count))
        return column * _CELL + jitter[0] - _MARGIN, row * _CELL + jitter[1] - _MARGIN

    def is_free(self, x: float, y: float, radius: float = 0.0) -> bool:
        """Whether the disc about (x, y) is free, all in microns; tested at its centre and eight points of its rim."""
        angles = np.arange(8) * np.pi / 4
        xs = np.append(x + 0.9 * radius * np.cos(angles), x)
        ys = np.append(y + 0.9 * radius * np.sin(angles), y)
        rows, columns = ((ys + _MARGIN) / _CELL).astype(int), ((xs + _MARGIN) / _CELL).astype(int)
        limit_y, limit_x = self._free.shape
        inside = (rows >= 0) & (rows < limit_y) & (columns >= 0) & (columns < limit_x)
        centre = inside[-1]
        return bool(centre and self._free[rows[inside], columns[inside]].all())

    def occupy(self, outline: Outline) -> None:
        """Takes the ground inside `outline`."""
        cv2.fillPoly(self._free, [np.rint((outline.points() + _MARGIN) / _CELL).astype(np.int32)], 0)

    def fill(self, outline: Outline, haematoxylin: float, eosin: float, *, strength: float = 1.0, soft: float = 0.6):
        """Replaces what is inside `outline` by these amounts of dye.

        Args:
            outline: where.
            haematoxylin, eosin: amounts of dye.
            strength: 0 keeps what was there, 1 replaces it.
            soft: width of the edge in microns.
        """
        corners = outline.points() / self.mpp
        pad = 2 + 3 * soft / self.mpp
        x0, y0 = np.floor(corners.min(0) - pad).astype(int)
        x1, y1 = np.ceil(corners.max(0) + pad).astype(int) + 1
        width, height = self.size
        x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
        if x1 <= x0 or y1 <= y0:
            return
        mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
        cv2.fillPoly(mask, [np.rint((corners - (x0, y0)) * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
        weight = mask.astype(np.float32) * np.float32(strength / 255)
        if soft > self.mpp:
            weight = cv2.GaussianBlur(weight, (0, 0), soft / self.mpp)
        for canvas, amount in ((self.haematoxylin, haematoxylin), (self.eosin, eosin)):
            window = canvas[y0:y1, x0:x1]
            window += weight * (np.float32(amount) - window)

    def roughen(self, rng: np.random.Generator) -> None:
        """Gives everything the grain of real tissue: dye is never taken up evenly."""
        shape = self.eosin.shape
        grain = smooth_noise(rng, shape, max(1.0, 1.6 / self.mpp)) * np.float32(0.10)
        grain += smooth_noise(rng, shape, max(1.0, 5 / self.mpp)) * np.float32(0.09)
        grain += np.float32(1)
        np.maximum(grain, 0.4, out=grain)
        self.eosin *= grain
        self.haematoxylin *= grain

    def nuclei(self, bank: NucleusBank, x: np.ndarray, y: np.ndarray, index: np.ndarray) -> float:
        """Sets nuclei down at (x, y) microns; returns their area on the canvas in square microns."""
        return bank.put(self.haematoxylin, np.asarray(x) / self.mpp, np.asarray(y) / self.mpp, index)
