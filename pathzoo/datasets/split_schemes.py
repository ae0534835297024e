"""How groups of images are dealt to subsets: pure functions, numpy only. `pathzoo.datasets.splits` is the way in.

Order comes from hashes of (seed, name), never from a random generator: the same seed gives the same split on every
machine and version, whatever order the images are listed in.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pathzoo.errors import ConfigError, DataError
from pathzoo.nearest import did_you_mean

#: The group of all images whose patient is not known.
UNKNOWN = "unknown"
#: What an absent class costs: more than all deviations together, for targets down to 1 %.
_ABSENT = 1e4
#: Exchanging pairs takes groups² memory; beyond this many groups single moves balance well enough.
_MAX_GROUPS_FOR_SWAPS = 400


@dataclass(frozen=True)
class SplitItem:
    """One image as splits see it.

    Attributes:
        item: its id, the POSIX path relative to the data's folder.
        label: class index.
        sha256: of its bytes.
        patient: None where unknown. A synthetic image or a pseudo-labelled one carries its parent's patient.
        shown: class indices that it shows, where an image shows several and is dealt by one of them.
        slide: the slide that it was cut from; None where unknown.
    """

    item: str
    label: int
    sha256: str
    patient: str | None = None
    shown: tuple[int, ...] = ()
    slide: str | None = None

    def shows(self, label: int) -> bool:
        """Whether the image is, or holds something, of this class."""
        return label in self.shown if self.shown else label == self.label

    @property
    def group(self) -> str:
        """The patient, or `UNKNOWN`."""
        return UNKNOWN if self.patient is None else self.patient


def rank(seed: int, name: str) -> int:
    """A 64-bit number that depends on (seed, name) alone: sorting by it shuffles reproducibly."""
    return int.from_bytes(hashlib.blake2b(f"{seed}\0{name}".encode(), digest_size=8).digest(), "big")


def deal_patients(items: Sequence[SplitItem], targets: Sequence[float], seed: int) -> list[list[SplitItem]]:
    """Deals whole patients to subsets so that every class is shared out in the proportions `targets`.

    Greedy, largest patient first, then single moves and exchanges while they improve `imbalance`. What is balanced, per
    class, is the number of images and the number of patients.

    Args:
        items: at least as many patients as subsets.
        targets: share of each subset, positive, summing to 1.
        seed: another seed, another split.

    Returns:
        One list of items per target, none empty.

    Raises:
        DataError: fewer patients than subsets.
    """
    members: dict[str, list[SplitItem]] = defaultdict(list)
    for item in items:
        members[item.group].append(item)
    if len(members) < len(targets):
        known = sum(name != UNKNOWN for name in members)
        raise DataError(
            f"{len(targets)} patient-disjoint subsets need as many patients, but there are {known} known patients"
            f"{' and one group of images without a patient' if UNKNOWN in members else ''}: "
            "fill the patient column, ask for fewer subsets, or take the scheme by_image_leaky and say so"
        )
    names = sorted(members, key=lambda name: rank(seed, name))
    place = assign_groups(group_weights([members[name] for name in names]), targets, seed)
    subsets: list[list[SplitItem]] = [[] for _ in targets]
    for name, subset in zip(names, place, strict=True):
        subsets[subset].extend(members[name])
    return subsets


def deal_named(items: Sequence[SplitItem], held_out: Mapping[str, Sequence[str]]) -> dict[str, list[SplitItem]]:
    """Deals the patients that are named to their subsets, and everybody else to `train`.

    Args:
        items: all images.
        held_out: subset -> patients, none in two of them.

    Returns:
        "train" and the subsets of `held_out` -> items.

    Raises:
        DataError: a name that is no patient's, nobody left to train on, or an image whose patient is not known: it
            might be of somebody held out.
    """
    subset_of = {patient: subset for subset, patients in held_out.items() for patient in patients}
    absent = sorted(set(subset_of) - {item.patient for item in items if item.patient is not None})
    if absent:
        known = {item.patient for item in items if item.patient is not None}
        raise DataError(f"held_out_patients: no image is of patient {absent[0]!r}{did_you_mean(absent[0], known)}")
    unknown = [item.item for item in items if item.patient is None]
    if unknown:
        raise DataError(
            f"held_out_patients: the patient of {unknown[0]} ({len(unknown)} such images) is not known and might be "
            "held out: fill the patient column"
        )
    dealt: dict[str, list[SplitItem]] = {subset: [] for subset in ("train", *held_out)}
    for item in items:
        dealt[subset_of.get(item.group, "train")].append(item)
    if not dealt["train"]:
        raise DataError("held_out_patients: every patient is held out, nobody is left to train on")
    return dealt


def group_weights(groups: Sequence[Sequence[SplitItem]]) -> np.ndarray:
    """What each group holds of the whole: float (G, 2C + 1), shares of each class's images and patients.

    Each column sums to 1; classes are those that occur. The last column, 1/G, keeps every subset from being empty.
    """
    labels = sorted({item.label for group in groups for item in group})
    images = np.array([[sum(i.label == label for i in group) for label in labels] for group in groups], float)
    weights = np.concatenate([images, images > 0, np.ones((len(images), 1))], axis=1)
    return weights / weights.sum(axis=0)


def imbalance(shares: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The cost of subsets that hold `shares` (..., D) where `targets` (...) were wanted: float (...).

    Chi-square like, so that a small subset is held to its target as strictly as a large one; an absent class costs more
    than any deviation.
    """
    targets = np.asarray(targets)[..., None]
    return ((shares - targets) ** 2 / targets).sum(-1) + _ABSENT * (shares < 1e-9).sum(-1)


def assign_groups(weights: np.ndarray, targets: Sequence[float], seed: int) -> np.ndarray:
    """A subset for each group, none left empty: int (G,) from `weights` (G, D) and `targets` (S,), G >= S."""
    wanted = np.asarray(targets, float)
    # Ties between subsets fall differently with each seed; otherwise subset 0 always had the largest group.
    turn = sorted(range(len(wanted)), key=lambda subset: rank(seed, f"subset {subset}"))
    wanted = wanted[turn]
    shares = np.zeros((len(wanted), weights.shape[1]))
    place = np.zeros(len(weights), int)
    for group in np.argsort(-weights.sum(1).round(9), kind="stable"):
        gain = imbalance(shares + weights[group], wanted) - imbalance(shares, wanted)
        place[group] = np.argmin(gain.round(9))
        shares[place[group]] += weights[group]
    _improve(place, weights, wanted)
    return np.array(turn)[place]


def _improve(place: np.ndarray, weights: np.ndarray, wanted: np.ndarray) -> None:
    """Takes the best single move or exchange of two groups, in place, as long as one lowers the imbalance."""
    count = len(weights)
    for _ in range(20 * count):
        shares = np.zeros((len(wanted), weights.shape[1]))
        np.add.at(shares, place, weights)
        cost = imbalance(shares, wanted)
        here = shares[place]  # (G, D)
        move = (
            imbalance(here - weights, wanted[place])[:, None]
            + imbalance(shares[None] + weights[:, None], wanted)
            - cost[place][:, None]
            - cost[None]
        )  # (G, S)
        move[np.arange(count), place] = 0
        alone = np.bincount(place, minlength=len(wanted))[place] == 1
        move[alone] = 0  # a subset keeps its last group
        group, subset = np.unravel_index(np.argmin(move), move.shape)
        best, action = move[group, subset], ((group, subset),)
        if count <= _MAX_GROUPS_FOR_SWAPS:
            after = imbalance(here[:, None] - weights[:, None] + weights[None], wanted[place][:, None])  # (G, G)
            swap = after + after.T - cost[place][:, None] - cost[place][None]
            swap[place[:, None] == place[None]] = 0
            one, other = np.unravel_index(np.argmin(swap), swap.shape)
            if swap[one, other] < best:
                best, action = swap[one, other], ((one, place[other]), (other, place[one]))
        if best > -1e-9:
            return
        for moved, target in action:
            place[moved] = target


def deal_images(items: Sequence[SplitItem], targets: Sequence[float], seed: int) -> list[list[SplitItem]]:
    """Deals single images, class by class, in the proportions `targets`; blind to patients.

    Each class's counts are its size times the target, rounded by largest remainder.
    """
    subsets: list[list[SplitItem]] = [[] for _ in targets]
    for label in sorted({item.label for item in items}):
        pool = sorted((i for i in items if i.label == label), key=lambda i: rank(seed, i.item))
        exact = len(pool) * np.asarray(targets, float)
        counts = np.floor(exact + 1e-9).astype(int)
        for subset in np.argsort(-(exact - counts).round(9), kind="stable")[: len(pool) - counts.sum()]:
            counts[subset] += 1
        for subset, part in enumerate(np.split(np.array(pool, object), np.cumsum(counts)[:-1])):
            subsets[subset].extend(part)
    return subsets


def take_fraction(
    items: Sequence[SplitItem],
    fraction: float,
    classes: Sequence[str],
    seed: int,
    balance: str,
    grouping: str,
    key: str = "label_fraction",
) -> set[str]:
    """The items of a subset that keep their labels. Larger fractions contain the smaller ones of a seed.

    With N items and C classes among them, exactly floor(fraction * N / C) items of every class (`balance="equal"`; 5 %
    of 9240 images in 3 classes: 154 each), or of a class with n items max(1, round(fraction * n)) (`"proportional"`).
    `fraction` 1 keeps all.

    Args:
        items: the training subset, or that of validation.
        fraction: in (0, 1].
        classes: names, for the messages.
        seed: of the choice.
        balance: "equal" or "proportional".
        grouping: "image" takes from all patients in turn, so that few labels show many patients; "patient" takes
            patients whole, one after the other (the last one of each class only in part), as a lab labels.
        key: what asks for it, for the messages: "label_fraction", or "val_label_fraction" of the validation subset.

    Returns:
        The ids of the chosen items.

    Raises:
        ConfigError: of images with one class each, a class without any image; the fraction gives
            a class no image, or wants more of a class than there is.
    """
    if fraction == 1:
        return {item.item for item in items}
    kind = "validation" if key == "val_label_fraction" else "training"
    # An image with several classes (a region with its mask) is dealt by one of them, which need not be each in turn.
    one_each = not any(item.shown for item in items)
    for label, name in enumerate(classes if one_each else ()):
        if not any(item.shows(label) for item in items):
            raise ConfigError(
                f"{key}={fraction}: none of the {len(items)} {kind} images shows {name!r}, so no part of them can: "
                f"split so that its patients are in {kind} too, or take the class off classes"
            )
    pools: dict[int, list[SplitItem]] = defaultdict(list)
    for item in items:
        pools[item.label].append(item)
    kept: set[str] = set()
    for label, pool in sorted(pools.items()):
        if balance == "equal":
            count = int(fraction * len(items) / len(pools) + 1e-9)
        else:
            count = max(1, round(fraction * len(pool)))
        if count > len(pool):
            most = np.floor(1000 * min(map(len, pools.values())) * len(pools) / len(items)) / 1000
            raise ConfigError(
                f"{key}={fraction} with equal classes wants {count} {kind} images of "
                f"{classes[label]!r}, but there are {len(pool)}: at most {most} is possible, "
                'or set label_balance="proportional"'
            )
        if count == 0:
            raise ConfigError(
                f"{key}={fraction} of {len(items)} {kind} images leaves none of {classes[label]!r}: raise it"
            )
        kept.update(item.item for item in _label_order(pool, seed, grouping)[:count])
    return kept


def _label_order(pool: Iterable[SplitItem], seed: int, grouping: str) -> list[SplitItem]:
    by_patient: Mapping[str, list[SplitItem]] = defaultdict(list)
    for item in sorted(pool, key=lambda i: rank(seed, i.item)):
        by_patient[item.group].append(item)
    patients = sorted(by_patient, key=lambda name: rank(seed, name))
    if grouping == "patient":
        return [item for patient in patients for item in by_patient[patient]]
    turns = max(map(len, by_patient.values()))
    return [by_patient[p][turn] for turn in range(turns) for p in patients if turn < len(by_patient[p])]
