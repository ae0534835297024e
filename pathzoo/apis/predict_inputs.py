"""What `pathzoo predict` is asked to run over, and at which resolution."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path

from pathzoo.errors import DataError
from pathzoo.nearest import did_you_mean
from pathzoo.wsi.names import IMAGE_SUFFIXES, SLIDE_SUFFIXES


def sort_inputs(inputs: Sequence[str | os.PathLike]) -> tuple[list[Path], list[Path]]:
    """Slides and plain images, by their names; a folder stands for those directly in it, in alphabetical order.

    A file that is given twice is taken once.

    Raises:
        DataError: Something that is not there, a folder without either, or a name that cannot be written as text.
    """
    slides: dict[Path, None] = {}
    images: dict[Path, None] = {}
    for given in inputs:
        path = Path(given)
        if path.is_dir() and path.suffix.lower() not in SLIDE_SUFFIXES:
            known = SLIDE_SUFFIXES + IMAGE_SUFFIXES
            try:
                listed = sorted(path.iterdir())
            except OSError as error:
                raise DataError(f"{path}: cannot be listed: {error.strerror or error}") from error
            found = [f for f in listed if f.suffix.lower() in known and f.name[0] != "." and f.is_file()]
            if not found:
                raise DataError(f"{path}: holds no slide ({' '.join(SLIDE_SUFFIXES)}) and no image; name a file")
        elif path.exists():
            found = [path]
        else:
            raise DataError(f"{path}: no such file or folder")
        for file in found:
            if not _is_text(str(file)):
                shown = str(file).encode(errors="backslashreplace").decode()
                raise DataError(f"{shown}: its name is no UTF-8, which outputs are written in; rename it")
            (images if file.suffix.lower() in IMAGE_SUFFIXES else slides)[file] = None
    return list(slides), list(images)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


class Resolutions:
    """The user's word on microns per pixel, for all files or file by file; None where there is none."""

    def __init__(self, mpp: float | None, mpp_csv: str | os.PathLike | None, inputs: Sequence[Path]) -> None:
        if mpp is not None and not 0 < mpp < 1000:
            raise DataError(f"--mpp {mpp}: microns per pixel are above 0 (a scanner's 40x gives about 0.25)")
        self._all = mpp
        self._each = {} if mpp_csv is None else _read_mpp_csv(Path(mpp_csv))
        unmatched = set(self._each) - {path.name for path in inputs} - {path.stem for path in inputs}
        if unmatched:
            hint = did_you_mean(min(unmatched), [path.name for path in inputs])
            raise DataError(f"{mpp_csv}: {min(unmatched)!r} is none of the {len(inputs)} inputs{hint}")

    def of(self, path: Path) -> float | None:
        """Microns per pixel that the user gave for a file."""
        return self._each.get(path.name, self._each.get(path.stem, self._all))


def _read_mpp_csv(path: Path) -> dict[str, float]:
    if not path.is_file():
        raise DataError(f"--mpp-csv {path}: no such file")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return _table(path, csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: is no CSV in UTF-8 ({error}); save it as one") from error


def _table(path: Path, reader: csv.DictReader) -> dict[str, float]:
    if not {"slide", "mpp"} <= set(reader.fieldnames or ()):
        raise DataError(f"{path}: needs the columns slide,mpp; found {','.join(reader.fieldnames or ())}")
    table: dict[str, float] = {}
    for row in reader:
        try:
            value = float(row["mpp"])
        except (TypeError, ValueError):
            value = 0.0
        if not 0 < value < 1000:
            raise DataError(f"{path}, line {reader.line_num}: mpp {row['mpp']!r} is no number above 0")
        if row["slide"] in table:
            raise DataError(f"{path}, line {reader.line_num}: {row['slide']!r} stands twice; keep one line")
        table[row["slide"]] = value
    return table
