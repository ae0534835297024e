"""All numbers of a segmenter on one set, each with its n and its interval over patients."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from pathzoo.errors import DataError
from pathzoo.evaluation.functional import segmentation
from pathzoo.evaluation.functional.bootstrap import bootstrap_replicates, cluster_index
from pathzoo.evaluation.functional.classification import BoolArray, FloatArray, IntArray, divide
from pathzoo.evaluation.functional.region_tally import PatchSums
from pathzoo.evaluation.functional.rows import Row, make_row

_PER_CLASS = {
    "iou": segmentation.iou,
    "f1": segmentation.f1,
    "precision": segmentation.precision,
    "recall": segmentation.recall,
}
_MACRO = ("miou", "f1", "accuracy")


def segmentation_report(
    counts: ArrayLike,
    patients: Sequence[str | None] | None,
    classes: Sequence[str],
    patches: PatchSums | None = None,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> list[Row]:
    """Every metric of a segmenter, from the counts of pixels of each region (Lee, Park and Lee's measures and more).

    At level pixel, from the counts of the whole set: miou, f1, accuracy (means over the classes that occur in truth or
    prediction; accuracy is each class against the rest), miou_micro, f1_micro (from the counts of all classes, added
    up), pixel_accuracy, and iou_, f1_, precision_, recall_CLASS. At levels patch, region and patient: the mean over
    patches, regions, patients of the same values of each, taken over the classes that occur in it (miou, miou_micro,
    f1, f1_micro, accuracy, iou_CLASS; the last over those where the class occurs). Units without a labelled pixel are
    left out, and n is what remains.

    Args:
        counts: pixels of each region by true and predicted class (N, C, C), C >= 2; see `confusion_counts`.
        patients: patient of each region, None where unknown; None for all unknown, and then there is no interval.
        classes: C names.
        patches: sums over the patches of each region (`RegionTally`); None leaves the rows of level patch out.
        n_bootstrap: resamples of patients for the intervals; 0 for none.
        seed: of the resampling.

    Returns:
        Rows in the order above, ready for JSON: no NaN. A class that occurs nowhere has rows without a value, and the
        means' notes name it.

    Raises:
        DataError: nothing to evaluate, or shapes that do not fit.
    """
    matrices = _checked(counts, classes)
    who = [None] * len(matrices) if patients is None else list(patients)
    if len(who) != len(matrices):
        raise DataError(f"{len(who)} patients for {len(matrices)} regions: give one for each, None where unknown")
    resampling = _Resampling(who, n_bootstrap, seed)
    rows = _pixel_rows(matrices, classes, resampling)
    if patches is not None:
        total = int(patches.patches.sum())
        rows += _mean_rows("patch", patches.totals, patches.defined, total, classes, resampling)
    values = segmentation.unit_values(matrices)
    rows += _mean_rows("region", np.nan_to_num(values), ~np.isnan(values), len(matrices), classes, resampling)
    return rows + _patient_rows(matrices, who, classes, n_bootstrap, seed)


class _Resampling:
    """Which of N regions are drawn together, and what the rows say of it."""

    def __init__(self, patients: Sequence[str | None], n_replicates: int, seed: int):
        self.n_replicates, self.seed = n_replicates, seed
        self.clusters = cluster_index(patients) if n_replicates else None
        unknown = sum(patient is None for patient in patients)
        self.note = ""
        if n_replicates and self.clusters is None:
            self.note = "no interval: fewer than two known patients"
        elif n_replicates and unknown:
            self.note = f"{unknown} regions without a known patient are resampled as one group"

    def replicates(
        self, statistic: Callable[..., FloatArray], *arrays: FloatArray | IntArray | BoolArray
    ) -> FloatArray | None:
        """(R, K): `statistic` of resampled sums of the arrays' rows, which are the N regions'; None without interval.

        Regions of one patient are drawn together, so they are summed first: what is resampled has a row per patient.
        """
        if self.clusters is None:
            return None
        sums = []
        for array in arrays:
            total = np.zeros((int(self.clusters.max()) + 1, array.shape[1]))
            np.add.at(total, self.clusters, array)
            sums.append(total)
        return bootstrap_replicates(
            lambda weights: statistic(*(weights @ total for total in sums)),
            np.arange(len(sums[0])),
            self.n_replicates,
            self.seed,
        )


def _checked(counts: ArrayLike, classes: Sequence[str]) -> IntArray:
    matrices, C = np.asarray(counts, dtype=np.int64), len(classes)
    if matrices.size == 0:
        raise DataError("no regions to evaluate: the test set is empty")
    if C < 2 or matrices.ndim != 3 or matrices.shape[1:] != (C, C) or matrices.min() < 0:
        raise DataError(f"counts {matrices.shape} do not fit {C} classes: give (N, C, C) of pixels with C >= 2")
    if not matrices.any():
        raise DataError("no labelled pixel to evaluate: all of the test set's pixels are ignored")
    return matrices


def _pixel_rows(matrices: IntArray, classes: Sequence[str], resampling: _Resampling) -> list[Row]:
    """From the counts of all regions together; `n` is the number of labelled pixels."""
    C, total = len(classes), matrices.sum(axis=0)
    present = segmentation.occurs(total)

    def values(flat: FloatArray) -> FloatArray:  # (..., C * C) -> (..., K)
        counts = flat.reshape(*flat.shape[:-1], C, C)
        parts = [segmentation.mean_values(counts, present), segmentation.pixel_accuracy(counts)[..., None]]
        return np.concatenate([*parts, *(of(counts) for of in _PER_CLASS.values())], axis=-1)

    names = [*segmentation.MEANS, "pixel_accuracy"]
    names += [f"{prefix}_{name}" for prefix in _PER_CLASS for name in classes]
    notes = _class_notes(total, present, classes)
    replicates = resampling.replicates(values, matrices.reshape(len(matrices), C * C))
    return [
        make_row(
            name,
            "pixel",
            int(total.sum()),
            value,
            None if replicates is None else replicates[:, k],
            [notes.get(name, ""), resampling.note],
        )
        for k, (name, value) in enumerate(zip(names, values(total.reshape(C * C)), strict=True))
    ]


def _class_notes(total: IntArray, present: BoolArray, classes: Sequence[str]) -> dict[str, str]:
    """What each metric of the whole set suffers from, by its name."""
    notes: dict[str, str] = {}
    absent = [name for name, there in zip(classes, present, strict=True) if not there]
    if absent:
        text = f"no pixel of class {', '.join(absent)} in truth or prediction: mean over the other classes"
        notes |= dict.fromkeys(_MACRO, text)
    for k, name in enumerate(classes):
        if not present[k]:
            notes |= dict.fromkeys((f"iou_{name}", f"f1_{name}"), "the class has no pixel in truth or prediction")
        if not total[:, k].any():
            notes[f"precision_{name}"] = "the class is never predicted"
        if not total[k].any():
            notes[f"recall_{name}"] = "the class has no labelled pixel"
    return notes


def _mean_rows(
    level: str,
    totals: FloatArray,
    defined: IntArray | BoolArray,
    n_units: int,
    classes: Sequence[str],
    resampling: _Resampling,
    remark: str = "",
) -> list[Row]:
    """Means over units, from each region's sums of values (N, K) and numbers of units with a value (N, K)."""
    replicates = resampling.replicates(lambda total, number: divide(total, number), totals, defined)
    numbers = defined.sum(axis=0).astype(int)
    values = divide(totals.sum(axis=0), numbers)
    many = {"patch": "patches"}.get(level, f"{level}s")
    bare = n_units - int(numbers[0])
    unlabelled = f"{bare} {many} without a labelled pixel are left out" if bare else ""
    rows = []
    for k, name in enumerate(segmentation.unit_names(classes)):
        notes = [unlabelled]
        if k >= len(segmentation.MEANS):
            notes = [f"over the {many} where the class occurs in truth or prediction"]
            if not numbers[k]:
                notes = [f"the class occurs in no {level}, neither in truth nor in prediction"]
        drawn = None if replicates is None else replicates[:, k]
        rows.append(make_row(name, level, int(numbers[k]), values[k], drawn, [*notes, remark, resampling.note]))
    return rows


def _patient_rows(
    matrices: IntArray, patients: Sequence[str | None], classes: Sequence[str], n_bootstrap: int, seed: int
) -> list[Row]:
    """Means over patients of what follows from all pixels of each."""
    known = [index for index, patient in enumerate(patients) if patient is not None]
    if not known:
        return [make_row("miou", "patient", 0, np.nan, notes=["no known patient"])]
    names, index = np.unique(np.array([patients[k] for k in known], dtype=str), return_inverse=True)
    own = np.zeros((len(names), *matrices.shape[1:]), dtype=np.int64)
    np.add.at(own, index, matrices[known])
    values = segmentation.unit_values(own)
    left_out = len(patients) - len(known)
    remark = f"{left_out} regions without a known patient are left out" if left_out else ""
    resampling = _Resampling([str(name) for name in names], n_bootstrap, seed)
    return _mean_rows("patient", np.nan_to_num(values), ~np.isnan(values), len(names), classes, resampling, remark)
