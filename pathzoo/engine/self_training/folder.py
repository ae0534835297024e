"""The folder of one finished round of pseudo-labels, as training reads it.

work_dir/pseudo_labels/round_01/
    labels/NAME.png        the pseudo-labels: class index, 255 where the teacher is not trusted
    predicted/NAME.png     the teacher's class of every pixel
    confidence/NAME.png    level of its probability, see `confidence.py`
    regions/NAME.json      what was predicted, by whom, from which bytes; written last of a region
    round.json             what the round is made by; written first
    provenance.json        written last: with it the round is whole
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathzoo.engine.self_training.pictures import read_values
from pathzoo.errors import DataError

FORMAT = 1
_NEEDED = (
    "round",
    "epoch",
    "run",
    "model",
    "split",
    "data",
    "classes",
    "thresholds",
    "policy",
    "tta",
    "items",
    "audit",
)


class PseudoLabelFolder:
    """A round's pseudo-labels and where they come from.

    Args:
        path: `.../pseudo_labels/round_01`.

    Attributes:
        path: the same.
        provenance: the content of provenance.json: round, epoch, run (id), teacher, model (digest), split (digest),
            data (digest of the labelled part), classes, policy, thresholds (class -> lowest probability kept), tta,
            tile, stride, items (item -> file, image_sha256, width, height, labels (digest), kept (share)), audit
            (rows), warnings.

    Raises:
        DataError: no such folder, an unfinished round, or no provenance of this format.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.provenance = _load(self.path)

    @property
    def round(self) -> int:
        """Its number, from 1."""
        return self.provenance["round"]

    @property
    def items(self) -> tuple[str, ...]:
        """The regions that have a pseudo-label."""
        return tuple(self.provenance["items"])

    def read(self, item: str) -> NDArray[np.uint8]:
        """The pseudo-labels of a region: (H, W) uint8 class indices, 255 where not kept.

        Raises:
            DataError: an unknown item; a file that is missing, truncated or changed since the round was made.
        """
        return self._read("labels", item, self._entry(item)["labels"])

    def check(self, dataset: Any, run: str | None = None) -> None:
        """Refuses what was made for something else.

        Args:
            dataset: the `PseudoLabelled`, or its unlabelled part, that is to be trained on.
            run: the id of the run, where known.

        Raises:
            DataError: another run's folder, another split's, other classes; a region that has no label here, or whose
                image changed since.
        """
        made, remedy = self.provenance, f"remove {self.path.parent} and train anew, or give another --work-dir"
        if run is not None and made["run"] != run:
            raise DataError(
                f"{self.path}: pseudo-labels of another run (id {made['run'][:12]}, this one is {run[:12]}): {remedy}"
            )
        classes = tuple(dataset.metainfo["classes"])
        if tuple(made["classes"]) != classes:
            raise DataError(
                f"{self.path}: pseudo-labels for the classes {', '.join(made['classes'])}; the data has "
                f"{', '.join(classes)}: {remedy}"
            )
        if made["split"] != dataset.split.digest:
            raise DataError(
                f"{self.path}: pseudo-labels of another split (digest {made['split'][:12]}, now "
                f"{dataset.split.digest[:12]}): data, fold, fraction or seed changed; {remedy}"
            )
        part = getattr(dataset, "unlabelled", dataset)
        for region in part.regions:
            entry = self._entry(region.item)
            if (entry["image_sha256"], entry["width"], entry["height"]) != (region.sha256, region.width, region.height):
                raise DataError(
                    f"{region.image}: changed since {self.path} was labelled: restore the image, or {remedy}"
                )

    def _entry(self, item: str) -> dict[str, Any]:
        entry = self.provenance["items"].get(item)
        if entry is None:
            raise DataError(
                f"{self.path}: no pseudo-label for {item!r}, but for {len(self.items)} other regions: it is another "
                "data set's; use the folder of this run"
            )
        return entry

    def _read(self, kind: str, item: str, sha256: str) -> NDArray[np.uint8]:
        entry = self._entry(item)
        path = self.path / kind / f"{entry['file']}.png"
        return read_values(path, sha256, (entry["width"], entry["height"]), self.remedy)

    @property
    def remedy(self) -> str:
        """What to do where a file of it is lost."""
        return again(self.path, self.provenance["epoch"])


def again(folder: Path, epoch: int) -> str:
    """How a round is made once more."""
    return (
        f"restore it, or remove {folder} and train on from the checkpoint after {epoch} epochs, if that is kept "
        f"(--resume epoch_{epoch}.pth): it makes the same round again"
    )


def round_folder(work_dir: str | Path, number: int) -> Path:
    """Where round `number` (from 1) of a run lies."""
    return Path(work_dir) / "pseudo_labels" / f"round_{number:02d}"


def _load(folder: Path) -> dict[str, Any]:
    path = folder / "provenance.json"
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of pseudo-labels")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(
            f"{folder}: an unfinished round (no provenance.json): resume the run that makes it, from before the round"
        ) from None
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: no provenance of pseudo-labels ({error}); restore it, or make the round again"
        ) from None
    found = content.get("format") if isinstance(content, dict) else type(content).__name__
    if found != FORMAT:
        raise DataError(f"{path}: expected a provenance of format {FORMAT}, found {found!r}; make the round again")
    missing = [name for name in _NEEDED if name not in content]
    if missing:
        raise DataError(f"{path}: the field {missing[0]!r} is missing: restore it, or make the round again")
    return content
