"""Boxes that many tiles found, made into objects: each once, however the tiles cut it."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import shapely

from pathzoo.wsi.types import Int64, Region

#: Any shape, float64.
Float64: TypeAlias = npt.NDArray[np.float64]
#: (n, 4) bool: by box its left, upper, right and lower side.
_Sides: TypeAlias = npt.NDArray[np.bool_]
_Tiles: TypeAlias = frozenset[int]
_NONE: _Tiles = frozenset()
#: Boxes whose neighbours are looked up at once, which bounds the memory where very many overlap.
_CHUNK = 16384


@dataclass(frozen=True)
class MergeRule:
    """When boxes of different tiles are one object; see `merge_boxes`."""

    #: Least intersection over union of two boxes that each show the whole object, 0..1.
    iou: float = 0.5
    #: Least part of a piece's area that lies inside the object it belongs to, 0..1.
    ios: float = 0.6
    #: Least part, of the shorter extent along a seam, that the other side of the seam agrees with, 0..1.
    seam: float = 0.7
    #: A box that ends this near to its tile's edge, or beyond it, counts as cut there. Level-0 pixels.
    edge: float = 2.0

    def __post_init__(self) -> None:
        for name in ("iou", "ios", "seam"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0 and at most 1")
        if not self.edge >= 0:
            raise ValueError(f"edge is {self.edge}; it must not be below 0")


def merge_boxes(
    boxes: Float64, tile: Int64, tiles: Float64, region: Region, rule: MergeRule = MergeRule()
) -> tuple[Float64, Int64]:
    """Merges what overlapping tiles found of the same objects.

    Only boxes of one class are ever merged, and an object takes at most one box of each tile, further fragments aside:
    what a tile tells apart (neighbours that touch, a small nucleus inside a large one) stays apart. The result is that
    of these four steps:

    1. A box is *cut* on a side where it ends within `rule.edge` of its tile's edge or beyond it, unless that edge lies
       on the region's edge or outside.
    2. *Parts.* A box `a` of tile A, cut on its right, and `b` of tile B, cut on its left, are parts of one object where
       B is the next tile to the right in A's row (tiles with equal upper and lower edges) without a gap between them,
       both boxes reach across all the width that the tiles share, and their extents in y agree: intersection over the
       shorter >= `rule.seam`. (Gap and reach within `rule.edge`.) The same holds with x and y exchanged. Pairs are
       joined in the order of their agreement (intersection over union of the extents, then position in `boxes`), each
       unless that would join two boxes of one tile. What is joined becomes one box, the hull.
    3. *Duplicates.* A side of a box, or hull, is open where every part that reaches it (within `rule.edge`) is cut
       there; one with an open side is a fragment. In this order - whole boxes, then hulls without open sides, both by
       falling score, then fragments by falling area and score; all then by x0, y0, x1, y1, class and position - each
       that is left takes in, of those behind it, by falling IoU (then in order), the ones of which IoU >= `rule.iou`,
       if they share no tile with it and what it has taken. The score of an object is the highest of all so far.
    4. *Pieces.* By falling area (then in the order above), each object that is left takes in, of those behind it, by
       falling part of their area that lies inside it (then in order), the ones of which that part is at least
       `rule.ios`, if they share no tile with it and what it has taken. Of a fragment it counts what lies inside the
       hull; of what is none, what lies inside one of the parts, since other objects stand between these. From all but
       a fragment of one part a fragment is barred only by the tiles that found the object whole: a tile's edge may cut
       it into several. Scores of pieces do not count.

    So a box inside another is a piece of it unless some tile found both whole. An object's box is that of the one that
    took the others in. (Where a tile sees one object larger than the overlap as several, as it does a horseshoe's ends,
    one of them is joined, and the others are pieces if they lie inside the hull. Else they come out beside it.)

    With tiles that overlap by more than twice `rule.edge`, and a detector that finds in each tile exactly what is
    visible there, an object that is whole in a tile, and one that is whole in none, come out once with their exact box,
    and two objects whose boxes do not overlap always stay two. With less overlap, two objects that end on either side
    of a seam (within `rule.edge`) and agree along it count as one that the seam cuts.

    Args:
        boxes: (n, 6) float64 x0, y0, x1, y1 in level-0 pixels, score, class index; x0 < x1, y0 < y1.
        tile: (n,) index into `tiles`: where each box was found.
        tiles: (m, 4) x0, y0, x1, y1 of the tiles in level-0 pixels.
        region: x, y, width, height of the slide's scanned area; edges of tiles there cut nothing.
        rule: The thresholds.

    Returns:
        (k, 6) float64 merged boxes, by falling score, then x0, y0, x1, y1 and class; and (n,) int64, the number of the
        merged box that each box went into.
    """
    if len(boxes) == 0:
        return np.zeros((0, 6)), np.zeros(0, np.int64)
    boxes = np.asarray(boxes, np.float64)
    cut = _cut_sides(boxes, tiles[tile], region, rule.edge)
    part_of = _join(_seam_pairs(boxes, tile, tiles, cut, rule), tile)
    units, rank = _hulls(boxes, part_of, cut, rule.edge)
    object_of = _suppress(units, rank, boxes, part_of, _tile_sets(part_of, tile, len(units)), rule)
    kept = np.flatnonzero(object_of == np.arange(len(units)))
    merged = units[kept]
    order = np.lexsort((merged[:, 5], *merged[:, 3::-1].T, -merged[:, 4]))
    number = np.empty(len(units), np.int64)
    number[kept[order]] = np.arange(len(kept))
    return merged[order], number[object_of][part_of]


def _cut_sides(boxes: Float64, edges: Float64, region: Region, edge: float) -> _Sides:
    """(n, 4) bool, step 1; `edges` (n, 4) are those of each box's tile."""
    x, y, width, height = region
    inner = np.hstack([edges[:, :2] > (x, y), edges[:, 2:] < (x + width, y + height)])
    near = np.hstack([boxes[:, :2] <= edges[:, :2] + edge, boxes[:, 2:4] >= edges[:, 2:] - edge])
    return np.asarray(inner & near, np.bool_)


def _seam_pairs(boxes: Float64, tile: Int64, tiles: Float64, cut: _Sides, rule: MergeRule) -> Int64:
    """(p, 2) boxes that are parts of one object, in the order in which step 2 joins them."""
    found, agreement = [], []
    following = [_following(tiles, axis) for axis in (0, 1)]
    for axis in (0, 1):  # tiles side by side, then one above the other
        first, second = np.flatnonzero(cut[:, 2 + axis]), np.flatnonzero(cut[:, axis])
        if not len(first) or not len(second):
            continue
        reach = np.array([-3, -3, 3, 3]) * rule.edge  # both boxes, and the tiles, may each miss the seam by one `edge`
        near = shapely.STRtree(_figures(boxes[second])).query(_figures(boxes[first, :4] + reach))
        i, j = first[near[0]], second[near[1]]
        a, b, in_a, in_b = boxes[i], boxes[j], tiles[tile[i]], tiles[tile[j]]
        across, along = (axis, axis + 2), (1 - axis, 3 - axis)
        beside = (following[axis][tile[i]] == tile[j]) & (in_b[:, across[0]] <= in_a[:, across[1]] + rule.edge)
        reaching = (a[:, across[0]] <= in_b[:, across[0]] + rule.edge) & (
            b[:, across[1]] >= in_a[:, across[1]] - rule.edge
        )
        low, high = a[:, along[0]], a[:, along[1]]
        other_low, other_high = b[:, along[0]], b[:, along[1]]
        common = np.minimum(high, other_high) - np.maximum(low, other_low)
        agree = common >= rule.seam * np.minimum(high - low, other_high - other_low)
        good = (a[:, 5] == b[:, 5]) & beside & reaching & agree
        union = np.maximum(high, other_high) - np.minimum(low, other_low)
        found.append(np.column_stack([i, j])[good])
        agreement.append((common / union)[good])
    if not found:
        return np.zeros((0, 2), np.int64)
    pairs, agreed = np.concatenate(found), np.concatenate(agreement)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0], -agreed))]


def _following(tiles: Float64, axis: int) -> Int64:
    """(m,) the next tile along an axis with the same edges across it, -1 where there is none."""
    along = (1 - axis, 3 - axis)
    order = np.lexsort((tiles[:, axis], tiles[:, along[1]], tiles[:, along[0]]))
    ahead = np.full(len(tiles), -1, np.int64)
    same = (tiles[order[1:]][:, along] == tiles[order[:-1]][:, along]).all(axis=1)
    ahead[order[:-1][same]] = order[1:][same]
    return ahead


def _join(pairs: Int64, tile: Int64) -> Int64:
    """(n,) number of the object that each box is a part of, after step 2."""
    parent = list(range(len(tile)))
    members = {i: {int(tile[i])} for i in np.unique(pairs).tolist()}

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for i, j in pairs.tolist():
        a, b = root(i), root(j)
        if a == b or not members[a].isdisjoint(members[b]):
            continue
        if len(members[a]) < len(members[b]):
            a, b = b, a
        parent[b] = a
        members[a] |= members.pop(b)
    roots = np.array([root(i) for i in range(len(tile))], np.int64)
    return np.unique(roots, return_inverse=True)[1].astype(np.int64)


def _hulls(boxes: Float64, part_of: Int64, cut: _Sides, edge: float) -> tuple[Float64, Int64]:
    """(k, 6) hulls with the highest score of their parts, and their rank: 0 whole box, 1 whole hull, 2 fragment."""
    order = np.argsort(part_of, kind="stable")
    sizes = np.bincount(part_of)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    low = np.minimum.reduceat(boxes[order, :2], starts)
    high = np.maximum.reduceat(boxes[order, 2:5], starts)
    units = np.column_stack([low, high, boxes[order, 5][starts]])
    closing = ~cut & (np.abs(boxes[:, :4] - units[part_of, :4]) <= edge)
    closed = np.logical_or.reduceat(closing[order], starts).all(axis=1)
    return units, np.where(closed, np.minimum(sizes - 1, 1), 2).astype(np.int64)


def _tile_sets(part_of: Int64, tile: Int64, n: int) -> list[_Tiles]:
    """The tiles of each of n units."""
    one = {number: frozenset((number,)) for number in np.unique(tile).tolist()}  # shared: most units have one tile
    sets: list[_Tiles] = [_NONE] * n
    for unit, number in zip(part_of.tolist(), tile.tolist(), strict=True):
        sets[unit] = sets[unit] | one[number] if sets[unit] else one[number]
    return sets


def _suppress(
    units: Float64, rank: Int64, boxes: Float64, part_of: Int64, tiles_of: list[_Tiles], rule: MergeRule
) -> Int64:
    """(k,) the unit that took each in (itself where it stays), steps 3 and 4; raises scores in `units`."""
    area = (units[:, 2] - units[:, 0]) * (units[:, 3] - units[:, 1])
    order = np.lexsort((units[:, 5], *units[:, 3::-1].T, -units[:, 4], np.where(rank == 2, -area, 0), rank))
    place = _places(order)
    i, j, common = _overlaps(units)
    iou = common / (area[i] + area[j] - common)
    good = iou >= rule.iou
    taken_by = list(range(len(units)))
    whole_in = [tiles if r == 0 else _NONE for tiles, r in zip(tiles_of, rank.tolist(), strict=True)]
    _take(i[good], j[good], iou[good], place, taken_by, tiles_of, whole_in, np.zeros(good.sum(), np.bool_))
    object_of = np.array(taken_by, np.int64)
    np.maximum.at(units[:, 4], object_of, units[:, 4].copy())
    place = _places(np.lexsort((place, -area)))
    first = np.where(place[i] < place[j], i, j)
    second = i + j - first
    inside = common / area[second]
    good = inside >= rule.ios
    first, second, inside = first[good], second[good], inside[good]
    fragment, hull = rank == 2, np.bincount(part_of) > 1
    between = hull[first] & ~fragment[second]
    inside[between] = _inside_parts(first[between], second[between], units, boxes, part_of)
    good = inside >= rule.ios
    first, second, inside = first[good], second[good], inside[good]
    less = fragment[second] & (hull | ~fragment)[first]
    _take(first, second, inside, place, taken_by, tiles_of, whole_in, less)
    return np.array(taken_by, np.int64)[object_of]


def _take(
    i: Int64,
    j: Int64,
    measure: Float64,
    place: Int64,
    taken_by: list[int],
    tiles_of: list[_Tiles],
    whole_in: list[_Tiles],
    barred_less: npt.NDArray[np.bool_],
) -> None:
    """Of each pair lets the one that comes first by `place` take in the other, if both are left and no tile bars it.

    Those that one may take in come by falling `measure`. In pairs that are `barred_less` only tiles that found the
    first one whole bar. `taken_by`, `tiles_of` and `whole_in` are brought up to date.
    """
    swap = place[i] > place[j]
    first, second = np.where(swap, j, i), np.where(swap, i, j)
    order = np.lexsort((place[second], -measure, place[first]))
    for a, b, less in zip(first[order].tolist(), second[order].tolist(), barred_less[order].tolist(), strict=True):
        if taken_by[a] == a and taken_by[b] == b and (whole_in if less else tiles_of)[a].isdisjoint(tiles_of[b]):
            taken_by[b] = a
            tiles_of[a] = tiles_of[a] | tiles_of[b]
            whole_in[a] = whole_in[a] | whole_in[b]


def _inside_parts(
    hulls: Int64, others: Int64, units: Float64, boxes: Float64, part_of: Int64
) -> npt.NDArray[np.float64]:
    """(p,) of each of `others` the largest part of its area that lies inside one part of its hull."""
    order = np.argsort(part_of, kind="stable")
    ends = np.cumsum(np.bincount(part_of))
    inside = np.zeros(len(hulls))
    for number, (hull, other) in enumerate(zip(hulls.tolist(), others.tolist(), strict=True)):
        parts, box = boxes[order[ends[hull - 1] if hull else 0 : ends[hull]]], units[other]
        sides = np.minimum(parts[:, 2:4], box[2:4]) - np.maximum(parts[:, :2], box[:2])
        inside[number] = sides.clip(0).prod(axis=1).max() / (box[2:4] - box[:2]).prod()
    return inside


def _overlaps(units: Float64) -> tuple[Int64, Int64, Float64]:
    """Pairs i < j of one class whose boxes overlap, and the area that they share."""
    figures = _figures(units)
    tree, found = shapely.STRtree(figures), []
    for start in range(0, len(units), _CHUNK):
        i, j = tree.query(figures[start : start + _CHUNK])
        i = i + start
        once = (i < j) & (units[i, 5] == units[j, 5])
        i, j = i[once], j[once]
        sides = np.minimum(units[i, 2:4], units[j, 2:4]) - np.maximum(units[i, :2], units[j, :2])
        common = sides.clip(0).prod(axis=1)
        found.append((i[common > 0], j[common > 0], common[common > 0]))
    i, j, common = (np.concatenate(column) for column in zip(*found, strict=True))
    return i, j, common


def _places(order: Int64) -> Int64:
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return place


def _figures(boxes: Float64) -> npt.NDArray[np.object_]:
    """Diagonals: the tree looks at envelopes only, and these are quickest to make."""
    return np.asarray(shapely.linestrings(boxes[:, :4].reshape(-1, 2, 2)))
