"""Makes tiles with boxes of annotated slides: COCO files for detectors.

    python tools/dataset_converters/annotations_to_boxes.py --slides slides/ --annotations geojson/ --out tiles/ \\
        --classes glomerulus --tile 1600 1200 --overlap 0.3333 --mpp 0.5 --patients patients.csv --split 4 1

writes tiles/tiles.json (COCO with slide, patient, place and resolution of each tile, and the share of the object in
each box), tiles/images/<slide>/*.png, tiles/objects.json and objects.csv (the whole objects slide by slide, for
evaluation), and with --split train.json and test.json, by patient. `TileDetection` reads tiles.json. With --from-slide
no pictures are cut: tiles are read from the slides during training.

A slide's annotations are the file of the same name (a.geojson or a.svs.geojson): GeoJSON (.geojson, .json) as QuPath
exports it, .xml of ImageScope, a label mask (.png), or a COCO file of whole pictures (--annotations FILE). Of COCO the
outline (segmentation) is taken where there is one, else the box, with the file's area in objects.json; objects with
iscrowd or ignore become ignored boxes.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pathzoo.datasets.coco_tiles import check_division, divide_document
from pathzoo.errors import DataError, PathzooError
from pathzoo.wsi.annotated_boxes import write_box_tiles
from pathzoo.wsi.annotation_sources import read_slide_table
from pathzoo.wsi.box_rules import BAD_BOXES, CUTS, BoxRules
from pathzoo.wsi.slide_objects import find_object_sources, find_strays


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status (0, or 2 for bad input, with nothing written)."""
    args = _parser().parse_args(argv)
    shares = dict(zip(("train", "test"), args.split, strict=True)) if args.split else {}

    def divide(document: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
        return divide_document(document, shares, args.seed)

    try:
        sources, without = find_object_sources(args.slides, args.annotations, args.patients, args.mpp_csv)
        for path in without:
            print(f"{path.name}: no annotations in {args.annotations}; left out", file=sys.stderr)
        every = [*(source.slide for source in sources), *without]
        strays = find_strays(every, args.annotations, args.patients, args.mpp_csv)
        for line in strays:
            print(line, file=sys.stderr)
        if shares:
            _check_split([source.patient for source in sources], shares, args.patients)
        report = write_box_tiles(
            sources,
            args.out,
            _rules(args),
            divide=divide if shares else None,
            overwrite=args.overwrite,
            progress=lambda line: print(line, file=sys.stderr, flush=True),
        )
    except PathzooError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print("\n".join([*report.lines(), *(f"warning: {line}" for line in strays)]))
    if without:
        print(f"slides without annotations, left out: {len(without)}")
    return 0


def _check_split(patients: Sequence[str | None], shares: Mapping[str, float], table: Path | None) -> None:
    try:
        check_division(patients, shares)
    except DataError as error:
        named = list(read_slide_table(table, "patient")) if table and not any(patients) else []
        other = f"; {table} gives {len(named)} slides a patient, but none of these, e.g. {named[0]}" if named else ""
        raise DataError(f"--{error}{other}") from None


def _rules(args: argparse.Namespace) -> BoxRules:
    names = ("overlap", "mpp", "cut", "min_share", "background", "on_bad_box", "min_pixels", "seed")
    return BoxRules(
        tuple(args.classes),
        tuple(args.tile),
        leave_out=tuple(args.leave_out),
        picture=None if args.from_slide else args.picture,
        **{name: getattr(args, name) for name in names},
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--slides", type=Path, required=True, help="folder of slides or pictures, or CSV with a column slide")
    add("--annotations", type=Path, required=True, help="folder of annotations named as the slides, or a COCO file")
    add("--out", type=Path, required=True, help="folder to make; it must not exist")
    add("--overwrite", action="store_true", help="replace an --out of this tool, once the new one is complete")
    add("--classes", nargs="+", required=True, help="names of the objects; of a mask, those of the values 1, 2, ...")
    add("--leave-out", nargs="+", default=[], metavar="CLASS", help="classes that are no objects ('': without a class)")
    add("--tile", type=int, nargs=2, default=(1600, 1200), metavar=("WIDTH", "HEIGHT"), help="default: 1600 1200")
    add("--overlap", type=float, default=1 / 3, help="part that neighbouring tiles share (default: 1/3)")
    resolution = parser.add_mutually_exclusive_group(required=True)
    resolution.add_argument("--mpp", type=float, help="microns per pixel of the tiles")
    resolution.add_argument("--keep-pixels", action="store_true", help="tiles of level 0 as it is")
    add("--patients", type=Path, help="CSV: slide, patient; without it patients are unknown")
    add("--mpp-csv", type=Path, help="CSV: slide, mpp; for slides that do not state their resolution")
    add("--cut", choices=CUTS, default="ignore", help="what becomes of small parts of cut objects (default: ignore)")
    add("--min-share", type=float, default=0.4, help="from this part on it is a box (default: %(default)s)")
    add("--background", type=float, default=1.0, metavar="RATE", help="share of tiles without objects (default: all)")
    add("--on-bad-box", choices=BAD_BOXES, default="error", help="boxes outside, without area, of unknown class")
    add("--min-pixels", type=int, default=1, help="smaller parts of a mask are no objects (default: %(default)s)")
    add("--split", type=float, nargs=2, metavar=("TRAIN", "TEST"), help="as 4 1: by patient, never across one")
    add("--seed", type=int, default=0, help="of --background and --split (default: %(default)s)")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--files", action="store_true", help="cut tiles to files (default)")
    where.add_argument("--from-slide", action="store_true", help="cut nothing: tiles are read from the slides")
    add("--picture", choices=("png", "jpg"), default="png", help="format of tile files (default: %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
