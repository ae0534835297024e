"""How well CT slices are segmented: per slice as Choe et al. average, and per patient as KiTS19 is judged."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from pathzoo.errors import DataError
from pathzoo.evaluation.functional import segmentation
from pathzoo.evaluation.functional.bootstrap import bootstrap_replicates, cluster_index
from pathzoo.evaluation.functional.classification import FloatArray, IntArray, divide
from pathzoo.evaluation.functional.rows import Row, make_row

_OWN = "over the slices where the class occurs in truth or prediction"


def slice_report(
    counts: ArrayLike,
    patients: Sequence[str | None] | None,
    classes: Sequence[str],
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> list[Row]:
    """Means over slices and over patients, from the counts of pixels of each slice.

    IoU of class c in a slice is |P and G| / |P or G|, P and G the pixels predicted and labelled as c. Choe et al.
    ("Generative Adversarial Networks Based Data Augmentation to Address Medical Data Imbalances") report the IoU per
    slice, averaged, without saying over which classes and what one that is absent counts; both readings are given.

    Level slice, means over slices:
        slice_iou: of the slice's mean IoU over the classes, background too, that occur in its truth or prediction.
        slice_iou_absent_1: the same over all classes; one that occurs in neither counts as 1.
        slice_iou_foreground: as slice_iou without the background, over slices where another class occurs in either.
        slice_iou_CLASS: IoU of each class but the background, over slices where it occurs in either.
    Level patient, means over known patients, all slices of each taken together:
        patient_dice_CLASS: 2 |P and G| / (|P| + |G|) over patients who have the class; one in whom it is missed counts
            0. It is the Dice per case that KiTS19's challenge ranks by (Heller et al., 2021), but for its joining of
            kidney and tumour.
        patient_false_CLASS: of the last class, the one not everybody has (tumour): share of the patients without it in
            whom a pixel of it is predicted.

    Args:
        counts: pixels of each slice by true and predicted class (N, C, C), C >= 2, class 0 the background; see
            `confusion_counts`. Slices without a labelled pixel are left out.
        patients: patient of each slice, None where unknown; None for all unknown, and then there is no interval.
        classes: C names.
        n_bootstrap: resamples of patients for the intervals, each drawn with all slices; 0 for none.
        seed: of the resampling.

    Returns:
        Rows in the order above, ready for JSON.

    Raises:
        DataError: nothing to evaluate, or shapes that do not fit.
    """
    matrices = _checked(counts, classes)
    who: list[str | None] = [None] * len(matrices) if patients is None else list(patients)
    if len(who) != len(matrices):
        raise DataError(f"{len(who)} patients for {len(matrices)} slices: give one for each, None where unknown")
    names = ("slice_iou", "slice_iou_absent_1", "slice_iou_foreground", *(f"slice_iou_{name}" for name in classes[1:]))
    notes = [
        "",
        "",
        "over the slices where a class other than the background occurs in truth or prediction",
        *[_OWN] * (len(classes) - 1),
    ]
    rows = _mean_rows(names, "slice", slice_values(matrices), who, notes, n_bootstrap, seed)
    known, own = _by_patient(matrices, who)
    names = (*(f"patient_dice_{name}" for name in classes[1:]), f"patient_false_{classes[-1]}")
    notes = ["over the patients who have the class"] * (len(classes) - 1) + ["over the patients without the class"]
    left_out = sum(patient is None for patient in who)
    if left_out:
        notes = [f"{note}; {left_out} slices without a known patient are left out" for note in notes]
    return rows + _mean_rows(names, "patient", patient_values(own), known, notes, n_bootstrap, seed)


def slice_values(counts: ArrayLike) -> FloatArray:
    """What is averaged over slices: counts (N, C, C) -> (N, 2 + C), NaN where undefined.

    Mean IoU over the classes that occur, over all with absent ones as 1, over those but the background that occur; then
    the IoU of each class but the background.
    """
    per_class = segmentation.iou(counts)
    absent = np.isnan(per_class)
    labelled = np.asarray(counts).any(axis=(-2, -1))
    values = [
        segmentation.macro(per_class, counts),
        np.where(labelled, np.where(absent, 1.0, per_class).mean(axis=-1), np.nan),
        divide(np.where(absent, 0.0, per_class)[:, 1:].sum(axis=-1), (~absent[:, 1:]).sum(axis=-1)),
    ]
    return np.concatenate([np.stack(values, axis=-1), per_class[:, 1:]], axis=-1)


def patient_values(counts: ArrayLike) -> FloatArray:
    """What is averaged over patients: counts (N, C, C) of each -> (N, C), NaN where undefined.

    Dice of each class but the background where the patient has it; then, of the last class, 1 where it is predicted in
    a patient without it and 0 where not.
    """
    matrices = np.asarray(counts)
    has = matrices.sum(axis=2) > 0  # (N, C)
    dice = np.where(has, segmentation.f1(matrices), np.nan)[:, 1:]
    false = np.where(has[:, -1:] | ~has.any(axis=1, keepdims=True), np.nan, matrices[:, :, -1:].sum(axis=1) > 0)
    return np.concatenate([dice, false], axis=1)


def _checked(counts: ArrayLike, classes: Sequence[str]) -> IntArray:
    matrices, C = np.asarray(counts, dtype=np.int64), len(classes)
    if matrices.size == 0:
        raise DataError("no slices to evaluate: the set is empty")
    if C < 2 or matrices.ndim != 3 or matrices.shape[1:] != (C, C) or matrices.min() < 0:
        raise DataError(f"counts {matrices.shape} do not fit {C} classes: give (N, C, C) of pixels with C >= 2")
    return matrices


def _by_patient(matrices: IntArray, patients: Sequence[str | None]) -> tuple[list[str | None], IntArray]:
    """Known patients, and the counts of all slices of each (P, C, C)."""
    names = sorted({patient for patient in patients if patient is not None})
    place = {name: index for index, name in enumerate(names)}
    own = np.zeros((len(names), *matrices.shape[1:]), dtype=np.int64)
    for matrix, patient in zip(matrices, patients, strict=True):
        if patient is not None:
            own[place[patient]] += matrix
    return [*names], own


def _mean_rows(
    names: Sequence[str],
    level: str,
    values: FloatArray,
    patients: Sequence[str | None],
    notes: Sequence[str],
    n_bootstrap: int,
    seed: int,
) -> list[Row]:
    """Means of the columns of `values` (N, K) over what is defined, with intervals over the patients of the N rows."""
    defined = ~np.isnan(values)
    filled = np.where(defined, values, 0.0)
    clusters = cluster_index(patients) if n_bootstrap else None
    drawn, remark = None, ""
    if clusters is not None:
        n = int(clusters.max()) + 1
        sums = [np.zeros((n, values.shape[1])) for _ in range(2)]
        for total, part in zip(sums, (filled, defined), strict=True):
            np.add.at(total, clusters, part)  # rows of one patient are drawn together
        drawn = bootstrap_replicates(lambda w: divide(w @ sums[0], w @ sums[1]), np.arange(n), n_bootstrap, seed)
        if unknown := sum(patient is None for patient in patients):
            remark = f"{unknown} {level}s without a known patient are resampled as one group"
    elif n_bootstrap:
        remark = "no interval: fewer than two known patients"
    numbers = defined.sum(axis=0)
    means = divide(filled.sum(axis=0), numbers)
    return [
        make_row(name, level, int(numbers[k]), means[k], None if drawn is None else drawn[:, k], [notes[k], remark])
        for k, name in enumerate(names)
    ]
