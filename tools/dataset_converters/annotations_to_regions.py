"""Makes label masks of annotated slides or images: what training a segmenter takes.

    python tools/dataset_converters/annotations_to_regions.py --slides slides/ --annotations geojson/ --out regions/ \\
        --mpp 1.0 --cut regions --classes normal benign malignant --background normal --patients patients.csv

writes regions/images/*.png, regions/masks/*.png, regions/classes.json and regions/regions.csv (image, mask, patient,
slide, mpp, x, y), which `BreastLesions` and `RegionSegmentation` read. A slide's annotations are the file of the same
name that ends in .geojson or .json, as QuPath exports them, or in .xml, as ImageScope does. A slide may be a plain
image; one that does not say its resolution needs no --mpp, or a line in --mpp-csv.

A pixel has the class of the area that its centre lies in. Where areas of several classes overlap, the class that stands
later in --classes wins, so list the background first and what matters most last. A pixel without an area has the class
--background, or is ignored (255) where none is given. Areas of the class Ignore (QuPath: Ignore*) are ignored over all.

What label_review.py proposed and is left of it counts with --accept-reviews, over all classes; else it is left out.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pathzoo.errors import ConfigError, DataError, PathzooError
from pathzoo.wsi.annotated_regions import cut_annotated_regions
from pathzoo.wsi.annotation_sources import AnnotatedSlide, list_sources
from pathzoo.wsi.annotations import read_areas
from pathzoo.wsi.region_areas import CUTS, AreaRules, class_names


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status (0, or 2 for bad input, with nothing written)."""
    args = _parser().parse_args(argv)
    try:
        sources = list_sources(args.slides, args.annotations, args.patients, args.mpp_csv)
        annotated = [source for source in sources if source.annotations]
        if not args.unlabelled:
            for source in sources:
                if not source.annotations:
                    print(f"{source.slide.name}: no annotations in {args.annotations}; left out", file=sys.stderr)
        rules = _rules(args, annotated)
        report = cut_annotated_regions(
            sources if args.unlabelled else annotated,
            args.out,
            rules,
            mpp=args.mpp,
            progress=lambda line: print(line, file=sys.stderr, flush=True),
        )
    except PathzooError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print("\n".join(report.lines()))
    return 0


def _rules(args: argparse.Namespace, sources: Sequence[AnnotatedSlide]) -> AreaRules:
    rename = dict(_renamed(word) for word in args.rename)
    classes = args.classes
    if classes is None:
        files = [source.annotations for source in sources if source.annotations]
        found = {name for file in files for name in class_names(read_areas(file), rename, args.region_class)}
        if not found:
            raise DataError(f"{args.annotations}: no area there has a class; set classes in QuPath, or give --rename")
        first = [] if args.background is None else [args.background]
        classes = [*first, *sorted(found - set(first))]
        print(f"classes, in this order: {', '.join(classes)}", file=sys.stderr)
    return AreaRules(
        tuple(classes), args.cut, args.background, args.region_class, args.margin, rename, args.accept_reviews
    )


def _renamed(word: str) -> tuple[str, str]:
    old, separator, new = word.partition("=")
    if not (old and separator and new):
        raise ConfigError(f"--rename {word!r}: expected OLD=NEW, such as '#ff0000=malignant'")
    return old, new


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slides", type=Path, required=True, help="folder of slides or images, or CSV: slide")
    parser.add_argument("--annotations", type=Path, required=True, help="folder of annotations, named as the slides")
    parser.add_argument("--out", type=Path, required=True, help="folder to make; it must not exist")
    parser.add_argument("--mpp", type=float, help="microns per pixel of the regions (default: level 0 as it is)")
    parser.add_argument("--classes", nargs="+", help="in the order of their values (default: all that occur, sorted)")
    parser.add_argument("--background", metavar="CLASS", help="of pixels without an area (default: they are ignored)")
    parser.add_argument(
        "--cut",
        choices=CUTS,
        default="whole",
        help="whole slides; boxes around annotated areas; or areas of the class --region-class (default: %(default)s)",
    )
    parser.add_argument("--margin", type=int, default=0, help="pixels around the boxes of --cut annotated")
    parser.add_argument("--region-class", default="Region", help="class of areas to cut (default: %(default)s)")
    parser.add_argument(
        "--rename",
        nargs="+",
        default=[],
        metavar="OLD=NEW",
        help="annotated name to class (nameless layers: #rrggbb)",
    )
    parser.add_argument("--accept-reviews", action="store_true", help="what is left of 'Review: CLASS' is CLASS")
    parser.add_argument("--unlabelled", action="store_true", help="slides without annotations, whole, without a mask")
    parser.add_argument("--patients", type=Path, help="CSV: slide, patient; without it patients are unknown")
    parser.add_argument("--mpp-csv", type=Path, help="CSV: slide, mpp; for slides that do not state their resolution")
    return parser


if __name__ == "__main__":
    sys.exit(main())
