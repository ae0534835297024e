"""What the DICOM files below a folder say of themselves, and which of them are one series. Takes pydicom."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from pathzoo.datasets.file_search import files_below
from pathzoo.errors import ConfigError, DataError

#: A series of as few slices is a localizer.
_LOCALIZER = 2
_TAGS = (
    "Modality",
    "PatientID",
    "SeriesInstanceUID",
    "SOPInstanceUID",
    "ImageType",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
)


@dataclass(frozen=True)
class SliceFile:
    """A DICOM file's head.

    Attributes:
        path: of the file.
        modality: "CT", "MR" and so on.
        patient: PatientID; None where empty.
        series: SeriesInstanceUID.
        instance: SOPInstanceUID.
        localizer: ImageType says so.
        frames: in the file.
        shape: (rows, columns).
        position: ImagePositionPatient, mm, LPS; None where missing.
        orientation: ImageOrientationPatient; None where missing.
        spacing: PixelSpacing, (row, column) mm; None where missing.
    """

    path: Path
    modality: str
    patient: str | None
    series: str
    instance: str
    localizer: bool
    frames: int
    shape: tuple[int, int]
    position: tuple[float, float, float] | None
    orientation: tuple[float, ...] | None
    spacing: tuple[float, float] | None


def find_series(root: Path) -> tuple[list[list[SliceFile]], list[str]]:
    """The CT series below a folder, however their files are spread, and notes on what was left out.

    Files that are not DICOM are passed over. Localizers, other modalities and objects without pixels are left out.

    Raises:
        ConfigError: no such folder; pydicom is not installed.
        DataError: no CT series; a series of two patients; a .dcm file that cannot be read.
    """
    if not root.is_dir():
        raise ConfigError(f"--dicom {root}: no such folder")
    paths = [path for path in files_below(root) if not path.name.startswith("._")]  # which a Mac adds to each
    heads = [head for path in paths if (head := read_head(path)) is not None]
    of_series: dict[str, list[SliceFile]] = defaultdict(list)
    for head in heads:
        of_series[head.series].append(head)
    taken: list[list[SliceFile]] = []
    left_out: dict[str, int] = defaultdict(int)
    for files in of_series.values():
        reason = _left_out(files)
        if reason:
            left_out[reason] += 1
            continue
        refuse_mixed(files)
        taken.append(files)
    notes = [f"{count} {reason} left out" for reason, count in sorted(left_out.items())]
    if not taken:
        what = "; ".join(notes) if notes else f"{len(heads)} DICOM images"
        raise DataError(f"{root}: no CT series below it ({what}): give the folder of one")
    return sorted(taken, key=lambda files: files[0].series), notes


def refuse_mixed(files: Sequence[SliceFile]) -> None:
    """Raises DataError where one series holds files of two patients, or one image twice; names both files."""
    first = files[0]
    seen: dict[str, Path] = {}
    for one in files:
        if one.patient != first.patient:
            raise DataError(
                f"{one.path}: is of the patient {one.patient or ''!r}, and {first.path} of the same series of "
                f"{first.patient or ''!r}: correct PatientID, or take the wrong files out"
            )
        other = seen.setdefault(one.instance, one.path)
        if other != one.path:
            raise DataError(f"{one.path}: is the same image as {other} (SOPInstanceUID): keep one of the copies")


def read_head(path: Path) -> SliceFile | None:
    """The head of a DICOM image; None for other files and for DICOM objects without pixels.

    Raises:
        ConfigError: pydicom is not installed.
        DataError: a .dcm file that cannot be read, or a value in it that is no number.
    """
    pydicom = require_pydicom()
    try:
        head = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_TAGS))
    except pydicom.errors.InvalidDicomError:
        if path.suffix.lower() in (".dcm", ".dicom"):
            raise DataError(f"{path}: is not DICOM, or its start is damaged: restore it, or take it out") from None
        return None
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as DICOM ({error}): restore it, or take it out") from None
    if "Rows" not in head or "SeriesInstanceUID" not in head:  # a report, a plan, a DICOMDIR
        return None
    return SliceFile(
        path=path,
        modality=str(head.get("Modality") or ""),
        patient=str(head.get("PatientID") or "").strip() or None,
        series=str(head.SeriesInstanceUID),
        instance=str(head.get("SOPInstanceUID") or path),
        localizer="LOCALIZER" in [str(word).upper() for word in _listed(head.get("ImageType"))],
        frames=int(head.get("NumberOfFrames") or 1),
        shape=(int(head.Rows), int(head.get("Columns") or 0)),
        position=_numbers(head, "ImagePositionPatient", 3, path),
        orientation=_numbers(head, "ImageOrientationPatient", 6, path),
        spacing=_numbers(head, "PixelSpacing", 2, path),
    )


def require_pydicom() -> ModuleType:
    """pydicom.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import pydicom
    except ImportError:
        raise ConfigError("pydicom is not installed; it reads DICOM: pip install pathzoo[ct]") from None
    return pydicom


def by_folder(files: Sequence[SliceFile], test: Callable[[Path], bool]) -> list[Path]:
    """The folders that a series' files lie in and that pass a test, sorted."""
    return sorted(folder for folder in {one.path.parent for one in files} if test(folder))


def _left_out(files: Sequence[SliceFile]) -> str | None:
    if files[0].modality != "CT":
        return f"series of the modality {files[0].modality or 'unknown'}, not CT,"
    if any(one.localizer for one in files) or (len(files) <= _LOCALIZER and files[0].frames == 1):
        return f"localizers (1 or {_LOCALIZER} slices)"
    return None


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return [value] if isinstance(value, str) else list(value)


def _numbers(head: Any, tag: str, count: int, path: Path) -> Any:
    """A tag's numbers; None where it is missing or empty."""
    values = _listed(head.get(tag))
    if not values:
        return None
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != count or not all(abs(value) < float("inf") for value in numbers):
        raise DataError(f"{path}: {tag} is {values}, not {count} numbers: correct it, or export the series anew")
    return numbers
