"""Phantom kidney biopsies: slides with cores of cortex, every glomerulus outlined as in QuPath."""

import csv
import io
import os
import uuid
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from pathzoo.datasets.noise_fields import enlarged, smooth_noise
from pathzoo.datasets.phantom.canvas import Canvas
from pathzoo.datasets.phantom.glomeruli import Glomerulus, paint_distractors, paint_glomeruli
from pathzoo.datasets.phantom.kidney import paint_tubules
from pathzoo.datasets.phantom.slide import write_pyramid
from pathzoo.datasets.phantom.stain import Stain, draw_stain, render, vary_stain
from pathzoo.datasets.phantom.tissue import paint_stroma_cells
from pathzoo.errors import DataError
from pathzoo.fileio import write_json, write_text

CLASS = "glomerulus"
_COLOR = (200, 0, 0)
_GRID = 8.0  # um, the grain of the map of the cores
_LEAST_UM = 500.0
#: A core's width in microns, and how many of its square microns there are to a glomerulus.
_CORE, _GROUND = 620.0, 9.0e4


def write_biopsies(
    root: str | os.PathLike,
    seed: int = 0,
    patients: int = 6,
    slides_per_patient: int = 1,
    size: tuple[int, int] = (2048, 1536),
    mpp: float = 1.0,
    *,
    class_is_look: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Draws a cohort as tools/dataset_converters/annotations_to_boxes.py reads it: slides/, annotations/, patients.csv.

    Slides are tiled TIFF pyramids that state their resolution; annotations are QuPath's GeoJSON, named as the slides,
    class "glomerulus", the object's name its look (normal, sclerosed, crescent). Patients differ in stain, in the state
    of their tubules and in how many glomeruli there are; a patient's slides share the stain. Files that exist are
    drawn again and replaced.

    Args:
        root: folder to write into.
        seed: the same seed and arguments give the same pixels.
        patients: number of patients.
        slides_per_patient: slides of each.
        size: (width, height) of a slide in pixels, at least 500 um each way.
        mpp: microns per pixel.
        class_is_look: the annotations' class is the look in place of "glomerulus", as a grader needs it.
        progress: called with (slides drawn, slides in all).

    Returns:
        The path of patients.csv (slide, patient).

    Raises:
        DataError: no patient or slide, or slides that are too small.
    """
    if patients < 1 or slides_per_patient < 1:
        raise DataError(f"{patients} patients with {slides_per_patient} slides each: give at least 1 of both")
    root = Path(root)
    made_by = {"phantom": "biopsies", "seed": seed, "patients": patients, "slides_per_patient": slides_per_patient}
    write_json(root / "phantom.json", made_by | {"size": list(size), "mpp": mpp})
    rows, total = [], patients * slides_per_patient
    for number in range(patients):
        stain = draw_stain(np.random.default_rng([seed, 21, number]))
        for place in range(slides_per_patient):
            name, own = f"B{number + 1:03d}-{place + 1}", [seed, 22, number, place]
            picture, glomeruli = draw_biopsy(own, size, mpp, stain=vary_stain(stain, np.random.default_rng([*own, 1])))
            write_pyramid(root / "slides" / f"{name}.tif", picture, mpp, 88)
            write_json(root / "annotations" / f"{name}.geojson", _geojson(glomeruli, mpp, own, class_is_look))
            rows.append([name, f"B{number + 1:03d}"])
            if progress:
                progress(len(rows), total)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([["slide", "patient"], *rows])
    write_text(root / "patients.csv", text.getvalue())
    return root / "patients.csv"


def draw_biopsy(
    seed: int | list[int], size: tuple[int, int] = (2048, 1536), mpp: float = 1.0, *, stain: Stain | None = None
) -> tuple[np.ndarray, list[Glomerulus]]:
    """Draws a slide in memory.

    Args:
        seed: the same seed and arguments give the same pixels.
        size: (width, height) in pixels, at least 500 um each way.
        mpp: microns per pixel.
        stain: the section's stain; drawn if None.

    Returns:
        The picture, RGB uint8 (height, width, 3), and its glomeruli with outlines in microns.

    Raises:
        DataError: too small.
    """
    if min(size) * mpp < _LEAST_UM:
        raise DataError(f"a biopsy of {size[0]}x{size[1]} px at {mpp} um is too small; give at least 500 um each way")
    rng = np.random.default_rng(seed)
    stain = draw_stain(rng) if stain is None else stain
    cores = _cores(rng, size, mpp)
    canvas = Canvas(rng, size, mpp, waviness=1.0, tears=float(rng.uniform(0.2, 0.8)))
    canvas.restrict((cores > 0.5).astype(np.uint8))
    ground = canvas.free_area()
    glomeruli = paint_glomeruli(canvas, rng, max(1, int(rng.poisson(ground / _GROUND * rng.uniform(0.5, 1.3)))))
    paint_distractors(canvas, rng, int(rng.poisson(ground / _GROUND)))
    paint_tubules(canvas, rng, float(rng.uniform(0, 0.4)), canvas.free_area() * rng.uniform(0.15, 0.5))
    paint_stroma_cells(canvas, rng, canvas.free_area() * rng.uniform(0.05, 0.16))
    canvas.roughen(rng)
    tissue = np.clip(enlarged(cores, (size[1], size[0]), _GRID / mpp, cv2.INTER_LINEAR), 0, 1)
    canvas.eosin *= tissue
    canvas.haematoxylin *= tissue
    return render(canvas.haematoxylin, canvas.eosin, stain, rng), glomeruli


def _cores(rng: np.random.Generator, size: tuple[int, int], mpp: float) -> np.ndarray:
    """Cores side by side along the slide's longer side, bent a little: a map that rises from 0 to 1 at an edge."""
    columns, rows = (int(np.ceil(length * mpp / _GRID)) for length in size)
    across = size[1] <= size[0]
    length, width = (columns, rows) if across else (rows, columns)
    count = max(1, int(width * _GRID // (1.15 * _CORE)))
    y, x = np.mgrid[0:width, 0:length].astype(np.float32)
    edge = np.zeros((width, length), np.float32)
    rough = smooth_noise(rng, (width, length), 12) * np.float32(1.2)
    for number in range(count):
        middle = (number + 0.5 + rng.uniform(-0.04, 0.04)) * width / count
        bend = 0.05 * width / count * np.sin(x / length * rng.uniform(2, 5) + rng.uniform(0, 6.28))
        half = min(0.5 * _CORE / _GRID, 0.45 * width / count) * rng.uniform(0.85, 1.0)
        first, last = rng.uniform(0.01, 0.08) * length, (1 - rng.uniform(0.01, 0.08)) * length
        depth = np.minimum(half - np.abs(y - middle - bend), np.minimum(x - first, last - x)) + rough
        np.maximum(edge, np.clip(depth, 0, 1), out=edge)
    return edge if across else np.ascontiguousarray(edge.T)


def _geojson(glomeruli: list[Glomerulus], mpp: float, seed: list[int], class_is_look: bool) -> dict:
    rng = np.random.default_rng([*seed, 2])
    features = []
    for glomerulus in glomeruli:
        ring = np.round(glomerulus.outline.points() / mpp, 1).tolist()
        feature = {
            "type": "Feature",
            "id": str(uuid.UUID(bytes=rng.bytes(16), version=4)),
            "geometry": {"type": "Polygon", "coordinates": [[*ring, ring[0]]]},
            "properties": {
                "objectType": "annotation",
                "name": glomerulus.look,
                "classification": {"name": glomerulus.look if class_is_look else CLASS, "color": list(_COLOR)},
            },
        }
        features.append(feature)
    return {"type": "FeatureCollection", "features": features}
