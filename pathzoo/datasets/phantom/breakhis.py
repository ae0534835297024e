"""A phantom BreakHis cohort in the official tree and with the official file names."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from pathzoo.datasets.phantom.epithelium import Flavour
from pathzoo.datasets.phantom.stain import draw_stain, vary_stain
from pathzoo.datasets.phantom.tissue import DIFFICULTY, FLAVOURS, Kind, draw_atypia, draw_tissue
from pathzoo.errors import DataError
from pathzoo.fileio import atomic_path, write_json

#: Microns per pixel of an image 700 pixels wide; a narrower one was downsized and its pixels are larger.
NOMINAL_MPP = {40: 0.49, 100: 0.20, 200: 0.10, 400: 0.05}
_NOMINAL_WIDTH = 700
#: Folder name of each subtype by the letters of its file names.
SUBTYPES = {
    "benign": {"A": "adenosis", "F": "fibroadenoma", "PT": "phyllodes_tumor", "TA": "tubular_adenoma"},
    "malignant": {
        "DC": "ductal_carcinoma",
        "LC": "lobular_carcinoma",
        "MC": "mucinous_carcinoma",
        "PC": "papillary_carcinoma",
    },
}


class _Patient(NamedTuple):
    index: int
    kind: Kind  # the folder that the patient lies under
    subtype: str  # likewise
    tissue: Kind  # what is drawn; it has nothing to do with the folder where labels are shuffled
    flavour: Flavour
    slides: tuple[str, ...]


def write_breakhis(
    root: str | os.PathLike,
    seed: int = 0,
    patients: int = 24,
    images_per_patient: int = 6,
    magnifications: tuple[int, ...] = (40,),
    size: tuple[int, int] = (350, 230),
    *,
    difficulty: float = DIFFICULTY,
    shuffle_labels: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Draws a cohort into `root/BreaKHis_v1/histology_slides/breast/...`, as the official archive unpacks.

    Half of the patients are benign, half malignant, spread over the eight subtypes. Slide numbers are 90000 and up,
    which the real set does not use. Every fourth patient has two slide folders (`9xxxxAB` and `9xxxxCD`), as real ones
    do, so that grouping by folder instead of by patient leaks here too. Files that exist are drawn again and replaced.

    Args:
        root: folder to write into.
        seed: the same seed and arguments give the same pixels.
        patients: number of patients.
        images_per_patient: images of each patient at each magnification.
        magnifications: of 40, 100, 200 and 400.
        size: (width, height) in pixels. The width sets the pixel size as in the real set: nominal * 700 / width.
        difficulty: overlap of the classes, 0..1.
        shuffle_labels: deal the folders to the patients at random, so that nothing can be learnt; a control.
        progress: called with (images drawn, images in all).

    Returns:
        `root/BreaKHis_v1`.

    Raises:
        DataError: for a magnification that BreakHis does not have, a shape other than 700:460, or fewer than two
            patients.
    """
    for magnification in magnifications:
        if magnification not in NOMINAL_MPP:
            raise DataError(f"magnification {magnification}: BreakHis has {', '.join(map(str, NOMINAL_MPP))}")
    if abs(size[0] / size[1] / (_NOMINAL_WIDTH / 460) - 1) > 0.02:
        raise DataError(
            f"size {size[0]}x{size[1]}: keep BreakHis' 700:460, or its pixel size cannot be told; try 350x230"
        )
    if patients < 2:
        raise DataError(f"{patients} patients: a cohort of two classes needs at least 2")
    top = Path(root) / "BreaKHis_v1"
    # A run on this folder records that it has seen phantoms only, and a model published from it says so.
    made_by = {"phantom": "breakhis", "seed": seed, "patients": patients, "difficulty": difficulty}
    write_json(Path(root) / "phantom.json", made_by | {"shuffle_labels": shuffle_labels})
    done, total = 0, patients * images_per_patient * len(magnifications)
    for patient in _cohort(seed, patients, shuffle_labels):
        rng = np.random.default_rng([seed, 1, patient.index])
        stain, atypia = draw_stain(rng), draw_atypia(rng, patient.tissue, difficulty)
        for magnification in magnifications:
            mpp = NOMINAL_MPP[magnification] * _NOMINAL_WIDTH / size[0]
            for number in range(images_per_patient):
                rng = np.random.default_rng([seed, 2, patient.index, magnification, number])
                view = vary_stain(stain, rng)
                picture = draw_tissue(
                    rng, patient.tissue, size, mpp, stain=view, atypia=atypia, flavour=patient.flavour
                )
                slide = patient.slides[number % len(patient.slides)]
                _write_png(top / _relative_path(patient, slide, magnification, number + 1), picture)
                done += 1
                if progress:
                    progress(done, total)
    return top


def _cohort(seed: int, count: int, shuffle_labels: bool) -> list[_Patient]:
    rng = np.random.default_rng([seed, 0])
    numbers = 90000 + rng.choice(10000, count, replace=False)
    tissues: list[Kind] = ["malignant" if index % 2 else "benign" for index in range(count)]
    kinds = [tissues[i] for i in rng.permutation(count)] if shuffle_labels else tissues
    cohort = []
    for index in range(count):
        kind, tissue = kinds[index], tissues[index]
        subtype, drawn = (list(SUBTYPES[part])[index // 2 % 4] for part in (kind, tissue))
        letters = ("AB", "CD") if index % 4 == 0 else [("",), ("AB",), ("C",)][index % 3]
        slides = tuple(f"{numbers[index]}{letter}" for letter in letters)
        cohort.append(_Patient(index, kind, subtype, tissue, FLAVOURS[drawn], slides))
    return cohort


def _relative_path(patient: _Patient, slide: str, magnification: int, number: int) -> Path:
    kind_letter = patient.kind[0].upper()
    folder = Path("histology_slides", "breast", patient.kind, "SOB", SUBTYPES[patient.kind][patient.subtype])
    name = f"SOB_{kind_letter}_{patient.subtype}-14-{slide}-{magnification}-{number:03d}.png"
    return folder / f"SOB_{kind_letter}_{patient.subtype}_14-{slide}" / f"{magnification}X" / name


def _write_png(path: Path, picture: np.ndarray) -> None:
    ok, data = cv2.imencode(".png", picture[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not ok:
        raise DataError(f"{path}: OpenCV could not encode the picture as PNG")
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.tobytes())
