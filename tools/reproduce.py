"""Runs a study's experiment and prints its table beside the paper's.

    python tools/reproduce.py breakhis_xception --scale small --data-root DIR --seeds 1

Every finished (arm, seed) appends a row, with digests of its config and its data, to `configs/STUDY/results.csv` (the
smoke scale to a file in its work folder, since it measures nothing); a rerun skips rows that match. An arm whose
initial weights could not be had reads "not run". The table in `configs/STUDY/README.md` is drawn from the rows;
those of an arm that were made with other settings than its newest are left out, and the table says so.
"""

import argparse
import importlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from studies.results import Results, replace_table

from pathzoo.cli import one_line
from pathzoo.errors import PathzooError
from pathzoo.paths import configs_root

STUDIES = ("breakhis_xception", "self_training", "simclr", "glomerulus_yolov5", "kits_pix2pix")


def main(argv: list[str] | None = None) -> int:
    """Runs the arms that have no row yet; returns 0, or 2 where the input is bad."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--scale", choices=["smoke", "small", "paper"], default="smoke")
    parser.add_argument("--data-root", default="phantom", help="the data set's folder, or 'phantom' to draw one")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="seeds per arm")
    parser.add_argument("--first-seed", type=int, help="0; for a phantom 100, since 0-4 are for development")
    parser.add_argument("--arms", nargs="+", help="only these arms")
    parser.add_argument("--weights", action="append", default=[], metavar="NETWORK=FILE", help="initial weights")
    parser.add_argument(
        "--data-name",
        help="what the rows call the data (default: real, or phantom; "
        "a name that begins with phantom is of data that each seed draws anew)",
    )
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="set in every arm's config")
    parser.add_argument("--keep", action="store_true", help="keep pseudo-labels and predictions once an arm is done")
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/reproduce"))
    parser.add_argument("--results", type=Path, help="CSV to append to")
    parser.add_argument("--table-only", action="store_true", help="run nothing; draw the table from the rows")
    arguments = parser.parse_args(argv)
    study = importlib.import_module(f"studies.{arguments.study}")
    folder = arguments.work_dir / arguments.study / arguments.scale
    committed = configs_root() / arguments.study / "results.csv"
    kept = arguments.results or (folder / "results.csv" if arguments.scale == "smoke" else committed)
    results = Results(kept, study.METRICS)
    try:
        if not arguments.table_only:
            study.run(arguments, results, folder)
    except PathzooError as error:
        print(f"reproduce.py: {one_line(error)}", file=sys.stderr)
        return error.exit_code
    table = study.table(results.rows())
    print(table)
    if results.path == committed:
        replace_table(committed.with_name("README.md"), table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
