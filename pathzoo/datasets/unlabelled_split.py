"""Which unlabelled tiles validate a pretext task: whole patients, chosen by hash. Needs no torch."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pathzoo.datasets.slide_names import Origins
from pathzoo.datasets.split_schemes import rank
from pathzoo.datasets.splits import Split, Subset
from pathzoo.errors import DataError


def split_by_share(infos: Sequence[Mapping[str, Any]], share: float, seed: int) -> Split:
    """Parts tiles into "train" and "val", or puts all into "all" where `share` is 0.

    What belongs together stays together (`group_of_tile`). Groups are taken for validation in an order that hashes of
    (seed, group) give, as long as one brings its part nearer to `share`: the order of the tiles does not matter, and a
    few tiles more move few others. A picture whose bytes are trained on does not validate: it is in neither.

    Args:
        infos: item, patient, slide, sha256 of each tile.
        share: part of the tiles that validates, 0 to below 1.
        seed: another seed, another choice.

    Returns:
        A split of scheme "none" or "val_share", whose groups are those of `group_of_tile`.

    Raises:
        DataError: no tile, or fewer than two groups.
    """
    if not infos:
        raise DataError("there is no tile: the sources are empty, or everything was left out")
    unknown = sum(info["patient"] is None for info in infos)
    if not share:
        subsets = {"all": _subset(infos)}
        return Split("none", subsets, (), seed, {}, "patient", unknown)
    counts = Counter(map(group_of_tile, infos))
    if len(counts) < 2:
        raise DataError(
            f"val_share={share:g}: all {len(infos)} tiles are of one {_kind(next(iter(counts)))}, so none can validate "
            'apart from those trained on: give more, or subset="all" without validation'
        )
    held = _chosen(counts, share * len(infos), seed)
    train = [info for info in infos if group_of_tile(info) not in held]
    seen = {info["sha256"] for info in train}
    val = [info for info in infos if group_of_tile(info) in held and info["sha256"] not in seen]
    if not val:
        raise DataError(f"val_share={share:g}: every tile that would validate is a copy of one trained on")
    subsets = {"train": _subset(train), "val": _subset(val)}
    return Split("val_share", subsets, (), seed, {"val_share": share}, "patient", unknown)


def group_of_tile(info: Mapping[str, Any]) -> str:
    """What a tile is kept together with: its patient; else its slide; else its file, known by its bytes."""
    if info["patient"] is not None:
        return str(info["patient"])
    return f"slide {info['slide']}" if info["slide"] else f"file {info['sha256'][:16]}"


def _chosen(counts: Mapping[str, int], wanted: float, seed: int) -> set[str]:
    order = sorted(counts, key=lambda group: rank(seed, group))
    held, total = set(), 0
    for group in order:
        if abs(total + counts[group] - wanted) < abs(total - wanted) and len(held) < len(order) - 1:
            held.add(group)
            total += counts[group]
    return held or {min(order, key=lambda group: counts[group])}


def _subset(infos: Sequence[Mapping[str, Any]]) -> Subset:
    groups = tuple(sorted({group_of_tile(info) for info in infos}))
    origins = Origins.of((info["slide"], info["patient"]) for info in infos)
    return Subset({info["item"]: info["sha256"] for info in infos}, groups, origins)


def _kind(group: str) -> str:
    return next((kind for kind in ("slide", "file") if group.startswith(f"{kind} ")), "patient")
