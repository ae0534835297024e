"""Kidneys of a drawn patient, their cysts and tumours, and what lies beside them and looks like a tumour."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from pathzoo.datasets.phantom.ct_body import FAT, Physique, paint_gut
from pathzoo.datasets.phantom.ct_canvas import CtCanvas, Point, depth

KIDNEY, TUMOUR = 1, 2
#: Radii of tumours in mm.
TUMOUR_RADIUS = (6.0, 30.0)


@dataclass(frozen=True)
class Ball:
    """Something round at a kidney's surface: its centre and radius in mm, its mean HU."""

    centre: Point
    radius: float
    hu: float


@dataclass(frozen=True)
class Kidney:
    """`side` is 1 for the patient's left. `centre` and `radii` in mm, (x, y, z); the hilum faces the spine."""

    side: int
    centre: Point
    radii: Point
    turn: Rotation
    cysts: tuple[Ball, ...]
    tumour: Ball | None

    def surface(self, direction: np.ndarray, share: float) -> Point:
        """The point at `share` of the way from the centre to the surface; `direction` (3,) in the kidney's axes."""
        unit = direction / np.linalg.norm(direction / self.radii)
        point = self.turn.apply(share * unit) + self.centre
        return float(point[0]), float(point[1]), float(point[2])


def draw_kidneys(rng: np.random.Generator, body: Physique, tumour: bool) -> tuple[Kidney, Kidney]:
    """The right and the left kidney; one of them has the tumour, if there is one. z is 0 amid the two."""
    a, b = body.cavity
    size, tallness = rng.uniform(0.88, 1.12), rng.uniform(44, 53)
    diseased = int(rng.choice([-1, 1]))
    offset = rng.normal(7, 5)  # the left one mostly lies higher
    made = []
    for side in (-1, 1):
        own = size * rng.uniform(0.93, 1.07)
        radii = (own * rng.uniform(25, 30), own * rng.uniform(23, 28), own * tallness)
        tilt = (rng.uniform(2, 14), side * rng.uniform(4, 16), -side * rng.uniform(15, 45))
        turn = Rotation.from_euler("xyz", tilt, degrees=True)
        centre = (side * a * rng.uniform(0.48, 0.57), b * rng.uniform(0.3, 0.46), side * offset / 2)
        kidney = Kidney(side, centre, radii, turn, (), None)
        cysts = tuple(_cyst(rng, kidney) for _ in range(int(rng.choice(4, p=[0.68, 0.2, 0.08, 0.04]))))
        mass = _tumour(rng, kidney, body) if tumour and side == diseased else None
        made.append(Kidney(side, centre, radii, turn, cysts, mass))
    return made[0], made[1]


def reach(kidneys: Sequence[Kidney]) -> tuple[float, float]:
    """Lowest and highest z in mm of the kidneys and the tumour, before space is bent."""
    low = min(kidney.centre[2] - kidney.radii[2] for kidney in kidneys)
    high = max(kidney.centre[2] + kidney.radii[2] for kidney in kidneys)
    for mass in (kidney.tumour for kidney in kidneys if kidney.tumour):
        low, high = min(low, mass.centre[2] - mass.radius), max(high, mass.centre[2] + mass.radius)
    return low, high


def _direction(rng: np.random.Generator, side: int, poles: float) -> np.ndarray:
    """A direction (3,) that does not face the spine."""
    return np.array([side * abs(rng.normal(0.35, 0.8)), rng.normal(-0.1, 0.8), rng.normal(0, poles)])


def _cyst(rng: np.random.Generator, kidney: Kidney) -> Ball:
    radius = float(np.exp(rng.uniform(np.log(4), np.log(18))))
    return Ball(kidney.surface(_direction(rng, kidney.side, 0.9), rng.uniform(0.6, 1.0)), radius, rng.uniform(0, 20))


def _tumour(rng: np.random.Generator, kidney: Kidney, body: Physique) -> Ball:
    low, high = TUMOUR_RADIUS
    radius = low + (high - low) * float(rng.beta(1.3, 1.6))
    share = rng.uniform(0.7, 1.0) + 0.006 * radius
    return Ball(kidney.surface(_direction(rng, kidney.side, 0.6), share), radius, rng.uniform(40, 110))


def paint_fat(canvas: CtCanvas, rng: np.random.Generator, kidneys: Sequence[Kidney], body: Physique) -> None:
    """The fat that keeps other organs off the kidneys: more of it in stout patients."""
    for kidney in kidneys:
        layer = rng.uniform(2, 8) + 0.35 * body.fat
        wide = tuple(radius + layer for radius in kidney.radii)
        box, inside = canvas.ellipsoid(kidney.centre, (wide[0], wide[1], wide[2]), kidney.turn)
        canvas.paint(box, inside, FAT + 9 * canvas.noise(rng, 8.0, box))


def paint_lookalikes(
    canvas: CtCanvas, rng: np.random.Generator, kidneys: Sequence[Kidney], body: Physique, cavity: np.ndarray
) -> None:
    """Background in the HU of tumours, near kidneys: adrenal masses, lymph nodes, accessory spleens, bowel."""
    for kidney in kidneys:
        x, y, z = kidney.centre
        if rng.random() < 0.3:  # an adrenal mass, before and above the upper pole
            centre = (x - kidney.side * rng.uniform(8, 18), y - rng.uniform(2, 14), z + 0.92 * kidney.radii[2])
            _paint_mass(canvas, rng, Ball(centre, rng.uniform(8, 22), rng.uniform(25, 105)))
        if rng.random() < 0.55:  # bowel that touches the kidney
            radius, share = rng.uniform(11, 19), rng.uniform(1.25, 1.5)
            away = np.array([kidney.side * rng.uniform(-0.3, 0.9), rng.uniform(-1.2, -0.5), rng.normal(0, 0.5)])
            place = kidney.surface(away, share)
            paint_gut(canvas, rng, place, (radius, radius, 1.5 * radius), body.enhanced(75, 95), cavity)
        if rng.random() < 0.3:  # an accessory spleen or a node in the fat beside it
            place = kidney.surface(_direction(rng, kidney.side, 0.5), rng.uniform(1.3, 1.5))
            _paint_mass(canvas, rng, Ball(place, rng.uniform(5, 9), rng.uniform(50, 120)))
    x, y = body.spine
    for _ in range(int(rng.poisson(1.2))):  # nodes along the great vessels
        place = (rng.uniform(-34, 34), y - 28 + rng.uniform(-8, 6), rng.uniform(-60, 60))
        _paint_mass(canvas, rng, Ball(place, rng.uniform(4, 11), rng.uniform(60, 110)))


def _paint_mass(canvas: CtCanvas, rng: np.random.Generator, ball: Ball) -> None:
    stretch = rng.uniform(0.8, 1.2, 3) * ball.radius
    box, inside = canvas.ellipsoid(ball.centre, (stretch[0], stretch[1], stretch[2]))
    canvas.paint(box, inside, ball.hu + 11 * canvas.noise(rng, 6.0, box))


def paint_kidneys(
    canvas: CtCanvas, rng: np.random.Generator, kidneys: Sequence[Kidney], body: Physique, cavity: np.ndarray
) -> None:
    """Kidneys with their vessels, cysts and tumour; kidney without sinus is label 1, tumour label 2."""
    cortex, medulla = body.enhanced(205, 165), body.enhanced(95, 172)
    for kidney in kidneys:
        _paint_vessels(canvas, rng, kidney, body)
        _paint_kidney(canvas, rng, kidney, cortex, medulla)
        for cyst in kidney.cysts:
            stretch = rng.uniform(0.9, 1.1, 3) * cyst.radius
            box, inside = canvas.ellipsoid(cyst.centre, (stretch[0], stretch[1], stretch[2]))
            canvas.paint(box, inside, cyst.hu, KIDNEY)
    for kidney in kidneys:
        if kidney.tumour:
            _paint_tumour(canvas, rng, kidney.tumour, cavity)


def _paint_kidney(canvas: CtCanvas, rng: np.random.Generator, kidney: Kidney, cortex: float, medulla: float) -> None:
    box, inside = canvas.ellipsoid(kidney.centre, kidney.radii, kidney.turn)
    inside = inside + 0.9 * canvas.noise(rng, 14.0, box)
    away = canvas.local(box, kidney.centre, kidney.turn)
    # The sinus: fat around the collecting system, open towards the spine.
    rx, ry, rz = kidney.radii
    lobes = 2.2 * canvas.noise(rng, 9.0, box)
    hollow = away + np.array([kidney.side * 0.5 * rx, 0.1 * ry, 0], np.float32)[:, None, None, None]
    sinus = depth(hollow, (0.78 * rx, 0.34 * ry, 0.55 * rz)) + lobes
    # Pyramids of medulla between the sinus and the cortex, columns of cortex between them.
    pyramids = canvas.noise(rng, 11.0, box) + 0.35
    inner = np.clip((inside - rng.uniform(4.5, 6.5)) / 1.5, 0, 1) * np.clip(pyramids / 0.35, 0, 1)
    hu = cortex + (medulla - cortex) * inner + 6 * canvas.noise(rng, 6.0, box)
    canvas.paint(box, inside, hu)
    filled = np.clip(canvas.noise(rng, 8.0, box) - 0.4, 0, 1)  # calices and vessels in the fat
    canvas.paint(box, np.minimum(sinus, inside + 0.5), FAT + 20 + 130 * filled)
    own = canvas.labels[box]
    own[(canvas.cover(inside) > 0.5) & (canvas.cover(sinus) <= 0.5)] = KIDNEY


def _paint_vessels(canvas: CtCanvas, rng: np.random.Generator, kidney: Kidney, body: Physique) -> None:
    """Vein and artery from the great vessels to the hilum, and the ureter downwards from it."""
    hilum = kidney.surface(np.array([-kidney.side, -0.25, rng.normal(0, 0.1)]), 0.8)
    front = body.spine[1] - 27
    vein = [(-16.0, front - 4, hilum[2] + 8), (0.5 * hilum[0], front + 2, hilum[2] + 4), hilum]
    artery = [(8.0, front - 2, hilum[2] + 2), (0.6 * hilum[0], front + 8, hilum[2] - 3), hilum]
    for line, radius, hu in (
        (vein, rng.uniform(3.5, 5.5), body.enhanced(130, 150)),
        (artery, rng.uniform(2.2, 3.4), body.enhanced(290, 160)),
    ):
        box, inside = canvas.tube(line, radius)
        canvas.paint(box, inside, hu)
    end = (hilum[0] - kidney.side * 8, hilum[1] - 6, hilum[2] - 110)
    box, inside = canvas.tube([hilum, (hilum[0] - kidney.side * 7, hilum[1] - 4, hilum[2] - 30), end], 2.4)
    canvas.paint(box, inside, rng.uniform(5, 60))


def _paint_tumour(canvas: CtCanvas, rng: np.random.Generator, tumour: Ball, cavity: np.ndarray) -> None:
    stretch = rng.uniform(0.85, 1.15, 3) * tumour.radius
    box, inside = canvas.ellipsoid(tumour.centre, (stretch[0], stretch[1], stretch[2]))
    inside = inside + 0.09 * tumour.radius * canvas.noise(rng, max(9.0, 0.8 * tumour.radius), box)
    uneven = rng.uniform(6, 20) * canvas.noise(rng, max(6.0, 0.35 * tumour.radius), box)
    hu = np.clip(tumour.hu + uneven + 5 * canvas.noise(rng, 5.0, box), 5, 170)
    if tumour.radius > 12 and rng.random() < 0.5:  # a core without blood
        core = inside - tumour.radius * rng.uniform(0.35, 0.6) + 0.2 * tumour.radius * canvas.noise(rng, 12.0, box)
        hu += np.clip(core / 3 + 0.5, 0, 1) * (rng.uniform(10, 35) - hu)
    canvas.paint(box, inside, hu, TUMOUR, within=cavity)  # the wall of the body flattens it
