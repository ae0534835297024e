"""Which cases a source holds, and whose they are."""

import dataclasses
import hmac
import secrets
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from pathzoo.ct.nifti import NiftiCase
from pathzoo.ct.volume import ReadOptions
from pathzoo.datasets.csv_table import TableForm, parse_patient, read_csv_table
from pathzoo.datasets.file_search import files_below
from pathzoo.datasets.patient_names import plain_name
from pathzoo.errors import ConfigError, DataError, OutputError
from pathzoo.fileio import atomic_path

_IMAGE, _LABEL = "imaging", "segmentation"
_SUFFIXES = (".nii.gz", ".nii")
_FORM = TableForm(one="case", many="cases", needed=("case", "patient"), may_be_empty={"patient": "where not known"})
#: Shorter keys can be guessed.
_MIN_KEY = 16


def find_kits19(root: Path, options: ReadOptions) -> tuple[list[NiftiCase], list[str]]:
    """The case folders below a folder as KiTS19 has them, and notes on what was left out.

    case_00000/imaging.nii.gz and case_00000/segmentation.nii.gz, at any depth; or case_00000_imaging.nii.gz and
    case_00000_segmentation.nii.gz beside each other. Each case is a patient of its own, as in KiTS19.

    Raises:
        ConfigError: no such folder; nibabel is not installed.
        DataError: no case; an image or labels missing; a case name twice; what `NiftiCase` raises.
    """
    if not root.is_dir():
        raise ConfigError(f"--kits19 {root}: no such folder")
    found: dict[str, dict[str, Path]] = {}
    for folder in sorted(path for path in root.glob("case_*") if path.is_dir()):
        found[folder.name] = {"folder": folder}
    for path in files_below(root):
        part = _part(path)
        if part is None:
            continue
        kind, case = part
        own = found.setdefault(case, {})
        folder = own.setdefault("folder", path.parent)
        if kind in own or folder != path.parent:
            raise DataError(f"{path}: the case {case} stands already in {own.get(kind, folder)}: rename one of them")
        own[kind] = path
    cases, left_out = [], []
    for case, own in sorted(found.items()):
        missing = [kind for kind in (_IMAGE, _LABEL) if kind not in own]
        if missing and options.skip_incomplete:
            left_out.append(case)
        elif missing:
            raise DataError(
                f"{own['folder']}: {case} has no {missing[0]}.nii.gz: add it, take the case out, or leave such "
                "cases out by --skip-incomplete"
            )
        else:
            cases.append(NiftiCase(case, case, own[_IMAGE], own[_LABEL], options))
    notes = [f"{len(left_out)} cases without image or labels were left out, first {left_out[0]}"] if left_out else []
    if not cases:
        what = f" ({notes[0]})" if notes else ""
        raise DataError(f"{root}: no case folder with imaging.nii.gz and segmentation.nii.gz below it{what}")
    return cases, notes


def with_patients(cases: Sequence[Any], table: Path) -> tuple[list[Any], list[str]]:
    """The cases, their patients as a table says, and notes on lines that no case has.

    Args:
        cases: of any source.
        table: CSV with the columns case and patient; an empty patient, or `unknown`, is not known.

    Raises:
        ConfigError: no such table.
        DataError: malformed, or a case that it does not name.
    """
    rows = read_csv_table(
        table,
        _FORM,
        lambda fields, where: {"item": fields["case"], "patient": parse_patient(fields["patient"])},
    )
    stated = {row["item"]: row["patient"] for row in rows}
    lacking = [case for case in cases if case.name not in stated]
    if lacking:
        more = f" (and {len(lacking) - 1} more)" if len(lacking) > 1 else ""
        raise DataError(
            f"{table}: has no line for the case {lacking[0].name}{more}, of {lacking[0].where}: add it, the patient "
            "may be empty"
        )
    rest = sorted(stated.keys() - {case.name for case in cases})
    notes = [f"{table} names {len(rest)} cases that are not there, first {rest[0]}"] if rest else []
    return [dataclasses.replace(case, patient=stated[case.name]) for case in cases], notes


def pseudonymised(cases: Sequence[Any], key_file: Path) -> list[Any]:
    """The cases with keyed hashes in place of their names and patients.

    The same key gives the same pseudonyms, so that stores of one lab agree. Whoever has the key and a list of names can
    lead back from them: keep it in the lab.

    Args:
        cases: of any source.
        key_file: at least 16 bytes from a random source; made where it is not there.

    Raises:
        DataError: a key that is too short or cannot be read; two patients whose names differ in writing alone.
        OutputError: it cannot be made.
    """
    _refuse_alike({case.patient for case in cases if case.patient is not None})
    key = _key(key_file)

    def hashed(kind: str, name: str) -> str:
        return f"{kind}-{hmac.new(key, f'{kind} {name}'.encode(), 'sha256').hexdigest()[:16]}"

    changed = [
        dataclasses.replace(
            case,
            name=hashed("case", case.name),
            patient=None if case.patient is None else hashed("patient", case.patient),
        )
        for case in cases
    ]
    return sorted(changed, key=lambda case: case.name)  # the order of the names would tell of them


def _refuse_alike(patients: Collection[str]) -> None:
    """Raises DataError where one patient may stand under two names: hashed, nobody would see it any more."""
    written: dict[str, str] = {}
    for patient in sorted(patients):
        other = written.setdefault(plain_name(patient), patient)
        if other != patient:
            raise DataError(
                f"--pseudonyms: the patients {other!r} and {patient!r} differ in case, separators or leading zeros "
                "alone, which hashes would hide for good: give both one name, or names that tell two, by --patients"
            )


def _part(path: Path) -> tuple[str, str] | None:
    """("imaging" or "segmentation", case) of a file of a case; None for others, what a Mac adds to each among them."""
    if path.name.startswith("._"):
        return None
    for suffix in _SUFFIXES:
        if path.name.endswith(suffix):
            stem = path.name.removesuffix(suffix)
            for kind in (_IMAGE, _LABEL):
                if stem == kind:
                    return kind, path.parent.name
                if stem.endswith(f"_{kind}"):
                    return kind, stem.removesuffix(f"_{kind}")
    return None


def _key(key_file: Path) -> bytes:
    try:
        if not key_file.exists():
            with atomic_path(key_file) as temporary:
                temporary.write_text(secrets.token_hex(32) + "\n", encoding="ascii")
            key_file.chmod(0o600)
    except OSError as error:
        raise OutputError(f"{key_file}: cannot be written ({error.strerror or error}): choose another file") from error
    try:
        key = key_file.read_bytes().strip()
    except OSError as error:
        raise DataError(f"{key_file}: cannot be read ({error.strerror or error})") from None
    if len(key) < _MIN_KEY:
        raise DataError(f"{key_file}: a key of {len(key)} bytes can be guessed; give {_MIN_KEY} random ones at least")
    return key
