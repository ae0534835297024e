"""Kidney: tubules back to back and a glomerulus now and then, on the same stroma, with the same stains and nuclei."""

import numpy as np

from pathzoo.datasets.phantom.canvas import Canvas, Outline
from pathzoo.datasets.phantom.epithelium import epithelial_nucleus
from pathzoo.datasets.phantom.nuclei import NucleusBank, NucleusKind
from pathzoo.datasets.phantom.tissue import paint_stroma_cells

#: Cells of the glomerular tuft: small, dark, of all shapes.
_TUFT = NucleusKind(5.6, 0.12, 1.5, 0.03, 0.15, 1.1, 0.12)


def paint_kidney(canvas: Canvas, rng: np.random.Generator, atypia: float) -> None:
    """Paints glomeruli, tubules and stromal cells on a canvas.

    Args:
        canvas: changed in place.
        rng: source of the draws.
        atypia: 0..1, how large, varied and disorderly the nuclei of the tubules are: a kidney has tumours too.
    """
    canvas.restrict(None)
    ground = canvas.free_area()
    for _ in range(int(rng.poisson(ground / 1.5e5))):
        _glomerulus(canvas, rng)
    paint_tubules(canvas, rng, atypia, ground * rng.uniform(0.15, 0.45))
    paint_stroma_cells(canvas, rng, canvas.free_area() * rng.uniform(0.04, 0.12))


def paint_tubules(canvas: Canvas, rng: np.random.Generator, atypia: float, ground_left: float) -> None:
    """Paints tubules, each against its neighbours, until only `ground_left` square microns are free."""
    kind = epithelial_nucleus(atypia)
    bank = NucleusBank(rng, kind, canvas.mpp, 72)
    # Proximal ones are wide and eosinophilic with a narrow lumen, distal ones narrow and pale with a wide one.
    looks = (
        (27.0, 0.30, (rng.uniform(0.12, 0.18), rng.uniform(0.50, 0.70))),
        (19.0, 0.55, (rng.uniform(0.12, 0.18), rng.uniform(0.25, 0.38))),
    )
    free = canvas.free_area()
    x, y = canvas.free_points(rng, 40 + int(free / 100))
    for column, row in zip(x, y, strict=True):
        if free <= ground_left:
            return
        radius, lumen, dye = looks[int(rng.random() < 0.4)]
        radius *= float(np.exp(rng.normal(0, 0.15)))
        aspect = rng.uniform(1, 2.4)  # cut across or along
        outline = Outline.draw(rng, column, row, radius, aspect, rng.uniform(0, np.pi), 0.05)
        if not canvas.is_free(column, row, 0.75 * radius):
            continue
        canvas.occupy(outline)
        free = canvas.free_area()
        canvas.fill(outline.moved_in(-rng.uniform(0.5, 2.0)), 0.03, 0.12, strength=0.9)
        canvas.fill(outline, *dye, soft=0.7)
        canvas.fill(outline.scaled(lumen), 0.01, 0.04, strength=rng.uniform(0.6, 1.0), soft=1.0)
        ring = outline.moved_in(0.75 * kind.diameter)
        nx, ny, outward = ring.along(kind.diameter * rng.uniform(1.3, 2.2))
        shake = kind.diameter * (0.06 + 0.3 * atypia)
        nx, ny = nx + rng.normal(0, shake, len(nx)), ny + rng.normal(0, shake, len(ny))
        canvas.nuclei(bank, nx, ny, bank.nearest(outward + rng.normal(0, 0.3 + atypia, len(nx))))


def _glomerulus(canvas: Canvas, rng: np.random.Generator) -> None:
    x, y = canvas.free_points(rng, 1)
    radius = rng.uniform(60, 95)
    if not len(x) or not canvas.is_free(x[0], y[0], 0.9 * radius):
        return
    capsule = Outline.draw(rng, x[0], y[0], radius, rng.uniform(1, 1.25), rng.uniform(0, np.pi), 0.02)
    canvas.occupy(capsule)
    canvas.fill(capsule.moved_in(-2.0), 0.10, 0.45)  # Bowman's capsule
    canvas.fill(capsule, 0.0, 0.02)  # and the space in it
    tuft = capsule.moved_in(rng.uniform(5, 14))
    tuft.radii = tuft.radii * (1 + 0.05 * rng.standard_normal(len(tuft.radii)))
    canvas.fill(tuft, 0.16, 0.40, soft=1.0)
    count = int(tuft.area / 85)
    rho, phi = np.sqrt(rng.uniform(0, 0.9, 2 * count)), rng.uniform(0, 2 * np.pi, 2 * count)
    px, py = tuft.x + rho * tuft.at(phi) * np.cos(phi), tuft.y + rho * tuft.at(phi) * np.sin(phi)
    for column, row in zip(px[:count], py[:count], strict=True):  # capillary loops
        loop = Outline.draw(rng, column, row, rng.uniform(2.0, 4.0), 1.5, rng.uniform(0, np.pi), 0.05)
        canvas.fill(loop, 0.02, 0.08, strength=0.9, soft=0.8)
    bank = NucleusBank(rng, _TUFT, canvas.mpp, 32)
    canvas.nuclei(bank, px[count:], py[count:], rng.integers(0, len(bank), count))
