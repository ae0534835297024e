"""Cases of a source -> split by patient -> slice store."""

import hashlib
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pathzoo.ct.geometry import Frame, scaled_size
from pathzoo.ct.store import CLASSES, SliceStore
from pathzoo.ct.store_writer import SliceStoreWriter, refuse_target, slice_store_writer
from pathzoo.ct.volume import AIR, Case
from pathzoo.datasets.split_schemes import rank
from pathzoo.datasets.splits import Split, SplitItem, Subset, check_leakage, resolve_split
from pathzoo.errors import ConfigError, DataError
from pathzoo.fileio import sha256_bytes

#: Millimetres per pixel of any CT, with room to spare: beyond them a number is mistyped, or of another unit.
_FINEST, _COARSEST = 0.01, 100.0
#: From so many labelled pixels on, two patients' label maps are never the same.
_TELLING = 64


@dataclass(frozen=True)
class BuildOptions:
    """What of a source becomes a store, and how.

    Attributes:
        source: "kits19", "dicom" or "pictures".
        ratios: shares of (train, val, test) in the split; val may be 0.
        seed: of the split and of the choice of slices.
        size: (width, height) of the slices; None for the most common one.
        pixel_spacing: mm per pixel that slices are resampled to; None to leave them.
        resize: scale the whole field to `size`, in place of cropping or padding.
        every: keep slices 0, N, 2N, ... of each case.
        only_labelled: keep slices that show kidney or tumour, and `background_rate` of the others.
        background_rate: in 0..1.
        allow_no_kidney: take volumes that show no kidney.
        known_range: (low, high) in HU outside which the source was clipped; None where HU are whole.
        phantom: whether drawn bodies are among them.
        overwrite: replace a store that is there.
    """

    source: str
    ratios: tuple[float, float, float] = (0.7, 0.2, 0.1)
    seed: int = 0
    size: tuple[int, int] | None = None
    pixel_spacing: float | None = None
    resize: bool = False
    every: int = 1
    only_labelled: bool = False
    background_rate: float = 0.0
    allow_no_kidney: bool = False
    known_range: tuple[float, float] | None = None
    phantom: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        rules = (
            ("--size", self.size, self.size is None or min(self.size) > 0, "give W and H in pixels, above 0"),
            (
                "--pixel-spacing",
                self.pixel_spacing,
                self.pixel_spacing is None or _FINEST <= self.pixel_spacing <= _COARSEST,
                f"give mm, {_FINEST:g} to {_COARSEST:g}",
            ),
            ("--pixel-spacing", self.pixel_spacing, not (self.pixel_spacing and self.resize), "not with --resize"),
            ("--every", self.every, self.every >= 1, "give a whole number above 0"),
            ("--background-rate", self.background_rate, 0 <= self.background_rate <= 1, "give a share in 0..1"),
            (
                "--background-rate",
                self.background_rate,
                self.only_labelled or not self.background_rate,
                "it thins out what --only-labelled leaves: give that too",
            ),
        )
        for option, value, good, want in rules:
            if not good:
                raise ConfigError(f"{option} {value}: {want}")


class Chosen(NamedTuple):
    """A slice that is to be stored: where it stands in the volume, and whether its stored label shows each class."""

    item: str
    place: int
    kidney: bool
    tumour: bool


class Built(NamedTuple):
    """A finished store, and what the user should know of it, a sentence each."""

    store: SliceStore
    notes: list[str]


Advance = Callable[[str, int, int], None]


def build_store(
    cases: Sequence[Case], folder: Path, options: BuildOptions, advance: Advance = lambda what, done, total: None
) -> Built:
    """Builds a store: patients are dealt by their labels first, then each volume is read and written.

    Memory is bounded by one volume. The store appears whole or not at all.

    Args:
        cases: each name once.
        folder: of the store.
        options: see there.
        advance: called with (what is done, cases done, cases in all).

    Raises:
        ConfigError: options that do not fit the source.
        DataError: what reading a case raises; no kidney in a volume; two cases with the same pixels, or two patients
            with the same label map; too few patients; nothing left to store.
        LeakageError: a patient on two sides.
        OutputError: as `slice_store_writer`.
    """
    refuse_target(folder, options.overwrite)
    frame, notes = _frame(cases, options)
    chosen: dict[str, list[Chosen]] = {}
    lost = 0
    for number, case in enumerate(cases):
        chosen[case.name], cut = _choose(case, frame, options)
        lost += cut
        advance("labels", number + 1, len(cases))
    if lost:
        notes.append(f"the crop to {frame.size[0]} x {frame.size[1]} px cuts kidney or tumour off {lost} slices")
    items = _split_items(cases, chosen)
    split, caveats = _deal(items, options)
    with slice_store_writer(
        folder,
        size=frame.size,
        known_range=options.known_range,
        phantom=options.phantom,
        source=options.source,
        overwrite=options.overwrite,
    ) as writer:
        filling = _Filling(writer, split, frame)
        for number, case in enumerate(cases):
            filling.add(case, chosen[case.name])
            advance("volumes", number + 1, len(cases))
        writer.set_split(_with_bytes(split, items, writer))
    if filling.blank:
        first = filling.blank[0]
        notes.append(f"{len(filling.blank)} slices of one value throughout, without a label, left out, first {first}")
    return Built(SliceStore(folder), [*notes, *filling.notes, *caveats])


def _frame(cases: Sequence[Case], options: BuildOptions) -> tuple[Frame, list[str]]:
    """How slices are framed; notes on the cases that this changes."""
    sizes = {case.name: scaled_size(case.shape[1:], _plane(case), options.pixel_spacing) for case in cases}
    counts = Counter(sizes.values())
    size = options.size or max(counts, key=lambda one: (counts[one], one))
    fill = AIR if options.known_range is None else max(AIR, round(options.known_range[0]))
    others = [name for name, own in sizes.items() if own != size]
    notes = []
    if others:
        how = "scaled" if options.resize else "centre-cropped or padded with air"
        notes.append(f"{len(others)} of {len(cases)} cases {how} to {size[0]} x {size[1]} px, first {others[0]}")
    return Frame(size, options.pixel_spacing, options.resize, fill), notes


def _plane(case: Case) -> tuple[float, float] | None:
    return None if case.spacing is None else case.spacing[1:]


def _choose(case: Case, frame: Frame, options: BuildOptions) -> tuple[list[Chosen], int]:
    """The slices of a case that are to be stored; how many of them lose labelled pixels to the crop."""
    volume = case.read(with_hu=False)
    if options.source != "pictures" and not options.allow_no_kidney and not (volume.labels == 1).any():
        raise DataError(
            f"{case.where}: no voxel of {case.name} is labelled kidney: check its segmentation, or take such "
            "volumes by --allow-no-kidney"
        )
    chosen, cut = [], 0
    for index in range(0, len(volume.numbers), options.every):
        plane = volume.labels[index]
        label = frame.label(plane, _plane(case))
        kidney, tumour = bool((label == 1).any()), bool((label == 2).any())
        item = f"{case.name}/{volume.numbers[index]:04d}"
        drawn = rank(options.seed, f"background {item}") < options.background_rate * 2**64
        if options.only_labelled and not (kidney or tumour or drawn):
            continue
        chosen.append(Chosen(item, index, kidney, tumour))
        shows = scaled_size(plane.shape, _plane(case), options.pixel_spacing) if not options.resize else frame.size
        if min(np.subtract(frame.size, shows)) < 0:
            whole = Frame(shows, frame.pixel_spacing, frame.resize).label(plane, _plane(case))
            cut += int((whole > 0).sum() > (label > 0).sum())
    return chosen, cut


def _split_items(cases: Sequence[Case], chosen: dict[str, list[Chosen]]) -> list[SplitItem]:
    """A slice as splits see it; its bytes are not known yet, so its name stands for them."""
    items = []
    for case in cases:
        for one in chosen[case.name]:
            shown = (0, *([1] if one.kidney else []), *([2] if one.tumour else []))
            label = 2 if one.tumour else 1 if one.kidney else 0
            items.append(SplitItem(one.item, label, sha256_bytes(one.item.encode()), case.patient, shown))
    if not items:
        raise DataError(f"no slice to store: none of {len(cases)} cases has one that --only-labelled and --every keep")
    return items


def _deal(items: Sequence[SplitItem], options: BuildOptions) -> tuple[Split, list[str]]:
    ratios = dict(zip(("train", "val", "test"), options.ratios, strict=True))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        split = resolve_split(items, {"scheme": "patient_ratio", "ratios": ratios, "seed": options.seed}, CLASSES)
    return split, [str(one.message) for one in caught]


class _Filling:
    """Adds the slices of one case after the other to a store.

    Args:
        writer: of the store.
        split: who is in which subset.
        frame: of the slices.

    Attributes:
        notes: what there is to say of the volumes.
        blank: items left out since they hold one value throughout, and no label.
    """

    def __init__(self, writer: SliceStoreWriter, split: Split, frame: Frame) -> None:
        self._writer, self._frame = writer, frame
        self._subset_of = {item: name for name, part in split.subsets.items() for item in part.items}
        self._seen: dict[bytes, tuple[str, str]] = {}
        self._labels: dict[bytes, tuple[str, Case]] = {}
        self.notes: list[str] = []
        self.blank: list[str] = []

    def add(self, case: Case, chosen: Sequence[Chosen]) -> None:
        """Reads a case and adds its chosen slices; the volume is let go of on return."""
        if not chosen:
            return
        volume, plane = case.read(with_hu=True), _plane(case)
        assert volume.hu is not None and volume.labels is not None  # what was chosen was chosen by its labels
        for one in chosen:
            image, label = (
                self._frame.hu(volume.hu[one.place], plane),
                self._frame.label(volume.labels[one.place], plane),
            )
            # Outside the scanned field all patients look alike: identical bytes on both sides of a split.
            if image.min() == image.max() and not label.any():
                self.blank.append(one.item)
                continue
            _refuse_copy(self._seen, image, one.item, case.name)
            _refuse_twin(self._labels, label, one.item, case)
            self._writer.add(
                self._subset_of[one.item],
                image,
                label,
                item=one.item,
                patient=case.patient,
                case=case.name,
                slice=volume.numbers[one.place],
                position=volume.positions[one.place] if volume.positions else None,
                spacing=self._frame.stored_spacing(case.shape[1:], plane),
            )
        self.notes += [f"{case.name}: {note}" for note in volume.notes]


def _refuse_copy(seen: dict[bytes, tuple[str, str]], image: np.ndarray, item: str, case: str) -> None:
    """Raises DataError where two cases have a slice of the same pixels: one volume under two names."""
    other, its_case = seen.setdefault(hashlib.sha256(np.ascontiguousarray(image).data).digest()[:16], (item, case))
    if its_case != case:
        raise DataError(
            f"{item}: has the same pixels as {other}, so {case} is a copy of {its_case}: remove one of them"
        )


def _refuse_twin(seen: dict[bytes, tuple[str, Case]], label: np.ndarray, item: str, case: Case) -> None:
    """Raises DataError where two patients have the same label map: one patient under two names, reconstructed anew."""
    if np.count_nonzero(label) < _TELLING:
        return
    other, its_case = seen.setdefault(hashlib.sha256(np.ascontiguousarray(label).data).digest()[:16], (item, case))
    if its_case.patient != case.patient:
        raise DataError(
            f"{item}: has the very label map of {other}, so {case.name} and {its_case.name} are of one patient, not of "
            f"{case.patient!r} and {its_case.patient!r}: say so (--patients, or PatientID), or remove one of them"
        )


def _with_bytes(split: Split, items: Sequence[SplitItem], writer: SliceStoreWriter) -> Split:
    """The split with the SHA-256 of the slices as stored, without those that were left out.

    Raises:
        DataError: a subset lost all its slices.
        LeakageError: a patient, or identical bytes, on two sides.
    """
    stored = {item: sha256 for subset in writer.items.values() for item, sha256 in subset.items()}
    real = [replace(item, sha256=stored[item.item]) for item in items if item.item in stored]
    subsets = {}
    for name, part in split.subsets.items():
        own = [item for item in real if item.item in part.items]
        if not own:
            raise DataError(f"subset {name!r}: all its slices are of one value throughout: check the volumes' values")
        subsets[name] = Subset.of(own)
    unknown = sum(item.patient is None for item in real)
    final = replace(split, subsets=subsets, n_unknown_patients_items=unknown)
    check_leakage(final, real)
    return final
