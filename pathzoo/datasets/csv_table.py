"""Tables of images as a lab keeps them in a spreadsheet: what all kinds of them share. Needs no torch.

UTF-8, with comma, semicolon or tab between the fields, as spreadsheets save it. Other columns are ignored.
"""

import csv
import io
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pathzoo.datasets.split_schemes import UNKNOWN
from pathzoo.errors import ConfigError, DataError
from pathzoo.nearest import nearest


@dataclass(frozen=True)
class TableForm:
    """The columns of a kind of table.

    Attributes:
        one: what a line stands for, as in "image".
        many: the plural, as in "tiles".
        needed: columns that have to be there.
        by_choice: columns that are read where they are there.
        may_be_empty: needed column -> when its fields may be empty, for the message about a missing column.
    """

    one: str
    many: str
    needed: tuple[str, ...]
    by_choice: tuple[str, ...] = ()
    may_be_empty: Mapping[str, str] = field(default_factory=dict)


def read_csv_table(
    path: str | Path,
    form: TableForm,
    parse: Callable[[dict[str, str], str], dict[str, Any]],
    problems: list[DataError] | None = None,
) -> list[dict[str, Any]]:
    """Reads and checks a table, not what it names.

    Args:
        path: the CSV.
        form: its columns.
        parse: (column -> stripped text, "FILE:LINE") -> a dict with at least `item`, the line's unique id.
        problems: where given, what is wrong with a line is appended here, the line is left out and reading goes on.

    Returns:
        What `parse` made, a dict per line.

    Raises:
        ConfigError: no such file.
        DataError: not text, empty, a missing column, no line; without `problems` also a wrong number of fields, an item
            that stands twice, and what `parse` raises.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"{path}: no such table of {form.many}; give a CSV with the columns {', '.join(form.needed)}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}): save it as UTF-8") from None
    if not text.strip():
        raise DataError(
            f"{path} is empty: it needs a header line with {', '.join(form.needed)} and one line per {form.one}"
        )
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=text.partition("\n")[0].count))
    try:
        return _rows(path, reader, form, parse, problems)
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num} is not CSV ({error}): save the table as plain CSV") from None


def item_of(image: str, root: Path) -> tuple[str, str]:
    """The normalised path of an image and its id, the POSIX path relative to the root."""
    path = os.path.normpath(root / image)
    return path, Path(os.path.relpath(path, root)).as_posix()


def absolute_root(table: str | Path, data_root: str | Path | None) -> Path:
    """What the paths of a table are relative to: `data_root`, or the table's folder. Links are not followed."""
    return Path(os.path.abspath(data_root or Path(table).parent))  # noqa: PTH100


def parse_patient(text: str) -> str | None:
    """A patient, or None where the field is empty or says unknown."""
    return None if text.lower() in ("", UNKNOWN) else text


def parse_mpp(text: str, where: str) -> float | None:
    """Microns per pixel, None for an empty field.

    Raises:
        DataError: not a positive number.
    """
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (value > 0 and math.isfinite(value)):
        raise DataError(f"{where}: mpp {text!r} is not a positive number of microns per pixel; empty means not known")
    return value


def _rows(
    path: Path,
    reader: Any,
    form: TableForm,
    parse: Callable[[dict[str, str], str], dict[str, Any]],
    problems: list[DataError] | None,
) -> list[dict[str, Any]]:
    header = [name.strip() for name in next(reader)]
    _check_header(path, header, form)
    rows: list[dict[str, Any]] = []
    first_line: dict[str, str] = {}
    lines = 0
    for fields in reader:
        if not any(field.strip() for field in fields):
            continue
        lines += 1
        try:
            row = _row(header, fields, f"{path}:{reader.line_num}", parse, first_line)
        except DataError as error:
            if problems is None:
                raise
            problems.append(error)
            continue
        rows.append(row)
    if not lines:
        raise DataError(f"{path} has a header but no {form.one}: add one line per {form.one}")
    return rows


def _row(
    header: Sequence[str],
    fields: Sequence[str],
    where: str,
    parse: Callable[[dict[str, str], str], dict[str, Any]],
    first_line: dict[str, str],
) -> dict[str, Any]:
    if len(fields) != len(header):
        raise DataError(f"{where} has {len(fields)} fields, the header {len(header)}: quote fields with commas in them")
    row = parse(dict(zip(header, (field.strip() for field in fields), strict=True)), where)
    if row["item"] in first_line:
        raise DataError(f"{where}: {row['item']!r} stands already in {first_line[row['item']]}: keep one of the lines")
    first_line[row["item"]] = where
    return row


def _check_header(path: Path, header: list[str], form: TableForm) -> None:
    for name in form.needed:
        if name not in header:
            near = nearest(name, set(header) - {*form.needed, *form.by_choice})
            hint = f"rename {near!r}" if near else f"the header is {', '.join(header)}"
            extra = f" (it may be empty {form.may_be_empty[name]})" if name in form.may_be_empty else ""
            raise DataError(f"{path}:1: the column {name!r} is missing; {hint}{extra}")
    twice = [name for name in header if name and header.count(name) > 1]
    if twice:
        raise DataError(f"{path}:1: the column {twice[0]!r} stands twice: remove one")
    for name in form.by_choice:
        near = [] if name in header else [h for h in header if h.lower() == name]
        if near:
            raise DataError(f"{path}:1: write the column {near[0]!r} as {name!r}")
