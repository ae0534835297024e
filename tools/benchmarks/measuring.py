"""What the benchmarks share: measure in turns, compare round by round, print and write tables."""

import gc
import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table as _RichTable

from pathzoo.fileio import write_text


class Spread(NamedTuple):
    """The median of several measurements, and the smallest and largest of them."""

    median: float
    low: float
    high: float

    def show(self, digits: int = 3) -> str:
        """As `12.3 (11.9..12.8)`, to `digits` significant digits."""
        return f"{_figures(self.median, digits)} ({_figures(self.low, digits)}..{_figures(self.high, digits)})"


@dataclass(frozen=True)
class Table:
    """Rows of text under headings."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]

    def markdown(self) -> str:
        """As a GitHub table under its title."""
        lines = [self.columns, ("---",) * len(self.columns), *self.rows]
        return f"**{self.title}**\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def in_turns(arms: Mapping[str, Callable[[], float]], rounds: int, warmup: int = 1) -> dict[str, list[float]]:
    """Measures A B C, B C A, C A B, ...: what else the machine does meanwhile hits all of them alike.

    Args:
        arms: name -> what measures once and returns the value.
        rounds: measurements of each that count.
        warmup: rounds before, which do not count.

    Returns:
        name -> `rounds` values; the n-th of every name belong to the same round.
    """
    names = list(arms)
    values: dict[str, list[float]] = {name: [] for name in names}
    for number in range(-warmup, rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            gc.collect()
            value = arms[name]()
            if number >= 0:
                values[name].append(value)
    return values


def spread(values: Sequence[float]) -> Spread:
    """Median and range of at least one value."""
    return Spread(statistics.median(values), min(values), max(values))


def ratio(values: Sequence[float], base: Sequence[float]) -> Spread:
    """Median and range of the ratios `values / base`, each of two values of the same round."""
    return spread([value / below for value, below in zip(values, base, strict=True)])


def machine(threads: int | None = None, device: str = "cpu") -> str:
    """One line on what ran: processor, cores, GPU, versions. No host name."""
    import torch

    gpu = f", {torch.cuda.get_device_name()}" if device.startswith("cuda") else ""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = torch.get_num_threads() if threads is None else threads
    load = os.getloadavg()[0]
    return (
        f"{_processor()}, {cores} cores, {threads} torch threads{gpu}; Python {platform.python_version()}, "
        f"torch {torch.__version__}; load at the start {load:.1f}"
    )


def publish(tables: Sequence[Table], note: str, markdown: Path | None = None) -> None:
    """Prints the tables, and writes them with `note` (how and on what it was measured) to a Markdown file."""
    # Never narrower than the widest table: a number that is cut off is worse than a wrapped line.
    console = Console(width=max(Console().width, 140))
    for table in tables:
        shown = _RichTable(title=table.title, title_justify="left", box=None, pad_edge=False)
        for column in table.columns:
            shown.add_column(column, no_wrap=True)
        for row in table.rows:
            shown.add_row(*row)
        console.print(shown)
        console.print()
    console.print(note, highlight=False)
    if markdown is not None:
        write_text(markdown, "\n".join(table.markdown() for table in tables) + f"\n{note}\n")


def _figures(value: float, digits: int) -> str:
    """`value` to `digits` significant digits, without an exponent for what benchmarks give."""
    return f"{value:#.{digits}g}".rstrip(".") if abs(value) < 10**digits else f"{value:.0f}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
