"""The label maps that a translator draws from, and where its pictures go: what slices and regions have in common."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from mmengine.config import Config

from pathzoo.datasets.label_augmentation import LabelAugmentation
from pathzoo.datasets.splits import Split
from pathzoo.errors import ConfigError, DataError
from pathzoo.nearest import did_you_mean

#: Writes a drawn picture: its number, the index of its label map, the map as drawn from, uint8 (H, W), and the picture
#: float32 (K, H, W) of 0..255.
Add = Callable[[int, int, np.ndarray, np.ndarray], None]


@dataclass(frozen=True)
class Drawn:
    """What a folder of drawn pictures holds.

    Attributes:
        items: of each picture.
        parents: index of each one's label map.
        label: index -> uint8 (H, W).
        picture: index -> float32 (H, W) or (H, W, 3) of 0..255.
    """

    items: tuple[str, ...]
    parents: tuple[int, ...]
    label: Callable[[int], np.ndarray]
    picture: Callable[[int], np.ndarray]


class TrainingMaps(ABC):
    """The label maps of a translator's training subset, real ones alone, that show one of some classes.

    Args:
        cfg: the translator's config.
        classes: names, of which a map has to show one; None for all but the first.

    Attributes:
        classes, palette: names in the order of the label values, and RGB of each.
        patients: of each map, None where not known.
        parent: key and digest of what the maps are from, for the record.
        split: of what they are from.

    Raises:
        ConfigError: a class that there is not, or the first.
        DataError: no map shows one of them.
    """

    #: What drawn pictures, and what label maps, are called.
    drawn_name: ClassVar[str]
    map_name: ClassVar[str]
    #: Whether a class is a lesion in an organ, that label augmentation moves by itself.
    has_lesions: ClassVar[bool]

    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    patients: tuple[str | None, ...]
    parent: tuple[str, str]
    split: Split

    @abstractmethod
    def __init__(self, cfg: Config, classes: Sequence[str] | None = None) -> None: ...

    def __len__(self) -> int:
        return len(self.patients)

    @abstractmethod
    def label(self, index: int) -> np.ndarray:
        """A label map: uint8 (H, W), 255 where nobody labelled."""

    @abstractmethod
    def real(self, index: int) -> np.ndarray:
        """The real picture of a map, in the generator's values: float32 (H, W) or (H, W, 3) of 0..255."""

    @abstractmethod
    def validation(self) -> Iterator[np.ndarray]:
        """Real pictures, as `real`, of the validation patients that show what the maps show."""

    def fitted(self, augmentation: LabelAugmentation) -> LabelAugmentation:
        """The changes as they are made to these maps.

        Raises:
            ConfigError: changes that they cannot have.
        """
        return augmentation

    @abstractmethod
    def refuse_held_out(self, trained: Sequence[tuple[Split, str]]) -> None:
        """Raises where a generator was trained on whom this data validates or tests on.

        Args:
            trained: splits of its run, each with the name of its file.

        Raises:
            LeakageError: names the patient or image.
        """

    @abstractmethod
    def writer(self, out: str | Path, record: dict[str, Any], overwrite: bool) -> AbstractContextManager[Add]:
        """A folder that appears whole or not at all; `record` says how its pictures were drawn."""

    @staticmethod
    @abstractmethod
    def record_of(folder: str | Path) -> dict[str, Any]:
        """The record that `writer` left in a folder."""

    @abstractmethod
    def read(self, folder: str | Path) -> Drawn:
        """What was drawn into a folder from these maps.

        Raises:
            DataError: it was drawn from other ones.
        """


def class_indices(wanted: Sequence[str] | None, classes: Sequence[str]) -> tuple[int, ...]:
    """Indices of the classes of which a map has to show one.

    Raises:
        ConfigError: a name that is no class, or the first class, which shows nothing.
    """
    if wanted is None:
        return tuple(range(1, len(classes)))
    if not wanted or isinstance(wanted, str):
        raise ConfigError(f"classes={wanted!r}: give names of {', '.join(classes[1:])}, or None for any of them")
    for name in wanted:
        if name not in classes[1:]:
            raise ConfigError(
                f"classes: {name!r} is none that a label map is chosen by{did_you_mean(name, classes[1:])}"
            )
    return tuple(sorted({list(classes).index(name) for name in wanted}))


def parents_of(folder: str | Path, items: Sequence[str], keys: Sequence[Any], known: Sequence[Any]) -> tuple[int, ...]:
    """The place in `known` of the key of each drawn item's label map.

    Raises:
        DataError: a key that is not there.
    """
    place = {key: index for index, key in enumerate(known)}
    for item, key in zip(items, keys, strict=True):
        if key not in place:
            raise DataError(
                f"{folder}: {item} was drawn from {key}, which is no label map of this config's training subset: give "
                "the options that it was drawn with"
            )
    return tuple(place[key] for key in keys)
