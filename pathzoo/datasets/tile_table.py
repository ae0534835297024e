"""The CSV that describes a lab's own tiles. Needs no torch.

    path,label,patient,slide,mpp,x,y
    tiles/0001.png,tumour,P07,S12,0.5,10240,8192

`path`, `label` and `patient` are needed (a patient may be empty or `unknown`: not known); the rest is by choice. Other
columns are ignored. UTF-8, with comma, semicolon or tab between the fields, as spreadsheets save it.
"""

import csv
import io
import math
import os
from pathlib import Path
from typing import Any

from pathzoo.datasets.split_schemes import UNKNOWN
from pathzoo.errors import ConfigError, DataError
from pathzoo.nearest import nearest

_NEEDED = ("path", "label", "patient")
_BY_CHOICE = ("slide", "mpp", "x", "y")


def read_tile_table(path: str | Path, data_root: str | Path | None = None) -> list[dict[str, Any]]:
    """Reads and checks the table, not the images.

    Args:
        path: the CSV.
        data_root: what relative image paths are relative to; None for the CSV's folder.

    Returns:
        One dict per line: img_path (absolute), item (POSIX path relative to the root, the image's id), label (str),
        patient (str or None), slide (str or None), mpp (float, microns per pixel, or None), x, y (int, level-0 pixels,
        or None), where ("FILE:LINE", for messages).

    Raises:
        ConfigError: no such file.
        DataError: not text, empty, a missing column, a wrong number of fields, an empty path or label, a path that
            stands twice, a resolution that is not positive, a coordinate that is not a whole number.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"{path}: no such table of tiles; give a CSV with the columns {', '.join(_NEEDED)}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}): save it as UTF-8") from None
    if not text.strip():
        raise DataError(f"{path} is empty: it needs a header line with {', '.join(_NEEDED)} and one line per image")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=text.partition("\n")[0].count))
    try:
        return _rows(path, reader, Path(os.path.abspath(data_root or path.parent)))  # noqa: PTH100 - not through links
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num} is not CSV ({error}): save the table as plain CSV") from None


def _rows(path: Path, reader: Any, root: Path) -> list[dict[str, Any]]:
    header = [name.strip() for name in next(reader)]
    _check_header(path, header)
    rows: list[dict[str, Any]] = []
    first_line: dict[str, str] = {}
    for fields in reader:
        where = f"{path}:{reader.line_num}"
        if not any(field.strip() for field in fields):
            continue
        if len(fields) != len(header):
            raise DataError(
                f"{where} has {len(fields)} fields, the header {len(header)}: quote fields with commas in them"
            )
        row = _parse(dict(zip(header, (field.strip() for field in fields), strict=True)), root, where)
        if row["item"] in first_line:
            raise DataError(
                f"{where}: {row['item']!r} stands already in {first_line[row['item']]}: keep one of the lines"
            )
        first_line[row["item"]] = where
        rows.append(row)
    if not rows:
        raise DataError(f"{path} has a header but no image: add one line per image")
    return rows


def _check_header(path: Path, header: list[str]) -> None:
    for name in _NEEDED:
        if name not in header:
            near = nearest(name, set(header) - {*_NEEDED, *_BY_CHOICE})
            hint = f"rename {near!r}" if near else f"the header is {', '.join(header)}"
            extra = " (it may be empty where not known)" if name == "patient" else ""
            raise DataError(f"{path}:1: the column {name!r} is missing; {hint}{extra}")
    twice = [name for name in header if name and header.count(name) > 1]
    if twice:
        raise DataError(f"{path}:1: the column {twice[0]!r} stands twice: remove one")
    for name in _BY_CHOICE:
        near = [] if name in header else [h for h in header if h.lower() == name]
        if near:
            raise DataError(f"{path}:1: write the column {near[0]!r} as {name!r}")


def _parse(fields: dict[str, str], root: Path, where: str) -> dict[str, Any]:
    for name in ("path", "label"):
        if not fields[name]:
            raise DataError(f"{where}: {name} is empty: fill it or remove the line")
    img_path = os.path.normpath(root / fields["path"])
    patient = fields["patient"]
    return {
        "img_path": img_path,
        "item": Path(os.path.relpath(img_path, root)).as_posix(),
        "label": fields["label"],
        "patient": None if patient.lower() in ("", UNKNOWN) else patient,
        "slide": fields.get("slide") or None,
        "mpp": _mpp(fields.get("mpp", ""), where),
        "x": _whole(fields.get("x", ""), "x", where),
        "y": _whole(fields.get("y", ""), "y", where),
        "where": where,
    }


def _mpp(text: str, where: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (value > 0 and math.isfinite(value)):
        raise DataError(f"{where}: mpp {text!r} is not a positive number of microns per pixel; empty means not known")
    return value


def _whole(text: str, name: str, where: str) -> int | None:
    try:
        return int(text) if text else None
    except ValueError:
        raise DataError(f"{where}: {name} {text!r} is not a whole number of level-0 pixels") from None
