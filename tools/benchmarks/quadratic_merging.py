"""The definition of `merge_boxes` in plain loops over all pairs: what its result and speed are held against."""

from collections.abc import Callable
from typing import Any

import numpy as np

from pathzoo.wsi.merging import MergeRule


def merge_quadratic(
    boxes: np.ndarray, tile: np.ndarray, tiles: np.ndarray, region: tuple[int, int, int, int], rule: MergeRule
) -> tuple[np.ndarray, np.ndarray]:
    """Same arguments and results as `merge_boxes`; time and steps grow with the square of the number of boxes."""
    if len(boxes) == 0:
        return np.zeros((0, 6)), np.zeros(0, np.int64)
    found = [tuple(row) for row in np.asarray(boxes, float).tolist()]
    frames = [tuple(row) for row in np.asarray(tiles, float).tolist()]
    where = [int(t) for t in tile]
    cut = [_cut(box, frames[t], region, rule.edge) for box, t in zip(found, where, strict=True)]
    groups = _parts(found, where, frames, cut, rule)
    units = [_unit(group, found, where, cut, rule.edge) for group in groups]
    units.sort(key=lambda u: (u["rank"], -u["area"] if u["rank"] == 2 else 0, -u["score"], u["box"], u["class"]))
    units = _take(units, lambda a, b: _common(a, b) / (a["area"] + b["area"] - _common(a, b)), rule.iou, scores=True)
    units.sort(key=lambda u: -u["area"])  # stable
    units = _take(units, _inside, rule.ios, scores=False)
    units.sort(key=lambda u: (-u["score"], u["box"], u["class"]))
    number = np.full(len(found), -1)
    for n, one in enumerate(units):
        number[one["members"]] = n
    return np.array([(*one["box"], one["score"], one["class"]) for one in units]), number


def _cut(box: tuple, frame: tuple, region: tuple, edge: float) -> list[bool]:
    x, y, width, height = region
    return [
        frame[0] > x and box[0] <= frame[0] + edge,
        frame[1] > y and box[1] <= frame[1] + edge,
        frame[2] < x + width and box[2] >= frame[2] - edge,
        frame[3] < y + height and box[3] >= frame[3] - edge,
    ]


def _parts(found: list, where: list, frames: list, cut: list, rule: MergeRule) -> list[list[int]]:
    pairs = []
    following = [[_following(t, frames, axis) for t in range(len(frames))] for axis in (0, 1)]
    for i, a in enumerate(found):
        if not any(cut[i]):
            continue
        for j, b in enumerate(found):
            if a[5] != b[5] or where[i] == where[j]:
                continue
            for axis in (0, 1):
                if cut[i][axis + 2] and cut[j][axis] and where[j] == following[axis][where[i]]:
                    agreed = _agreement(a, b, frames[where[i]], frames[where[j]], axis, rule)
                    if agreed is not None:
                        pairs.append((-agreed, i, j))
    group = [[i] for i in range(len(found))]
    for _, i, j in sorted(pairs):
        together = group[i] + group[j]
        if group[i] is not group[j] and len({where[k] for k in together}) == len(together):
            for k in together:
                group[k] = together
    return [sorted(members) for k, members in enumerate(group) if k == min(members)]


def _following(t: int, frames: list, axis: int) -> int | None:
    """The next tile along an axis with the same edges across it."""
    across = [1 - axis, 3 - axis]
    later = [
        (frame[axis], k)
        for k, frame in enumerate(frames)
        if frame[axis] > frames[t][axis] and all(frame[side] == frames[t][side] for side in across)
    ]
    return min(later)[1] if later else None


def _agreement(a: tuple, b: tuple, in_a: tuple, in_b: tuple, axis: int, rule: MergeRule) -> float | None:
    """Of `a` and, beyond a seam across `axis`, `b`; None where they are no parts of one object."""
    low, high = 1 - axis, 3 - axis
    if in_b[axis] > in_a[axis + 2] + rule.edge:
        return None
    if a[axis] > in_b[axis] + rule.edge or b[axis + 2] < in_a[axis + 2] - rule.edge:
        return None
    common = min(a[high], b[high]) - max(a[low], b[low])
    if common < rule.seam * min(a[high] - a[low], b[high] - b[low]):
        return None
    return common / (max(a[high], b[high]) - min(a[low], b[low]))


def _unit(group: list[int], found: list, where: list, cut: list, edge: float) -> dict[str, Any]:
    pick = (min, min, max, max)
    box = tuple(pick[side](found[i][side] for i in group) for side in range(4))
    closed = all(any(abs(found[i][s] - box[s]) <= edge and not cut[i][s] for i in group) for s in range(4))
    return {
        "box": box,
        "score": max(found[i][4] for i in group),
        "class": found[group[0]][5],
        "members": list(group),
        "parts": [{"box": found[i][:4]} for i in group],
        "tiles": {where[i] for i in group},
        "whole in": {where[i] for i in group if closed and len(group) == 1},
        "area": (box[2] - box[0]) * (box[3] - box[1]),
        "rank": 2 if not closed else int(len(group) > 1),
    }


def _take(
    units: list[dict[str, Any]], measure: Callable[[dict, dict], float], least: float, scores: bool
) -> list[dict[str, Any]]:
    left, objects = list(units), []
    while left:
        first, *left = left
        measured = [(measure(first, other), n) for n, other in enumerate(left) if other["class"] == first["class"]]
        taken = set()
        for value, n in sorted(measured, key=lambda entry: (-entry[0], entry[1])):
            cut_up = left[n]["rank"] == 2 and (first["rank"] < 2 or len(first["parts"]) > 1)
            bars = first["whole in" if not scores and cut_up else "tiles"]
            if value >= least and not bars & left[n]["tiles"]:
                taken.add(n)
                first["whole in"] |= left[n]["whole in"]
                first["tiles"] |= left[n]["tiles"]
                first["members"] += left[n]["members"]
                if scores:
                    first["score"] = max(first["score"], left[n]["score"])
        objects.append(first)
        left = [other for n, other in enumerate(left) if n not in taken]
    return objects


def _inside(a: dict[str, Any], b: dict[str, Any]) -> float:
    """Part of `b` that lies in `a`: a fragment in the whole box, what is none in one of its parts."""
    within = [a] if b["rank"] == 2 else a["parts"]
    return max(_common(one, b) for one in within) / b["area"]


def _common(one: dict[str, Any], other: dict[str, Any]) -> float:
    a, b = one["box"], other["box"]
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return width * height if width > 0 and height > 0 else 0.0
