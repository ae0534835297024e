"""Which slides there are, which annotations are theirs, and what tables say of them: what converters begin with."""

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pathzoo.datasets.csv_table import parse_patient
from pathzoo.errors import DataError, SlideError
from pathzoo.fileio import sha256_file
from pathzoo.wsi.annotations import ANNOTATION_SUFFIXES
from pathzoo.wsi.names import slide_name

#: What may lie beside slides. Whatever else is there must be a readable slide.
_NO_SLIDES = {*ANNOTATION_SUFFIXES, ".csv", ".txt", ".md"}


@dataclass(frozen=True)
class AnnotatedSlide:
    """A slide or image, its annotations and what is known of it (None: unknown, or nobody has annotated it)."""

    slide: Path
    annotations: Path | None
    patient: str | None = None
    mpp: float | None = None


def list_sources(
    slides: Path,
    annotations: Path | None,
    patients: Path | None = None,
    mpps: Path | None = None,
    suffixes: Sequence[str] = ANNOTATION_SUFFIXES,
) -> list[AnnotatedSlide]:
    """Pairs slides with their annotations, where they have any, and with what the tables say of them.

    Args:
        slides: A folder of slides, or a CSV with a column `slide` (paths from the CSV's folder).
        annotations: A folder of QuPath GeoJSON or ImageScope XML, files named after the slides, without or with their
            ending. None looks for none.
        patients: CSV with columns slide, patient.
        mpps: CSV with columns slide, mpp.
        suffixes: What files of annotations end in.

    Raises:
        DataError: A missing folder, table or column, a value that is no number, a slide twice in a table, or with two
            files of annotations.
    """
    if annotations is not None and not annotations.is_dir():
        raise DataError(f"{annotations}: no such folder of annotations")
    by_patient = read_slide_table(patients, "patient") if patients else {}
    by_mpp = read_slide_table(mpps, "mpp") if mpps else {}
    sources = []
    for slide in _slides(slides):
        mpp = _value_of(slide, by_mpp, mpps, "mpp")
        patient = _value_of(slide, by_patient, patients, "patient")
        resolution = None if mpp is None else _positive(mpp, slide, mpps)
        drawn = None if annotations is None else _annotations_of(slide, annotations, suffixes)
        sources.append(AnnotatedSlide(slide, drawn, patient, resolution))
    return sources


def find_sources(
    slides: Path, annotations: Path, patients: Path | None = None, mpps: Path | None = None
) -> tuple[list[AnnotatedSlide], list[Path]]:
    """As `list_sources`: the slides that have annotations, and the paths of those that have none."""
    sources = list_sources(slides, annotations, patients, mpps)
    return [s for s in sources if s.annotations], [s.slide for s in sources if not s.annotations]


def read_slide_table(path: Path, column: str) -> dict[str, str]:
    """Reads one column of a CSV by slide, as the table names it (without folders). Empty values are left out.

    A patient that is called unknown is one that is not known, and left out too.

    Raises:
        DataError: No such file, a missing column, or one slide with two values, named alike or once without its ending.
    """
    values: dict[str, str] = {}
    lines: dict[str, int] = {}
    for number, row in enumerate(_rows(path, ("slide", column)), start=2):
        slide, text = Path(row["slide"].strip()).name, row[column].strip()
        value = parse_patient(text) if column == "patient" else text
        if value and values.setdefault(slide, value) != value:
            raise DataError(
                f"{path}: line {number}: slide {slide} has {column} {value!r} and {values[slide]!r}: correct one of "
                "the lines"
            )
        lines.setdefault(slide, number)
    for slide, value in values.items():
        bare = slide_name(Path(slide))
        if values.get(bare, value) != value:
            raise DataError(
                f"{path}: lines {lines[slide]} and {lines[bare]}: slide {slide} has {column} {value!r}, and {bare} "
                f"{values[bare]!r}: correct one of the lines"
            )
    return values


def refuse_same_names(sources: Sequence[AnnotatedSlide]) -> None:
    """Refuses slides whose names without endings are the same.

    Raises:
        SlideError: Names one of them.
    """
    twice = [name for name, n in Counter(slide_name(source.slide) for source in sources).items() if n > 1]
    if twice:
        raise SlideError(f"two slides are called {twice[0]!r}; rename one: the name tells what is cut from them apart")


def find_twins(sources: Sequence[AnnotatedSlide]) -> list[tuple[AnnotatedSlide, AnnotatedSlide]]:
    """Pairs of slides, the first of its bytes and another, whose files are byte for byte the same."""
    by_size: dict[int, list[AnnotatedSlide]] = {}
    for source in sources:
        if source.slide.is_file():
            by_size.setdefault(source.slide.stat().st_size, []).append(source)
    first: dict[str, AnnotatedSlide] = {}
    alike = [source for same in by_size.values() if len(same) > 1 for source in same]  # others need not be read
    pairs = [(first.setdefault(sha256_file(source.slide), source), source) for source in alike]
    return [(one, other) for one, other in pairs if one is not other]


def files_without_slide(slides: Sequence[Path], folder: Path, suffixes: Sequence[str]) -> list[str]:
    """Names of the files of annotations in a folder that are called as no slide, and are none."""
    known = {name for slide in slides for name in (slide.name, slide_name(slide))}
    own = {slide.resolve() for slide in slides}
    files = (file for file in folder.iterdir() if file.suffix.lower() in suffixes and not file.name.startswith("."))
    return sorted(file.name for file in files if file.stem not in known and file.resolve() not in own)


def rows_without_slide(slides: Sequence[Path], table: Path, column: str) -> list[str]:
    """What a table calls slides that are none of these. Rows without a value do not count."""
    known = {name for slide in slides for name in (slide.name, slide_name(slide))}
    return [name for name in read_slide_table(table, column) if name not in known]


def patients_unknown(names: Sequence[str]) -> list[str]:
    """A warning for the report, or nothing, about slides whose patient is not known."""
    if not names:
        return []
    some = ", ".join(names[:5]) + (", ..." if names[5:] else "")
    return [
        f"warning: patient unknown for {len(names)} slides ({some}): they count as one patient in splits; give "
        "--patients"
    ]


def _annotations_of(slide: Path, folder: Path, suffixes: Sequence[str]) -> Path | None:
    """The file that is called as the slide, without or with its ending (`a.geojson`, `a.tif.geojson`)."""
    names = dict.fromkeys((slide_name(slide), slide.name))
    files = [folder / f"{name}{suffix}" for name in names for suffix in suffixes]
    found = [file for file in files if file.is_file() and file.resolve() != slide.resolve()]
    if len(found) > 1:
        raise DataError(f"{slide.name}: has two files of annotations, {found[0]} and {found[1].name}; remove one")
    return found[0] if found else None


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
