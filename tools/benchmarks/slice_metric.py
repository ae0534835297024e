"""Milliseconds per CT slice that its metric takes: SliceMetric against what a user would write, 3 classes.

    python tools/benchmarks/slice_metric.py [--slices 64 --size 512] [--device cpu] [--markdown FILE]

All get the same predictions as the evaluator hands them over in validation: mmseg's samples as dicts, int64 maps,
batches of 8. The time is that of `process` for all batches and of `evaluate`, which adds up; SliceMetric also gives
what SegmentationMetric does, over pixels, slices and patients. The plain ways give means over slices and patients
alone:

    numpy masks     a loop over slices and classes: masks of truth and prediction, sums of their `&` and `|`
    scikit-learn    confusion_matrix of each slice

`confusion_counts` on uint8 maps is the counting alone, without torch and samples. The benchmark ends where a plain way
finds another value.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from arms import one_thread
from measuring import Table, in_turns, machine, publish, ratio, spread
from sklearn.metrics import confusion_matrix

from pathzoo.apis.setup import setup
from pathzoo.evaluation.functional import confusion_counts
from pathzoo.evaluation.metrics import SliceMetric

CLASSES = ("background", "kidney", "tumour")
_BATCH, _PER_PATIENT = 8, 8
_OURS, _PROCESS, _EVALUATE = "SliceMetric", "SliceMetric, process", "SliceMetric, evaluate"
_FLOOR = "confusion_counts (numpy, uint8)"

#: truth and prediction of a slice (H, W) -> pixels of both, of the truth, of the prediction, for each class (3, C)
Counting = Callable[[np.ndarray, np.ndarray], np.ndarray]


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints; returns 0."""
    args = _parser().parse_args(argv)
    setup()
    where = machine(threads=1, device=args.device)
    with one_thread():
        values = _measure(samples(args.size, args.slices, args.device), args)
    rows = [(name, spread(found).show(), ratio(found, values[_OURS]).show()) for name, found in values.items()]
    title = f"Metric of {args.slices} slices of {args.size} px, {len(CLASSES)} classes, as in validation"
    note = (
        f"Medians (range) of {args.rounds} rounds in turns, after one to warm up; one thread; label maps on "
        f"{args.device}; all find the same values. {where}."
    )
    publish([Table(title, ("", "ms per slice", "this / SliceMetric"), rows)], note, args.markdown)
    return 0


def samples(size: int, slices: int, device: str = "cpu", seed: int = 0) -> list[dict]:
    """mmseg's samples as the evaluator hands them over.

    Slices show two kidneys, some a tumour, some nothing; predictions miss some edges and some tumours, and see some
    that are not there. Patients have 8 slices each.
    """
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size] / size
    made = []
    for index in range(slices):
        truth = np.zeros((size, size), np.int64)
        if index % 4:
            for x in (0.3, 0.7):
                truth[_disc(rows, columns, rng.normal((0.55, x), 0.02), 0.09)] = 1
        prediction = np.roll(truth, (2, 1), (0, 1))
        tumour = _disc(rows, columns, rng.normal((0.55, 0.36), 0.02), 0.04)
        # By halves: those of a tumour that is found, missed, or not there.
        if index // _PER_PATIENT % 2 and index % 4:
            truth[tumour] = 2
        if index % 3:
            prediction[tumour] = 2
        patient = index // _PER_PATIENT
        made.append(
            {
                "item": f"case_{patient:05d}/{index:04d}",
                "patient": f"p{patient}",
                "slide": f"case_{patient:05d}",
                "store": "store",
                "subset": "val",
                "slice_index": index,
                "hu_window": (-200.0, 200.0),
                "region_index": index,
                "sample_idx": index,
                "patch_x": 0,
                "patch_y": 0,
                "gt_sem_seg": {"data": torch.from_numpy(truth[None]).to(device)},
                "pred_sem_seg": {"data": torch.from_numpy(prediction[None]).to(device)},
            }
        )
    return made


def _disc(rows: np.ndarray, columns: np.ndarray, centre: np.ndarray, radius: float) -> np.ndarray:
    return (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < radius**2


def by_masks(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Counts of a slice by a mask for each class; see `Counting`."""
    counts = []
    for value in range(len(CLASSES)):
        there, guess = truth == value, prediction == value
        counts.append(((there & guess).sum(), there.sum(), guess.sum()))
    return np.array(counts).T


def by_sklearn(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Counts of a slice by scikit-learn; see `Counting`."""
    matrix = confusion_matrix(truth.ravel(), prediction.ravel(), labels=range(len(CLASSES)))
    return np.stack([matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)])


def plain_values(data: Sequence[dict], count: Counting) -> dict[str, float]:
    """What SliceMetric logs of slices and patients, from the samples, as a user would write it."""
    ious, of_patient = [], {}
    for sample in data:
        truth, prediction = (sample[key]["data"][0].cpu().numpy() for key in ("gt_sem_seg", "pred_sem_seg"))
        both, there, guess = counts = count(truth, prediction)
        union = there + guess - both
        ious.append(np.where(union, both / np.maximum(union, 1), np.nan))
        of_patient[sample["patient"]] = of_patient.get(sample["patient"], 0) + counts
    per_class = np.array(ious)
    foreground = per_class[:, 1:][~np.isnan(per_class[:, 1:]).all(axis=1)]
    values = {
        "slice_iou": np.nanmean(per_class, axis=1).mean(),
        "slice_iou_absent_1": np.nan_to_num(per_class, nan=1.0).mean(),
        "slice_iou_foreground": np.nanmean(foreground, axis=1).mean(),
    }
    for value, name in list(enumerate(CLASSES))[1:]:
        values[f"slice_iou_{name}"] = np.nanmean(per_class[:, value])
        own = [counts[:, value] for counts in of_patient.values() if counts[1, value]]
        values[f"patient_dice_{name}"] = np.mean([2 * both / (there + guess) for both, there, guess in own])
    without = [counts for counts in of_patient.values() if not counts[1, -1]]
    values[f"patient_false_{CLASSES[-1]}"] = np.mean([counts[2, -1] > 0 for counts in without])
    return {name: float(value) for name, value in values.items()}


def _measure(data: list[dict], args: argparse.Namespace) -> dict[str, list[float]]:
    """way -> ms per slice of each round; the two parts of SliceMetric beside their sum."""
    metric = SliceMetric(n_bootstrap=0)
    metric.dataset_meta = {"classes": CLASSES}
    maps = [
        tuple(sample[key]["data"][0].cpu().numpy().astype(np.uint8) for key in ("gt_sem_seg", "pred_sem_seg"))
        for sample in data
    ]
    found: dict[str, dict[str, float]] = {}
    parts: dict[str, list[float]] = {_PROCESS: [], _EVALUATE: []}

    def ours() -> None:
        started = time.perf_counter()
        for start in range(0, len(data), _BATCH):
            metric.process({}, data[start : start + _BATCH])
        between = time.perf_counter()
        found[_OURS] = metric.evaluate(len(data))
        for name, seconds in ((_PROCESS, between - started), (_EVALUATE, time.perf_counter() - between)):
            parts[name].append(seconds * 1000 / len(data))

    def plain(name: str, count: Counting) -> Callable[[], None]:
        def run() -> None:
            found[name] = plain_values(data, count)

        return run

    ways: dict[str, Callable[[], object]] = {
        _FLOOR: lambda: [confusion_counts(*pair, len(CLASSES)) for pair in maps],
        _OURS: ours,
        "numpy masks": plain("numpy masks", by_masks),
        "scikit-learn": plain("scikit-learn", by_sklearn),
    }
    values = in_turns({name: _timed(work, len(data)) for name, work in ways.items()}, args.rounds)
    _refuse_other_values(found)
    values |= {name: taken[-args.rounds :] for name, taken in parts.items()}  # without the round to warm up
    return {name: values[name] for name in (_FLOOR, _OURS, _PROCESS, _EVALUATE, *list(ways)[2:])}


def _timed(work: Callable[[], object], slices: int) -> Callable[[], float]:
    def run() -> float:
        started = time.perf_counter()
        work()
        return (time.perf_counter() - started) * 1000 / slices

    return run


def _refuse_other_values(found: dict[str, dict[str, float]]) -> None:
    for way, values in found.items():
        for name, value in values.items() if way != _OURS else ():
            ours = found[_OURS].get(name, float("nan"))
            if not np.isclose(value, ours, rtol=1e-9, atol=0, equal_nan=True):
                raise SystemExit(f"{name}: SliceMetric finds {ours}, {way} {value}: nothing to compare")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--size", type=int, default=512, metavar="PX", help="side of a slice")
    parser.add_argument("--slices", type=int, default=64, help="of the set; 8 a patient")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu", help="where the label maps lie: cpu or cuda")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
