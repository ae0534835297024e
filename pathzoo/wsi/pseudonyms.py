"""Names that say nothing of a slide, and the table that leads back from them."""

import csv
import fcntl
import os
import re
import secrets
from collections.abc import Iterable
from pathlib import Path

from pathzoo.errors import DataError
from pathzoo.fileio import atomic_path
from pathzoo.wsi.claims import WITHOUT_LOCKS

_HEADER = ["slide", "pseudonym"]


def table_beside(out: str | os.PathLike[str]) -> Path:
    """Where the table for the output folder `out` belongs: beside it, never in it.

    Raises:
        DataError: Beside `out` there is nothing: it is the root of the file system.
    """
    folder = Path(os.path.abspath(out))  # noqa: PTH100 - "." has no name of its own; resolve() would follow links
    if not folder.name:
        raise DataError(f"{out}: has nothing beside it for the table of pseudonyms; choose another output folder")
    return folder.parent / f"{folder.name}.names.csv"


def pseudonyms(table: Path, names: Iterable[str]) -> dict[str, str]:
    """Gives every name a pseudonym such as `slide-4f2a91c0`, drawn at random, and keeps the pairs in a CSV.

    Names that stand in the table already keep their pseudonym, so that a later run over more slides agrees with it.
    Several processes may do this at once. Whoever has the table can lead results back to slides: it stays in the lab.

    Args:
        table: A CSV with the columns slide, pseudonym; made or added to, whole or not at all.
        names: What to rename.

    Returns:
        name -> pseudonym of the names asked for.

    Raises:
        DataError: The table cannot be read or written, or is another kind of table.
    """
    wanted = list(dict.fromkeys(names))
    try:
        table.parent.mkdir(parents=True, exist_ok=True)
        handle = _locked(table)
        try:
            known = _read(table)
            missing = [name for name in wanted if name not in known]
            taken = set(known.values())
            for name in missing:
                known[name] = _draw(taken)
                taken.add(known[name])
            if missing:
                _write(table, known)
        finally:
            os.close(handle)
    except OSError as error:
        raise DataError(f"{table}: cannot be written: {error.strerror or error}") from error
    return {name: known[name] for name in wanted}


def without_names(text: str, path: Path, title: str) -> str:
    """`text` with the pseudonym `title` wherever it tells of the slide at `path`: its path, its name, also in parts."""
    for place in (path.resolve(), path.absolute(), path):
        text = text.replace(str(place), title)
    for name in (path.name, path.stem):
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", title, text, flags=re.IGNORECASE)
    return text


def _locked(table: Path) -> int:
    """The table, open and locked. Writing puts a new file in its place, so it is looked whether it still stands."""
    while True:
        handle = os.open(table, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in WITHOUT_LOCKS:
                os.close(handle)
                raise
        if table.exists() and os.path.samestat(table.stat(), os.fstat(handle)):
            return handle
        os.close(handle)


def _draw(taken: set[str]) -> str:
    while (drawn := f"slide-{secrets.token_hex(4)}") in taken:
        pass
    return drawn


def _read(table: Path) -> dict[str, str]:
    if not table.stat().st_size:  # just made
        return {}
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if reader.fieldnames != _HEADER:
                raise DataError(f"{table}: has the columns {reader.fieldnames}, not {_HEADER}: is it another table?")
            return {row["slide"]: row["pseudonym"] for row in reader}
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table}: is no CSV in UTF-8 ({error}): is it another table?") from error


def _write(table: Path, known: dict[str, str]) -> None:
    with atomic_path(table) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_HEADER)
        writer.writerows(known.items())
