"""How well a detector finds the objects of whole slides, each counted once, and at which threshold to run it.

    pathzoo predict -i slides/ -m MODEL -o predictions/ --score-threshold 0.01
    python tools/analysis_tools/slide_detection.py --predictions predictions/ --objects tiles/objects.json \\
        --target-recall 0.99 --out evaluation/

Objects are those of tools/dataset_converters/annotations_to_boxes.py (objects.json), or of a folder of QuPath GeoJSON
or ImageScope XML named after the slides. Detections find objects of their own class at --iou, the surest first, each
object once: what finds one again is false. Objects that leave the slide's bounds, which is what `pathzoo predict` looks
at, are refused, or cut or left out (--on-bad-box). Where slides were predicted at different --score-threshold, all are
judged from the highest up. Written are metrics.json (rows of level "slide", intervals over patients, or over slides
where no patient is known), matches.csv (what became of each detection, and the objects missed, to be looked up in
QuPath), curves/*.csv and plots/*.png. Predict with a low --score-threshold: what was not written cannot be found.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from pathzoo.errors import ConfigError, DataError, PathzooError

_CALLED = {"best_f1": "best F1", "target_recall": "target recall", "given_threshold": "given threshold"}


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
    """Evaluates as the arguments say, writes the files and prints what matters; a `DetectionResult`."""
    from pathzoo.evaluation.detection_files import write_detection
    from pathzoo.evaluation.detection_report import DetectionRules
    from pathzoo.evaluation.predicted_slides import read_predicted_slides
    from pathzoo.evaluation.slide_detections import pair_slides, read_object_folder, read_objects_file, read_patients
    from pathzoo.evaluation.table import format_rows

    rules = DetectionRules(args.iou, args.target_recall, args.threshold, args.bootstrap, args.seed)
    rules.check()
    if args.out.exists() and not args.overwrite:
        raise ConfigError(f"{args.out}: exists already; give another --out, or --overwrite")
    slides = read_predicted_slides(args.predictions)
    by_name = {slide.name: slide for slide in slides}
    read = read_object_folder if args.objects.is_dir() else read_objects_file
    paired = pair_slides(
        slides,
        read(args.objects, by_name),
        patients=read_patients(args.patients) if args.patients else {},
        rename=_renames(args.rename),
        leave_out=args.leave_out,
        only_predicted=args.only_predicted,
        on_bad_box=args.on_bad_box,
    )
    for line in paired.bad_boxes:
        print(f"{line}: {args.on_bad_box}", file=sys.stderr)
    found = paired.found if args.per == "mm2" else replace(paired.found, mm2=None)
    extra = {"dataset": args.called, "subset": "all", "split": None, **_about(slides, paired)}
    result = write_detection(args.out, found, rules, extra)
    Console(width=160).print(format_rows(result.rows, f"{extra['model']}, {len(slides)} slides"))
    for line in _lines(result, extra):
        print(line)
    print(f"written to {args.out}")
    return result


def _about(slides: Sequence[Any], paired: Any) -> dict[str, Any]:
    """What metrics.json says of the predictions."""
    model = slides[0].run["model"]
    thresholds = {slide.name: slide.least_score for slide in slides}
    return {
        "model": f"{model['name']} {model['version']}",
        "model_digest": model["digest"],
        "score_threshold": paired.found.least,
        "score_thresholds_that_differ": thresholds if len(set(thresholds.values())) > 1 else {},
        "n_detections_below_score_threshold": paired.n_below,
        "mm2": round(sum(slide.mm2 for slide in slides), 4),
        "slides_not_wholly_readable": [slide.name for slide in slides if slide.run.get("skipped_tiles")],
        "slides_without_prediction_left_out": paired.left_out,
        "bad_boxes": paired.bad_boxes,
    }


def _lines(result: Any, extra: Mapping[str, Any]) -> list[str]:
    """The thresholds and their cost in words, and what a user should know."""
    values = {row["metric"]: row["value"] for row in result.rows}
    lines = []
    for point in result.points:
        what = _CALLED[point.name]
        if point.threshold is None:
            lines.append(f"{what}: {point.note}")
            if point.name == "target_recall" and result.outcomes.n_objects.sum():
                lines.append(
                    f"  predictions hold scores from {extra['score_threshold']:g} up; a lower `pathzoo predict "
                    "--score-threshold` may find more"
                )
            continue
        precision, recall, false = (
            values[f"{name}_at_{point.name}"] for name in ("precision", "recall", "false_positives_per_slide")
        )
        lines.append(
            f"{what}: threshold {point.threshold:.4f} gives recall {_number(recall)} at precision {_number(precision)} "
            f"and costs {false:.2f} false detections per slide"
        )
        if point.name == "target_recall":
            # One step of the four digits of detections.csv lower: what it holds is rounded, up as well as down.
            least = max(0.0, round(point.threshold - 1e-4, 4))
            lines.append(f"  to have it: pathzoo predict --score-threshold {least:g}")
    if extra["score_thresholds_that_differ"]:
        lines.append(_differing(extra["score_thresholds_that_differ"], extra["score_threshold"]))
    if extra["slides_not_wholly_readable"]:
        lines.append(f"warning: not wholly readable: {', '.join(extra['slides_not_wholly_readable'])}")
    if extra["slides_without_prediction_left_out"]:
        lines.append(f"left out, without prediction: {len(extra['slides_without_prediction_left_out'])} slides")
    return lines


def _differing(thresholds: Mapping[str, float], highest: float) -> str:
    by_value: dict[float, list[str]] = {}
    for name, value in thresholds.items():
        by_value.setdefault(value, []).append(name)
    told = "; ".join(
        f"{value:g}: {', '.join(names[:3])}{', ...' if names[3:] else ''}" for value, names in sorted(by_value.items())
    )
    return (
        f"warning: predicted at different --score-threshold ({told}): detections below {highest:g} are left out of all "
        "slides; predict all alike to judge them"
    )


def _renames(words: Sequence[str]) -> dict[str, str]:
    renames = {}
    for word in words:
        old, sign, new = word.partition("=")
        if not sign or not new:
            raise DataError(f"--rename {word!r}: expected OLD=NEW, annotated class and class of the model")
        renames[old] = new
    return renames


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--predictions", nargs="+", type=Path, required=True, metavar="OUT", help="folders of `pathzoo predict`")
    add("--objects", type=Path, required=True, help="objects.json, or a folder of annotations")
    add("--out", type=Path, required=True, help="folder for the files")
    add("--iou", type=float, default=0.5, help="least intersection over union (default: %(default)s)")
    add("--target-recall", type=float, default=0.99, help="recall to look a threshold for (default: %(default)s)")
    add("--threshold", type=float, help="report on this threshold too: one that was chosen on other slides")
    add("--patients", type=Path, metavar="CSV", help="columns slide, patient")
    add("--rename", nargs="+", default=[], metavar="OLD=NEW", help="annotated class and the model's class for it")
    add("--leave-out", nargs="+", default=[], metavar="CLASS", help="annotated classes that are no objects ('': none)")
    add("--on-bad-box", choices=("error", "clip", "drop"), default="error", help="objects outside, or without area")
    add("--only-predicted", action="store_true", help="leave annotated slides out that were not predicted")
    add("--per", choices=("slide", "mm2"), default="slide", help="FROC counts by slide, or by area of the scan")
    add("--bootstrap", type=int, default=1000, help="resamples for the intervals, 0 for none (default: %(default)s)")
    add("--seed", type=int, default=0, help="of the resampling (default: %(default)s)")
    add("--called", default="whole slides", metavar="TEXT", help="what a card calls them (default: %(default)s)")
    add("--overwrite", action="store_true", help="replace the files of an earlier evaluation")
    return parser


if __name__ == "__main__":
    sys.exit(main())
