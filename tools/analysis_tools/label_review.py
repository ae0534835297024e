"""Which labels deserve a second look: regions and areas where a label and models that have not seen it disagree.

    python tools/analysis_tools/label_review.py CONFIG --work-dir DIR --folds 5 [--cfg-options KEY=VALUE ...]

trains 5 models on the labelled training part of a supervised segmentation config, each without a fifth of its patients,
predicts every region by the one that has not seen its patient, and ranks the regions (see pathzoo.evaluation.functional
.label_review). Interrupted, it goes on with what is left. With probabilities that are there already:

    python tools/analysis_tools/label_review.py --data-root regions/ --predictions FOLDER --work-dir DIR

DIR/review holds ranking.csv, areas.csv, pictures of the first regions, and for each region a GeoJSON file: open the
region's picture in QuPath, import the file, delete the areas "Review: ..." that are wrong, correct outlines where
needed, and export all annotations as GeoJSON under the same name. Then the command that is printed at the end makes a
corrected data set of the reviewed regions alone: to keep validation, test and unlabelled regions, copy its masks over
those of the data, under the names that stand there (they hold class indices, without a value_map). With
--accept-reviews the areas "Review: CLASS" that are still there become CLASS: of files that nobody has looked at, all
of them.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pathzoo.errors import ConfigError, DataError, PathzooError
from pathzoo.evaluation.functional.label_review import found_in_first


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    args = _parser().parse_args(argv)
    try:
        run(args)
    except PathzooError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def run(args: argparse.Namespace) -> Any:
    """Reviews as the arguments say, prints what was found, and returns the `Review`."""
    from pathzoo.apis.options import parse_options
    from pathzoo.evaluation.label_review import review, review_source, write_review
    from pathzoo.evaluation.region_probs import missing_probs

    out = args.work_dir / "review"
    if out.exists() and not args.overwrite:
        raise ConfigError(f"{out}: exists already; give another --work-dir, or --overwrite")
    options = parse_options(args.cfg_options)
    if args.data_root is not None and args.config is not None:
        options["data_root"] = str(args.data_root)
    dataset, predictions = _dataset(args, options)
    background = _check(dataset, args)
    lacking = missing_probs(predictions, dataset.regions)
    if lacking:
        raise DataError(
            f"{predictions}: holds no probabilities of {len(lacking)} of {len(dataset.regions)} regions, the first "
            f"{lacking[0]}; predict them too, or name a config whose training part has the others alone"
        )
    source = review_source(dataset, predictions)
    found = review(source, background, args.rank_by, args.min_pixels, _say)
    settings = {"rank_by": args.rank_by, "min_pixels": args.min_pixels, "predictions": predictions.name}
    write_review(out, source, found, background, settings, args.pictures, args.overwrite)
    print(_table(source, found, args.top))
    _tell_planted(dataset, found)
    print(f"\n{out}: ranking.csv, areas.csv, pictures/, geojson/. Once the files of geojson/ are corrected:\n")
    print(_next(out, source, background))
    print("\nAdd --accept-reviews once every area 'Review: ...' has been looked at; without it they change nothing.")
    return found


def _dataset(args: argparse.Namespace, options: dict[str, Any]) -> tuple[Any, Path]:
    """The labelled regions, and where their probabilities are."""
    from pathzoo.apis.config import load_config
    from pathzoo.apis.cross_fit import cross_fit, labelled_part
    from pathzoo.apis.setup import setup

    setup()
    if args.predictions is None:
        if args.config is None:
            raise ConfigError("give a CONFIG to train models by, or --predictions with probabilities of the regions")
        _check(labelled_part(load_config(args.config, options)), args)  # not after hours of training
        fitted = cross_fit(args.config, args.work_dir, args.folds, options, seed=args.seed, tta=args.tta, progress=_say)
        return fitted.dataset, fitted.predictions
    if not args.predictions.is_dir():
        raise DataError(f"{args.predictions}: no such folder of predictions")
    if args.config is not None:
        return labelled_part(load_config(args.config, options)), args.predictions
    if args.data_root is None:
        raise ConfigError("--predictions without a CONFIG needs --data-root with regions.csv and classes.json")
    from pathzoo.datasets.regions import RegionSegmentation

    dataset = RegionSegmentation(data_root=str(args.data_root), ann_file="regions.csv")
    labelled = [number for number, region in enumerate(dataset.regions) if region.mask is not None]
    return dataset.get_subset(labelled), args.predictions


def _check(dataset: Any, args: argparse.Namespace) -> str:
    """The background; raises for what a review of these regions would stumble over."""
    from pathzoo.evaluation.label_review import check_background, region_names

    classes = list(dataset.metainfo["classes"])
    background = classes[0] if args.background is None else args.background
    check_background(background, classes)
    region_names(dataset.regions)
    return background


def _table(source: Any, found: Any, top: int) -> str:
    lines = [f"{'rank':>4} {'suspicion':>9} {'disagree':>8} {'areas':>5}  region"]
    for rank, number in enumerate(found.order[:top].tolist(), start=1):
        scores, pair = found.scores, ""
        if scores.flip[number] > 0:
            names = (source.classes[i] for i in (scores.flip_from[number], scores.flip_to[number]))
            pair = "  looks like {1}, not {0}".format(*names)
        lines.append(
            f"{rank:4d} {found.suspicion[number]:9.3f} {scores.disagreement[number]:8.1%} "
            f"{len(found.areas[number]):5d}  {source.regions[number].item}{pair}"
        )
    return "\n".join(lines)


def _tell_planted(dataset: Any, found: Any) -> None:
    """Where labels were made wrong on purpose (`label_noise`): how many such regions stand in the first fifth."""
    from pathzoo.evaluation.label_review import swapped_on_purpose

    swapped = swapped_on_purpose(dataset)
    if any(swapped):
        share = found_in_first(found.suspicion, swapped)
        print(f"\nof {sum(swapped)} regions whose classes label_noise exchanged, {share:.0%} stand in the first fifth")


def _next(out: Path, source: Any, background: str) -> str:
    words = ["python", "tools/dataset_converters/annotations_to_regions.py"]
    for option, value in (
        ("--slides", out / "slides.csv"),
        ("--patients", out / "slides.csv"),
        ("--mpp-csv", out / "slides.csv"),
        ("--annotations", out / "geojson"),
        ("--background", background),
        ("--out", out.parent / "corrected"),
    ):
        words += [option, str(value)]
    return shlex.join([*words, "--classes", *source.classes])


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", nargs="?", help="supervised segmentation config, as for tools/train.py")
    parser.add_argument("--work-dir", type=Path, required=True, help="folder for models, predictions and review/")
    parser.add_argument("--folds", type=int, default=5, help="models to train (default: %(default)s)")
    parser.add_argument("--predictions", type=Path, help="folder with probabilities of regions, in place of training")
    parser.add_argument("--data-root", type=Path, help="folder with regions.csv; of the config where one is given")
    parser.add_argument("--background", help="class that is no lesion (default: the first)")
    parser.add_argument(
        "--rank-by",
        choices=("flip", "disagreement", "confidence"),
        default="flip",
        help="lesions that look like another class as a whole; share of pixels surely of another class; mean "
        "probability of the label (default: %(default)s)",
    )
    parser.add_argument("--min-pixels", type=int, default=64, help="smaller areas are left out (default: %(default)s)")
    parser.add_argument("--tta", default="none", choices=("none", "flips", "d4"), help="views averaged in predictions")
    parser.add_argument("--seed", type=int, default=0, help="of the deal of patients to folds (default: %(default)s)")
    parser.add_argument("--top", type=int, default=20, help="regions to print (default: %(default)s)")
    parser.add_argument("--pictures", type=int, default=8, help="regions to draw (default: %(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier review")
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="set in the config")
    return parser


if __name__ == "__main__":
    sys.exit(main())
