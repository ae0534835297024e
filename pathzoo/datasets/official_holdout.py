"""The five hold-out files that the authors of BreakHis publish (dsfold1.txt ... dsfold5.txt). Needs no torch.

A line is `SOB_B_A-14-22549AB-40-001.png|40|1|train`: image, magnification, number of the hold-out, subset (train or
test), as the authors' mkfold.py reads it. About 70 % of the images train. The five test sets overlap: they are repeated
hold-outs, not a partition. Images are grouped by slide folder (82 of them), of which some patients have several.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from pathzoo.datasets.split_schemes import SplitItem
from pathzoo.errors import ConfigError, DataError


def slide_folder(item: str) -> str:
    """`.../SOB_B_A-14-22549AB-40-001.png` -> `SOB_B_A-14-22549AB`, the official group of an image."""
    return Path(item).stem.rsplit("-", 2)[0]


def read_holdout(path: str | Path, fold: int | None = None) -> dict[str, str]:
    """File name -> "train" or "test".

    Args:
        path: a hold-out file.
        fold: takes the lines of this hold-out only; None for a file that holds one.

    Raises:
        ConfigError: no such file, or no line of that fold.
        DataError: a malformed line, an image with two subsets, or several hold-outs and no `fold`.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"{path}: no such hold-out file; it comes with the archive mkfold.tar.gz of BreakHis")
    subset_of: dict[str, str] = {}
    folds = set()
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        if not line.strip():
            continue
        fields = [field.strip() for field in line.split("|")]
        if len(fields) != 4 or fields[3] not in ("train", "test") or not fields[2].isdigit():
            raise DataError(f"{path}:{number}: {line!r} is not of the form IMAGE|MAGNIFICATION|FOLD|train or test")
        name, folder, subset = fields[0], int(fields[2]), fields[3]
        if fold is not None and folder != fold:
            folds.add(folder)
            continue
        folds.add(folder)
        if subset_of.setdefault(name, subset) != subset:
            raise DataError(f"{path}:{number}: {name} stands in train and in test of hold-out {folder}")
    if not subset_of:
        raise ConfigError(f"{path} holds no line of hold-out {fold}, but of {sorted(folds)}: take one of these")
    if fold is None and len(folds) > 1:
        raise DataError(f"{path} holds hold-outs {sorted(folds)}: choose one with fold=")
    return subset_of


def deal_official(
    items: Sequence[SplitItem], path: str | Path, fold: int | None = None
) -> tuple[list[SplitItem], list[SplitItem]]:
    """Training and test items as a hold-out file says.

    Raises:
        DataError: an item that the file does not list.
    """
    subset_of = read_holdout(path, fold)
    absent = [i.item for i in items if Path(i.item).name not in subset_of]
    if absent:
        raise DataError(
            f"{path} does not list {len(absent)} of {len(items)} images (first: {absent[0]}): "
            "leave them out (tiles of unknown magnification have no official subset) or take another scheme"
        )
    sides: dict[str, list[SplitItem]] = {"train": [], "test": []}
    for item in items:
        sides[subset_of[Path(item.item).name]].append(item)
    return sides["train"], sides["test"]


def straddling_patients(subsets: Mapping[str, Sequence[SplitItem]]) -> dict[str, dict[str, str]]:
    """Patient (digits of the slide id) -> {slide folder: subsets}, for those whose folders stand on two sides."""
    places: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for subset, items in subsets.items():
        for item in items:
            places[item.group][slide_folder(item.item)].add(subset)
    return {
        patient: {folder: "+".join(sorted(where)) for folder, where in sorted(folders.items())}
        for patient, folders in sorted(places.items())
        if len(set().union(*folders.values())) > 1
    }
