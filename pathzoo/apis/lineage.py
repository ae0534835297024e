"""Whom the runs that weights come from were trained on, and that nobody of them is evaluated on."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from pathzoo.apis.run_record import recorded, recorded_start
from pathzoo.datasets.leakage import KEPT_OUT, blind_to, refuse_choosing_on_test, refuse_overlap
from pathzoo.datasets.split_caveats import CAVEATS
from pathzoo.datasets.split_schemes import UNKNOWN
from pathzoo.datasets.splits import Split
from pathzoo.errors import LeakageError

#: What helps where a run that the weights were made from has seen patients that are tested on.
ANCESTOR_REMEDY = (
    "pretrain anew without them (held_out=FILE with the splits.json of this run), or start from other weights"
)


@dataclass(frozen=True)
class Ancestors:
    """The runs that weights were made from, the nearest first.

    Attributes:
        splits: each run's split, with the name of its file.
        caveats: what could not be followed, or compared by one of the runs, a sentence each: beside such a run's scores
            they belong. They may be published, so no folder or file is named.
    """

    splits: list[tuple[Split, str]] = field(default_factory=list)
    caveats: list[str] = field(default_factory=list)

    def refuse(self, dataset: Any) -> list[str]:
        """Raises where a data set holds what one of the runs has seen; returns the caveats of that comparison.

        Raises:
            LeakageError: Names the subset, the patient or image, and the earlier run's split.
        """
        infos = _infos(dataset) if self.splits else []
        for split, source in self.splits if infos else ():
            refuse_overlap(split, infos, dataset.subset, source, ANCESTOR_REMEDY)
        return [*self.caveats, *self._blindness(infos)]

    def refuse_split(self, own: Split) -> list[str]:
        """The same for what a run's own split keeps for validation and testing.

        A representation that was learnt from the test patients, even without their labels, makes the test too good.

        Raises:
            LeakageError: As `refuse`.
        """
        for split, source in self.splits:
            refuse_trained_split(own, split, source, ANCESTOR_REMEDY)
        kept_out = [part.origins for name, part in own.subsets.items() if name in KEPT_OUT]
        # One image stands for all: it names its patient, its slide, where all of them do.
        known = {
            "patient": None if any(one is None or one.without_patient for one in kept_out) else "",
            "slide": None if any(one is None or one.without_slide for one in kept_out) else "any",
        }
        return [*self.caveats, *self._blindness([known] if kept_out else [])]

    def _blindness(self, infos: Sequence[Mapping[str, Any]]) -> list[str]:
        if not any(blind_to(split, infos, kept_out=False) for split, _ in self.splits):
            return []
        return [
            "a run that the weights come from may have seen tissue that is evaluated on: patients or slides are not "
            "known on both sides, so bytes alone were compared"
        ]


def splits_beside(folder: Path) -> list[tuple[Split, str]]:
    """The split that a run left in `folder`, with the file's name, or nothing."""
    path = folder / "splits.json"
    return [(Split.load(path), str(path))] if path.exists() else []


def ancestors_of(start: Mapping[str, Any], folder: Path) -> Ancestors:
    """All runs that weights were made from, as far as their folders are there.

    The chain is followed from run to run. What ends it before random weights is a caveat: a published model, which
    names no patients, an exported backbone, or a folder that is gone. So is what a run's drawn pictures came with.

    Args:
        start: `initial_weights` of the run.
        folder: Its work folder.
    """
    found = Ancestors()
    seen = {folder.resolve()}
    while start.get("source") == "run" and start.get("folder"):
        folder = (folder / start["folder"]).resolve()
        if folder in seen:
            break
        seen.add(folder)
        splits = splits_beside(folder)
        if not splits:
            print_log(f"{folder}: holds no splits.json", logger="current", level=logging.WARNING)
            found.caveats.append(not_compared("the run that the weights come from"))
        found.splits.extend(splits)
        found.caveats.extend(recorded(folder, "data", "counts", CAVEATS) or ())
        start = recorded_start(folder)
    if start.get("source") == "published":
        found.caveats.append(not_compared(f"the published {start.get('name')} {start.get('version')}"))
    elif start.get("source") == "run" and not start.get("folder"):
        found.caveats.append(not_compared("the run that the backbone was exported from"))
    return found


def input_caveats(start: Mapping[str, Any], own: Mapping[str, Any]) -> list[str]:
    """What of the input differs from what the weights were trained with.

    Args:
        start: `initial_weights` of a run.
        own: Its `model_input`.

    Returns:
        A sentence for each of mean, std (by more than 1 on 0..255) and mpp (by more than a tenth) that differs.
    """
    found = []
    for key, near in (("mean", _within_one), ("std", _within_one), ("mpp", _within_a_tenth)):
        theirs, mine = (start.get("input") or {}).get(key), own.get(key)
        if theirs and mine and not near(theirs, mine):
            found.append(f"the weights were trained with model_input.{key} {theirs}, this run feeds them with {mine}")
    return found


def _within_one(first: Sequence[float], second: Sequence[float]) -> bool:
    return len(first) == len(second) and all(abs(a - b) <= 1 for a, b in zip(first, second, strict=True))


def _within_a_tenth(first: float, second: float) -> bool:
    return abs(first - second) <= 0.1 * first


def warn(caveats: Sequence[str]) -> None:
    """Says each of them in the log."""
    for text in caveats:
        print_log(text, logger="current", level=logging.WARNING)


def not_compared(what: str) -> str:
    """The caveat that nobody can tell whom `what` was trained on."""
    return f"the patients that {what} was trained on could not be compared with those of this run"


def seen_beyond(own: Split, trained: Sequence[tuple[Split, str]]) -> list[str]:
    """The caveat that a generator has seen more than a split trains and validates on, where it has.

    What is tested is held against the split of the run that trained on its pictures: others whom the generator has seen
    stand in none of that run's files.

    Args:
        own: The split of those whose label maps are drawn from.
        trained: Splits of the generator's runs, each with the name of its file.
    """
    patients = all(split.group_key == "patient" for split in (own, *(split for split, _ in trained)))

    def seen(split: Split) -> set[str]:
        parts = [part for name, part in split.subsets.items() if name != "test"]
        return {one for part in parts for one in (part.groups if patients else part.items.values())}

    known = seen(own) - {UNKNOWN}
    more = len(set().union(*(seen(split) for split, _ in trained)) - known)
    if not more:
        return []
    return [
        f"the generator that drew the pictures has seen {more} {'patients' if patients else 'images'} more than this "
        "split trains and validates on: whoever else is tested on could not be compared with them"
    ]


def refuse_training_patients(
    dataset: Any, trained: Sequence[tuple[Split | None, str]], remedy: str | None = None
) -> None:
    """Raises where a patient, a slide or an image's bytes, of an evaluated data set was trained on.

    Args:
        dataset: The data set to evaluate on; one without `subset` (a host's) is not looked at.
        trained: Splits of the runs that the weights come from, each with the name of its source.
        remedy: What to do about it, in place of what fits a run's own split.

    Raises:
        LeakageError: Names the subset, the patient or image, and the source.
    """
    infos = _infos(dataset)
    for split, source in trained:
        if split is not None and infos:
            refuse_overlap(split, infos, dataset.subset, source, remedy)


def refuse_training_beyond(dataset: Any, split: Split) -> None:
    """Raises where a data set to train on holds more than what its split deals to training.

    The `splits.json` that the run leaves behind would say that it has not seen what it is tested on.

    Raises:
        LeakageError: Names the subset.
    """
    subset = getattr(dataset, "subset", "train")
    if "train" in split.subsets and subset in ("all", *KEPT_OUT):
        raise LeakageError(
            f"train_dataloader.dataset.subset is {subset!r}, which holds what the split keeps for "
            f"{' and '.join(name for name in KEPT_OUT if name in split.subsets and subset in ('all', name))}: give "
            "'train'"
        )


def refuse_validation_on_test(dataset: Any, split: Split) -> None:
    """Raises where a validation data set holds what the run's own split keeps for testing.

    Raises:
        LeakageError: Names the patient or image.
    """
    refuse_choosing_on_test(split, _infos(dataset))


def refuse_trained_split(own: Split, trained: Split, source: str, remedy: str | None = None) -> None:
    """Raises where what a split keeps for validation or testing was trained on under another split.

    `remedy` stands in place of `refuse_overlap`'s own.

    Raises:
        LeakageError: As `refuse_training_patients`.
    """
    for subset, infos in _kept_out(own).items():
        refuse_overlap(trained, infos, subset, source, remedy)


def _infos(dataset: Any) -> list[dict[str, Any]]:
    """data_info of every image of a data set of ours, nothing of another one."""
    if not hasattr(dataset, "subset"):
        return []
    return [dataset.get_data_info(index) for index in range(len(dataset))]


def _kept_out(own: Split) -> dict[str, list[dict[str, Any]]]:
    """Subset -> its patients, slides and images, each as a data_info that `refuse_overlap` takes."""
    found: dict[str, list[dict[str, Any]]] = {}
    for subset in KEPT_OUT:
        part = own.subsets.get(subset)
        if part is None:
            continue
        slides = {} if part.origins is None else part.origins.slides
        infos = [{"item": group, "patient": group, "slide": None, "sha256": ""} for group in part.groups]
        infos += [{"item": slide, "patient": who, "slide": slide, "sha256": ""} for slide, who in slides.items()]
        infos += [{"item": i, "patient": None, "slide": None, "sha256": digest} for i, digest in part.items.items()]
        found[subset] = infos
    return found
