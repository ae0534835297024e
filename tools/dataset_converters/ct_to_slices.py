"""Brings CT volumes with kidney and tumour labels into a store of axial slices, split by patient.

    python tools/dataset_converters/ct_to_slices.py --kits19 kits19/data --out kits_store
    python tools/dataset_converters/ct_to_slices.py --dicom archive/ --out ct_store --pseudonyms lab.key
    python tools/dataset_converters/ct_to_slices.py --pictures images/ --labels labels/ --known-range 0 255 --out store

--kits19 takes case folders (case_00000/imaging.nii.gz, segmentation.nii.gz); each case is a patient unless --patients
says otherwise. --dicom takes any tree of files: series are told apart by SeriesInstanceUID, patients by PatientID (or
by --patients: a series' case is series_ and 12 digits of its UID's SHA-256, as index.csv of a store names it), and a
segmentation.nii.gz lies beside each series, on its grid; where a folder holds several, it is called
segmentation_<SeriesInstanceUID>.nii.gz. --pictures takes 8-bit slices that were windowed already, pixel value v meaning
LOW + v / 255 * (HIGH - LOW) HU, named CASE_slice_NUMBER or listed in --manifest.

Slices are axial as radiologists look at them: row 0 anterior, column 0 the patient's right, slice 0 the most inferior;
so slice numbers count from the feet, whatever the order in the file. Labels are 0 background, 1 kidney, 2 tumour.
`pathzoo.ct.store` describes the store. It names patients unless --pseudonyms is given: keep it with the data.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pathzoo.errors import ConfigError, PathzooError

if TYPE_CHECKING:
    from pathzoo.ct.store import SliceStore


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
    """Converts as the arguments say; the table and the warnings.

    Raises:
        ConfigError, DataError, SlideError: bad arguments or sources; nothing is written.
    """
    from pathzoo.ct.build import BuildOptions, build_store
    from pathzoo.ct.cases import pseudonymised, with_patients
    from pathzoo.phantom_mark import any_phantom

    source = _check(args)
    options = BuildOptions(
        source=source,
        ratios=tuple(args.ratios),
        seed=args.seed,
        size=None if args.size is None else tuple(args.size),
        pixel_spacing=args.pixel_spacing,
        resize=args.resize,
        every=args.every,
        only_labelled=args.only_labelled,
        background_rate=args.background_rate,
        allow_no_kidney=args.allow_no_kidney,
        known_range=tuple(args.known_range) if args.known_range else None,
        phantom=any_phantom([(args.kits19 or args.dicom or args.pictures) / "any"]),
        overwrite=args.overwrite,
    )
    cases, notes = _find(args, source)
    if args.patients:
        cases, more = with_patients(cases, args.patients)
        notes += more
    if args.pseudonyms:
        cases = pseudonymised(cases, args.pseudonyms)
    with _progress() as advance:
        built = build_store(cases, args.out, options, advance)
    return "\n".join([table(built.store), *(f"warning: {note}" for note in (*notes, *built.notes))])


def table(store: "SliceStore") -> str:
    """What a store holds, a line per subset."""
    lines = [("subset", "cases", "patients", "slices", "with kidney", "with tumour")]
    for name, own in store.counts.items():
        cases = len({record.case for record in store.records(name)})
        lines.append((name, *map(str, (cases, own["patients"], own["n"], own["kidney"], own["tumour"]))))
    total = ["all", *(str(sum(int(line[i]) for line in lines[1:])) for i in range(1, 6))]
    widths = [max(len(line[i]) for line in (*lines, total)) for i in range(6)]
    rows = ["  ".join(word.rjust(width) for word, width in zip(line, widths, strict=True)) for line in (*lines, total)]
    width, height = store.size
    return "\n".join([*rows, f"{store.folder}: {width} x {height} px, digest {store.digest[:12]}"])


def _check(args: argparse.Namespace) -> str:
    """The source that was chosen, once its options fit.

    Raises:
        ConfigError: options of another source, or missing ones.
    """
    source = "kits19" if args.kits19 else "dicom" if args.dicom else "pictures"
    for name, goes_with, needed in (
        ("labels", ("pictures",), True),
        ("known_range", ("pictures",), True),
        ("manifest", ("pictures",), False),
        ("axes", ("kits19", "dicom"), False),
        ("allow_no_kidney", ("kits19", "dicom"), False),
    ):
        option, given = f"--{name.replace('_', '-')}", bool(getattr(args, name))
        if given and source not in goes_with:
            raise ConfigError(f"{option} does not go with --{source}, but with --{' or --'.join(goes_with)}")
        if needed and not given and source in goes_with:
            raise ConfigError(f"--{source} needs {option} too; see --help")
    return source


def _find(args: argparse.Namespace, source: str) -> tuple[list, list[str]]:
    from pathzoo.ct.volume import LabelMap, ReadOptions

    options = ReadOptions(
        label_map=LabelMap.parse(args.label_map),
        spacing=tuple(args.spacing) if args.spacing else None,
        axes=args.axes,
        skip_incomplete=args.skip_incomplete,
    )
    if source == "kits19":
        from pathzoo.ct.cases import find_kits19

        return find_kits19(args.kits19, options)
    if source == "dicom":
        from pathzoo.ct.dicom import find_dicom

        return find_dicom(args.dicom, options)
    from pathzoo.ct.pictures import find_pictures

    return find_pictures(args.pictures, args.labels, args.manifest, tuple(args.known_range), options)


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """Bars on a terminal's standard error; gives what to call after every case."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        tasks: dict = {}

        def advance(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done)

        yield advance


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sources = parser.add_mutually_exclusive_group(required=True)
    sources.add_argument("--kits19", type=Path, metavar="ROOT", help="folder of case folders")
    sources.add_argument("--dicom", type=Path, metavar="ROOT", help="folder of DICOM files, at any depth")
    sources.add_argument("--pictures", type=Path, metavar="IMAGES", help="folder of 8-bit slices, PNG or JPEG")
    parser.add_argument("--labels", type=Path, help="folder of label PNGs, of the pictures' names")
    parser.add_argument("--manifest", type=Path, metavar="CSV", help="columns image,case,slice")
    parser.add_argument("--known-range", type=float, nargs=2, metavar=("LOW", "HIGH"), help="HU of pixel 0 and 255")
    parser.add_argument("--out", type=Path, required=True, metavar="STORE", help="folder of the store")
    parser.add_argument(
        "--ratios",
        type=float,
        nargs=3,
        default=(0.7, 0.2, 0.1),
        metavar=("TRAIN", "VAL", "TEST"),
        help="shares of the patients' slices (default: 0.7 0.2 0.1)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the split and choice of slices (default: %(default)s)")
    parser.add_argument("--size", type=int, nargs=2, metavar=("W", "H"), help="pixels (default: the most common size)")
    parser.add_argument("--pixel-spacing", type=float, metavar="MM", help="resample slices to it first")
    parser.add_argument("--resize", action="store_true", help="scale the whole field to the size; else crop or pad")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="keep every Nth slice (default: all)")
    parser.add_argument("--only-labelled", action="store_true", help="keep slices that show kidney or tumour")
    parser.add_argument("--background-rate", type=float, default=0.0, metavar="SHARE", help="of the other slices")
    parser.add_argument("--label-map", nargs="+", default=(), metavar="V=C", help="such as 2=1 3=1 other=0")
    parser.add_argument("--patients", type=Path, metavar="CSV", help="columns case,patient")
    parser.add_argument("--pseudonyms", type=Path, metavar="KEY", help="hash patients and cases with this key file")
    parser.add_argument("--spacing", type=float, nargs=3, metavar=("Z", "Y", "X"), help="mm, where none is stated")
    parser.add_argument("--axes", metavar="LPS", help="where the axes of volumes without an affine point to")
    parser.add_argument("--allow-no-kidney", action="store_true", help="take volumes without a kidney")
    parser.add_argument("--skip-incomplete", action="store_true", help="leave out cases without image or labels")
    parser.add_argument("--overwrite", action="store_true", help="replace a store that is there")
    return parser


if __name__ == "__main__":
    sys.exit(main())
