"""A phantom cohort of labelled regions of breast sections, in the layout that `RegionSegmentation` reads."""

import csv
import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from pathzoo.datasets.masks import as_palette
from pathzoo.datasets.phantom.lesions import DIFFICULTY, draw_patient, draw_region
from pathzoo.datasets.phantom.tissue import Kind
from pathzoo.datasets.region_table import ClassList, default_palette, write_classes
from pathzoo.errors import DataError
from pathzoo.fileio import atomic_path, write_json, write_text

CLASSES = ClassList(("normal", "benign", "malignant"), default_palette(3))
_LEAST_UM = 128.0


def write_regions(
    root: str | os.PathLike,
    seed: int = 0,
    patients: int = 12,
    regions_per_patient: int = 2,
    size: tuple[int, int] = (768, 576),
    mpp: float = 1.0,
    *,
    difficulty: float = DIFFICULTY,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Draws a cohort as `RegionSegmentation` reads it: regions.csv, classes.json, images/ and masks/ (palette PNG).

    A patient's first region shows both kinds of lesion, each further one either of them or both (small regions may show
    fewer, see `draw_region`). Patients differ in stain, texture, cellularity, architecture and atypia, so that a few of
    them do not stand for all.
    Files that exist are drawn again and replaced.

    Args:
        root: folder to write into.
        seed: the same seed and arguments give the same pixels.
        patients: number of patients.
        regions_per_patient: regions of each.
        size: (width, height) of a region in pixels, at least 128 um each way.
        mpp: microns per pixel.
        difficulty: overlap of benign and malignant, 0..1.
        progress: called with (regions drawn, regions in all).

    Returns:
        The path of regions.csv.

    Raises:
        DataError: no patient or region, or regions that are too small.
    """
    if patients < 1 or regions_per_patient < 1:
        raise DataError(f"{patients} patients with {regions_per_patient} regions each: give at least 1 of both")
    if min(size) * mpp < _LEAST_UM:
        raise DataError(f"regions of {size[0]}x{size[1]} px at {mpp} um are too small: give at least 128 um each way")
    root = Path(root)
    made_by = {"phantom": "regions", "seed": seed, "patients": patients, "difficulty": difficulty}
    write_json(root / "phantom.json", made_by | {"regions_per_patient": regions_per_patient, "mpp": mpp})
    write_classes(root / "classes.json", CLASSES)
    rows, total = [], patients * regions_per_patient
    for number in range(patients):
        patient = draw_patient(np.random.default_rng([seed, 5, number]), difficulty)
        for place in range(regions_per_patient):
            rng = np.random.default_rng([seed, 6, number, place])
            name = f"P{number + 1:03d}_{place + 1}.png"
            picture, labels = draw_region(rng, patient, size, mpp, _kinds(rng, place))
            _write_png(root / "images" / name, Image.fromarray(picture))
            _write_png(root / "masks" / name, as_palette(labels, CLASSES.palette))
            slide = f"P{number + 1:03d}-{'AB'[place % 2]}"
            rows.append([f"images/{name}", f"masks/{name}", f"P{number + 1:03d}", slide, f"{mpp:g}"])
            if progress:
                progress(len(rows), total)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([["image", "mask", "patient", "slide", "mpp"], *rows])
    write_text(root / "regions.csv", text.getvalue())
    return root / "regions.csv"


def _kinds(rng: np.random.Generator, place: int) -> tuple[Kind, ...]:
    choices: list[tuple[Kind, ...]] = [("benign", "malignant"), ("benign",), ("malignant",)]
    return choices[0] if place == 0 else choices[int(rng.choice(3, p=[0.4, 0.3, 0.3]))]


def _write_png(path: Path, picture: Image.Image) -> None:
    with atomic_path(path) as temporary:
        picture.save(temporary, compress_level=1)
