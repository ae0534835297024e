"""Rows of metrics.json: a number, its n, its interval, and in words what is amiss with them."""

from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np

from pathzoo.evaluation.functional.bootstrap import percentile_interval
from pathzoo.evaluation.functional.classification import FloatArray


class _Row(TypedDict):
    metric: str
    level: str
    n: int
    value: float | None
    low: float | None
    high: float | None


class Row(_Row, total=False):
    """One number of metrics.json: `value` over `n` units of `level`, `low`..`high` its 95 % interval over patients.

    `value` is None where it is undefined, `low` and `high` where there is no interval; `note` then says why.
    """

    note: str


def make_row(
    metric: str, level: str, n: int, value: float, replicates: FloatArray | None = None, notes: Sequence[str] = ()
) -> Row:
    """A row, ready for JSON.

    Args:
        metric: its name.
        level: what is counted by `n`.
        n: how many.
        value: NaN where it is undefined.
        replicates: the metric over resampled patients (R,), NaN where undefined; None for no interval.
        notes: remarks; empty ones and repetitions are dropped. What the interval suffers from is added.
    """
    remarks = list(notes)
    row = Row(metric=metric, level=level, n=n, value=None, low=None, high=None)
    if not np.isnan(value):
        row["value"] = float(value)
        if replicates is not None:
            interval = percentile_interval(replicates)
            row["low"], row["high"] = interval.low, interval.high
            remarks.append(_interval_note(float(value), interval.low, interval.high, interval.undefined))
    text = "; ".join(dict.fromkeys(filter(None, remarks)))
    if text:
        row["note"] = text
    return row


def digits(value: Any) -> str:
    """The shortest decimal that reads back to the same number of its own type; "" for NaN. For tables."""
    return "" if np.isnan(value) else str(value)


def _interval_note(value: float, low: float | None, high: float | None, undefined: float) -> str:
    if low is None or high is None:
        return f"no interval: too few patients of a class (undefined in {undefined:.0%} of the resamples)"
    if low == high:
        return "all resamples agree: the interval understates the doubt"
    if not low <= value <= high:
        return "biased by resampling so few images: the interval does not hold the value"
    if undefined > 0:
        return f"{undefined:.1%} of the resamples lack a class and are left out"
    return ""
