"""Writes the store that `pathzoo.ct.store` reads, slice by slice: no pixels are kept in memory."""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pathzoo.ct.store import CLASSES, FORMAT, SOURCES, slice_sha256, store_digest, store_source
from pathzoo.ct.subset_files import SubsetFiles
from pathzoo.datasets.splits import Split
from pathzoo.errors import ConfigError, DataError, OutputError
from pathzoo.fileio import sha256_file, write_json
from pathzoo.wsi.outputs import atomic_folder


@contextmanager
def slice_store_writer(
    folder: str | os.PathLike,
    *,
    size: tuple[int, int],
    classes: Sequence[str] = CLASSES,
    known_range: tuple[float, float] | None = None,
    phantom: bool = False,
    source: str,
    split: Split | None = None,
    synthetic: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Iterator["SliceStoreWriter"]:
    """Gives a writer of a store that appears whole or not at all.

    Args:
        folder: of the store; may not exist.
        size: (width, height) of every slice in pixels.
        classes: names in the order of the label values; the second and third are counted as kidney and tumour.
        known_range: (low, high) HU outside which the source was clipped; None where HU are whole.
        phantom: whether drawn bodies are in it.
        source: "kits19", "dicom", "pictures" or "synthetic".
        split: who is in which subset; `SliceStoreWriter.set_split` takes one that is known only after the slices are.
            It has to name exactly the slices added, with their SHA-256.
        synthetic: how the slices were made; needed for the source "synthetic", which alone needs no split.
        overwrite: replace a store that is there, once the new one is complete.

    Raises:
        ConfigError: an argument out of its choices; a folder that is there and holds anything but a store.
        DataError: no slice was added; the split is missing or names others.
        OutputError: the folder exists, without `overwrite`; it cannot be written (disk full, no permission), and
            nothing is left behind.
    """
    folder = Path(folder)
    content = _content(size, classes, known_range, phantom, source, synthetic)
    refuse_target(folder, overwrite, source == "synthetic")
    raised_inside: BaseException | None = None
    try:
        with atomic_folder(folder, overwrite) as temporary:
            writer = SliceStoreWriter(temporary, folder, content, split)
            try:
                yield writer
            except BaseException as error:
                raised_inside = error
                raise
            finally:
                writer.close()
            writer.finish()
    except OSError as error:
        if error is raised_inside:  # not of our writing
            raise
        raise _cannot_write(folder, error) from error


def refuse_target(folder: Path, overwrite: bool, synthetic: bool = False) -> None:
    """Raises where a store may not be written, so that a user is told before anything long begins.

    Args:
        folder: of the store.
        overwrite: whether a store that is there may be replaced.
        synthetic: whether synthetic slices are to be written: they replace synthetic ones alone, real ones real ones.

    Raises:
        OutputError: the folder exists, and may not be overwritten.
        ConfigError: it exists and holds anything but a store of the same kind, which is never replaced.
    """
    if folder.exists() and not overwrite:
        raise OutputError(f"{folder}: exists already; remove it, choose another folder, or pass --overwrite")
    if not folder.exists():
        return
    there = store_source(folder)
    if there is None:
        raise ConfigError(f"{folder}: exists and is not a store of slices, so it is not replaced: choose another")
    if (there == "synthetic") != synthetic:
        holds, comes = ("real", "synthetic") if synthetic else ("synthetic", "real")
        raise ConfigError(f"{folder}: holds {holds} slices, which {comes} ones do not replace: choose another folder")


class SliceStoreWriter:
    """Writes slices one after the other; made by `slice_store_writer`.

    Args:
        folder: empty, where to write.
        name: of the store in the end, for messages.
        content: store.json without subsets and digest.
        split: see `slice_store_writer`.
    """

    def __init__(self, folder: Path, name: Path, content: dict[str, Any], split: Split | None) -> None:
        self._folder, self._name, self._content, self._split = folder, name, content, split
        self._open: dict[str, SubsetFiles] = {}
        self._items: dict[str, dict[str, str]] = {}
        self._subset_of: dict[str, str] = {}

    @property
    def items(self) -> Mapping[str, Mapping[str, str]]:
        """What was added so far: subset -> item -> SHA-256 of the slice, as a split wants them."""
        return self._items

    def set_split(self, split: Split) -> None:
        """Gives the split where it was not known at the start."""
        self._split = split

    def add(
        self,
        subset: str,
        image: np.ndarray,
        label: np.ndarray,
        *,
        item: str,
        patient: str | None,
        case: str,
        slice: int,
        position: float | None = None,
        spacing: tuple[float, float] | None = None,
        source: str | None = None,
    ) -> str:
        """Appends a slice to a subset.

        Args:
            subset: "train", "val", "test" or another name that can be a folder's.
            image: int16 (H, W), Hounsfield units.
            label: uint8 (H, W), indices into the classes.
            item: its id, unlike all others of the store.
            patient: None where not known.
            case, slice: the volume, and the slice's number in it from 0, rising to the head.
            position: z in mm, None where not known.
            spacing: (row, column) mm per stored pixel, None where not known.
            source: item of the slice that a synthetic one has its label map from.

        Returns:
            SHA-256 of the slice.

        Raises:
            DataError: another shape or type, a label value that is no class, an item that stands already, a synthetic
                slice without a patient or without its source.
            OutputError: it cannot be written.
        """
        self._check(subset, image, label, item, patient, spacing, source)
        sha256 = slice_sha256(image, label)
        kidney, tumour = (int((label == value).sum()) for value in (1, 2))
        row, column = ("", "") if spacing is None else (float(spacing[0]), float(spacing[1]))
        line = (item, patient or "", case, slice, _number(position), row, column, kidney, tumour, source or "", sha256)
        try:
            if subset not in self._open:
                self._open[subset] = SubsetFiles(self._folder / subset)
            self._open[subset].write(image, label, line)
        except OSError as error:
            raise _cannot_write(self._name, error) from error
        self._items.setdefault(subset, {})[item] = sha256
        self._subset_of[item] = subset
        counts = self._content["subsets"].setdefault(subset, {"n": 0, "patients": set(), "kidney": 0, "tumour": 0})
        counts["n"] += 1
        counts["patients"] |= {patient} - {None}
        counts["kidney"] += kidney > 0
        counts["tumour"] += tumour > 0
        return sha256

    def finish(self) -> None:
        """Writes what is known only now: heads of the arrays, splits.json, store.json.

        Raises:
            DataError: no slice, or a split that does not fit.
        """
        if not self._items:
            raise DataError(f"{self._name}: no slice to store: the source or the choice of slices leaves none")
        self._check_split()
        width, height = self._content["size"]
        for name, files in self._open.items():
            own = self._content["subsets"][name]
            files.finish(own["n"], height, width)
            own["patients"] = len(own["patients"])
            own["digest"] = sha256_file(self._folder / name / "index.csv")
        if self._split is not None:
            self._split.save(self._folder / "splits.json")
        write_json(self._folder / "store.json", {**self._content, "digest": store_digest(self._content)})

    def close(self) -> None:
        """Closes the files; what was not written through is told of here."""
        for files in self._open.values():
            files.close()

    def _check(
        self,
        subset: str,
        image: np.ndarray,
        label: np.ndarray,
        item: str,
        patient: str | None,
        spacing: tuple[float, float] | None,
        source: str | None,
    ) -> None:
        width, height = self._content["size"]
        if not subset.isidentifier():
            raise ConfigError(f"subset {subset!r}: give a name of letters, such as train")
        for kind, array, wanted in (("image", image, np.int16), ("label", label, np.uint8)):
            if array.shape != (height, width) or array.dtype != wanted:
                raise DataError(
                    f"{item}: {kind} is {array.dtype} {array.shape}; this store takes {np.dtype(wanted)} "
                    f"({height}, {width})"
                )
        if label.max() >= len(self._content["classes"]):
            raise DataError(
                f"{item}: label value {label.max()}; the classes are 0 to {len(self._content['classes']) - 1}"
            )
        if item in self._subset_of:
            raise DataError(f"{item}: stands already in {self._subset_of[item]}: give each slice a name of its own")
        if spacing is not None and not all(0 < value < math.inf for value in spacing):
            raise DataError(f"{item}: spacing {spacing}: give mm per pixel above 0, or None where not known")
        if self._content["source"] == "synthetic" and not (patient and source):
            raise DataError(
                f"{item}: a synthetic slice needs the patient and the item (source) that its label map is from"
            )

    def _check_split(self) -> None:
        if self._split is None:
            if self._content["source"] != "synthetic":
                raise DataError(f"{self._name}: no split: give who is in which subset, or set_split")
            return
        named = {name: dict(part.items) for name, part in self._split.subsets.items()}
        if named != self._items:
            wrong = sorted({*named} ^ {*self._items}) or [name for name in named if named[name] != self._items[name]]
            raise DataError(f"{self._name}: the split and the slices added differ in {wrong[0]!r}: deal them again")


def _content(
    size: tuple[int, int],
    classes: Sequence[str],
    known_range: tuple[float, float] | None,
    phantom: bool,
    source: str,
    synthetic: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """store.json without digest, its subsets still empty."""
    if source not in SOURCES:
        raise ConfigError(f"source={source!r}: give one of {', '.join(SOURCES)}")
    if (source == "synthetic") != (synthetic is not None):
        raise ConfigError('give `synthetic`, a record of how they were made, for source="synthetic" and for no other')
    if len(size) != 2 or min(size) < 1:
        raise ConfigError(f"size={size!r}: give (width, height) in pixels, above 0")
    if known_range is not None and not known_range[0] < known_range[1]:
        raise ConfigError(f"known_range={known_range!r}: give (low, high) in HU, low below high")
    return {
        "format": FORMAT,
        "size": [int(value) for value in size],
        "classes": list(classes),
        "known_range": None if known_range is None else [float(value) for value in known_range],
        "phantom": bool(phantom),
        "source": source,
        "synthetic": None if synthetic is None else dict(synthetic),
        "subsets": {},
    }


def _number(value: float | None) -> str:
    return "" if value is None else repr(round(float(value), 6))


def _cannot_write(folder: Path, error: OSError) -> OutputError:
    return OutputError(
        f"{folder}: cannot be written ({error.strerror or error}); nothing was left behind: make room or "
        "choose another folder"
    )
