"""A CT volume as all sources give it, and the checks that its values have to pass."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np

from pathzoo.errors import ConfigError, DataError

#: Hounsfield units of air, and of what lies outside the scanned field; no tissue is below.
AIR = -1024
_LOWEST, _HIGHEST = -32768, 32767
#: Fat lies below the one, soft tissue above the other.
_FAT, _TISSUE = -50, 0
_CLASSES = 3
#: Label values up to here are looked up in a table; no segmentation at hand goes beyond.
_MOST_LABELS = 1 << 16


@dataclass(frozen=True)
class Volume:
    """A case in display orientation: slice 0 the most inferior, row 0 anterior, column 0 the patient's right.

    Attributes:
        labels: uint8 (S, H, W), 0 background, 1 kidney, 2 tumour.
        hu: int16 (S, H, W); None where only the labels were asked for.
        numbers: of each slice in its case, from 0.
        spacing: (z, y, x) in mm; None where not known.
        positions: z of each slice's centre in mm, rising; None where not known.
        notes: what the user should know of how it was read, a sentence each.
    """

    labels: np.ndarray
    hu: np.ndarray | None
    numbers: tuple[int, ...]
    spacing: tuple[float, float, float] | None = None
    positions: tuple[float, ...] | None = None
    notes: tuple[str, ...] = ()


class Case(Protocol):
    """A volume that is not read yet. Its size and spacing are known, from heads of files.

    Attributes:
        name: unlike all others.
        patient: None where not known.
        shape: (S, H, W) in display orientation.
        spacing: (z, y, x) in mm; None where not known.
        where: the file or folder, for messages.
    """

    name: str
    patient: str | None
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float] | None
    where: str

    def read(self, with_hu: bool) -> Volume:
        """Reads it: the labels alone, or the HU too."""


class HuRead(NamedTuple):
    """Checked Hounsfield units, int16, and how many values below air were raised to `AIR`."""

    hu: np.ndarray
    clipped: int


def to_hu(values: Sequence[np.ndarray] | np.ndarray, where: str) -> HuRead:
    """Hounsfield units as they are stored, slice by slice: whole numbers, none below `AIR`.

    Args:
        values: (S, H, W), of any real type; scaled to HU already.
        where: the file, for messages.

    Raises:
        DataError: NaN, infinity, or a value that int16 cannot hold; names the first one's slice.
    """
    hu = np.empty((len(values), *values[0].shape), np.int16)
    clipped = 0
    for number, plane in enumerate(values):
        low, high = plane.min(), plane.max()
        if not np.isfinite(low) or not np.isfinite(high):
            bad = plane[~np.isfinite(plane)]
            raise DataError(
                f"{where}: slice {number} holds {len(bad)} values that are no number ({bad[0]}): export the volume anew"
            )
        if low < _LOWEST or high > _HIGHEST:
            raise DataError(
                f"{where}: slice {number} holds {(low if low < _LOWEST else high):g}, no Hounsfield unit (those of CT "
                f"lie in {_LOWEST}..{_HIGHEST}): apply the scanner's slope and intercept, or export it anew"
            )
        clipped += int((plane < AIR).sum()) if low < AIR else 0
        whole = plane if plane.dtype.kind in "iu" else np.rint(plane)
        hu[number] = whole if low >= AIR else np.maximum(whole, AIR)
    return HuRead(hu, clipped)


def refuse_unlike_ct(hu: np.ndarray, where: str) -> None:
    """Raises where a volume cannot be in Hounsfield units, though each of its values could be.

    Every slice through a body shows fat (about -100) or air, and soft tissue (above 0).

    Args:
        hu: int16 (S, H, W).
        where: the file or folder, for messages.

    Raises:
        DataError: no value reaches down to fat, or up to tissue.
    """
    low, high = int(hu.min()), int(hu.max())
    if low > _FAT or high < _TISSUE:
        raise DataError(
            f"{where}: its values lie in {low}..{high}, and CT in HU shows fat or air (below {_FAT}) and tissue (above "
            f"{_TISSUE}): apply the scanner's slope and intercept, or give the volume before it was windowed or "
            "normalised"
        )


@dataclass(frozen=True)
class LabelMap:
    """What label values of a source mean.

    Attributes:
        values: value of the source -> 0 background, 1 kidney, 2 tumour. Values that are not named stay as they are.
        other: what all values that are not named mean; None for an error where they are not 0, 1 or 2.
    """

    values: Mapping[int, int] = field(default_factory=dict)
    other: int | None = None

    @classmethod
    def parse(cls, words: Sequence[str]) -> "LabelMap":
        """As a command line has it: VALUE=CLASS and other=CLASS, such as 2=1 3=1 other=0.

        Raises:
            ConfigError: another form, a class other than 0, 1 or 2, a value twice.
        """
        values: dict[int, int] = {}
        other = None
        for word in words:
            value, _, kind = word.partition("=")
            if kind not in ("0", "1", "2") or not _is_value(value):
                raise ConfigError(f"--label-map {word!r}: give VALUE=CLASS or other=CLASS, a class of 0, 1 or 2")
            if value == "other":
                again, other = other is not None, int(kind)
            else:
                again = int(value) in values
                values[int(value)] = int(kind)
            if again:
                raise ConfigError(f"--label-map: {value!r} stands twice: name each value once")
        return cls(values, other)

    def apply(self, values: np.ndarray, where: str, case: str) -> np.ndarray:
        """Checked labels, slice by slice.

        Args:
            values: (S, H, W), of any real type.
            where: the file, for messages.
            case: its name, for messages.

        Returns:
            uint8 (S, H, W) of 0, 1 and 2.

        Raises:
            DataError: a value that is not whole, or that means nothing; names the value, the case and the slice.
        """
        labels = np.empty(values.shape, np.uint8)
        table = np.full(_MOST_LABELS, 255 if self.other is None else self.other, np.uint8)
        if self.other is None:
            table[:_CLASSES] = range(_CLASSES)
        for value, kind in self.values.items():
            if value < _MOST_LABELS:
                table[value] = kind
        for number, plane in enumerate(values):
            whole = plane if plane.dtype.kind in "iub" else self._whole(plane, number, where, case)
            if whole.min() < 0 or whole.max() >= _MOST_LABELS:
                raise self._strange(whole.min() if whole.min() < 0 else whole.max(), number, where, case)
            labels[number] = table[whole if whole.dtype.kind in "iu" else whole.astype(np.int64)]
            if labels[number].max() == 255:
                raise self._strange(whole[labels[number] == 255][0], number, where, case)
        return labels

    def _whole(self, plane: np.ndarray, number: int, where: str, case: str) -> np.ndarray:
        whole = np.rint(plane)
        if not np.array_equal(whole, plane):
            raise self._strange(plane[~(whole == plane)].ravel()[0], number, where, case)
        return whole

    def _strange(self, value: float, number: int, where: str, case: str) -> DataError:
        may_be_mapped = float(value).is_integer() and 0 <= value < _MOST_LABELS
        return DataError(
            f"{where}: label value {value:g} in slice {number} of {case}; only 0 (background), 1 (kidney) and 2 "
            "(tumour) have a meaning: correct it"
            + (f", or say what it means by --label-map {value:g}=CLASS" if may_be_mapped else "")
        )


@dataclass(frozen=True)
class ReadOptions:
    """How sources are read.

    Attributes:
        label_map: what label values mean.
        spacing: (z, y, x) in mm of volumes that state none; None to refuse them.
        axes: which way the axes of volumes without an affine point, three letters of L/R, A/P and S/I in the order of
            the array's axes, each naming the end that rising indices go to; None to refuse them.
        skip_incomplete: leave out cases without an image or without labels.
    """

    label_map: LabelMap = field(default_factory=LabelMap)
    spacing: tuple[float, float, float] | None = None
    axes: str | None = None
    skip_incomplete: bool = False

    def __post_init__(self) -> None:
        if self.spacing is not None and not all(0 < value < float("inf") for value in self.spacing):
            raise ConfigError(f"--spacing {self.spacing}: give mm above 0, in the order Z Y X")
        if self.axes is not None and sorted(_AXIS.get(letter, 3) for letter in self.axes.upper()) != [0, 1, 2]:
            raise ConfigError(f"--axes {self.axes!r}: give one letter each of L/R, A/P and S/I, such as LPS")


def _is_value(word: str) -> bool:
    return word == "other" or (word.isdecimal() and int(word) < _MOST_LABELS)


_AXIS = {"L": 0, "R": 0, "P": 1, "A": 1, "S": 2, "I": 2}
