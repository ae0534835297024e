"""Writes the folder that `pathzoo.datasets.drawn_regions` reads, region by region: no pixels are kept in memory."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pathzoo.datasets.drawn_regions import CLASS_FILE, FORMAT, RECORD, TABLE, is_drawn, record_digest
from pathzoo.datasets.masks import as_palette
from pathzoo.datasets.region_files import Region
from pathzoo.datasets.region_table import IGNORE, ClassList, write_classes
from pathzoo.errors import ConfigError, DataError, OutputError
from pathzoo.fileio import sha256_file, write_json
from pathzoo.phantom_mark import keep_mark
from pathzoo.wsi.outputs import atomic_folder, write_csv, write_picture


@contextmanager
def drawn_region_writer(
    folder: str | os.PathLike, classes: ClassList, record: Mapping[str, Any], overwrite: bool = False
) -> Iterator["DrawnRegionWriter"]:
    """Gives a writer of a folder of drawn regions that appears whole or not at all.

    Args:
        folder: may not exist.
        classes: names and colours, in the order of the label values.
        record: how the regions were drawn, for synthetic.json.
        overwrite: replace a folder of drawn regions, once the new one is complete.

    Raises:
        ConfigError: a folder that is there and holds anything but drawn regions.
        DataError: no region was added.
        OutputError: the folder exists, without `overwrite`; it cannot be written (disk full, no permission), and
            nothing is left behind.
    """
    folder = Path(folder)
    if folder.exists() and not overwrite:
        raise OutputError(f"{folder}: exists already; remove it, choose another folder, or pass --overwrite")
    if folder.exists() and not is_drawn(folder):
        raise ConfigError(f"{folder}: exists and holds no drawn regions, so it is not replaced: choose another")
    raised_inside: BaseException | None = None
    try:
        with atomic_folder(folder, overwrite) as temporary:
            writer = DrawnRegionWriter(temporary, folder, classes)
            try:
                yield writer
            except BaseException as error:
                raised_inside = error
                raise
            writer.finish(record)
    except OSError as error:
        if error is raised_inside and not writer.failed:  # not of our writing
            raise
        raise OutputError(
            f"{folder}: cannot be written ({error.strerror or error}); nothing was left behind: make room or choose "
            "another folder"
        ) from error


class DrawnRegionWriter:
    """Writes drawn regions one after the other; made by `drawn_region_writer`.

    Args:
        folder: empty, where to write.
        name: of the folder in the end, for messages.
        classes: names and colours.

    Attributes:
        failed: whether a file could not be written.
    """

    def __init__(self, folder: Path, name: Path, classes: ClassList) -> None:
        self._folder, self._name, self._classes = folder, name, classes
        self._rows: list[list[str]] = []
        self._items: dict[str, dict[str, Any]] = {}
        self._sources: set[Path] = set()
        self.failed = False
        for part in ("images", "masks"):
            (folder / part).mkdir()

    def add(self, picture: np.ndarray, labels: np.ndarray, source: Region, x: int, y: int) -> str:
        """Writes a region with its mask.

        Args:
            picture: RGB uint8 (H, W, 3).
            labels: uint8 (H, W) class indices, 255 where nobody labelled.
            source: the real region that the label map is from: patient, slide and resolution are inherited.
            x, y: where the label map was cut there, pixels.

        Returns:
            Its item.

        Raises:
            DataError: arrays that do not fit, or a label that is no class.
        """
        item, mask = (f"{part}/drawn_{len(self._rows):06d}.png" for part in ("images", "masks"))
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise DataError(f"{item}: a picture of {picture.dtype} {picture.shape}; give RGB uint8 (H, W, 3)")
        if labels.dtype != np.uint8 or labels.shape != picture.shape[:2]:
            raise DataError(f"{item}: a label map of {labels.dtype} {labels.shape} for a picture {picture.shape}")
        wrong = labels[(labels != IGNORE) & (labels >= len(self._classes.classes))]
        if len(wrong):
            raise DataError(f"{item}: label {wrong[0]}; the classes are 0 to {len(self._classes.classes) - 1}")
        try:
            write_picture(self._folder / item, picture)
            as_palette(labels, self._classes.palette).save(self._folder / mask, compress_level=1)
        except OSError:
            self.failed = True
            raise
        digests = {"sha256": sha256_file(self._folder / item), "mask_sha256": sha256_file(self._folder / mask)}
        self._items[item] = {"source": source.item, "x": int(x), "y": int(y), **digests}
        mpp = "" if source.mpp is None else str(source.mpp)
        self._rows.append([item, mask, source.patient or "", source.slide or "", mpp])
        self._sources.add(source.image)
        return item

    def finish(self, record: Mapping[str, Any]) -> None:
        """Writes the table, the classes and synthetic.json.

        Raises:
            DataError: no region.
        """
        if not self._rows:
            raise DataError(f"{self._name}: no region was drawn")
        write_csv(self._folder / TABLE, ("image", "mask", "patient", "slide", "mpp"), self._rows)
        write_classes(self._folder / CLASS_FILE, self._classes)
        keep_mark(self._folder, self._sources)
        content = {"format": FORMAT, "drawn": "regions", **record, "items": self._items}
        write_json(self._folder / RECORD, content | {"digest": record_digest(content)})
