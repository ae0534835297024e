"""The rows of a study: a CSV that only grows, and the table that a README shows of it."""

import csv
import fcntl
import os
import statistics
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pathzoo.errors import ConfigError, DataError
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
        """Adds a row; the file is replaced whole. Several processes may add to one file, each on a GPU for instance."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with _alone_in(self.path.parent):
            rows = [*self.rows(), {name: "" if row.get(name) is None else str(row[name]) for name in self.columns}]
            with atomic_path(self.path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, self.columns, lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Waits until no other process of this kind writes in a folder. Locks the folder itself: no file is left behind."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


#: A row of the file.
Row = dict[str, str]


def comparable(rows: Sequence[Row]) -> tuple[list[Row], str]:
    """The rows that a table may show beside each other and average, and a paragraph on those it may not.

    Of each (scale, data, arm, seed) the newest row counts, a finished one before one that was not run. Of the finished
    rows of an arm those count that have the config digest of the newest: what was run with other settings is left
    out, not averaged. So it is with the data digest, but for data whose name begins with "phantom", which is drawn
    anew for each seed.

    Args:
        rows: The oldest first.

    Returns:
        The rows that count, ordered by when their seed first had one, and a paragraph that counts and names the seeds
        left out; "" where there are none.
    """
    done = [row for row in rows if row["status"] == "done"]
    current = {_arm(row): _made_by(row) for row in done}
    seeds = {(*_arm(row), row["seed"]): row for row in rows}
    seeds |= {(*_arm(row), row["seed"]): row for row in done}
    seeds |= {(*_arm(row), row["seed"]): row for row in done if _made_by(row) == current[_arm(row)]}
    kept, left = [], {}
    for row in seeds.values():
        if row["status"] != "done" or _made_by(row) == current[_arm(row)]:
            kept.append(row)
        else:
            left.setdefault(_arm(row), []).append(row["seed"])
    return kept, _left_out(left, len({_arm(row)[:2] for row in rows}) > 1)


def _arm(row: Row) -> tuple[str, str, str]:
    return row["scale"], row["data"], row["arm"]


def _made_by(row: Row) -> tuple[str, str]:
    """What has to be the same for all seeds of an arm."""
    data, _, _ = row["data_digest"].partition("-")  # what follows a dash tells how a seed has dealt the same data
    return row["config_digest"], "" if row["data"].startswith("phantom") else data


def _left_out(left: dict[tuple[str, str, str], list[str]], several: bool) -> str:
    if not left:
        return ""
    count = sum(map(len, left.values()))
    named = (
        f"{f'{data}, {scale} scale, ' if several else ''}{arm} (seed{'s' * (len(seeds) > 1)} {', '.join(seeds)})"
        for (scale, data, arm), seeds in left.items()
    )
    return (
        f"Left out: {count} row{'s' * (count > 1)} made with other settings, or of other data, than the newest of the "
        f"same arm (by config_digest and data_digest), which must not be averaged with it: {'; '.join(named)}."
    )


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


def spread(values: Sequence[float], form: str = ".3f") -> str:
    """Mean and standard deviation over seeds: `0.812 ± 0.020`, one value alone, or a dash."""
    if not values:
        return "–"
    deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):{form}}{deviation}"


def paired_gain(mine: dict[str, float], base: dict[str, float]) -> str:
    """What `mine` has over `base` by seed: `+0.026 ± 0.007 (5 of 5 above 0)`, or a dash where no seed has both."""
    gains = [mine[seed] - base[seed] for seed in sorted(set(mine) & set(base))]
    if not gains:
        return "–"
    return f"{spread(gains, '+.3f')} ({sum(gain > 0 for gain in gains)} of {len(gains)} above 0)"


def floats(rows: Sequence[dict[str, str]], name: str) -> list[float]:
    """A column's figures, of the rows that have one."""
    return [float(row[name]) for row in rows if row[name]]


def chosen_arms(arguments: Namespace, arms: Sequence[Any], usual: Sequence[Any]) -> tuple[Any, ...]:
    """The arms that `--arms` names, in the study's order, or the usual ones.

    Raises:
        ConfigError: A name that no arm has.
    """
    if not arguments.arms:
        return tuple(usual)
    unknown = set(arguments.arms) - {arm.name for arm in arms}
    if unknown:
        raise ConfigError(f"--arms: no arm {sorted(unknown)}; there are {[arm.name for arm in arms]}")
    return tuple(arm for arm in arms if arm.name in arguments.arms)


def chosen_seeds(arguments: Namespace, phantom: bool) -> range:
    """`--seeds` seeds from `--first-seed` on; of a phantom from 100 on, since 0 to 4 are for development."""
    first = arguments.first_seed if arguments.first_seed is not None else (100 if phantom else 0)
    return range(first, first + arguments.seeds)


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
