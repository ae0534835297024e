"""CT series in DICOM, as scanners and archives give them, with labels as NIfTI beside. Takes pydicom and nibabel.

Tags and geometry as in DICOM PS3.3, C.7.6.2 (image plane) and C.8.2.1 (CT image).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from pathzoo.ct.dicom_files import SliceFile, by_folder, find_series, require_pydicom
from pathzoo.ct.geometry import Grid, display_grid
from pathzoo.ct.nifti import clipped_note, nifti_grid, read_labels, refuse_other_grid
from pathzoo.ct.volume import AIR, ReadOptions, Volume, refuse_unlike_ct, to_hu
from pathzoo.errors import DataError

#: Distances of neighbouring slices may differ by this part, and by rounding to hundredths of a millimetre.
_JUMP, _ROUNDING = 0.01, 0.011
#: Slices may lie aside of each other, across the whole series, by this many pixels; a tilted gantry shifts them more.
_DRIFT = 1.0


@dataclass(frozen=True)
class DicomCase:
    """A CT series; see `pathzoo.ct.volume.Case`.

    Args:
        name: of the case.
        patient: PatientID; None where empty.
        files: of the series, in the order of their places.
        grid: where its voxels lie.
        label_path: NIfTI of the labels.
        options: how they are read.
    """

    name: str
    patient: str | None
    files: tuple[SliceFile, ...]
    grid: Grid
    label_path: Path
    options: ReadOptions

    @property
    def shape(self) -> tuple[int, int, int]:
        """(S, H, W) in display orientation."""
        return self.grid.shape

    @property
    def spacing(self) -> tuple[float, float, float]:
        """(z, y, x) in mm."""
        return self.grid.spacing

    @property
    def where(self) -> str:
        """The folder of the first file."""
        return str(self.files[0].path.parent)

    @cached_property
    def label_grid(self) -> Grid:
        """The grid of the labels' file."""
        return nifti_grid(self.label_path, self.options)

    def read(self, with_hu: bool) -> Volume:
        """Reads the labels, and the HU where asked for.

        Raises:
            DataError: damaged pixels; no slope and intercept; values that are no HU; a label value without a meaning.
        """
        labels = read_labels(self.label_path, self.label_grid, self.options, self.name)
        hu, notes = None, self.grid.notes()
        if with_hu:
            planes = np.empty((len(self.files), *self.files[0].shape), np.int16)
            clipped = 0
            for number, one in enumerate(self.files):
                planes[number], more = to_hu(read_hu(one.path)[None], str(one.path))
                clipped += more
            refuse_unlike_ct(planes, self.where)
            hu = self.grid.arrange(planes)
            notes += clipped_note(clipped)
        return Volume(labels, hu, tuple(range(self.shape[0])), self.spacing, self.grid.positions, notes)


def find_dicom(root: Path, options: ReadOptions) -> tuple[list[DicomCase], list[str]]:
    """The CT series below a folder with their labels, and notes on what was left out.

    A series' labels are segmentation_<SeriesInstanceUID>.nii.gz or segmentation.nii.gz in a folder of its files. Its
    case is called series_ and the start of the SHA-256 of its UID.

    Raises:
        ConfigError: no such folder; pydicom or nibabel is not installed.
        DataError: as `find_series` and `series_grid`; no labels, labels on another grid, or of two series at once.
    """
    found, notes = find_series(root)
    cases: list[DicomCase] = []
    for files in found:
        name = f"series_{hashlib.sha256(files[0].series.encode()).hexdigest()[:12]}"
        label = _label_of(files)
        if label is None and options.skip_incomplete:
            notes.append(f"{name} in {files[0].path.parent} has no labels and was left out")
            continue
        ordered, grid = series_grid(files, options)
        if label is None:
            raise DataError(
                f"{files[0].path.parent}: no segmentation.nii.gz beside the series {files[0].series} ({len(files)} "
                "slices): add it, or leave such series out by --skip-incomplete"
            )
        case = DicomCase(name, files[0].patient, ordered, grid, label, options)
        _refuse_shared_labels(case, cases)
        refuse_other_grid(grid, case.label_grid, name, ordered[0].path.parent, label)
        cases.append(case)
    return cases, notes


def series_grid(files: Sequence[SliceFile], options: ReadOptions) -> tuple[tuple[SliceFile, ...], Grid]:
    """The files of a series in the order of their places along the slices' normal, and their grid.

    Raises:
        DataError: several images in a file; a tag missing; slices of several sizes, orientations or spacings, that are
            not axial, that miss a neighbour, lie in one place or aside of each other.
    """
    first = files[0]
    _refuse_unlike(files, options)
    cosines = np.array(first.orientation, float).reshape(2, 3)
    normal = np.cross(cosines[0], cosines[1])
    if abs(np.linalg.norm(normal) - 1) > 1e-2:
        raise DataError(f"{first.path}: ImageOrientationPatient {first.orientation} is no pair of directions")
    if np.argmax(np.abs(normal)) != 2:
        kind = ("sagittal", "coronal")[int(np.argmax(np.abs(normal)))]
        raise DataError(
            f"{first.path.parent}: the series {first.series} is {kind}, not axial: take it out, or give the axial "
            "reconstruction"
        )
    ordered = tuple(sorted(files, key=lambda one: float(np.dot(np.array(one.position), normal))))
    places = np.array([one.position for one in ordered], float)
    _refuse_gaps(ordered, places @ normal)
    step = (places[-1] - places[0]) / (len(places) - 1)
    spacing = _pixel_spacing(first, options)
    drift = np.linalg.norm(step - normal * (step @ normal)) * (len(places) - 1)
    if drift > _DRIFT * min(spacing):
        raise DataError(
            f"{first.path.parent}: the slices of {first.series} shift sideways by {drift:.1f} mm in all (tilted "
            "gantry): resample the series to an upright volume, and give it as --kits19"
        )
    lps = np.eye(4)
    # Stored order of axes: slice, row, column. A row index runs along the column's direction, and the other way round.
    lps[:3, :3] = np.column_stack([step, cosines[1] * spacing[0], cosines[0] * spacing[1]])
    lps[:3, 3] = places[0]
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps
    return ordered, display_grid((len(ordered), *first.shape), affine, str(first.path.parent))


def read_hu(path: Path) -> np.ndarray:
    """The Hounsfield units of a CT image file: float32 (rows, columns); pixels marked as padding are air.

    Raises:
        DataError: damaged; compressed in a way that nothing here decodes; no rescale slope and intercept, or not to HU.
    """
    pydicom = require_pydicom()
    try:
        data = pydicom.dcmread(path)
        pixels = data.pixel_array
    except Exception as error:  # decoders raise what they like
        raise DataError(f"{path}: its pixels cannot be read ({_first_line(error)}){_remedy(error)}") from None
    missing = [tag for tag in ("RescaleSlope", "RescaleIntercept") if data.get(tag) is None]
    if missing:
        raise DataError(f"{path}: {missing[0]} is missing, so its values are no HU: export the series anew")
    if not data.RescaleSlope > 0:
        raise DataError(f"{path}: RescaleSlope is {data.RescaleSlope}: it has to be above 0; export the series anew")
    unit = str(data.get("RescaleType") or "HU").upper()
    if unit != "HU":
        raise DataError(f"{path}: RescaleType is {unit!r}, not HU: give a series in Hounsfield units")
    hu = pixels.astype(np.float32) * np.float32(data.RescaleSlope) + np.float32(data.RescaleIntercept)
    padding, limit = data.get("PixelPaddingValue"), data.get("PixelPaddingRangeLimit")
    if padding is not None:  # a value, or with a limit all from one to the other (PS3.3, C.7.5.1.1.2)
        low, high = sorted((int(padding), int(padding if limit is None else limit)))
        hu[(pixels >= low) & (pixels <= high)] = AIR
    return hu


def _has_file(folder: Path, name: str) -> bool:
    return (folder / name).is_file()


def _label_of(files: Sequence[SliceFile]) -> Path | None:
    for name in (f"segmentation_{files[0].series}.nii.gz", "segmentation.nii.gz"):
        there = partial(_has_file, name=name)
        folders = by_folder(files, there)
        if len(folders) > 1:
            raise DataError(f"{folders[1] / name}: {folders[0] / name} belongs to the same series: keep one of them")
        if folders:
            return folders[0] / name
    return None


def _refuse_shared_labels(case: DicomCase, others: Sequence[DicomCase]) -> None:
    """Raises DataError where one file of labels would be taken for two series: organs move between them."""
    other = next((one for one in others if one.label_path == case.label_path), None)
    if other is not None:
        series, another = case.files[0].series, other.files[0].series
        raise DataError(
            f"{case.label_path}: lies beside the series {another} and {series}: name it after the one that it belongs "
            f"to, such as segmentation_{series}.nii.gz, or move one of them into a folder of its own"
        )


def _refuse_unlike(files: Sequence[SliceFile], options: ReadOptions) -> None:
    """Raises DataError where the slices of a series do not lie on one grid, or do not say where they lie."""
    first = files[0]
    for one in files:
        if one.frames != 1:
            raise DataError(
                f"{one.path}: holds {one.frames} frames; pathzoo reads one slice per file: convert the series to NIfTI "
                "and give it as --kits19"
            )
        for tag, value in (("ImagePositionPatient", one.position), ("ImageOrientationPatient", one.orientation)):
            if value is None:
                raise DataError(f"{one.path}: {tag} is missing, so its place is not known: export the series anew")
        if one.spacing is None and options.spacing is None:
            raise DataError(f"{one.path}: PixelSpacing is missing: give --spacing Z Y X (mm), or export it anew")
        for tag, own, other, near in (
            ("Rows and Columns", one.shape, first.shape, 0.0),
            ("PixelSpacing", one.spacing or (0, 0), first.spacing or (0, 0), 1e-4),
            ("ImageOrientationPatient", one.orientation or (), first.orientation or (), 1e-3),
        ):
            if np.abs(np.array(own) - np.array(other)).max() > near:
                raise DataError(
                    f"{one.path}: {tag} {_words(own)}, and {_words(other)} in {first.path.name} of the same series: "
                    "take the slices that do not belong to it out"
                )


def _refuse_gaps(ordered: Sequence[SliceFile], heights: np.ndarray) -> None:
    """Raises DataError where the distances of neighbouring slices differ; names the place in mm."""
    steps = np.diff(heights)
    usual = float(np.median(steps))
    for number, step in enumerate(steps):
        below, above = ordered[number], ordered[number + 1]
        if step < _ROUNDING:
            raise DataError(
                f"{above.path}: lies where {below.path.name} does, at z = {_z(above)} mm: keep one of the two slices"
            )
        if abs(step - usual) > max(_JUMP * usual, _ROUNDING):
            missing = round(step / usual) - 1
            likely = f", {missing} slice(s) missing" if missing > 0 else ""
            raise DataError(
                f"{below.path.parent}: between z = {_z(below)} and {_z(above)} mm the slices of {below.series} are "
                f"{step:.3g} mm apart, elsewhere {usual:.3g} mm{likely}: restore the series, or take it out"
            )


def _pixel_spacing(first: SliceFile, options: ReadOptions) -> tuple[float, float]:
    spacing = first.spacing or (options.spacing or (0.0, 0.0, 0.0))[1:]
    if min(spacing) <= 0:
        raise DataError(f"{first.path}: PixelSpacing is {_words(spacing)}: it has to be above 0; export it anew")
    return float(spacing[0]), float(spacing[1])


def _z(one: SliceFile) -> str:
    return f"{one.position[2]:g}" if one.position else "?"


def _words(values: Any) -> str:
    return " x ".join(f"{value:g}" for value in values)


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _remedy(error: BaseException) -> str:
    if isinstance(error, (RuntimeError, NotImplementedError)):  # pydicom: no decoder for the compression
        return ": store the series uncompressed, or install a decoder (pip install pylibjpeg[all])"
    return ": it is truncated or damaged; restore it, or take the series out"
