"""Pictures of what several training runs make of the same regions: image, truth, each prediction, each one's mistakes.

    python tools/analysis_tools/compare_segmenters.py CONFIG --out pictures/ \\
        --runs "supervised=work_dirs/a" "self-training=work_dirs/b" [--cfg-options data_root=DIR ...]

CONFIG says which regions: its test set. Each run is a work folder as tools/train.py leaves it, and is loaded by the
config that it was trained with. Regions are predicted whole, by overlapping tiles, and drawn in the order of how far
the runs' mIoU lie apart: what tells them apart comes first. The runs must not have trained on the regions' patients.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pathzoo.errors import ConfigError, PathzooError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    args = _parser().parse_args(argv)
    try:
        for path in run(args):
            print(path)
    except PathzooError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def run(args: argparse.Namespace) -> list[Path]:
    """Draws as the arguments say; the paths of the pictures, in their order."""
    from pathzoo.apis.cross_fit import region_probabilities
    from pathzoo.apis.lineage import refuse_training_patients, splits_beside
    from pathzoo.apis.options import parse_options
    from pathzoo.apis.run_model import load_run_model
    from pathzoo.engine.self_training.labeller import Tiling
    from pathzoo.visualization.segmentation import panels
    from pathzoo.wsi.outputs import atomic_folder, write_picture

    runs = _runs(args.runs)
    if args.out.exists() and not args.overwrite:
        raise ConfigError(f"{args.out}: exists already; give another --out, or --overwrite")
    dataset = _regions(args.config, parse_options(args.cfg_options))
    classes = list(dataset.metainfo["classes"])
    models = {}
    for name, folder in runs.items():
        refuse_training_patients(dataset, splits_beside(folder))
        models[name] = load_run_model(folder)
    tiling = Tiling(dataset.patch_size, max(1, dataset.patch_size * 3 // 4), args.tta)
    found = []
    for number, region in enumerate(dataset.regions):
        image, truth = dataset.read_image(number), dataset.read_labels(number)
        maps = {
            name: region_probabilities(model, image, len(classes), tiling).argmax(axis=0).astype(np.uint8)
            for name, model in models.items()
        }
        found.append((_apart(truth, maps, len(classes)), number, maps))
        print(f"{number + 1} of {len(dataset.regions)}: {region.item}", file=sys.stderr)
    found.sort(key=lambda entry: -entry[0])
    colors = [tuple(color) for color in dataset.metainfo["palette"]]
    paths = []
    with atomic_folder(args.out, args.overwrite) as folder:
        for rank, (_, number, maps) in enumerate(found[: args.pictures], start=1):
            region = dataset.regions[number]
            page = panels(
                dataset.read_image(number), dataset.read_labels(number), maps, classes, colors, title=region.item
            )
            name = f"region_{rank}.png"
            write_picture(folder / name, page)
            paths.append(args.out / name)
    return paths


def _regions(config: str, options: dict[str, Any]) -> Any:
    """The test set of a config."""
    from pathzoo.apis.checks import errors_of_the_config
    from pathzoo.apis.config import load_config
    from pathzoo.apis.setup import setup
    from pathzoo.datasets.regions import RegionSegmentation
    from pathzoo.registry import DATASETS

    setup()
    cfg = load_config(config, options)
    with errors_of_the_config(cfg):
        dataset = DATASETS.build(cfg.test_dataloader.dataset)
    if not isinstance(dataset, RegionSegmentation):
        raise ConfigError(f"{config}: tests on {type(dataset).__name__}; segmenters are compared on regions with masks")
    return dataset


def _apart(truth: np.ndarray, maps: dict[str, np.ndarray], n_classes: int) -> float:
    """How far the mIoU of the maps lie apart, 0..1; 0 where nothing is labelled."""
    from pathzoo.evaluation.functional import confusion_counts, segmentation

    counts = [confusion_counts(truth, labels, n_classes) for labels in maps.values()]
    values = [float(segmentation.macro(segmentation.iou(matrix), matrix)) for matrix in counts]
    return 0.0 if np.isnan(values).any() else max(values) - min(values)


def _runs(words: Sequence[str]) -> dict[str, Path]:
    runs: dict[str, Path] = {}
    for word in words:
        name, _, folder = word.partition("=")
        if not name or not folder:
            raise ConfigError(f"--runs {word!r}: expected NAME=WORK_DIR")
        if name in runs:
            raise ConfigError(f"--runs: the name {name!r} stands there twice")
        if not Path(folder).is_dir():
            raise ConfigError(f"--runs {word!r}: no such folder")
        runs[name] = Path(folder)
    return runs


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="a segmentation config, whose test set is drawn")
    parser.add_argument("--runs", nargs="+", required=True, metavar="NAME=WORK_DIR", help="training runs")
    parser.add_argument("--out", type=Path, required=True, help="folder for the pictures")
    parser.add_argument("--pictures", type=int, default=4, help="regions to draw (default: %(default)s)")
    parser.add_argument("--tta", default="none", choices=("none", "flips", "d4"), help="views averaged in predictions")
    parser.add_argument("--overwrite", action="store_true", help="replace earlier pictures")
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="set in CONFIG")
    return parser


if __name__ == "__main__":
    sys.exit(main())
