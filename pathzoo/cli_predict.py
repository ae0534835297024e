"""`pathzoo predict`: its options, and what it says. Imports nothing heavy before it runs."""

import argparse
import sys
from typing import Any

_READERS = ("tiled-tiff", "openslide", "image")
_LAUNCHERS = ("none", "pytorch", "slurm")
_EPILOG = """\
Exit codes: 0 all good; 2 bad usage or input, nothing written; 3 some tiles could not be decoded and are listed in
predict_run.json; 4 some inputs of a batch failed; 75 ended by SIGTERM, the same command goes on.

A detector also writes contact_sheet.png for each slide (its objects, the surest first, to one scale) and OUT/counts.csv
(objects per slide and per mm2 of tissue, of every slide in OUT by the same model). With --classify each object is
graded from a crop around its centre, at the classifier's tile size and mpp; the crops are kept as crops/NNNN.png, NNNN
being the row of detections.csv.
"""


def add_predict(commands: Any) -> None:
    """Adds the subcommand."""
    about = "Run a model over slides or images."
    parser = commands.add_parser("predict", help=about, description=about, epilog=_EPILOG)
    parser.set_defaults(run=run_predict)
    parser.add_argument("-i", "--input", nargs="+", required=True, metavar="PATH", help="slides, images, or folders")
    parser.add_argument("-m", "--model", required=True, help="NAME, NAME@VERSION or a model's folder")
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help="folder to write to")
    parser.add_argument("--classify", metavar="MODEL", help="detection: a published classifier that grades each object")
    resolution = parser.add_mutually_exclusive_group()
    resolution.add_argument("--mpp", type=float, help="microns per pixel, in place of what the inputs state")
    resolution.add_argument("--mpp-csv", metavar="FILE", help="CSV with columns slide,mpp")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--num-workers", type=int, default=2, help="threads that decode ahead")
    parser.add_argument("--device", default=None, help="cpu, cuda, cuda:1; the first GPU where there is one")
    parser.add_argument("--no-tissue-mask", action="store_true", help="predict white background too")
    step = parser.add_mutually_exclusive_group()
    step.add_argument("--overlap", type=float, help="part of a tile its neighbour covers too; by task 0, 1/4, 1/3, 0")
    step.add_argument("--stride", type=int, help="pixels from one tile to the next, in place of --overlap")
    parser.add_argument(
        "--score-threshold", type=float, help="detection: leave out what scores lower (default: the model's own)"
    )
    parser.add_argument(
        "--reader", choices=_READERS, help="by default what the file is decides; image: PNG and JPEG are slides"
    )
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds after which a hanging decoder is ended")
    parser.add_argument("--overwrite", action="store_true", help="replace what stands in OUT for these inputs")
    parser.add_argument(
        "--anonymise", action="store_true", help="pseudonyms in place of slide names; OUT.names.csv leads back"
    )
    parser.add_argument("--launcher", choices=_LAUNCHERS, default="none", help="spread slides over processes and GPUs")
    parser.add_argument("--dry-run", action="store_true", help="print tiles, memory, disk and time, and write nothing")


def run_predict(arguments: argparse.Namespace) -> int:
    """Predicts, or plans it, and prints a line for every output; returns the exit code."""
    keywords = {
        "classify": arguments.classify,
        "mpp": arguments.mpp,
        "mpp_csv": arguments.mpp_csv,
        "batch_size": arguments.batch_size,
        "num_workers": arguments.num_workers,
        "device": arguments.device,
        "tissue": not arguments.no_tissue_mask,
        "overlap": arguments.overlap,
        "stride": arguments.stride,
        "reader": arguments.reader,
        "timeout": arguments.timeout,
        "settings": {} if arguments.score_threshold is None else {"score_threshold": arguments.score_threshold},
    }
    if arguments.dry_run:
        from pathzoo.apis.dry_run import dry_run, format_plan

        print(format_plan(dry_run(arguments.input, arguments.model, arguments.output, **keywords)))
        return 0
    from pathzoo.apis.predict import predict

    keywords |= {"overwrite": arguments.overwrite, "anonymise": arguments.anonymise, "launcher": arguments.launcher}
    result = predict(arguments.input, arguments.model, arguments.output, **keywords)
    if result.speaks:
        report(result)
    return result.exit_code


def report(result: Any) -> None:
    """A line for every output, and one for all."""
    for slide in result.slides:
        counts = ", ".join(f"{name} {count:,.0f}{_grades(slide, name)}" for name, count in slide.counts.items())
        print(f"{slide.folder}: {slide.tiles} tiles ({slide.unit}: {counts}), {len(slide.skipped)} damaged")
        for note in slide.notes if slide.grades else ():
            print(f"  {note}")
    if result.images_csv:
        print(f"{result.images_csv}: {result.n_images} images")
    if result.counts_csv:
        print(f"{result.counts_csv}: objects of every slide")
    if len(result.slides) + len(result.failed) > 1:
        before = f"{result.reused - result.elsewhere} before"
        before += f", {result.elsewhere} by other processes" if result.elsewhere else ""
        print(f"{len(result.slides)} slides done ({before}), {len(result.failed)} failed")
    sys.stdout.flush()


def _grades(slide: Any, name: str) -> str:
    """How the objects of a class were graded."""
    grades = slide.grades.get(name)
    return " [" + ", ".join(f"{grade} {n:,}" for grade, n in grades.items()) + "]" if grades else ""
