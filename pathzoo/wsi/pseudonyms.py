"""Names that say nothing of a slide, and the table that leads back from them."""

import csv
import fcntl
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from pathzoo.errors import DataError
from pathzoo.fileio import atomic_path

_HEADER = ["slide", "pseudonym"]


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
        handle = os.open(table.parent, os.O_RDONLY)
    except OSError as error:
        raise DataError(f"{table}: cannot be written: {error.strerror or error}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        known = _read(table)
        missing = [name for name in wanted if name not in known]
        for name in missing:
            known[name] = _draw(set(known.values()))
        if missing:
            _write(table, known)
    finally:
        os.close(handle)
    return {name: known[name] for name in wanted}


def _draw(taken: set[str]) -> str:
    while (drawn := f"slide-{secrets.token_hex(4)}") in taken:
        pass
    return drawn


def _read(table: Path) -> dict[str, str]:
    if not table.exists():
        return {}
    with table.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames != _HEADER:
            raise DataError(f"{table}: has the columns {reader.fieldnames}, not {_HEADER}: is it another table?")
        return {row["slide"]: row["pseudonym"] for row in reader}


def _write(table: Path, known: dict[str, str]) -> None:
    try:
        with atomic_path(table) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(_HEADER)
            writer.writerows(known.items())
    except OSError as error:
        raise DataError(f"{table}: cannot be written: {error.strerror or error}") from error
