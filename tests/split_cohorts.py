"""Cohorts of items for the tests of splits and of leakage."""

from pathzoo.datasets.splits import SplitItem

CLASSES = ("benign", "malignant")
KFOLD = {"scheme": "patient_kfold", "k": 5, "fold": 0, "seed": 0}
RATIO = {"scheme": "patient_ratio", "ratios": {"train": 0.6, "val": 0.2, "test": 0.2}, "seed": 0}


def item(patient, number, label, sha=None):
    name = f"{patient}/{number}.png"
    return SplitItem(name, label, sha or f"sha of {name}", patient)


def cohort(sizes):
    """Items of patients p0, p1, ... with (label, images) each."""
    return [item(f"p{p}", n, label) for p, (label, count) in enumerate(sizes) for n in range(count)]


def patients_of(split, items):
    return {name: {i.group for i in items if i.item in part.items} for name, part in split.subsets.items()}
