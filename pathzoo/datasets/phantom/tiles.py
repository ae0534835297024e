"""Phantom tiles for self-supervision: breast in three classes, kidney without any, and noise as a control.

Breast tiles are benign, ADH or DCIS by atypia alone: stain, cellularity, white space and stroma are drawn without a
look at the class. Kidney shares stains, stroma and nuclei with breast, not its architecture. Noise has the colours of
tissue and nothing else of it: what a pretext task gains from it, it does not gain from tissue.
"""

import csv
import io
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np

from pathzoo.datasets.noise_fields import smooth_noise
from pathzoo.datasets.phantom.canvas import Canvas
from pathzoo.datasets.phantom.epithelium import Flavour
from pathzoo.datasets.phantom.kidney import paint_kidney
from pathzoo.datasets.phantom.stain import Stain, draw_stain, render, vary_stain
from pathzoo.datasets.phantom.tissue import FLAVOURS, paint_breast
from pathzoo.errors import DataError
from pathzoo.fileio import atomic_path, write_json, write_text

Tissue = Literal["breast", "kidney", "noise"]
TISSUES: tuple[Tissue, ...] = ("breast", "kidney", "noise")
CLASSES = ("benign", "ADH", "DCIS")
#: Architectures that patients of all classes have.
_FLAVOURS = tuple(FLAVOURS[letters] for letters in ("A", "F", "TA", "DC", "PC"))
#: Overlap of neighbouring classes, 0 (none) to 1 (the same tissue).
DIFFICULTY = 0.35
#: Tiles are cut from fields of so many tiles a side: a field's stroma and nuclei are drawn once for all of them.
_FIELD = 5
#: Tiles of breast are taken where cells are: nuclei cover at least this part of them, whatever their class.
_LEAST_NUCLEI = 0.10
#: A slide so poor in nuclei that this many fields do not give its tiles gives any others from then on.
_MOST_FIELDS = 40
_LEAST_UM = 32.0


class PhantomTile(NamedTuple):
    """A tile: its class's index, its place (x, y) in the pixels of its slide, its slide's letter, its picture."""

    label: int
    x: int
    y: int
    slide: str
    picture: np.ndarray


def write_tiles(
    root: str | os.PathLike,
    seed: int = 0,
    tissue: Tissue = "breast",
    patients: int = 30,
    tiles_per_patient: int = 20,
    size: int = 64,
    mpp: float = 1.0,
    *,
    difficulty: float = DIFFICULTY,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Draws a cohort as `TileClassification` reads it: tiles.csv (path, label, patient, slide, mpp, x, y) and tiles/.

    A patient of breast has one class; patient n has class n % 3, and half of their tiles come from each of two slides.
    Labels of the others are the tissue's name. Patients of the three tissues have different names (B, K, N). Files that
    exist are drawn again and replaced.

    Args:
        root: folder to write into.
        seed: the same seed and arguments give the same pixels.
        tissue: "breast", "kidney" or "noise".
        patients: number of patients; 3 at least for breast.
        tiles_per_patient: tiles of each.
        size: side of a tile in pixels, at least 32 um.
        mpp: microns per pixel.
        difficulty: overlap of the classes of breast, 0..1.
        progress: called with (tiles drawn, tiles in all).

    Returns:
        The path of tiles.csv.

    Raises:
        DataError: another tissue, too few patients or tiles, tiles that are too small.
    """
    if tissue not in TISSUES:
        raise DataError(f"tissue {tissue!r}: there are {', '.join(TISSUES)}")
    fewest = len(CLASSES) if tissue == "breast" else 1
    if patients < fewest or tiles_per_patient < 1:
        raise DataError(
            f"{patients} patients with {tiles_per_patient} tiles each: {tissue} needs {fewest} patients and 1 tile"
        )
    if size * mpp < _LEAST_UM:
        raise DataError(f"tiles of {size} px at {mpp} um are too small: give at least {_LEAST_UM:g} um a side")
    root = Path(root)
    made_by = {"phantom": "tiles", "tissue": tissue, "seed": seed, "patients": patients, "difficulty": difficulty}
    write_json(root / "phantom.json", made_by | {"tiles_per_patient": tiles_per_patient, "size": size, "mpp": mpp})
    rows, total = [], patients * tiles_per_patient
    for number in range(patients):
        patient = f"{tissue[0].upper()}{number + 1:03d}"
        drawn = draw_patient_tiles(seed, tissue, number, tiles_per_patient, size, mpp, difficulty)
        for place, tile in enumerate(drawn):
            name = f"tiles/{patient}_{place + 1:04d}.png"
            _write_png(root / name, tile.picture)
            label = CLASSES[tile.label] if tissue == "breast" else tissue
            rows.append([name, label, patient, f"{patient}-{tile.slide}", f"{mpp:g}", tile.x, tile.y])
            if progress:
                progress(len(rows), total)
    text = io.StringIO()
    header = ["path", "label", "patient", "slide", "mpp", "x", "y"]
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    write_text(root / "tiles.csv", text.getvalue())
    return root / "tiles.csv"


def draw_patient_tiles(
    seed: int, tissue: Tissue, number: int, count: int, size: int, mpp: float, difficulty: float = DIFFICULTY
) -> Iterator[PhantomTile]:
    """Draws the tiles of patient `number`, half of them from each of two slides; see `write_tiles`."""
    rng = np.random.default_rng([seed, 7, TISSUES.index(tissue), number])
    label = number % len(CLASSES) if tissue == "breast" else 0
    stain = draw_stain(rng)
    if tissue == "breast":
        atypia = float(np.clip(0.5 + 0.4 * (label - 1) * (1 - difficulty) + rng.normal(0, 0.09), 0, 1))
    else:
        atypia = float(rng.uniform(0, 0.9))
    flavour = _FLAVOURS[int(rng.integers(len(_FLAVOURS)))]
    for slide, wanted in (("A", count - count // 2), ("B", count // 2)):
        shade = vary_stain(stain, rng)
        for x, y, picture in _slide_tiles(rng, tissue, wanted, size, mpp, shade, atypia, flavour):
            yield PhantomTile(label, x, y, slide, picture)


def _slide_tiles(
    rng: np.random.Generator,
    tissue: Tissue,
    count: int,
    size: int,
    mpp: float,
    stain: Stain,
    atypia: float,
    flavour: Flavour,
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Tiles of one slide: x, y, picture. Fields lie side by side on it, from left to right."""
    side = _FIELD * size
    for field in itertools.count():
        if count < 1:
            return
        if tissue == "noise":
            picture, nuclei = draw_noise(rng, (side, side), stain), np.ones((_FIELD, _FIELD))
        else:
            picture, nuclei = _draw_field(rng, tissue, size, mpp, stain, atypia, flavour)
        least = _LEAST_NUCLEI if tissue == "breast" and field < _MOST_FIELDS else 0.0
        places = np.argwhere(nuclei >= least)
        # Not all of one field: neighbours are alike, and a patient's tiles should differ.
        for row, column in rng.permutation(places)[: min(count, max(1, _FIELD**2 // 2))]:
            y, x = int(row) * size, int(column) * size
            yield field * side + x, y, picture[y : y + size, x : x + size]
            count -= 1


def draw_noise(rng: np.random.Generator, size: tuple[int, int], stain: Stain) -> np.ndarray:
    """Coloured noise of tissue's mean colours, without any structure: RGB uint8 (height, width, 3).

    Both dyes vary by Gaussian noise of two drawn grains, isotropic and the same everywhere.
    """
    shape = (size[1], size[0])
    dyes = []
    for amount in (rng.uniform(0.16, 0.30), rng.uniform(0.36, 0.52)):
        fine = rng.standard_normal(shape, dtype=np.float32)
        coarse = smooth_noise(rng, shape, float(rng.uniform(2, 12)))
        field = amount * (1 + 0.35 * fine + 0.45 * coarse)
        dyes.append(np.maximum(field, 0).astype(np.float32))
    return render(dyes[0], dyes[1], stain, rng)


def _draw_field(
    rng: np.random.Generator,
    tissue: Tissue,
    size: int,
    mpp: float,
    stain: Stain,
    atypia: float,
    flavour: Flavour,
) -> tuple[np.ndarray, np.ndarray]:
    """A field of tissue, and which part of each of its tiles nuclei cover, (_FIELD, _FIELD)."""
    side = _FIELD * size
    canvas = Canvas(rng, (side, side), mpp, waviness=float(rng.uniform(0.6, 1.4)), tears=float(rng.uniform(0.1, 1.0)))
    if tissue == "breast":
        paint_breast(canvas, rng, atypia, flavour)
    else:
        paint_kidney(canvas, rng, atypia)
    nuclei = (canvas.haematoxylin > 0.5).reshape(_FIELD, size, _FIELD, size).mean(axis=(1, 3))
    canvas.roughen(rng)
    return render(canvas.haematoxylin, canvas.eosin, stain, rng), nuclei


def _write_png(path: Path, picture: np.ndarray) -> None:
    ok, data = cv2.imencode(".png", np.ascontiguousarray(picture[..., ::-1]), [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not ok:
        raise DataError(f"{path}: OpenCV could not encode the picture as PNG")
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.tobytes())
