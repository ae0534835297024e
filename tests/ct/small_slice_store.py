"""A small store of random slices, and what is in it."""

import hashlib

import numpy as np

from pathzoo.ct.store import SliceStore
from pathzoo.ct.store_writer import slice_store_writer
from pathzoo.datasets.splits import Split, SplitItem, Subset

W, H = 7, 5
SUBSETS = {"train": 3, "test": 2}


def pixels(seed):
    rng = np.random.default_rng(seed)
    return rng.integers(-1024, 3000, (H, W)).astype(np.int16), rng.integers(0, 3, (H, W)).astype(np.uint8)


def sha(seed):
    image, label = pixels(seed)
    return hashlib.sha256(image.astype("<i2").tobytes() + label.tobytes()).hexdigest()


def slices():
    """(subset, seed, item, patient) of each slice of the sample store."""
    for subset, count in SUBSETS.items():
        for number in range(count):
            yield subset, 10 * len(subset) + number, f"{subset}_case/{number:04d}", f"P {subset}, one"


def split():
    items = [(subset, SplitItem(item, 2, sha(seed), patient)) for subset, seed, item, patient in slices()]
    return Split(
        "patient_ratio",
        {name: Subset.of([item for subset, item in items if subset == name]) for name in SUBSETS},
        ("background", "kidney", "tumour"),
    )


def fill(writer):
    for subset, seed, item, patient in slices():
        number = int(item[-4:])
        writer.add(
            subset,
            *pixels(seed),
            item=item,
            patient=patient,
            case=f"{subset}_case",
            slice=number,
            position=-3.5 * number,
            spacing=(0.8, 0.75),
        )


def build(folder, **options):
    options = {"size": (W, H), "source": "kits19", "split": split(), **options}
    with slice_store_writer(folder, **options) as writer:
        fill(writer)
    return SliceStore(folder)
