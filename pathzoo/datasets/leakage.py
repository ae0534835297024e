"""What a split may not do: leakage, an error. Needs no torch."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pathzoo.datasets.official_holdout import slide_folder
from pathzoo.datasets.slide_names import beyond_names, same_slide, slide_key
from pathzoo.datasets.split_schemes import UNKNOWN, SplitItem
from pathzoo.errors import LeakageError

if TYPE_CHECKING:
    from pathzoo.datasets.splits import Split

_LEARNT_FROM = ("train", "unlabelled", "all")
#: Whose patients nothing may be learnt from.
KEPT_OUT = ("val", "val_unlabelled", "test")


def check_leakage(split: "Split", items: Sequence[SplitItem] = ()) -> None:
    """Raises where one group or one file's bytes stand on two sides.

    `train` and `unlabelled` are one side. Only the scheme `by_image_leaky` is let off the groups; none is let off the
    bytes. `items` add what the file does not say: the patient of each image as the data has it now.

    Raises:
        LeakageError: names the group, or a slide of which not every patient is known, and its subsets; or both files
            and their subsets.
    """
    if split.group_key != "image":
        _check_groups(split, items)
        _check_slides(split, items)
    seen: dict[str, tuple[str, str]] = {}
    for subset, part in split.subsets.items():
        for item, sha256 in part.items.items():
            other, where = seen.setdefault(sha256, (item, subset))
            if side(where) != side(subset):
                raise LeakageError(
                    f"{other} ({where}) and {item} ({subset}) hold identical bytes: "
                    "remove one of them, or give both the same patient and split by patient"
                )


def refuse_overlap(
    trained: "Split",
    infos: Sequence[Mapping[str, Any]],
    subset: str,
    source: str | Path,
    remedy: str | None = None,
) -> None:
    """Raises where images that are to be evaluated belong to what a model was trained on.

    Trained on are the subsets train, unlabelled and all of `trained`; what is tested on may not be in its val either,
    by which an epoch was chosen. A patient counts by name where known, else the slide; under the group key "slide" a
    slide folder in the patient's place, under "image" neither; identical bytes count always.

    Args:
        trained: the split of the training run.
        infos: data_info of each image to evaluate: item, patient and slide (None where unknown), sha256.
        subset: what is evaluated.
        source: the training run's `splits.json`, for the message.
        remedy: what to do about it; by default, to evaluate with the options of the training.

    Raises:
        LeakageError: names the first patient, slide folder or image, in the order of `infos`, and counts the images.
    """
    found = _shared(trained, infos, (*_LEARNT_FROM, *(("val",) if subset == "test" else ())))
    remedy = remedy or "give the same fold and split options as the training run"
    if found:
        raise LeakageError(
            f"subset {subset!r} holds {len(found)} images (of {len(infos)}) that the model was trained on, or its "
            f"epoch chosen by, in {source}, first: {found[0][1]}; {remedy} (patients of another hospital who share a "
            "name only need another name in the patient column)"
        )


def refuse_choosing_on_test(split: "Split", infos: Sequence[Mapping[str, Any]]) -> None:
    """Raises where the images that a run validates on belong to its own test subset.

    The best checkpoint would be chosen by what it is tested on afterwards.

    Args:
        split: the run's own.
        infos: data_info of each validation image, as in `refuse_overlap`.

    Raises:
        LeakageError: names the first patient, slide folder or image, and counts the images.
    """
    found = _shared(split, infos, ("test",))
    if found:
        raise LeakageError(
            f"validation holds {len(found)} images (of {len(infos)}) that this run's split keeps for testing, first: "
            f"{found[0][1]}; give val_dataloader.dataset the subset 'val' and the training's fold and split options"
        )


def refuse_tested(unlabelled: Sequence[SplitItem], kept_out: Mapping[str, str], key: str) -> None:
    """Raises where an image without a label belongs to a group that is validated or tested on.

    A method that learns from unlabelled images would have seen the patients that it is tested on.

    Args:
        unlabelled: images without a label.
        kept_out: group -> subset, of what is validated and tested on.
        key: the split's group key; under "image" nothing is kept together.

    Raises:
        LeakageError: names the first image, its group and subset, and counts the images.
    """
    if key == "image":
        return
    found = [item for item in unlabelled if group_of(item, key) in kept_out]
    if found:
        group = group_of(found[0], key)
        raise LeakageError(
            f"{found[0].item} has no label, and its {key} {group!r} stands in {kept_out[group]!r} ({len(found)} such "
            "images): who is tested on may not be learnt from; label them, take them off the table, or set "
            "leave_out_tested=True"
        )


def refuse_twins(labelled: Mapping[str, str], unlabelled: Mapping[str, str]) -> None:
    """Raises where one image is labelled and unlabelled at once, by its id or by its bytes.

    Args:
        labelled: item -> SHA-256 of its bytes, of what is trained on with labels.
        unlabelled: the same of what is trained on without.

    Raises:
        LeakageError: names both.
    """
    of_bytes = {sha256: item for item, sha256 in labelled.items()}
    for item, sha256 in unlabelled.items():
        if item in labelled:
            raise LeakageError(
                f"{item} is labelled and unlabelled at once: give both parts the same table and split, or take it off "
                "one of them"
            )
        if sha256 in of_bytes:
            raise LeakageError(
                f"{of_bytes[sha256]} (labelled) and {item} (unlabelled) hold identical bytes: the same region is "
                "labelled and unlabelled; remove one of them"
            )


def held_out_by(split: "Split", infos: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Which images a split keeps for validation or testing, and why: (item, a clause to say of it), in their order.

    Args:
        split: of the task that is evaluated in the end.
        infos: data_info of each image, as in `refuse_overlap`.
    """
    return _shared(split, infos, KEPT_OUT)


def blind_to(split: "Split", infos: Sequence[Mapping[str, Any]], kept_out: bool) -> int:
    """How many images could come from a split's patients without anybody noticing: their bytes alone are compared.

    Args:
        split: of the task that is evaluated, or of a training run.
        infos: data_info of each image, as in `refuse_overlap`.
        kept_out: compare with what the split keeps for validation and testing; else with what was learnt from it.
    """
    names = KEPT_OUT if kept_out else _LEARNT_FROM
    parts = [part.origins for name, part in split.subsets.items() if name in names]
    return beyond_names(infos, parts, by_patient=split.group_key == "patient")


def _shared(split: "Split", infos: Sequence[Mapping[str, Any]], subsets: Sequence[str]) -> list[tuple[str, str]]:
    """(item, why) of each image that belongs to one of the subsets, by patient, slide folder, slide or bytes."""
    seen = [(name, part) for name, part in split.subsets.items() if name in subsets]
    of_bytes = {sha256: (name, item) for name, part in seen for item, sha256 in part.items.items()}
    of_group = {group: name for name, part in seen for group in part.groups}
    origins = {name: part.origins for name, part in seen} if split.group_key != "image" else {}
    found = []
    for info in infos:
        group = {"patient": info["patient"], "slide": slide_folder(info["item"])}.get(split.group_key)
        if group is not None and group != UNKNOWN and group in of_group:
            kind = "patient" if split.group_key == "patient" else "slide folder"
            found.append((info["item"], f"{kind} {group!r} ({info['item']}) stands in {of_group[group]!r}"))
        elif info["sha256"] in of_bytes:
            name, item = of_bytes[info["sha256"]]
            found.append((info["item"], f"{info['item']} has the bytes of {item} in {name!r}"))
        elif (same := same_slide(info, origins)) is not None:
            found.append((info["item"], f"slide {same[0]!r} ({info['item']}) stands in {same[1]!r}"))
    return found


def _check_groups(split: "Split", items: Sequence[SplitItem]) -> None:
    subset_of = {item: name for name, part in split.subsets.items() for item in part.items}
    places: dict[str, dict[str, str]] = defaultdict(dict)  # group -> side -> "subset (first item)"
    for name, part in split.subsets.items():
        for group in part.groups:
            places[group].setdefault(side(name), name)
    for item in items:
        if item.item in subset_of:
            name = subset_of[item.item]
            places[group_of(item, split.group_key)][side(name)] = f"{name} ({item.item})"
    for group, where in sorted(places.items()):
        if len(where) > 1:
            raise LeakageError(
                f"{split.group_key} {group!r} stands in {' and in '.join(where.values())}: "
                f"a {split.group_key} belongs to one subset; make the split anew or correct the patient column"
            )


def _check_slides(split: "Split", items: Sequence[SplitItem]) -> None:
    """A slide on two sides where the patient of one of its images is not known: it is one patient's all the same."""
    subset_of = {item: name for name, part in split.subsets.items() for item in part.items}
    of_slide: dict[str, list[SplitItem]] = defaultdict(list)
    for item in items:
        if item.slide and item.item in subset_of:
            of_slide[slide_key(item.slide)].append(item)
    for slide, own in sorted(of_slide.items()):
        unknown = next((item for item in own if item.patient is None), None)
        if unknown is None:
            continue
        where = side(subset_of[unknown.item])
        known = next((item for item in own if item.patient is not None and side(subset_of[item.item]) != where), None)
        if known:
            raise LeakageError(
                f"slide {slide!r} stands in {subset_of[known.item]} ({known.item}, patient {known.patient!r}) and in "
                f"{subset_of[unknown.item]} ({unknown.item}, patient not known): fill the patient column"
            )


def side(subset: str) -> str:
    """The side a subset is on: labels or not, what is trained on is trained on."""
    return {"unlabelled": "train", "val_unlabelled": "val"}.get(subset, subset)


def group_of(item: SplitItem, key: str) -> str:
    """What an image is kept together with under the group key "patient" or "slide"."""
    return slide_folder(item.item) if key == "slide" else item.group


def first_names(names: Sequence[str]) -> str:
    """The first three, and three dots where there are more."""
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
