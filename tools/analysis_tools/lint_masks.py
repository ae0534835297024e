"""Checks a data set of regions and label masks before anything is trained on it: one report of everything wrong.

    python tools/analysis_tools/lint_masks.py FOLDER_OR_CSV [--data-root DIR] [--classes normal benign malignant]
                                              [--value-map 0=rest 255=tumour] [--allow KIND ...] [--json]

Every image and mask is read to its end. Looked for are: lines that cannot be read, missing and damaged files, masks of
another size than their image, values that are no class and not 255, masks without a lesion or without any label,
regions without a patient, and files that stand twice. Classes come from classes.json in the data's folder, from
--classes, or are normal, benign and malignant. Exit code 0: nothing found; 2: problems, each with file, value and
remedy. `--allow` takes a kind off the report, as `--allow patient` where patients are not known.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from pathzoo.datasets.mask_lint import KINDS, LintReport, lint_masks
from pathzoo.datasets.masks import parse_value_map
from pathzoo.datasets.region_table import resolve_classes
from pathzoo.errors import PathzooError

#: Classes of data that names none: those of `BreastLesions`.
_CLASSES = ("normal", "benign", "malignant")


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="regions.csv, or the folder it lies in")
    parser.add_argument("--data-root", type=Path, help="what its paths are relative to, in place of its folder")
    parser.add_argument("--classes", nargs="+", help="names in the order of the mask values")
    parser.add_argument("--value-map", nargs="+", default=[], metavar="VALUE=CLASS", help="of masks with other values")
    parser.add_argument("--allow", nargs="+", choices=KINDS, default=[], help="kinds that are no problem here")
    parser.add_argument("--json", action="store_true", help="the report as JSON")
    arguments = parser.parse_args(argv)
    table = arguments.data / "regions.csv" if arguments.data.is_dir() else arguments.data
    try:
        mapped = bool(arguments.value_map)
        file = (arguments.data_root or table.parent) / "classes.json"
        own = {} if file.is_file() else {"classes": _CLASSES}
        classes = resolve_classes((arguments.classes, None), own, file, mapped)
        value_map = parse_value_map(arguments.value_map, classes.classes) if mapped else None
        report = lint_masks(table, classes, arguments.data_root, value_map)
    except PathzooError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    shown = tuple(problem for problem in report.problems if problem.kind not in arguments.allow)
    report = LintReport(report.n_regions, report.n_masks, shown)
    print(as_json(table, report, classes.classes) if arguments.json else as_text(table, report))
    return 2 if report.problems else 0


def as_text(table: Path, report: LintReport) -> str:
    """A line per problem, and a last line with the counts."""
    counts = Counter(problem.kind for problem in report.problems)
    found = ", ".join(f"{counts[kind]} {kind}" for kind in KINDS if counts[kind]) or "nothing wrong"
    head = f"{table}: {report.n_regions} regions, {report.n_masks} with a mask: {found}"
    return "\n".join([*map(str, report.problems), head])


def as_json(table: Path, report: LintReport, classes: Sequence[str]) -> str:
    """The same as one JSON object."""
    content = {
        "table": str(table),
        "classes": list(classes),
        "n_regions": report.n_regions,
        "n_masks": report.n_masks,
        "problems": [asdict(problem) for problem in report.problems],
    }
    return json.dumps(content, indent=2, ensure_ascii=False)


if __name__ == "__main__":
    sys.exit(main())
