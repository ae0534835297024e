"""Whose slides and pictures are, where only a table of a lab says so. Needs no torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pathzoo.datasets.csv_table import parse_patient
from pathzoo.errors import DataError
from pathzoo.wsi.annotation_sources import read_slide_table
from pathzoo.wsi.names import slide_name

_SHOWN = 5


def state_patients(infos: Sequence[dict[str, Any]], table: str | Path) -> list[str]:
    """Sets `patient` where a table names the file, with or without its ending, or the slide that it was taken from.

    The table is that of the other converters (`pathzoo.wsi.annotation_sources.read_slide_table`): a CSV with the
    columns slide and patient, names without folders. A patient that is empty or `unknown` is not known.

    Args:
        infos: img_path, patient and slide (None where not known) of each; changed in place, or left where it raises.
        table: the CSV.

    Returns:
        Warnings, a line each: files whose patient is still not known, names that nothing has.

    Raises:
        DataError: no such file, no CSV with these columns, a file of two patients or of another one than its source
            says, a name that files in several folders have, or no name that any file has.
    """
    stated = read_slide_table(Path(table), "patient")
    names = [_names_of(info) for info in infos]
    used = stated.keys() & {name for found in names for name in found}
    if not used:
        called = f"; files are called like {Path(infos[0]['img_path']).name}" if infos else ""
        raise DataError(
            f"{table}: none of its {len(stated)} names{_some(list(stated))} is that of a file or slide of the sources"
            f"{called}: correct its column slide"
        )
    _refuse_shared(infos, stated, table)
    patients = [_patient_of(info, found, stated, table) for info, found in zip(infos, names, strict=True)]
    for info, patient in zip(infos, patients, strict=True):
        info["patient"] = patient
    unknown = [Path(info["img_path"]).name for info in infos if info["patient"] is None]
    unused = [name for name in stated if name not in used]
    warnings = []
    if unknown:
        warnings.append(f"warning: patient unknown for {len(unknown)} files{_some(unknown)}: {table} has none")
    if unused:
        many = f"{len(unused)} names are" if len(unused) > 1 else "1 name is"
        warnings.append(f"warning: {table}: {many} none of the sources' files or slides{_some(unused)}")
    return warnings


def _names_of(info: Mapping[str, Any]) -> tuple[str, ...]:
    path = Path(info["img_path"])
    own = (path.name, slide_name(path), *([info["slide"]] if info["slide"] else []))
    return tuple(dict.fromkeys(own))


def _patient_of(
    info: Mapping[str, Any], names: Sequence[str], stated: Mapping[str, str], table: str | Path
) -> str | None:
    file = Path(info["img_path"]).name
    found = list(dict.fromkeys(stated[name] for name in names if name in stated))
    if len(found) > 1:
        raise DataError(f"{table}: {file} is of patients {found[0]!r} and {found[1]!r}: correct one of the lines")
    patient = parse_patient(found[0]) if found else None
    if patient is None or info["patient"] is None:
        return info["patient"] or patient
    if patient != info["patient"]:
        raise DataError(
            f"{table}: {file} is of patient {patient!r}, and of {info['patient']!r} by its source: correct one of them"
        )
    return patient


def _refuse_shared(infos: Sequence[Mapping[str, Any]], stated: Mapping[str, str], table: str | Path) -> None:
    """A name that files in several folders have tells nobody's patient: `0001.png` is in every folder of tiles."""
    first: dict[str, Path] = {}
    for path in (Path(info["img_path"]) for info in infos):
        for name in {path.name, slide_name(path)} & stated.keys():
            other = first.setdefault(name, path)
            if other.parent != path.parent:
                raise DataError(
                    f"{table}: {name} names several files, first {other} and {path}: rename them, or give a tiles.csv "
                    "with the columns path and patient as the source"
                )


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN]) + (", ..." if names[_SHOWN:] else "")
    return f" ({shown})" if names else ""
