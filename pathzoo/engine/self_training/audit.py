"""How far a round of pseudo-labels may be trusted: counts by region, rows by class, warnings.

A row is of one class of one round, or of all classes together (`class` is "all"):

    predicted_pixels    pixels of this class in the teacher's prediction of the unlabelled part
    kept_pixels         those of them that became pseudo-labels
    kept_share          kept_pixels / predicted_pixels
    predicted_mix       the class's share of all predicted pixels
    kept_mix            its share of all kept pixels
    labelled_mix        its share of the labelled pixels that are trained on
    threshold           lowest probability that is kept
    mean_confidence     mean probability of the predicted class, over its predicted pixels
    agreement           of the pixels kept in the round before and in this one, and then of this class: the share that
                        still is
    kappa               agreement of all classes corrected by what their mixes give by chance (Cohen 1960)
    precision           share of the kept pixels that are right; of pixels whose truth is known, as the next two
    recall              of the class's true pixels that are kept under any label, the share that is right
    found               of all of the class's true pixels, kept or not, the share that is kept and right

What is not known or not defined (no round before, no truth, no such pixel) is None, an empty cell of the table.
"""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathzoo.engine.self_training.confidence import LEVELS, lowest_probability, probability_of
from pathzoo.engine.self_training.policies import NOT_KEPT
from pathzoo.errors import ConfigError
from pathzoo.evaluation.functional import confusion_counts
from pathzoo.fileio import write_text

#: The name of the row of all classes.
ALL = "all"
COLUMNS = (
    "round",
    "epoch",
    "class",
    "predicted_pixels",
    "kept_pixels",
    "kept_share",
    "predicted_mix",
    "kept_mix",
    "labelled_mix",
    "threshold",
    "mean_confidence",
    "agreement",
    "kappa",
    "precision",
    "recall",
    "found",
)


@dataclass(frozen=True)
class Counts:
    """What is counted in the regions of a round.

    Args:
        kept: (C,) pixels kept.
        before: (C, C) pixels kept in the round before and now [class then, class now]; None for a first round.
        right: (C, C) kept pixels of known truth [truth, pseudo-label]; None where no truth is known.
        truth: (C,) pixels of known truth, kept or not; None likewise.
    """

    kept: NDArray[np.int64]
    before: NDArray[np.int64] | None = None
    right: NDArray[np.int64] | None = None
    truth: NDArray[np.int64] | None = None


def count_region(
    labels: NDArray[np.uint8],
    n_classes: int,
    before: NDArray[np.uint8] | None = None,
    truth: NDArray[np.uint8] | None = None,
) -> Counts:
    """Counts one region: (H, W) label maps in which 255 is no label."""
    return Counts(
        kept=_histogram(labels, n_classes),
        before=None if before is None else _joint(before, labels, n_classes),
        right=None if truth is None else _joint(truth, labels, n_classes),
        truth=None if truth is None else _histogram(truth, n_classes),
    )


def sum_counts(parts: Iterable[Counts]) -> Counts:
    """The counts of several regions; what only some have (truth) is the sum over those."""
    parts = list(parts)
    sums = {}
    for name in ("kept", "before", "right", "truth"):
        found = [value for value in (getattr(part, name) for part in parts) if value is not None]
        sums[name] = np.sum(found, axis=0, dtype=np.int64) if found else None
    return Counts(**sums)


def audit_rows(
    number: int,
    epoch: int,
    classes: Sequence[str],
    histogram: NDArray[np.integer],
    lowest: NDArray[np.integer],
    counts: Counts,
    labelled: NDArray[np.integer],
) -> list[dict[str, Any]]:
    """The rows of one round: first of all classes together, then of each.

    Args:
        number: of the round, from 1.
        epoch: epochs trained before it.
        classes: C names.
        histogram: (C, 256) pixels by predicted class and level of confidence.
        lowest: (C,) lowest level kept.
        counts: summed over the regions.
        labelled: (C,) labelled pixels that are trained on.
    """
    predicted, probs = histogram.sum(axis=1), probability_of(np.arange(LEVELS))
    sure = histogram @ probs
    right = None if counts.right is None else np.diag(counts.right)
    same = None if counts.before is None else np.diag(counts.before)
    rows = [
        {
            "class": ALL,
            "predicted_pixels": int(predicted.sum()),
            "kept_pixels": int(counts.kept.sum()),
            "kept_share": _share(counts.kept.sum(), predicted.sum()),
            "mean_confidence": _share(sure.sum(), predicted.sum()),
            "agreement": None if same is None else _share(same.sum(), counts.before.sum()),
            "kappa": None if counts.before is None else cohen_kappa(counts.before),
            "precision": None if right is None else _share(right.sum(), counts.right.sum()),
            "found": None if right is None else _share(right.sum(), counts.truth.sum()),
        }
    ]
    for index, name in enumerate(classes):
        row = {
            "class": name,
            "predicted_pixels": int(predicted[index]),
            "kept_pixels": int(counts.kept[index]),
            "kept_share": _share(counts.kept[index], predicted[index]),
            "predicted_mix": _share(predicted[index], predicted.sum()),
            "kept_mix": _share(counts.kept[index], counts.kept.sum()),
            "labelled_mix": _share(labelled[index], labelled.sum()),
            "threshold": lowest_probability(int(lowest[index])) if predicted[index] else None,
            "mean_confidence": _share(sure[index], predicted[index]),
        }
        if same is not None:
            row["agreement"] = _share(same[index], counts.before[index].sum())
        if right is not None:
            row["precision"] = _share(right[index], counts.right[:, index].sum())
            row["recall"] = _share(right[index], counts.right[index].sum())
            row["found"] = _share(right[index], counts.truth[index])
        rows.append(row)
    return [{name: {"round": number, "epoch": epoch, **row}.get(name) for name in COLUMNS} for row in rows]


def cohen_kappa(confusion: NDArray[np.integer]) -> float | None:
    """Agreement beyond chance of two labellings, from their (C, C) counts; None where chance alone gives 1, or none."""
    total = int(confusion.sum())
    if not total:
        return None
    observed = np.trace(confusion) / total
    by_chance = float(confusion.sum(axis=0) / total @ (confusion.sum(axis=1) / total))
    return None if by_chance >= 1 else float((observed - by_chance) / (1 - by_chance))


@dataclass(frozen=True)
class Alarm:
    """When a round is warned of.

    Args:
        dies_below: a class whose share of the kept pixels is less than this part of its share of the labelled ones,
            or that has none. A tenth: patients differ in how much of a lesion they show, and with few of them the
            mix of two parts differs by factors of two or three by chance, not of ten; and at a tenth of its share a
            class hardly weighs in the loss any more.
        certainty_below: mean confidence on a scale from 0 (all classes equally likely, 1/C) to 1. Under a quarter
            (0.5 for three classes) the predicted class is on average no likelier than all others together.
        certainty_drop: fall of that number since the round before. Trained on their own predictions networks get
            surer from round to round; a fall by a fifth of the scale is training that goes apart.
        kept_below: share of pixels kept. Of under a hundredth nothing is to be learnt.

    Raises:
        ConfigError: a limit that is no number from 0 to 1.
    """

    dies_below: float = 0.1
    certainty_below: float = 0.25
    certainty_drop: float = 0.2
    kept_below: float = 0.01

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
                raise ConfigError(f"{name}={value!r}: give a number from 0 to 1")


def warnings_of(
    rows: Sequence[Mapping[str, Any]], before: Sequence[Mapping[str, Any]] | None, alarm: Alarm
) -> list[str]:
    """What is wrong with a round, a sentence each.

    Args:
        rows: of `audit_rows`.
        before: those of the round before, if there is one.
        alarm: the limits.
    """
    whole, by_class = rows[0], rows[1:]
    found = []
    for row in by_class:
        wanted = row["labelled_mix"] or 0.0
        if wanted and not row["kept_pixels"]:
            found.append(
                f"class {row['class']} has died out: none of the kept pixels, {wanted:.2%} of the labelled ones "
                f"({row['predicted_pixels']} pixels were predicted to be it)"
            )
        elif (row["kept_mix"] or 0.0) < alarm.dies_below * wanted:
            found.append(
                f"class {row['class']} is dying out: {row['kept_mix']:.2%} of the kept pixels, {wanted:.2%} of the "
                "labelled ones"
            )
    sure = _certainty(whole, len(by_class))
    if sure is not None and sure < alarm.certainty_below:
        found.append(
            f"confidence has collapsed: {whole['mean_confidence']:.3f} on average, where a guess has "
            f"{1 / len(by_class):.3f}"
        )
    earlier = _certainty(before[0], len(by_class)) if before else None
    if sure is not None and earlier is not None and earlier - sure > alarm.certainty_drop:
        found.append(
            f"confidence is collapsing: {whole['mean_confidence']:.3f} on average, in the round before "
            f"{before[0]['mean_confidence']:.3f}"
        )
    if (whole["kept_share"] or 0.0) < alarm.kept_below:
        found.append(
            f"{whole['kept_share'] or 0.0:.2%} of the pixels are kept: nothing to learn from; lower the threshold"
        )
    return found


def write_table(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes rows as CSV, whole or not at all; numbers to six digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([f"{value:.6g}" if isinstance(value, float) else value for value in map(row.get, COLUMNS)])
    write_text(path, text.getvalue())


def _certainty(row: Mapping[str, Any], n_classes: int) -> float | None:
    confidence, guess = row["mean_confidence"], 1 / n_classes
    return None if confidence is None or n_classes < 2 else (confidence - guess) / (1 - guess)


def _histogram(labels: NDArray[np.uint8], n_classes: int) -> NDArray[np.int64]:
    counts = np.bincount(labels.ravel(), minlength=NOT_KEPT + 1)
    return counts[:n_classes].astype(np.int64)


def _joint(first: NDArray[np.uint8], second: NDArray[np.uint8], n_classes: int) -> NDArray[np.int64]:
    """(C, C) pixels by the labels of two maps, of those that have one in both."""
    labelled = second < n_classes
    return confusion_counts(first[labelled], second[labelled], n_classes, NOT_KEPT)


def _share(part: Any, whole: Any) -> float | None:
    return float(part) / float(whole) if whole else None
