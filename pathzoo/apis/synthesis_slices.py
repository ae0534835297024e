"""Drawn CT slices: from the label maps of a slice store to a synthetic store (`pathzoo.ct.store`)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config

from pathzoo.apis.checks import check_slice_size, errors_of_the_config, model_input
from pathzoo.apis.lineage import refuse_training_patients
from pathzoo.apis.synthesis_maps import Add, Drawn, TrainingMaps, class_indices, parents_of
from pathzoo.ct.store import SliceRecord, SliceStore
from pathzoo.ct.store_writer import slice_store_writer
from pathzoo.ct.window import hounsfield_between, window_between
from pathzoo.datasets.slice_checks import PARENT_STORE
from pathzoo.datasets.slices import PALETTE, SliceSegmentation
from pathzoo.datasets.splits import Split
from pathzoo.datasets.transforms.ct import HUWindow
from pathzoo.errors import ConfigError, DataError


class SliceMaps(TrainingMaps):
    """The training slices of a store; see the base class.

    Attributes:
        store: it.
        records: of the slices whose maps these are.
        window: (low, high) in HU that the pictures span.

    Raises:
        ConfigError: also where the config's test pipeline has no HUWindow, or one that shows more than the slices hold.
    """

    drawn_name = map_name = "slices"
    has_lesions = True

    def __init__(self, cfg: Config, classes: Sequence[str] | None = None) -> None:
        self._root = cfg.train_dataloader.dataset["data_root"]
        with errors_of_the_config(cfg):
            # It refuses what may not be trained on.
            data = SliceSegmentation(self._root, subset="train", only_labelled=True)
        self.store, self.window = SliceStore(self._root), window_of(cfg)
        check_slice_size(cfg, self.store.size, str(self.store.folder))
        low, high = self.window
        HUWindow((low + high) / 2, high - low).refuse_beyond(self.store.known_range, str(self.store.folder))
        self.classes, self.palette = self.store.classes, PALETTE
        self._chosen = class_indices(classes, self.classes)
        shown = self._shown("train")
        if not shown:
            raise DataError(f"{self._root}: no training slice shows {' or '.join(classes or self.classes[1:])}")
        self._places, self.records = tuple(place for place, _ in shown), tuple(record for _, record in shown)
        self.patients = tuple(record.patient for record in self.records)
        unknown = [record.item for record in self.records if record.patient is None]
        if unknown:
            raise DataError(
                f"{self._root}: the patient of {unknown[0]} is not known ({len(unknown)} such slices), and a drawn "
                "slice is its label map's patient's: build the store anew with --patients"
            )
        self.parent, self.split = (PARENT_STORE, self.store.digest), data.split

    def label(self, index: int) -> np.ndarray:
        """uint8 (H, W)."""
        return np.array(self.store.checked("train", self._places[index])[1])

    def real(self, index: int) -> np.ndarray:
        """float32 (H, W) of 0..255."""
        return self._grey(self.store.checked("train", self._places[index])[0])

    def validation(self) -> Iterator[np.ndarray]:
        """As `real`."""
        for place, _ in self._shown("val") if "val" in self.store.subsets else ():
            yield self._grey(self.store.checked("val", place)[0])

    def refuse_held_out(self, trained: Sequence[tuple[Split, str]]) -> None:
        """See the base class."""
        remedy = "draw by a generator that was trained on this store's training subset"
        for subset in sorted({"val", "test"} & set(self.store.subsets)):
            refuse_training_patients(SliceSegmentation(self._root, subset=subset), trained, remedy)

    @contextmanager
    def writer(self, out: str | Path, record: dict[str, Any], overwrite: bool) -> Iterator[Add]:
        """A synthetic store."""
        store = self.store
        with slice_store_writer(
            out,
            size=store.size,
            classes=store.classes,
            known_range=self.window,
            phantom=store.phantom,
            source="synthetic",
            synthetic=record,
            overwrite=overwrite,
        ) as writer:

            def add(number: int, index: int, labels: np.ndarray, picture: np.ndarray) -> None:
                parent = self.records[index]
                writer.add(
                    "train",
                    to_hounsfield(picture[0], self.window),
                    labels,
                    item=f"drawn_{number:06d}",
                    patient=parent.patient,
                    case=parent.case,
                    slice=number,
                    spacing=parent.spacing,
                    source=parent.item,
                )

            yield add

    @staticmethod
    def record_of(folder: str | Path) -> dict[str, Any]:
        """What store.json says under `synthetic`."""
        return SliceStore(folder).synthetic or {}

    def read(self, folder: str | Path) -> Drawn:
        """See the base class."""
        made = SliceStore(folder)
        records = made.records("train")
        items = tuple(record.item for record in records)
        return Drawn(
            items,
            parents_of(folder, items, [record.source for record in records], [record.item for record in self.records]),
            lambda index: made.label("train", index),
            lambda index: self._grey(made.image("train", index)),
        )

    def _shown(self, subset: str) -> list[tuple[int, SliceRecord]]:
        """The slices of a subset that show a chosen class, with their places in it; a store counts two classes."""
        return [
            (place, record)
            for place, record in enumerate(self.store.records(subset))
            if any((0, record.kidney, record.tumour)[label] for label in self._chosen if label < 3)
        ]

    def _grey(self, image: np.ndarray) -> np.ndarray:
        """HU as the generator's pictures have them: float32 (H, W) in 0..255."""
        return window_between(image, *self.window)


def window_of(cfg: Config) -> tuple[float, float]:
    """The (low, high) in HU that the translator's pictures span.

    Raises:
        ConfigError: Its pipeline has no HUWindow.
    """
    window = model_input(cfg).get("hu_window")
    if window is None:
        raise ConfigError(f"{cfg.filename}: no HUWindow in its test pipeline tells what its pictures are in HU")
    return float(window[0]), float(window[1])


def to_hounsfield(picture: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    """A drawn picture (H, W) of 0..255 as int16 HU of its window, rounded."""
    return np.rint(hounsfield_between(picture, *window)).astype(np.int16)
