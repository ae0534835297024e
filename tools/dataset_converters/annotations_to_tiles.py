"""Cuts labelled tiles out of slides that were annotated in QuPath or ImageScope.

    python tools/dataset_converters/annotations_to_tiles.py --slides slides/ --annotations geojson/ --out tiles/ \\
        --tile 224 --mpp 0.5 --classes benign malignant --patients patients.csv

writes tiles/<slide>/*.png and tiles/tiles.csv (path, label, patient, slide, mpp, x, y), which `TileClassification`
reads. A slide's annotations are the file of the same name that ends in .geojson or .json, as QuPath exports them, or in
.xml, as ImageScope does.

With --around-objects there is one tile around each annotated area, labelled by its class: what a classifier is trained
on that grades single objects (`pathzoo predict --classify`, whose crops are cut in the same way).
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pathzoo.errors import PathzooError
from pathzoo.wsi.annotated_tiles import cut_annotated_tiles
from pathzoo.wsi.annotation_sources import find_sources


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status (0, or 2 for bad input, with nothing written)."""
    args = _parser().parse_args(argv)
    try:
        sources, without = find_sources(args.slides, args.annotations, args.patients, args.mpp_csv)
        for path in without:
            print(f"{path.name}: no annotations in {args.annotations}; left out", file=sys.stderr)
        report = cut_annotated_tiles(
            sources,
            args.out,
            tile=args.tile,
            mpp=args.mpp,
            classes=args.classes,
            overlap=args.overlap,
            min_cover=args.min_cover,
            around_objects=args.around_objects,
            progress=lambda line: print(line, file=sys.stderr, flush=True),
        )
    except PathzooError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print("\n".join(report.lines()))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slides", type=Path, required=True, help="folder of slides, or CSV with a column slide")
    parser.add_argument("--annotations", type=Path, required=True, help="folder of annotations, named as the slides")
    parser.add_argument("--out", type=Path, required=True, help="folder to make; it must not exist")
    parser.add_argument("--tile", type=int, default=224, help="side of a tile in pixels (default: %(default)s)")
    parser.add_argument("--mpp", type=float, required=True, help="microns per pixel of the tiles")
    parser.add_argument("--overlap", type=float, default=0.0, help="part that neighbours share (default: %(default)s)")
    parser.add_argument(
        "--min-cover", type=float, default=0.5, help="part of a tile its class must cover (default: %(default)s)"
    )
    parser.add_argument("--around-objects", action="store_true", help="one tile around each area, not those of a grid")
    parser.add_argument("--classes", nargs="+", help="classes that label tiles (default: all that occur)")
    parser.add_argument("--patients", type=Path, help="CSV: slide, patient; without it patients are unknown")
    parser.add_argument("--mpp-csv", type=Path, help="CSV: slide, mpp; for slides that do not state their resolution")
    return parser


if __name__ == "__main__":
    sys.exit(main())
