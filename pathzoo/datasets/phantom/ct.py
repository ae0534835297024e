"""Phantom abdominal CT: drawn patients in Hounsfield units, in the case folders of KiTS19."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pathzoo.datasets.phantom.ct_body import draw_physique, paint_back, paint_organs, paint_table, paint_wall
from pathzoo.datasets.phantom.ct_canvas import CtCanvas, scanner_noise
from pathzoo.datasets.phantom.ct_kidneys import draw_kidneys, paint_fat, paint_kidneys, paint_lookalikes, reach
from pathzoo.errors import DataError, OutputError
from pathzoo.fileio import write_json

#: Share of patients with a tumour.
TUMOUR_RATE = 0.4
#: To be raised with whatever changes what is drawn: cases of two drawings must not mix in a folder.
_DRAWING = 1
_LEAST = 48  # px a side: below it kidneys are a few pixels
_HU = (-1024, 3071)


class DrawnCt(NamedTuple):
    """A drawn volume, slice 0 at the feet, row 0 in front, column 0 at the patient's right."""

    #: Hounsfield units, int16 (S, H, W).
    hu: np.ndarray
    #: 0 background, 1 kidney, 2 tumour, uint8 (S, H, W).
    labels: np.ndarray
    #: Millimetres from voxel to voxel: slices, rows, columns.
    spacing: tuple[float, float, float]


def write_ct(
    folder: str | os.PathLike,
    seed: int = 0,
    patients: int = 12,
    size: tuple[int, int] = (128, 128),
    slices: int = 24,
    tumour_rate: float = TUMOUR_RATE,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Draws a cohort in KiTS19's layout: case_00000/{imaging,segmentation}.nii.gz and so on, a patient each.

    Axes are those of KiTS19's files: slices from head to feet first, then rows from front to back, then columns from
    the patient's right to the left, with the affine and spacing that say so; imaging is int16, segmentation uint8.
    Patient k is the same however many are drawn. Patients with a tumour are spread evenly over the cohort, so that n
    patients have `tumour_rate` * n, rounded down or up. A case appears whole or not at all. Drawing again into the
    folder with the same arguments goes on where it was left, with more patients it adds them.

    Args:
        folder: to write into; absent, empty, or of an earlier drawing with the same arguments.
        seed: 0 or above; the same seed and arguments give the same voxels, patients of two seeds are others.
        patients: number of patients.
        size: (width, height) of a slice in pixels, at least 48 each way. The field of view is the patient's, 340 to
            480 mm: 0.66 to 0.94 mm a pixel at 512.
        slices: of each patient, evenly over the kidneys' height and a little more: 4 to 6 mm apart with 24. With less
            than 12 a small tumour may lie between two of them.
        tumour_rate: share of patients with a tumour, 0..1.
        progress: called with (patients drawn, patients in all).

    Returns:
        The folder.

    Raises:
        DataError: arguments out of range, or a folder that holds other cases.
        OutputError: a case cannot be written, for instance for want of room.
    """
    if patients < 1 or seed < 0 or not 0 <= tumour_rate <= 1:
        raise DataError(
            f"{patients} patients, seed {seed}, tumour rate {tumour_rate}: give at least 1 patient, a seed from 0 on "
            "and a rate in 0..1"
        )
    _check_size(size, slices)
    folder = Path(folder)
    settings = {"phantom": "ct", "drawing": _DRAWING, "seed": seed, "size": list(size), "slices": slices}
    settings |= {"tumour_rate": tumour_rate}
    _check_folder(folder, settings, patients)
    write_json(folder / "phantom.json", settings | {"patients": patients})
    start = np.random.default_rng([seed, 41]).random()
    for number in range(patients):
        case = folder / f"case_{number:05d}"
        if not case.is_dir():
            # Shares add up, and whoever passes the next whole number has one: the count of patients plays no part.
            tumour = int(start + (number + 1) * tumour_rate) > int(start + number * tumour_rate)
            _write_case(case, draw_case([seed, 42, number], size, slices, tumour))
        if progress:
            progress(number + 1, patients)
    return folder


def draw_volume(
    seed: int | Sequence[int], size: tuple[int, int] = (128, 128), slices: int = 24, *, tumour: bool | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """As `draw_case`, without the spacing: HU int16 (S, H, W) and labels uint8 (S, H, W)."""
    drawn = draw_case(seed, size, slices, tumour)
    return drawn.hu, drawn.labels


def draw_case(
    seed: int | Sequence[int], size: tuple[int, int] = (128, 128), slices: int = 24, tumour: bool | None = None
) -> DrawnCt:
    """Draws one patient.

    Patients differ in build, fat, contrast phase, enhancement, size and place of the kidneys, noise and its grain. A
    tumour (40 to 110 HU, uneven, radius 6 to 30 mm, some with a core without blood) bulges from one kidney. Cysts
    belong to the kidney; bowel, lymph nodes, accessory spleens and adrenal masses, of a tumour's HU, to the background,
    and so does the sinus of a kidney (fat and calices), as in KiTS19.

    Args:
        seed: the same seed and arguments give the same voxels. Another size or number of slices draws the same build
            and kidneys amid other surroundings.
        size: (width, height) in pixels, at least 48 each way.
        slices: number of slices.
        tumour: whether there is one; drawn with `TUMOUR_RATE` if None.

    Raises:
        DataError: too small, no slice.
    """
    _check_size(size, slices)
    rng = np.random.default_rng(seed)
    chance = rng.random() < TUMOUR_RATE
    body = draw_physique(rng)
    kidneys = draw_kidneys(rng, body, chance if tumour is None else tumour)
    field = float(np.clip(2 * body.outline[0] * rng.uniform(1.08, 1.25), 340, 480))
    pixel = round(field / min(size), 4)
    low, high = reach(kidneys)
    step = round(max(-low, high) * 2 * rng.uniform(1.0, 1.12) / slices, 2)
    canvas = CtCanvas(rng, (slices, size[1], size[0]), (step, pixel, pixel), bend=rng.uniform(1.5, 3.0))
    cavity = paint_wall(canvas, rng, body)
    paint_organs(canvas, rng, body, cavity)
    paint_fat(canvas, rng, kidneys, body)
    paint_back(canvas, rng, body)
    paint_lookalikes(canvas, rng, kidneys, body, cavity)
    paint_kidneys(canvas, rng, kidneys, body, cavity)
    paint_table(canvas, rng, body)
    shading = 3.0 * canvas.noise(rng, 90.0)  # beam hardening that is left
    hu = canvas.hu + shading + body.noise * scanner_noise(rng, canvas.shape, body.sharpness)
    return DrawnCt(np.clip(np.rint(hu), *_HU).astype(np.int16), canvas.labels, (step, pixel, pixel))


def _check_size(size: tuple[int, int], slices: int) -> None:
    if min(size) < _LEAST or slices < 1:
        raise DataError(f"{slices} slices of {size[0]}x{size[1]} px: give at least 1 slice and {_LEAST} px each way")


def _check_folder(folder: Path, settings: dict[str, Any], patients: int) -> None:
    """Refuses to draw beside cases that would then pass for patients of this cohort."""
    cases = sorted(path.name for path in folder.glob("case_*")) if folder.is_dir() else []
    if not cases:
        return
    marker = folder / "phantom.json"
    try:
        known = json.loads(marker.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise DataError(f"{folder} holds {cases[0]} and no readable phantom.json: give an empty folder") from None
    if {key: known.get(key) for key in settings} != settings:
        raise DataError(f"{marker}: the folder holds a phantom of other settings: give an empty folder")
    if cases[-1] > f"case_{patients - 1:05d}":
        raise DataError(f"{folder} holds {cases[-1]}, more than {patients} patients: give an empty folder")


def _write_case(case: Path, drawn: DrawnCt) -> None:
    import nibabel  # loads only where volumes are written

    thickness, row, column = drawn.spacing
    # As KiTS19's: voxel axes go to the feet, to the back and to the left, all against the axes of RAS space.
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = -thickness, -row, -column, 1
    temporary = Path(tempfile.mkdtemp(prefix=f".{case.name}.", dir=case.parent))
    try:
        for name, voxels in (("imaging", drawn.hu), ("segmentation", drawn.labels)):
            image = nibabel.Nifti1Image(np.ascontiguousarray(voxels[::-1]), affine)
            image.header.set_xyzt_units("mm")
            path = temporary / f"{name}.nii.gz"
            nibabel.save(image, path)
            with path.open("rb") as file:
                os.fsync(file.fileno())
        temporary.chmod(0o755)
        temporary.rename(case)
    except OSError as error:
        raise OutputError(
            f"{case}: cannot be written ({error.strerror or error}); make room or give another folder"
        ) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
