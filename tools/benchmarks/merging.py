"""Seconds to merge the boxes of overlapping tiles, against the quadratic definition and torchvision's batched_nms.

    python tools/benchmarks/merging.py [--boxes 1000 3000 100000] [--markdown FILE]

Nuclei-like objects lie side by side on a slide; every tile (512 px, overlapping by a quarter) finds what it sees of
them, clipped at its edges and some tenths of a pixel off. All run on one core. batched_nms only drops boxes by IoU: it
joins nothing, and counts fragments that lie inside an object again, which the column after its time shows.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torchvision
from measuring import Table, in_turns, machine, publish, ratio, spread
from quadratic_merging import merge_quadratic

from pathzoo.wsi.merging import MergeRule, merge_boxes
from pathzoo.wsi.tiling import TileGrid, tile_grid

_TILE, _OVERLAP, _CLASSES = 512, 0.25, 3
#: A nucleus every so many pixels, and how many a tile sees for that.
_CELL = 33
_PER_TILE = (_TILE / _CELL) ** 2


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints; returns 0."""
    arguments = _parser().parse_args(argv)
    torch.set_num_threads(1)
    where = machine()
    rows = [_row(n, arguments) for n in arguments.boxes]
    columns = ("boxes", "objects", "merge_boxes, s", "found", "batched_nms, s", "found", "definition, s", "def./ours")
    table = Table("Merging the boxes of 512-px tiles, overlap 1/4 (aim: 100,000 in under 1 s)", columns, rows)
    note = (
        f"Medians (range) of {arguments.rounds} rounds in turns, after one to warm up; one core. The definition in "
        f"plain loops runs where up to {arguments.most_quadratic} boxes were asked for; it finds the same. {where}."
    )
    publish([table], note, arguments.markdown)
    return 0


def scene(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, TileGrid, int]:
    """At least n boxes (m, 6) that the tiles of a grid found, the tile of each, the grid, and the number of objects.

    One object, 12 to 28 px wide and high, lies in every cell of 33 px, so that none overlap.
    """
    rng = np.random.default_rng(seed)
    side = int(_TILE * (1 + (1 - _OVERLAP) * max(1, np.ceil(np.sqrt(n / _PER_TILE)) - 1)))
    grid = tile_grid((0, 0, side, side), (_TILE, _TILE), 1.0, _OVERLAP)
    cells = np.stack(np.meshgrid(*[np.arange(0, side - _CELL, _CELL)] * 2), axis=-1).reshape(-1, 2)
    middle = cells + _CELL / 2 + rng.uniform(-2, 2, cells.shape)
    half, number = rng.uniform(6, 14, cells.shape), len(cells)
    objects = np.column_stack([middle - half, middle + half, rng.random(number), rng.integers(0, _CLASSES, number)])
    boxes, tile = [], []
    for k, corner in enumerate(grid.corners):
        near = objects[((objects[:, :2] < corner + _TILE) & (objects[:, 2:4] > corner)).all(axis=1)]
        near[:, :4] += rng.normal(0, 0.3, (len(near), 4))
        near[:, :4] = near[:, :4].clip(np.tile(corner, 2), np.tile(corner + _TILE, 2))
        near = near[(near[:, 2:4] - near[:, :2] > 1).all(axis=1)]
        boxes.append(near)
        tile.append(np.full(len(near), k))
    return np.concatenate(boxes), np.concatenate(tile), grid, number


def _row(n: int, arguments: argparse.Namespace) -> tuple[str, ...]:
    boxes, tile, grid, objects = scene(n)
    frames = np.hstack([grid.corners, grid.corners + _TILE]).astype(float)
    rule, found = MergeRule(), {}
    places, scores, classes = (torch.from_numpy(np.ascontiguousarray(boxes[:, part])) for part in (slice(4), 4, 5))

    def ours() -> int:
        return len(merge_boxes(boxes, tile, frames, grid.region, rule)[0])

    def peer() -> int:
        return len(torchvision.ops.batched_nms(places, scores, classes, rule.iou))

    def quadratic() -> int:
        return len(merge_quadratic(boxes, tile, frames, grid.region, rule)[0])

    def timed(name: str, work: Callable[[], int]) -> Callable[[], float]:
        def run() -> float:
            started = time.perf_counter()
            found[name] = work()
            return time.perf_counter() - started

        return run

    arms = {"ours": timed("ours", ours), "peer": timed("peer", peer)}
    if n <= arguments.most_quadratic:
        arms["definition"] = timed("definition", quadratic)
    values = in_turns(arms, arguments.rounds)
    slow = spread(values["definition"]).show() if "definition" in values else "not run"
    compared = ratio(values["definition"], values["ours"]).show() if "definition" in values else "not run"
    if found.get("definition", found["ours"]) != found["ours"]:
        raise SystemExit(f"merge_boxes found {found['ours']} objects, the definition {found['definition']}")
    middle = (spread(values["ours"]).show(), f"{found['ours']:,}", spread(values["peer"]).show(), f"{found['peer']:,}")
    return (f"{len(boxes):,}", f"{objects:,}", *middle, slow, compared)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--boxes", type=int, nargs="+", default=[1000, 3000, 100_000], metavar="N", help="or a few more"
    )
    parser.add_argument("--most-quadratic", type=int, default=3000, help="so many that the definition is timed with")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
