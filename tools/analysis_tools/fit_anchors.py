"""Fits an anchor detector's anchors to boxes, and says how well they, and others, fit.

    python tools/analysis_tools/fit_anchors.py --config CONFIG [--cfg-options data_root=tiles ...]
    python tools/analysis_tools/fit_anchors.py tiles/train.json --size 1600

The first takes the boxes that the config trains on, and no other patients', at the size at which it trains on them; the
second all boxes of a COCO file.

How well an anchor fits a box is the ratio of their widths or of their heights, whichever differs more, as a number
from 0 to 1. YOLOv5 trains an anchor on boxes that it fits better than 1/4; so the share of boxes that some anchor fits
that well ("best possible recall") is what training can reach at most. Anchors are the centres of k-means with the
distance 1 - ratio, moved to the geometric mean of their boxes. Boxes that are to be ignored are left out.
"""

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pathzoo.apis.options import parse_options
from pathzoo.errors import ConfigError, DataError, PathzooError
from pathzoo.models.dense_heads.yolov5_boxes import COCO_ANCHORS, MOST_RATIO

_ROUNDS = 100
#: A side of more pixels is a mistake.
_MOST = 1e9


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status (0, or 2 for bad input)."""
    arguments = _parser().parse_args(argv)
    try:
        _check(arguments)
        if arguments.config:
            source = f"training tiles of {arguments.config}"
            sides = read_training_sides(arguments.config, parse_options(arguments.cfg_options))
        else:
            source, sides = str(arguments.coco), read_sides(arguments.coco, arguments.size)
        anchors = fit_anchors(sides, arguments.levels * arguments.per_level, arguments.seed, arguments.restarts)
    except PathzooError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    low, middle, high = (np.percentile(sides, q, axis=0) for q in (5, 50, 95))
    print(
        f"{source}: {len(sides)} boxes; 5 %, half and 95 % of them are no larger than "
        + ", ".join(f"{w:.0f} x {h:.0f}" for w, h in (low, middle, high))
        + " px"
    )
    for name, found in (("fitted", anchors), ("of COCO", np.array(COCO_ANCHORS, float).reshape(-1, 2))):
        recall, mean = fitness(sides, found)
        print(f"{name}: best possible recall {recall:.4f} at ratio {MOST_RATIO:g}, mean best ratio {mean:.3f}")
    print(config_text(anchors, arguments.levels))
    return 0


def read_training_sides(config: str, options: Mapping[str, Any]) -> np.ndarray:
    """Widths and heights of the boxes in the training subset of a config's tiles, as they are fitted into its frame.

    Args:
        config: A config file, or its path below the packaged configs.
        options: Dotted key -> value, set in the config.

    Returns:
        float64 (n, 2), pixels, n at least 1; ignored boxes are left out.

    Raises:
        ConfigError, DataError: The config or its data are bad, or no tiles with boxes; no box.
    """
    from pathzoo.apis.checks import errors_of_the_config
    from pathzoo.apis.config import load_config
    from pathzoo.apis.setup import setup
    from pathzoo.datasets.detection_tiles import TileDetection
    from pathzoo.datasets.transforms import LetterBox, Mosaic
    from pathzoo.registry import DATASETS

    setup()
    cfg = load_config(config, options)
    kind = (cfg.get("train_dataloader") or {}).get("dataset", {}).get("type")
    kind = DATASETS.get(kind) if isinstance(kind, str) else kind  # a run's copy of its config names classes by text
    if not (isinstance(kind, type) and issubclass(kind, TileDetection)):
        name = getattr(kind, "__name__", kind)
        raise ConfigError(f"{config}: trains on {name}, no tiles with boxes; give a detector's config")
    with errors_of_the_config(cfg):
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
    frame = next((step.size for step in dataset.pipeline.transforms if isinstance(step, LetterBox | Mosaic)), None)
    sides = []
    for number in range(len(dataset)):
        tile = dataset.get_data_info(number)
        boxes = tile["gt_bboxes"][~tile["gt_ignore_flags"]]
        factor = min(frame[0] / tile["width"], frame[1] / tile["height"]) if frame else 1.0
        sides.append((boxes[:, 2:] - boxes[:, :2]).astype(np.float64) * factor)
    found = np.concatenate(sides)
    if not len(found):
        raise DataError(f"{config}: the training tiles hold no boxes to fit anchors to")
    return found


def read_sides(path: Path, size: float | None = None) -> np.ndarray:
    """Widths and heights of a COCO file's boxes.

    Args:
        path: The file; annotations with `iscrowd` or `ignore` are left out.
        size: The longer side that every image has in training, in pixels; as they are where None.

    Returns:
        float64 (n, 2), pixels, n at least 1.

    Raises:
        DataError: No COCO file, a box without size or of an image without size, or that is not there; no box.
    """
    try:
        content = json.loads(path.read_text())
        images = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
        boxes = [
            (note["bbox"], note["image_id"], note.get("id"), images[note["image_id"]])
            for note in content["annotations"]
            if not note.get("iscrowd") and not note.get("ignore")
        ]
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{path}: no COCO file of boxes ({type(error).__name__}: {error})") from error
    for box, image, number, picture in boxes:
        if not (isinstance(box, list) and len(box) == 4 and _are_sides(box[2:])):
            raise DataError(f"{path}: annotation {number}: bbox {box} has no size; remove it")
        if not all(map(_is_number, box)):
            raise DataError(f"{path}: annotation {number}: bbox {box} is not of four numbers; remove it")
        if not _are_sides(picture):
            raise DataError(f"{path}: image {image}: {picture[0]} x {picture[1]} px is no size; correct the file")
    if not boxes:
        raise DataError(f"{path}: holds no boxes to fit anchors to")
    factors = [size / max(picture) if size else 1.0 for *_, picture in boxes]
    return np.array([box[2:] for box, *_ in boxes], float) * np.array(factors)[:, None]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and -_MOST < value < _MOST


def _are_sides(values: Sequence[Any]) -> bool:
    return all(_is_number(value) and value > 0 for value in values)


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


def _check(arguments: argparse.Namespace) -> None:
    if bool(arguments.coco) == bool(arguments.config):
        raise ConfigError("give a COCO file or --config CONFIG, one of them")
    if arguments.config and arguments.size is not None:
        raise ConfigError("--size: the config says at what size it trains; leave --size out")
    if arguments.cfg_options and not arguments.config:
        raise ConfigError("--cfg-options: goes with --config CONFIG")
    if arguments.size is not None and not (math.isfinite(arguments.size) and arguments.size > 0):
        raise ConfigError(f"--size {arguments.size:g}: give pixels, above 0")
    for name in ("levels", "per_level", "restarts"):
        if getattr(arguments, name) < 1:
            raise ConfigError(f"--{name.replace('_', '-')} {getattr(arguments, name)}: give 1 or more")
    if not 0 <= arguments.seed < 2**32:
        raise ConfigError(f"--seed {arguments.seed}: give 0 to 2^32 - 1")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("coco", type=Path, nargs="?", help="a COCO file of boxes, all of which are taken")
    parser.add_argument("--config", help="instead of a file: a config whose training tiles are taken")
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="set keys of the config")
    parser.add_argument("--size", type=float, help="longer side of a picture in training, pixels; default: as it is")
    parser.add_argument("--levels", type=int, default=3, help="levels of the head (3)")
    parser.add_argument("--per-level", type=int, default=3, help="anchors of a level (3)")
    parser.add_argument("--restarts", type=int, default=10, help="starts of k-means (10)")
    parser.add_argument("--seed", type=int, default=0)
    return parser


if __name__ == "__main__":
    sys.exit(main())
