"""Cuts labelled tiles out of slides that were annotated in QuPath.

    python tools/dataset_converters/annotations_to_tiles.py --slides slides/ --annotations geojson/ --out tiles/ \\
        --tile 224 --mpp 0.5 --classes benign malignant --patients patients.csv

writes tiles/<slide>/*.png and tiles/tiles.csv (path, label, patient, slide, mpp, x, y), which `TileClassification`
reads. A slide's annotations are the file of the same name that ends in .geojson or .json, as QuPath exports them.
"""

import argparse
import csv
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from pathzoo.errors import DataError, PathzooError
from pathzoo.wsi.annotated_tiles import AnnotatedSlide, cut_annotated_tiles
from pathzoo.wsi.names import slide_name

_ANNOTATION_SUFFIXES = (".geojson", ".json")
#: What may lie beside slides. Whatever else is there and is annotated must be a readable slide.
_NO_SLIDES = {*_ANNOTATION_SUFFIXES, ".csv", ".txt", ".xml", ".md"}


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
            progress=lambda line: print(line, file=sys.stderr, flush=True),
        )
    except PathzooError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print("\n".join(report.lines()))
    return 0


def find_sources(
    slides: Path, annotations: Path, patients: Path | None = None, mpps: Path | None = None
) -> tuple[list[AnnotatedSlide], list[Path]]:
    """Pairs slides with their annotations and with what the tables say of them.

    Args:
        slides: A folder of slides, or a CSV with a column `slide` (paths from the CSV's folder).
        annotations: A folder of QuPath GeoJSON files named after the slides.
        patients: CSV with columns slide, patient.
        mpps: CSV with columns slide, mpp.

    Returns:
        Slides that have annotations, and the paths of those that have none.

    Raises:
        DataError: A missing folder, table or column, a value that is no number, a slide twice in a table.
    """
    if not annotations.is_dir():
        raise DataError(f"{annotations}: no such folder of annotations")
    by_patient = read_slide_table(patients, "patient") if patients else {}
    by_mpp = read_slide_table(mpps, "mpp") if mpps else {}
    sources, without = [], []
    for slide in _slides(slides):
        files = [annotations / f"{slide_name(slide)}{suffix}" for suffix in _ANNOTATION_SUFFIXES]
        found = next((file for file in files if file.is_file()), None)
        if found is None:
            without.append(slide)
            continue
        mpp = _value_of(slide, by_mpp, mpps, "mpp")
        patient = _value_of(slide, by_patient, patients, "patient")
        sources.append(AnnotatedSlide(slide, found, patient, None if mpp is None else _positive(mpp, slide, mpps)))
    return sources, without


def read_slide_table(path: Path, column: str) -> dict[str, str]:
    """Reads one column of a CSV by slide, as the table names it (without folders). Empty values are left out.

    Raises:
        DataError: No such file, a missing column, or one slide with two values.
    """
    values: dict[str, str] = {}
    for number, row in enumerate(_rows(path, ("slide", column)), start=2):
        slide, value = Path(row["slide"].strip()).name, row[column].strip()
        if value and values.setdefault(slide, value) != value:
            raise DataError(f"{path}: line {number}: slide {slide} has {column} {value!r} and {values[slide]!r}")
    return values


def _value_of(slide: Path, values: Mapping[str, str], table: Path | None, column: str) -> str | None:
    """What a table says of a slide, by file name with or without its ending: an id may hold dots of its own."""
    found = [values[name] for name in dict.fromkeys((slide.name, slide_name(slide))) if name in values]
    if len(set(found)) > 1:
        raise DataError(f"{table}: slide {slide.name} has {column} {found[1]!r} and {found[0]!r}")
    return found[0] if found else None


def _slides(source: Path) -> list[Path]:
    if source.is_dir():
        files = (path for path in source.iterdir() if path.is_file() and not path.name.startswith("."))
        return sorted(path for path in files if path.suffix.lower() not in _NO_SLIDES)
    return [source.parent / row["slide"].strip() for row in _rows(source, ("slide",))]


def _rows(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [column for column in columns if column not in (reader.fieldnames or ())]
            if missing:
                raise DataError(f"{path}: has no column {missing[0]!r}; it has {', '.join(reader.fieldnames or ())}")
            return [{column: row[column] or "" for column in columns} for row in reader]
    except FileNotFoundError:
        raise DataError(f"{path}: no such file or folder") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a CSV table in UTF-8: {error}") from error


def _positive(text: str, slide: Path, table: Path | None) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise DataError(f"{table}: slide {slide.name} has mpp {text!r}; it must be a number above 0")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slides", type=Path, required=True, help="folder of slides, or CSV with a column slide")
    parser.add_argument("--annotations", type=Path, required=True, help="folder of QuPath GeoJSON, named as the slides")
    parser.add_argument("--out", type=Path, required=True, help="folder to make; it must not exist")
    parser.add_argument("--tile", type=int, default=224, help="side of a tile in pixels (default: %(default)s)")
    parser.add_argument("--mpp", type=float, required=True, help="microns per pixel of the tiles")
    parser.add_argument("--overlap", type=float, default=0.0, help="part that neighbours share (default: %(default)s)")
    parser.add_argument(
        "--min-cover", type=float, default=0.5, help="part of a tile its class must cover (default: %(default)s)"
    )
    parser.add_argument("--classes", nargs="+", help="classes that label tiles (default: all that occur)")
    parser.add_argument("--patients", type=Path, help="CSV: slide, patient; without it patients are unknown")
    parser.add_argument("--mpp-csv", type=Path, help="CSV: slide, mpp; for slides that do not state their resolution")
    return parser


if __name__ == "__main__":
    sys.exit(main())
