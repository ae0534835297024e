"""Fits an anchor detector's anchors to the boxes of a COCO file, and says how well they, and others, fit.

    python tools/analysis_tools/fit_anchors.py tiles/train.json --size 1600

How well an anchor fits a box is the ratio of their widths or of their heights, whichever differs more, as a number
from 0 to 1. YOLOv5 trains an anchor on boxes that it fits better than 1/4; so the share of boxes that some anchor fits
that well ("best possible recall") is what training can reach at most. Anchors are the centres of k-means with the
distance 1 - ratio, moved to the geometric mean of their boxes. Boxes that are to be ignored are left out.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pathzoo.errors import ConfigError, DataError, PathzooError
from pathzoo.models.dense_heads.yolov5_boxes import COCO_ANCHORS, MOST_RATIO

_ROUNDS = 100


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status (0, or 2 for bad input)."""
    arguments = _parser().parse_args(argv)
    try:
        sides = read_sides(arguments.coco, arguments.size)
        anchors = fit_anchors(sides, arguments.levels * arguments.per_level, arguments.seed, arguments.restarts)
    except PathzooError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    low, middle, high = (np.percentile(sides, q, axis=0) for q in (5, 50, 95))
    print(
        f"{arguments.coco}: {len(sides)} boxes; 5 %, half and 95 % of them are no larger than "
        + ", ".join(f"{w:.0f} x {h:.0f}" for w, h in (low, middle, high))
        + " px"
    )
    for name, found in (("fitted", anchors), ("of COCO", np.array(COCO_ANCHORS, float).reshape(-1, 2))):
        recall, mean = fitness(sides, found)
        print(f"{name}: best possible recall {recall:.4f} at ratio {MOST_RATIO:g}, mean best ratio {mean:.3f}")
    print(config_text(anchors, arguments.levels))
    return 0


def read_sides(path: Path, size: float | None = None) -> np.ndarray:
    """Widths and heights of a COCO file's boxes.

    Args:
        path: The file; annotations with `iscrowd` or `ignore` are left out.
        size: The longer side that every image has in training, in pixels; as they are where None.

    Returns:
        float64 (n, 2), pixels, n at least 1.

    Raises:
        DataError: No COCO file, a box without size or of an image that is not there, no box.
    """
    try:
        content = json.loads(path.read_text())
        images = {image["id"]: max(image["width"], image["height"]) for image in content["images"]}
        boxes = [
            (note["bbox"], images[note["image_id"]], note.get("id"))
            for note in content["annotations"]
            if not note.get("iscrowd") and not note.get("ignore")
        ]
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{path}: no COCO file of boxes ({type(error).__name__}: {error})") from error
    for box, _, number in boxes:
        if len(box) != 4 or not (box[2] > 0 and box[3] > 0):
            raise DataError(f"{path}: annotation {number}: bbox {box} has no size; remove it")
    if not boxes:
        raise DataError(f"{path}: holds no boxes to fit anchors to")
    return np.array([[w * (size or side) / side, h * (size or side) / side] for (_, _, w, h), side, _ in boxes])


def best_ratios(sides: np.ndarray, anchors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of every box how well its best anchor fits (0..1), and which one it is.

    Args:
        sides: (n, 2), width and height.
        anchors: (k, 2).

    Returns:
        float64 (n,) and int64 (n,).
    """
    ratio = sides[:, None] / anchors
    worse = np.minimum(ratio, 1 / ratio).min(axis=2)
    return worse.max(axis=1), worse.argmax(axis=1)


def fitness(sides: np.ndarray, anchors: np.ndarray) -> tuple[float, float]:
    """Best possible recall, the share of boxes that some anchor fits better than 1 / 4, and the mean best ratio."""
    best, _ = best_ratios(sides, anchors)
    return float((best > 1 / MOST_RATIO).mean()), float(best.mean())


def fit_anchors(sides: np.ndarray, count: int, seed: int = 0, restarts: int = 10) -> np.ndarray:
    """k-means with the distance 1 - ratio; of all rounds and restarts the anchors of the highest mean best ratio.

    Args:
        sides: (n, 2), width and height.
        count: k.
        seed: of the draws; the same seed gives the same anchors.
        restarts: how often it starts anew.

    Returns:
        float64 (k, 2), by rising area.

    Raises:
        ConfigError: More anchors than boxes of different size.
    """
    if count < 1 or len(np.unique(sides, axis=0)) < count:
        raise ConfigError(
            f"{count} anchors for {len(np.unique(sides, axis=0))} boxes of different size: ask for fewer, or give more"
        )
    random = np.random.RandomState(seed)
    best, score = sides[:count], -1.0
    for _ in range(restarts):
        anchors = _spread(sides, count, random)
        for _ in range(_ROUNDS):
            ratios, nearest = best_ratios(sides, anchors)
            if ratios.mean() > score:
                best, score = anchors, float(ratios.mean())
            moved = _centres(sides, anchors, nearest)
            if np.allclose(moved, anchors, rtol=1e-6):
                break
            anchors = moved
    return best[np.argsort(best.prod(axis=1), kind="stable")]


def config_text(anchors: np.ndarray, levels: int) -> str:
    """The head's argument, whole pixels, the finest level first."""
    whole = np.maximum(np.rint(anchors), 1).astype(int).reshape(levels, -1, 2)
    rows = ["    [" + ", ".join(f"({w}, {h})" for w, h in level) + "]," for level in whole.tolist()]
    return "\n".join(["anchors=[", *rows, "],"])


def _spread(sides: np.ndarray, count: int, random: np.random.RandomState) -> np.ndarray:
    """Boxes to start from, drawn the likelier the further they are from those drawn already (k-means++)."""
    drawn = [sides[random.randint(len(sides))]]
    while len(drawn) < count:
        ratios, _ = best_ratios(sides, np.array(drawn))
        weight = (1 - ratios) ** 2
        drawn.append(sides[random.choice(len(sides), p=weight / weight.sum())])
    return np.array(drawn)


def _centres(sides: np.ndarray, anchors: np.ndarray, nearest: np.ndarray) -> np.ndarray:
    """The geometric mean of each anchor's boxes; an anchor without any stays."""
    total, number = np.zeros_like(anchors), np.bincount(nearest, minlength=len(anchors))
    np.add.at(total, nearest, np.log(sides))
    return np.where(number[:, None] > 0, np.exp(total / np.maximum(number, 1)[:, None]), anchors)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("coco", type=Path, help="a COCO file of boxes")
    parser.add_argument("--size", type=float, help="longer side of a picture in training, pixels; default: as it is")
    parser.add_argument("--levels", type=int, default=3, help="levels of the head (3)")
    parser.add_argument("--per-level", type=int, default=3, help="anchors of a level (3)")
    parser.add_argument("--restarts", type=int, default=10, help="starts of k-means (10)")
    parser.add_argument("--seed", type=int, default=0)
    return parser


if __name__ == "__main__":
    sys.exit(main())
