"""Metric rows as tables that people read: the terminal's and Markdown's."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

_HEADS = ("metric", "level", "n", "value [95 % interval]")


def format_rows(rows: Sequence[Mapping[str, Any]], title: str | None = None) -> Table:
    """The rows of metrics.json (`pathzoo.evaluation.functional.Row`) as a table for `rich.print`.

    Notes stand once each under the table, numbered in the rows they belong to.
    """
    marks = _marks(rows)
    caption = "\n".join(f"({mark}) {note}" for note, mark in marks.items()) or None
    table = Table(title=title, caption=caption, caption_justify="left", title_justify="left")
    for head in _HEADS:
        table.add_column(head, justify="right" if head == "n" else "left", no_wrap=True)
    for row in rows:
        mark = f" ({marks[row['note']]})" if row.get("note") else ""
        table.add_row(row["metric"], row["level"], str(row["n"]), _value(row) + mark)
    return table


def rows_to_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The same as a Markdown table with its notes below, ending in a newline."""
    marks = _marks(rows)
    lines = ["| " + " | ".join(_HEADS) + " |", "|---|---|---:|---|"]
    for row in rows:
        mark = f" ({marks[row['note']]})" if row.get("note") else ""
        lines.append(f"| {row['metric']} | {row['level']} | {row['n']} | {_value(row)}{mark} |")
    if marks:
        lines += ["", *(f"({mark}) {note}  " for note, mark in marks.items())]
    return "\n".join(lines) + "\n"


def _marks(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    notes = dict.fromkeys(row["note"] for row in rows if row.get("note"))
    return {note: number for number, note in enumerate(notes, start=1)}


def _value(row: Mapping[str, Any]) -> str:
    if row["value"] is None:
        return "–"
    if row["low"] is None or row["high"] is None:
        return f"{row['value']:.3f}"
    return f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
