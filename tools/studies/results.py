"""The rows of a study: a CSV that only grows, and the table that a README shows of it."""

import csv
from collections.abc import Sequence
from pathlib import Path

from pathzoo.errors import DataError
from pathzoo.fileio import atomic_path, write_text

#: What identifies a run. Two rows that agree in these are the same run.
KEYS = ("scale", "data", "arm", "seed", "config_digest", "data_digest")
START, END = "<!-- results: drawn by tools/reproduce.py -->", "<!-- end of results -->"


def column(metric: str, level: str) -> str:
    """The name of a metric's column, such as `recognition_rate_patient`."""
    return f"{metric}_{level}"


#: (metric, level) of the figures that a study keeps.
Metrics = Sequence[tuple[str, str]]


def columns(metrics: Metrics) -> tuple[str, ...]:
    """The columns of a study's file, in their order."""
    figures = (column(*metric) + end for metric in metrics for end in ("", "_low", "_high"))
    return (*KEYS, "status", "n_images", "n_patients", *figures, "pathzoo", "note")


class Results:
    """Rows of a study's file, each a dict of strings with the keys `columns(metrics)`."""

    def __init__(self, path: Path, metrics: Metrics) -> None:
        self.path, self.columns = path, columns(metrics)

    def rows(self) -> list[dict[str, str]]:
        """All rows, the oldest first; none where the file is not there yet.

        Raises:
            DataError: The file has other columns.
        """
        if not self.path.exists():
            return []
        with self.path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) != self.columns:
                raise DataError(f"{self.path}: its columns are not those of this version; give another --results file")
            return list(reader)

    def has(self, row: dict[str, object]) -> bool:
        """Whether a finished row agrees with `row` in every key."""
        return any(
            all(old[key] == str(row[key]) for key in KEYS) and (old["status"] == "done" or row.get("status") != "done")
            for old in self.rows()
        )

    def append(self, row: dict[str, object]) -> None:
        """Adds a row; the file is replaced whole."""
        rows = [*self.rows(), {name: "" if row.get(name) is None else str(row[name]) for name in self.columns}]
        with atomic_path(self.path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


def metric_columns(rows: list[dict], metrics: Metrics) -> dict[str, object]:
    """The columns of `metrics` from metric rows (metric, level, n, value, low, high), to four digits."""
    found: dict[str, object] = {}
    for row in rows:
        if (row["metric"], row["level"]) in metrics:
            name = column(row["metric"], row["level"])
            for end, key in (("", "value"), ("_low", "low"), ("_high", "high")):
                found[name + end] = None if row[key] is None else f"{row[key]:.4f}"
    return found


def shown(row: dict[str, str], metric: str, level: str) -> str:
    """`0.812 [0.700, 0.920]`, without the interval where there is none, or a dash."""
    name = column(metric, level)
    if not row[name]:
        return "–"
    low, high = row[name + "_low"], row[name + "_high"]
    interval = f" [{float(low):.3f}, {float(high):.3f}]" if low and high else ""
    return f"{float(row[name]):.3f}{interval}"


def replace_table(readme: Path, table: str) -> None:
    """Puts `table` between the two marks of a README.

    Raises:
        DataError: The README lacks the marks.
    """
    text = readme.read_text(encoding="utf-8") if readme.exists() else f"{START}\n{END}\n"
    if START not in text or END not in text:
        raise DataError(f"{readme}: lacks the marks {START!r} and {END!r} that the table stands between")
    head, rest = text.split(START, 1)
    write_text(readme, f"{head}{START}\n\n{table.strip()}\n\n{END}{rest.split(END, 1)[1]}")
