"""Small stores of CT slices for the tests: who is where is given, and every slice has pixels of its own."""

from pathlib import Path

import numpy as np

from pathzoo.ct.store import SliceStore
from pathzoo.ct.store_writer import slice_store_writer
from pathzoo.datasets.splits import Split, SplitItem, Subset

CLASSES = ("background", "kidney", "tumour")
#: subset -> its patients
COHORT = {"train": ("P0", "P1", "P2", "P3"), "val": ("P4",), "test": ("P5", "P6")}


def draw_slice(name: str, size: tuple[int, int], kind: int) -> tuple[np.ndarray, np.ndarray]:
    """HU and label of a slice; `kind` 0 shows nothing, 1 kidney, 2 kidney and tumour. The name decides on the noise."""
    width, height = size
    rng = np.random.default_rng(list(name.encode()))
    label = np.zeros((height, width), np.uint8)
    if kind:
        label[height // 4 : height // 2, width // 4 : width // 2] = 1
    if kind == 2:
        label[height // 4 : height // 3, width // 4 : width // 3] = 2
    image = rng.normal(0, 20, label.shape) + np.array([-50, 150, 60])[label]
    return image.round().astype(np.int16), label


def write_slices(
    folder: Path,
    size: tuple[int, int] = (24, 16),
    each: int = 3,
    cohort: dict[str, tuple[str, ...]] | None = None,
    known_range: tuple[float, float] | None = None,
    phantom: bool = True,
    group_key: str = "patient",
    same: tuple[str, str] | None = None,
    renamed: dict[str, str] | None = None,
) -> Path:
    """A store of `each` slices per patient, showing nothing, kidney, kidney and tumour in turn.

    `same` names two items that get the same bytes; `renamed` are patients who stand under another name in the index.
    """
    cohort = COHORT if cohort is None else cohort
    settings = {"size": size, "known_range": known_range, "phantom": phantom, "source": "kits19"}
    with slice_store_writer(folder, **settings) as writer:
        items: dict[str, list[SplitItem]] = {}
        for subset, patients in cohort.items():
            for patient in patients:
                for number in range(each):
                    item = f"case_{patient}/{number:04d}"
                    drawn = draw_slice(same[0] if same and item == same[1] else item, size, number % 3)
                    name = (renamed or {}).get(patient, patient)
                    about = {"item": item, "patient": name, "case": f"case_{patient}", "slice": number}
                    sha256 = writer.add(subset, *drawn, **about, spacing=(0.8, 0.8))
                    items.setdefault(subset, []).append(SplitItem(item, number % 3, sha256, patient))
        subsets = {name: Subset.of(own, group_key) for name, own in items.items()}
        writer.set_split(Split("patient_ratio", subsets, CLASSES, group_key=group_key))
    return folder


def write_synthetic(
    folder: Path,
    store: Path,
    made_from: tuple[tuple[str, str], ...] = (("P0", "0001"), ("P1", "0002"), ("P0", "0002")),
    subset: str = "train",
    record: dict | None = None,
    copy_of: str | None = None,
    patient: str | None = None,
    **settings,
) -> Path:
    """Synthetic slices, each from (patient, slice) of a store.

    `record` is kept of how they were made, by default the store's digest; `patient` stands in place of each one's own;
    `copy_of` is an item of the store whose bytes the first slice gets.
    """
    real = SliceStore(store)
    pixels = {record.item: (name, index) for name in real.subsets for index, record in enumerate(real.records(name))}
    settings = {"size": real.size, "known_range": real.known_range, "phantom": real.phantom} | settings
    record = {"parent_store": real.digest} if record is None else record
    with slice_store_writer(folder, **settings, source="synthetic", synthetic=record) as writer:
        for number, (owner, name) in enumerate(made_from):
            source = f"case_{owner}/{name}"
            drawn = draw_slice(f"made {number}", settings["size"], int(name) % 3)
            if number == 0 and copy_of:
                drawn = real.image(*pixels[copy_of]), real.label(*pixels[copy_of])
            about = {"item": f"synthetic/{number:04d}", "patient": patient or owner, "case": f"case_{owner}"}
            writer.add(subset, *drawn, **about, slice=number, source=source)
    return folder
