"""Axial CT slices of one size with their labels, in a folder that is read in place. Needs no torch.

    STORE/store.json            what it holds: size, classes, source, counts and a digest of each subset, its own digest
    STORE/splits.json           whose slices are in which subset (not in a store of synthetic slices)
    STORE/train/images.npy      int16 (N, H, W), Hounsfield units
    STORE/train/labels.npy      uint8 (N, H, W), 0 background, 1 kidney, 2 tumour
    STORE/train/index.csv       one line per slice, see `COLUMNS`

The .npy files are plain: `np.load(path, mmap_mode="r")` reads them. `pathzoo.ct.store_writer` writes a store. A
subset's digest is the SHA-256 of its index.csv, which holds the SHA-256 of every slice; the store's digest is that of
the canonical JSON of the rest of store.json. So it covers pixels, labels, names, patients and places.
"""

import csv
import hashlib
import io
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pathzoo.datasets.splits import Split
from pathzoo.errors import ConfigError, DataError
from pathzoo.fileio import canonical_json, sha256_bytes

FORMAT = 1
CLASSES = ("background", "kidney", "tumour")
SOURCES = ("kits19", "dicom", "pictures", "synthetic")
#: Of index.csv. `position`: z in mm, rising to the head, empty where not known. `spacing_row`, `spacing_column`: mm per
#: stored pixel, empty where not known. `kidney`, `tumour`: pixels of the stored label. `source`: the item that a
#: synthetic slice has its label map from. `sha256`: of the stored image's bytes, then the label's.
COLUMNS = (
    "item",
    "patient",
    "case",
    "slice",
    "position",
    "spacing_row",
    "spacing_column",
    "kidney",
    "tumour",
    "source",
    "sha256",
)
_FIELDS = ("size", "classes", "known_range", "phantom", "source", "synthetic", "subsets", "digest")
_REMEDY = "copy the store again or build it anew"


@dataclass(frozen=True)
class SliceRecord:
    """What is known of a slice.

    Attributes:
        item: its id, unlike all others of the store, such as "case_00000/0042".
        patient: None where not known. A synthetic slice has the patient of its label map.
        case: the volume.
        slice: its number in the volume, from 0, rising to the head.
        position: z in mm, None where not known.
        spacing: (row, column) mm per stored pixel, None where not known.
        kidney, tumour: pixels of the stored label.
        source: item of the slice that a synthetic one has its label map from, else None.
        sha256: of the stored image's bytes, then the label's, 64 hexadecimal digits.
    """

    item: str
    patient: str | None
    case: str
    slice: int
    position: float | None
    spacing: tuple[float, float] | None
    kidney: int
    tumour: int
    source: str | None
    sha256: str


class SliceStore:
    """A store of slices, open for reading; a pickled one opens again by its folder, in a worker for instance.

    Opening reads store.json and the heads of the .npy files; index.csv is read at the first use.

    Args:
        folder: of the store.

    Attributes:
        folder: as given.
        size: (width, height) in pixels.
        classes: names in the order of the label values.
        known_range: (low, high) HU outside which the source was clipped; None where HU are whole.
        phantom: whether drawn bodies are in it.
        source: "kits19", "dicom", "pictures" or "synthetic".
        synthetic: how the slices were made, for synthetic ones.
        digest: SHA-256 over all that is in the store.
        subsets: their names.
        counts: subset -> {"n", "patients", "kidney", "tumour"}: slices, known patients, slices that show a class.

    Raises:
        ConfigError: no such folder.
        DataError: not a store, of another format, changed since it was built, a file missing or of another shape than
            store.json says.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        self.folder = Path(folder)
        content = _read_content(self.folder)
        self.size: tuple[int, int] = (int(content["size"][0]), int(content["size"][1]))
        self.classes: tuple[str, ...] = tuple(content["classes"])
        known = content["known_range"]
        self.known_range: tuple[float, float] | None = None if known is None else (float(known[0]), float(known[1]))
        self.phantom: bool = content["phantom"]
        self.source: str = content["source"]
        self.synthetic: dict[str, Any] | None = content["synthetic"]
        self.digest: str = content["digest"]
        self._listed: dict[str, dict[str, Any]] = content["subsets"]
        self.subsets: tuple[str, ...] = tuple(self._listed)
        self.counts = {name: {k: v for k, v in own.items() if k != "digest"} for name, own in self._listed.items()}
        self._arrays: dict[tuple[str, str], np.ndarray] = {}
        self._records: dict[str, tuple[SliceRecord, ...]] = {}
        self._checked: set[tuple[str, int]] = set()
        for name in self.subsets:
            for file in ("images", "labels"):
                self._array(name, file)
            if not (self.folder / name / "index.csv").is_file():
                raise DataError(f"{self.folder / name / 'index.csv'}: missing: {_REMEDY}")

    def __len__(self) -> int:
        return sum(own["n"] for own in self._listed.values())

    def __reduce__(self) -> tuple:
        return SliceStore, (self.folder,)

    def __repr__(self) -> str:
        counts = ", ".join(f"{name} {own['n']}" for name, own in self._listed.items())
        return f"SliceStore({self.folder.name!r}, {self.size[0]} x {self.size[1]} px, {counts})"

    @cached_property
    def split(self) -> Split | None:
        """Who is in which subset; None in a store without splits.json.

        Raises:
            DataError: damaged, or not the split of these slices.
        """
        path = self.folder / "splits.json"
        if not path.is_file():
            if self.synthetic is None:
                raise DataError(f"{path}: missing: {_REMEDY}")
            return None
        split = Split.load(path)
        held = {name: {one.item: one.sha256 for one in self.records(name)} for name in self.subsets}
        if {name: dict(part.items) for name, part in split.subsets.items()} != held:
            raise DataError(f"{path}: does not name the slices of this store: {_REMEDY}")
        return split

    def records(self, subset: str) -> tuple[SliceRecord, ...]:
        """What is known of each slice of a subset, in the order of the arrays.

        Raises:
            ConfigError: no such subset.
            DataError: index.csv was changed.
        """
        if subset not in self._records:
            path, listed = self.folder / subset / "index.csv", self._of(subset)
            data = path.read_bytes()
            if sha256_bytes(data) != listed["digest"]:
                raise DataError(f"{path}: changed since the store was built (its digest differs): {_REMEDY}")
            rows = csv.DictReader(io.StringIO(data.decode("utf-8"), newline=""))
            self._records[subset] = tuple(_record(row) for row in rows)
            if len(self._records[subset]) != listed["n"]:
                raise DataError(f"{path}: {len(self._records.pop(subset))} lines for {listed['n']} slices: {_REMEDY}")
        return self._records[subset]

    def image(self, subset: str, index: int) -> np.ndarray:
        """A slice in Hounsfield units: int16 (H, W), a read-only view of the file."""
        return self._array(subset, "images")[index]

    def label(self, subset: str, index: int) -> np.ndarray:
        """Its label: uint8 (H, W), a read-only view of the file."""
        return self._array(subset, "labels")[index]

    def checked(self, subset: str, index: int) -> tuple[np.ndarray, np.ndarray]:
        """`image` and `label` of a slice, held against its SHA-256 the first time that it is asked for.

        Raises:
            DataError: its pixels are not those that were stored.
        """
        image, label = self.image(subset, index), self.label(subset, index)
        if (subset, index) not in self._checked:
            record = self.records(subset)[index]
            if slice_sha256(image, label) != record.sha256:
                raise DataError(
                    f"{self.folder}: {subset} {record.item}: its pixels are not those that were stored: {_REMEDY}"
                )
            self._checked.add((subset, index))
        return image, label

    def verify(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Reads everything and holds each slice against its SHA-256, and the split against the slices.

        Args:
            progress: called with (slices read, slices in all).

        Raises:
            DataError: names the subset and the first slice whose pixels are not those that were stored.
        """
        _ = self.split
        self._checked.clear()
        done = 0
        for subset in self.subsets:
            for index in range(len(self.records(subset))):
                self.checked(subset, index)
                done += 1
                if progress:
                    progress(done, len(self))

    def _of(self, subset: str) -> dict[str, Any]:
        if subset not in self._listed:
            raise ConfigError(f"{self.folder}: no subset {subset!r}; it has {', '.join(self.subsets)}")
        return self._listed[subset]

    def _array(self, subset: str, name: str) -> np.ndarray:
        """One of a subset's arrays, mapped; its file is checked against store.json when it is opened."""
        if (subset, name) not in self._arrays:
            path = self.folder / subset / f"{name}.npy"
            shape = (self._of(subset)["n"], self.size[1], self.size[0])
            kind = {"images": "<i2", "labels": "|u1"}[name]
            try:
                array = np.load(path, mmap_mode="r", allow_pickle=False)
            except FileNotFoundError:
                raise DataError(f"{path}: missing: {_REMEDY}") from None
            except (OSError, ValueError) as error:
                raise DataError(f"{path}: cannot be read ({error}): {_REMEDY}") from None
            if array.shape != shape or array.dtype != np.dtype(kind):
                raise DataError(
                    f"{path}: {array.dtype} {array.shape}, store.json says {np.dtype(kind)} {shape}: {_REMEDY}"
                )
            self._arrays[subset, name] = np.asarray(array)  # a plain view: np.memmap costs at each look
        return self._arrays[subset, name]


def slice_sha256(image: np.ndarray, label: np.ndarray) -> str:
    """SHA-256 of a stored slice: the bytes of the image (int16, little-endian), then those of the label (uint8)."""
    digest = hashlib.sha256(np.ascontiguousarray(image, "<i2").data)
    digest.update(np.ascontiguousarray(label, np.uint8).data)
    return digest.hexdigest()


def store_digest(content: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON of store.json without its own digest."""
    return sha256_bytes(canonical_json({name: value for name, value in content.items() if name != "digest"}))


def is_store(folder: str | os.PathLike) -> bool:
    """Whether a folder holds a slice store of any format, by its store.json."""
    return store_source(folder) is not None


def store_source(folder: str | os.PathLike) -> str | None:
    """Source of the slice store, of any format, that a folder holds; None where it holds none."""
    try:
        content = json.loads((Path(folder) / "store.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not (isinstance(content, dict) and "subsets" in content and "format" in content):
        return None
    return str(content.get("source"))


def _read_content(folder: Path) -> dict[str, Any]:
    path = folder / "store.json"
    if not folder.is_dir():
        raise ConfigError(
            f"{folder}: no such store of slices; tools/dataset_converters/ct_to_slices.py builds one, "
            "tools/synthesize.py one of drawn slices"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{folder}: not a store of slices, it has no store.json: give the folder of one") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}): {_REMEDY}") from None
    found = content.get("format") if isinstance(content, dict) else type(content).__name__
    if found != FORMAT:
        raise DataError(f"{path}: expected a store of format {FORMAT}, found {found!r}: build it anew")
    missing = [name for name in _FIELDS if name not in content]
    if missing:
        raise DataError(f"{path}: the field {missing[0]!r} is missing: {_REMEDY}")
    if store_digest(content) != content["digest"]:
        raise DataError(f"{path}: changed since the store was built (its digest differs): {_REMEDY}")
    return content


def _record(row: Mapping[str, str]) -> SliceRecord:
    spacing = (float(row["spacing_row"]), float(row["spacing_column"])) if row["spacing_row"] else None
    return SliceRecord(
        item=row["item"],
        patient=row["patient"] or None,
        case=row["case"],
        slice=int(row["slice"]),
        position=float(row["position"]) if row["position"] else None,
        spacing=spacing,
        kidney=int(row["kidney"]),
        tumour=int(row["tumour"]),
        source=row["source"] or None,
        sha256=row["sha256"],
    )
