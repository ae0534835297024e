"""What has to be said of a split that may be used (caveats). Needs no torch."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pathzoo.datasets.leakage import first_names, group_of, side
from pathzoo.datasets.official_holdout import straddling_patients
from pathzoo.datasets.patient_names import plain_name
from pathzoo.datasets.split_schemes import SplitItem

if TYPE_CHECKING:
    from pathzoo.datasets.splits import Split

#: Key of a drawn folder's record, and of the counts of who trains on it: sentences for its metrics.json.
CAVEATS = "generator_caveats"


def caveats(split: "Split", items: Sequence[SplitItem]) -> list[str]:
    """What has to stand beside every score of this split: straddling, unknown, doubtful patients; classes not shown.

    These sentences go into records and onto published cards, so they count and name neither image, slide nor patient:
    `names_behind` does.
    """
    held = _held(split, items)
    return [
        *_unnamed_texts(split, items),
        *_straddling_texts(split, held),
        *_unknown_texts(split, held),
        *_alike_texts(split, held),
        *_absent_class_texts(split, held),
        *_untaught_class_texts(split, items),
    ]


def names_behind(split: "Split", items: Sequence[SplitItem]) -> list[str]:
    """Whom the caveats count: images in no subset, patients on two sides, and those who may be. For the user alone."""
    held, unnamed = _held(split, items), _unnamed(split, items)
    straddling = straddling_patients(held) if split.group_key == "slide" else {}
    sides = [f"{p} ({', '.join(f'{f} {w}' for f, w in folders.items())})" for p, folders in straddling.items()]
    alike = [
        " and ".join(f"{patient!r} ({name})" for name, patient in places.items()) for places in _alike(split, held)
    ]
    return [
        *([f"in no subset: {first_names(unnamed)}"] if unnamed else []),
        *([f"patients on two sides: {'; '.join(sides)}"] if sides else []),
        *(f"written differently, one patient or two: {names}" for names in alike),
    ]


def _held(split: "Split", items: Sequence[SplitItem]) -> dict[str, list[SplitItem]]:
    """side -> the images there."""
    subset_of = {item: name for name, part in split.subsets.items() for item in part.items}
    held: dict[str, list[SplitItem]] = defaultdict(list)
    for item in items:
        if item.item in subset_of:
            held[side(subset_of[item.item])].append(item)
    return held


def _unnamed(split: "Split", items: Sequence[SplitItem]) -> list[str]:
    named = {item for part in split.subsets.values() for item in part.items}
    return sorted(item.item for item in items if item.item not in named)


def _unnamed_texts(split: "Split", items: Sequence[SplitItem]) -> list[str]:
    extra = _unnamed(split, items)
    return [f"the split does not name {len(extra)} images of the data: they are in no subset"] if extra else []


def _straddling_texts(split: "Split", held: Mapping[str, Sequence[SplitItem]]) -> list[str]:
    if split.group_key == "image":
        patients = {name: {item.group for item in part} for name, part in held.items()}
        everyone = set().union(*patients.values())
        both = {p for p in everyone if sum(p in part for part in patients.values()) > 1}
        if not both:
            return []
        return [
            f"by_image_leaky: {len(both)} of {len(everyone)} patients stand on more than one side, so the scores are "
            "inflated; take patient_kfold for an honest one"
        ]
    if split.group_key == "slide":
        straddling = straddling_patients(held)
        if straddling:
            return [f"official_slide_groups: {len(straddling)} patients (slide digits) stand on two sides"]
    return []


def _unknown_texts(split: "Split", held: Mapping[str, Sequence[SplitItem]]) -> list[str]:
    counts = {name: sum(item.patient is None for item in part) for name, part in held.items()}
    if split.scheme == "none" or not sum(counts.values()):
        return []
    where = ", ".join(f"{count} in {name}" for name, count in counts.items() if count)
    return [f"{sum(counts.values())} images have no known patient; they count as one group ({where})"]


def _alike_texts(split: "Split", held: Mapping[str, Sequence[SplitItem]]) -> list[str]:
    both = _alike(split, held)
    if not both:
        return []
    where = " and ".join(dict.fromkeys(name for places in both for name in places))
    return [
        f"{len(both)} patient(s) may stand on two sides ({where}), written differently: in case, separators or leading "
        "zeros; where they are one, give them one name and split anew"
    ]


def _alike(split: "Split", held: Mapping[str, Sequence[SplitItem]]) -> list[dict[str, str]]:
    """side -> the name there, of each patient whose plain name stands on two sides."""
    if split.group_key != "patient":
        return []
    written: dict[str, dict[str, str]] = defaultdict(dict)
    for name, part in held.items():
        for patient in sorted({item.patient for item in part if item.patient is not None}):
            written[plain_name(patient)].setdefault(name, patient)
    return [places for _, places in sorted(written.items()) if len(places) > 1]


def _absent_class_texts(split: "Split", held: Mapping[str, Sequence[SplitItem]]) -> list[str]:
    texts = []
    for label, name in enumerate(split.classes):
        groups = {group_of(item, split.group_key) for part in held.values() for item in part if item.shows(label)}
        lacking = [subset for subset, part in held.items() if not any(item.shows(label) for item in part)]
        if lacking and split.scheme != "none":
            texts.append(
                f"no image of class {name!r} in {' and '.join(lacking)}: "
                f"it has {len(groups)} {split.group_key if split.group_key != 'image' else 'patient'} group(s) in all"
            )
    return texts


def _untaught_class_texts(split: "Split", items: Sequence[SplitItem]) -> list[str]:
    """Classes that the labels left in `train` do not show, though images of them were dealt to `unlabelled`."""
    if not {"train", "unlabelled"} <= set(split.subsets):
        return []
    taught, hidden = ([i for i in items if i.item in split.subsets[name].items] for name in ("train", "unlabelled"))
    return [
        f"no labelled training image shows class {name!r}, {n} whose labels are kept back do: no model can learn it; "
        "give a larger label_fraction or another seed"
        for label, name in enumerate(split.classes)
        if not any(item.shows(label) for item in taught) and (n := sum(item.shows(label) for item in hidden))
    ]
