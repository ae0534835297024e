"""The body of a drawn patient without the kidneys: wall, bones, organs, bowel and vessels, in Hounsfield units."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from pathzoo.datasets.phantom.ct_canvas import CtCanvas, Point, depth

FAT, MUSCLE = -105.0, 55.0
_GAS, _FLUID = -900.0, 15.0
_VERTEBRA = 34.0  # mm from one vertebra to the next


@dataclass(frozen=True)
class Physique:
    """What patients differ in. Lengths in mm, values in HU.

    `cavity` is the half width and half depth inside the muscles, `fat` the thickness of the fat under the skin,
    `phase` the time after the contrast: 0 arterial (cortex and aorta bright) to 1 nephrographic (all of the kidney).
    """

    cavity: tuple[float, float]
    fat: float
    wall: float
    bone: float
    phase: float
    enhancement: float
    noise: float
    sharpness: float

    @property
    def outline(self) -> tuple[float, float]:
        """Half width and half depth of the body."""
        side = self.wall + self.fat
        return self.cavity[0] + side, self.cavity[1] + side

    @property
    def spine(self) -> tuple[float, float]:
        """(x, y) of the vertebrae's middle."""
        return 0.0, 0.47 * self.cavity[1]

    def enhanced(self, arterial: float, late: float, plain: float = 40.0) -> float:
        """HU of a tissue at this patient's phase, between its values in the two phases."""
        return plain + self.enhancement * (arterial + self.phase * (late - arterial) - plain)


def draw_physique(rng: np.random.Generator) -> Physique:
    """A patient drawn at random."""
    back = rng.uniform(82, 106)
    return Physique(
        cavity=(back * rng.uniform(1.22, 1.42), back),
        fat=float(6 + 34 * rng.beta(1.4, 2.4)),
        wall=rng.uniform(10, 16),
        bone=rng.uniform(0.75, 1.2),
        phase=float(rng.beta(0.8, 0.8)),
        enhancement=rng.uniform(0.8, 1.15),
        noise=rng.uniform(8, 22),
        sharpness=rng.uniform(0.16, 0.3),
    )


def paint_wall(canvas: CtCanvas, rng: np.random.Generator, body: Physique) -> np.ndarray:
    """Skin, fat, muscle and ribs. Returns the share 0..1 of each voxel that lies in the cavity, (S, H, W)."""
    away = np.stack([canvas.x, canvas.y])
    under_skin = depth(away, body.outline)
    every = tuple(slice(None) for _ in range(3))
    fat = body.fat * (1 + 0.22 * canvas.noise(rng, 70.0))
    fat = fat * np.clip(1 + 0.35 * canvas.y / body.outline[1], 0.6, 1.5)  # more of it at the back
    canvas.paint(every, under_skin, 20.0)
    canvas.paint(every, under_skin - 2.0, FAT + 6 * canvas.noise(rng, 8.0))
    in_wall = under_skin - np.maximum(fat, 4.0)
    # Three sheets of muscle with a little fat between them.
    sheets = 40 * np.clip(np.cos(2 * np.pi * in_wall / (body.wall / 2.6)) - 0.55, 0, 1)
    canvas.paint(every, in_wall, MUSCLE - sheets)
    # Muscle is thin in front and thick at the back.
    inside = depth(away + np.array([0, 0.4 * body.wall], np.float32)[:, None, None, None], body.cavity)
    _paint_ribs(canvas, rng, body, inside)
    canvas.paint(every, inside, FAT + 8 * canvas.noise(rng, 10.0) + 10 * canvas.noise(rng, 4.5))
    return canvas.cover(inside)


def _paint_ribs(canvas: CtCanvas, rng: np.random.Generator, body: Physique, inside: np.ndarray) -> None:
    """Ribs run in the wall from the spine downwards to the front; the loins below the last one are free."""
    angle = np.arctan2(np.abs(canvas.x) / body.cavity[0], canvas.y / body.cavity[1])  # 0 at the spine, pi in front
    outward = -inside - 0.45 * body.wall
    drop, last = rng.uniform(52, 72), rng.uniform(15, 55)
    left = canvas.x > 0
    nearest = np.full(canvas.shape, np.inf, np.float32)
    for number in range(5):
        start = np.where(left, *(last + 27.0 * number + rng.normal(0, 3, 2))).astype(np.float32)
        height = np.abs(canvas.z - start + drop * angle)
        height[angle > min(0.4 + 0.16 * number, 0.85) * np.pi] = np.inf  # the last ribs are short
        np.minimum(nearest, height, out=nearest)
    tube = 4.6 - np.hypot(outward, nearest * 0.75)
    tube[angle < 0.14 * np.pi] = -9
    every = (slice(None), slice(None), slice(None))
    canvas.paint(every, tube, 480 * body.bone)
    canvas.paint(every, tube - 1.8, 190 * body.bone)


def paint_organs(canvas: CtCanvas, rng: np.random.Generator, body: Physique, cavity: np.ndarray) -> None:
    """Liver on the patient's right, spleen, stomach, pancreas, gallbladder, colon, small bowel."""
    a, b = body.cavity
    texture = 7 * canvas.noise(rng, 14.0)
    low = rng.uniform(-30, 25)  # how far the liver and the spleen reach down differs
    liver = body.enhanced(68, 115)
    vessels = np.abs(canvas.noise(rng, 30.0))
    for centre, radii in (
        ((-0.52 * a, -0.12 * b, 62 + low), (0.46 * a, 0.72 * b, 95.0)),
        ((-0.12 * a, -0.5 * b, 88 + low), (0.5 * a, 0.36 * b, 62.0)),
    ):
        box, inside = canvas.ellipsoid(centre, radii)
        bright = np.float32(40 * (body.phase - 0.25)) * (vessels[box] < 0.07)
        canvas.paint(box, inside, liver + texture[box] + bright, within=cavity)
    spleen = (0.74 * a, 0.22 * b, 60 + low + rng.uniform(-15, 15))
    box, inside = canvas.ellipsoid(spleen, (0.2 * a, 0.45 * b, rng.uniform(48, 68)), _turn("z", -20))
    mottled = (1 - body.phase) * 22 * canvas.noise(rng, 11.0, box)  # early, the spleen enhances in stripes
    canvas.paint(box, inside, body.enhanced(120, 130) + mottled, within=cavity)
    box, inside = canvas.tube(
        [(0.3 * a, 0.12 * b, 42.0), (0.0, -0.1 * b, 34.0), (-0.2 * a, 0.05 * b, 18.0)], rng.uniform(8, 12)
    )
    canvas.paint(box, inside + 3 * canvas.noise(rng, 7.0, box), body.enhanced(95, 95), within=cavity)
    paint_gut(canvas, rng, (0.34 * a, -0.4 * b, 68.0), (0.3 * a, 0.34 * b, 42.0), 45, cavity)
    if rng.random() < 0.6:
        box, inside = canvas.ellipsoid((-0.3 * a, -0.38 * b, 12 + low), (14.0, 17.0, 26.0))
        canvas.paint(box, inside, rng.uniform(2, 18), within=cavity)
    for side in (-1, 1):
        place = (side * rng.uniform(0.72, 0.8) * a, rng.uniform(-0.15, 0.2) * b, -25.0)
        _paint_colon(canvas, rng, place, rng.uniform(14, 20), rng.uniform(60, 90), cavity)
    for _ in range(int(rng.integers(14, 24))):
        place = (rng.uniform(-0.62, 0.7) * a, rng.uniform(-0.78, -0.12) * b, rng.uniform(-75, 45))
        radius = rng.uniform(9, 16)
        stretch = (radius * rng.uniform(1, 2.8), radius, radius * rng.uniform(1, 1.6))
        paint_gut(canvas, rng, place, stretch, body.enhanced(75, 90), cavity, _turn("xyz", rng.uniform(0, 90, 3)))
    for _ in range(int(rng.integers(18, 32))):  # mesenteric vessels
        place = np.array([rng.uniform(-0.6, 0.6) * a, rng.uniform(-0.6, 0.05) * b, rng.uniform(-70, 50)])
        run = rng.normal(0, 1, 3) * (14, 10, 26)
        box, inside = canvas.tube([tuple(place - run), tuple(place + run)], rng.uniform(1.2, 2.6))
        canvas.paint(box, inside, body.enhanced(170, 140), within=cavity)


def paint_gut(
    canvas: CtCanvas,
    rng: np.random.Generator,
    centre: Point,
    radii: Point,
    wall: float,
    cavity: np.ndarray,
    turn: Rotation | None = None,
) -> None:
    """A loop of bowel: a wall around what it holds, soft contents or fluid, with gas on top where there is some."""
    box, inside = canvas.ellipsoid(centre, radii, turn)
    canvas.paint(box, inside, wall, within=cavity)
    if rng.random() < 0.35:
        return  # collapsed
    content = inside - rng.uniform(2.5, 4.0)
    canvas.paint(box, content, rng.choice([_FLUID, 35.0, 60.0]) + rng.normal(0, 6), within=cavity)
    if rng.random() < 0.4:
        level = centre[1] - rng.uniform(-0.5, 0.6) * radii[1]  # the patient lies on the back: gas rises to the front
        canvas.paint(box, np.minimum(content, level - canvas.y[box]), _GAS, within=cavity)


def _paint_colon(
    canvas: CtCanvas, rng: np.random.Generator, place: Point, radius: float, half: float, cavity: np.ndarray
) -> None:
    x, y, z = place
    box, inside = canvas.tube([(x, y, z - half), (x + rng.normal(0, 6), y + rng.normal(0, 6), z + half)], radius)
    inside = inside + 3 * np.cos(canvas.z[box] * (2 * np.pi / rng.uniform(22, 32)))  # pouches
    canvas.paint(box, inside, 60.0, within=cavity)
    bubbles = canvas.noise(rng, 7.0, box)
    stool = np.where(bubbles > rng.uniform(0.2, 1.6), -600.0, 20 + 35 * bubbles)
    canvas.paint(box, inside - 3.0, stool, within=cavity)


def paint_back(canvas: CtCanvas, rng: np.random.Generator, body: Physique) -> None:
    """Muscles beside the spine, vertebrae with discs, processes and the canal, aorta and vena cava."""
    y = body.spine[1]
    b, tall = body.cavity[1], 260.0
    marbled = MUSCLE + 9 * canvas.noise(rng, 6.0) - rng.uniform(0, 16)
    for side in (-1, 1):
        psoas = rng.uniform(11, 17)
        line = [(side * 26, y - 2, 60.0), (side * 36, y + 1, -30.0), (side * 44, y - 2, -120.0)]
        for box, inside in (
            canvas.tube(line, psoas),
            canvas.ellipsoid((side * 31, y + 40, 0.0), (28.0, 19.0, tall)),
            canvas.ellipsoid((side * 60, y + 26, -60.0), (15.0, 8.0, 95.0), _turn("z", side * 25)),
        ):
            canvas.paint(box, inside, marbled[box])
    _paint_spine(canvas, rng, body)
    front = y - 27
    aorta = (rng.uniform(4, 14), front - 3)
    box, inside = canvas.tube([(*aorta, -150.0), (aorta[0] - 4, aorta[1] + 4, 150.0)], rng.uniform(8, 12.5))
    canvas.paint(box, inside, body.enhanced(310, 165))
    cava = (-rng.uniform(14, 21), front - 4, 0.0)
    box, inside = canvas.ellipsoid(cava, (rng.uniform(9, 14), rng.uniform(7, 10), 8 * b))
    canvas.paint(box, inside, body.enhanced(95, 145) + 12 * canvas.noise(rng, 12.0, box))


def _paint_spine(canvas: CtCanvas, rng: np.random.Generator, body: Physique) -> None:
    x, y = body.spine
    box = canvas.box((x, y + 20, 0.0), (62, 55, 400))
    away = np.stack([canvas.x[box] - x, canvas.y[box] - y])
    along = (canvas.z[box] / _VERTEBRA + rng.uniform()) % 1.0  # 0..1 in a vertebra, the disc at its upper end
    wide, deep = rng.uniform(21, 26), rng.uniform(16, 19)
    vertebra = depth(away, (wide, deep))
    disc = (along > 0.78).astype(np.float32)
    waist = 2.2 * np.sin(np.pi * np.clip(along / 0.78, 0, 1))
    spongy = body.bone * (190 + 45 * canvas.noise(rng, 4.0, box))
    rim = np.maximum(0, 1 - np.abs(np.minimum(along, 0.78 - along)) / 0.09)
    bone = np.maximum(spongy, 420 * body.bone * (rim > 0.3))
    canvas.paint(box, vertebra - waist, disc * 85 + (1 - disc) * 470 * body.bone)
    canvas.paint(box, vertebra - waist - 2.6, disc * 80 + (1 - disc) * bone)
    arch = depth(away - np.array([0, deep + 11], np.float32)[:, None, None, None], (19.0, 15.0))
    canvas.paint(box, np.where(along < 0.62, arch, -9), 430 * body.bone)
    process = np.minimum(3.4 - np.abs(away[0]), 16 - np.abs(away[1] - deep - 34))
    canvas.paint(box, np.where(along < 0.55, process, -9), 400 * body.bone)
    wings = np.minimum(4.0 - np.abs(away[1] - deep - 9 - 0.18 * np.abs(away[0])), 44 - np.abs(away[0]))
    canvas.paint(box, np.where((along > 0.2) & (along < 0.5), wings, -9), 380 * body.bone)
    canal = depth(away - np.array([0, deep + 8], np.float32)[:, None, None, None], (10.5, 8.0))
    canvas.paint(box, canal, 28.0)


def paint_table(canvas: CtCanvas, rng: np.random.Generator, body: Physique) -> None:
    """The couch, a thin shell under the back; not in every picture, and the body covers it."""
    if rng.random() < 0.3:
        return
    _, y, x = np.meshgrid(*canvas.axes, indexing="ij", sparse=True)
    sag = body.outline[1] + rng.uniform(10, 25) - x**2 / rng.uniform(700, 1400)
    shell = np.broadcast_to(1.6 - np.abs(y - sag), canvas.shape)
    share = canvas.cover(shell) * (canvas.hu < -800) * (canvas.y > 0)
    canvas.hu += share * (rng.uniform(-400, 100) - canvas.hu)


def _turn(axes: str, degrees: float | np.ndarray) -> Rotation:
    return Rotation.from_euler(axes, degrees, degrees=True)
