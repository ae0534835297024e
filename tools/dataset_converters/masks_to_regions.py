"""Brings pictures with label masks into the layout that `RegionSegmentation` reads, at one resolution.

    python tools/dataset_converters/masks_to_regions.py --pair hospitalA a/images a/masks \\
        --pair hospitalB b/images b/masks --classes rest tumour --value-map 0=rest 255=tumour --mpp 0.25 --to-mpp 0.5 \\
        --out regions/

writes regions/images/*.png, regions/masks/*.png, regions/classes.json and regions/regions.csv (image, mask, patient,
slide, mpp). A mask belongs to the picture of the same name before the suffix. The first word of a --pair is the patient
of all its pictures: without knowing better, pictures from one source count as one patient, so that no split puts them
on two sides. Who knows better gives --table, a CSV with the columns image, mask, patient and, by choice, slide and mpp.

Pictures are resampled by area; a pixel of a mask takes the class that covers most of it, the smaller value where two
cover as much.
"""

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from pathzoo.datasets.masks import parse_value_map
from pathzoo.datasets.region_table import IGNORE, ClassList, default_palette, write_classes
from pathzoo.errors import ConfigError, DataError, PathzooError
from pathzoo.phantom_mark import keep_mark
from pathzoo.wsi.outputs import atomic_folder

_COLUMNS = ("image", "mask", "patient", "slide", "mpp")
_PICTURES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status (0, or 2 for bad input, with nothing written)."""
    args = _parser().parse_args(argv)
    try:
        print(run(args))
    except PathzooError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def run(args: argparse.Namespace) -> str:
    """Converts as the arguments say; a sentence on what was written.

    Raises:
        ConfigError, DataError: Bad arguments, or pictures and masks that do not fit; see `RegionSegmentation`.
    """
    import tempfile

    from pathzoo.datasets.regions import RegionSegmentation

    if bool(args.pair) == bool(args.table):
        raise ConfigError("give either --pair PATIENT IMAGES MASKS, as often as needed, or --table CSV")
    if args.to_mpp is not None and not args.to_mpp > 0:
        raise ConfigError(f"--to-mpp {args.to_mpp}: give microns per pixel, above 0")
    value_map = parse_value_map(args.value_map, args.classes) or None
    with tempfile.TemporaryDirectory() as scratch:
        table, root = (args.table, args.table.parent) if args.table else (Path(scratch) / "regions.csv", Path(scratch))
        if args.pair:
            _write_rows(table, [row for pair in args.pair for row in _pairs(*pair)])
        data = RegionSegmentation(
            str(root.resolve()), str(table.resolve()), args.classes, value_map=value_map, mpp=args.mpp
        )
        with atomic_folder(args.out) as folder:
            for part in ("images", "masks"):
                (folder / part).mkdir()
            palette = default_palette(len(args.classes))
            write_classes(folder / "classes.json", ClassList(tuple(args.classes), palette))
            rows = [_convert(data, number, folder, args.to_mpp, palette) for number in range(len(data.regions))]
            _write_rows(folder / "regions.csv", rows)
            keep_mark(folder, [region.image for region in data.regions])
    labelled, patients = sum(bool(row[1]) for row in rows), {row[2] for row in rows} - {""}
    unknown = sum(not row[2] for row in rows)
    text = f"{args.out}: {len(rows)} regions, {labelled} with a mask, of {len(patients)} known patients"
    return f"{text}; of {unknown} the patient is not known" if unknown else text


def shrink_labels(labels: np.ndarray, width: int, height: int, n_classes: int) -> np.ndarray:
    """Labels (H, W) uint8 at another size: each pixel has what covers most of it, 255 included."""
    values = [*range(n_classes), IGNORE]
    cover = [
        cv2.resize((labels == value).astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
        for value in values
    ]
    return np.array(values, np.uint8)[np.argmax(np.round(np.stack(cover), 5), axis=0)]


def _convert(data: Any, number: int, folder: Path, to_mpp: float | None, palette: Sequence[Any]) -> list[object]:
    """Writes a region; its row."""
    region, image, labels = data.regions[number], data.read_image(number), data.read_truth(number)
    height, width, mpp = *image.shape[:2], region.mpp
    if to_mpp is not None:
        if mpp is None:
            raise DataError(f"{region.image}: its resolution is not known: fill the column mpp, or give --mpp")
        if mpp > to_mpp * 1.001:
            raise DataError(f"{region.image}: has {mpp:g} microns per pixel, coarser than --to-mpp {to_mpp:g}")
        width, height, mpp = max(1, round(width * mpp / to_mpp)), max(1, round(height * mpp / to_mpp)), to_mpp
    if (height, width) != image.shape[:2]:
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        labels = None if labels is None else shrink_labels(labels, width, height, len(data.metainfo["classes"]))
    name = f"{_flat(region, data.regions)}.png"
    Image.fromarray(image).save(folder / "images" / name, compress_level=1)
    if labels is not None:
        picture = Image.frombytes("P", (width, height), np.ascontiguousarray(labels).tobytes())
        picture.putpalette([channel for color in palette for channel in color])
        picture.save(folder / "masks" / name)
    mask = "" if labels is None else f"masks/{name}"
    return [f"images/{name}", mask, region.patient or "", region.slide or "", "" if mpp is None else f"{mpp:g}"]


def _flat(region: Any, regions: Sequence[Any]) -> str:
    """The picture's name, with its patient before it where several pictures have it."""
    stem = Path(region.image).stem
    twins = [other for other in regions if Path(other.image).stem == stem]
    name = stem if len(twins) == 1 else f"{region.patient}_{stem}"
    if len([other for other in twins if other.patient == region.patient]) > 1:
        raise DataError(f"{region.image}: two pictures of patient {region.patient} are called {stem}; rename one")
    return name


def _pairs(patient: str, images: str, masks: str) -> list[list[object]]:
    """Rows of the pictures in `images`, with the masks of the same name."""
    for folder in (images, masks):
        if not Path(folder).is_dir():
            raise DataError(f"--pair {patient}: {folder} is no folder")
    pictures = {path.stem: path for path in sorted(Path(images).iterdir()) if path.suffix.lower() in _PICTURES}
    labels = {path.stem: path for path in sorted(Path(masks).iterdir()) if path.suffix.lower() in _PICTURES}
    if not pictures:
        raise DataError(f"--pair {patient}: {images} holds no picture ({', '.join(sorted(_PICTURES))})")
    stray = sorted(set(labels) - set(pictures))
    if stray:
        raise DataError(f"{labels[stray[0]]}: no picture in {images} has this name ({len(stray)} such masks)")
    return [
        [str(path.resolve()), str(labels[stem].resolve()) if stem in labels else "", patient, "", ""]
        for stem, path in pictures.items()
    ]


def _write_rows(path: Path, rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([_COLUMNS, *rows])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--pair", nargs=3, action="append", default=[], metavar=("PATIENT", "IMAGES", "MASKS"), help="two folders"
    )
    parser.add_argument("--table", type=Path, help="CSV: image, mask, patient and, by choice, slide, mpp")
    parser.add_argument("--classes", nargs="+", required=True, help="names in the order of their values")
    parser.add_argument("--value-map", nargs="+", default=[], metavar="VALUE=CLASS", help="of masks with other values")
    parser.add_argument("--mpp", type=float, help="microns per pixel of pictures that no table gives one for")
    parser.add_argument("--to-mpp", type=float, help="microns per pixel of the regions (default: as they are)")
    parser.add_argument("--out", type=Path, required=True, help="folder to make; it must not exist")
    return parser


if __name__ == "__main__":
    sys.exit(main())
