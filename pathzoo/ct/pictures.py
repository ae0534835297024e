"""CT slices as 8-bit pictures that were windowed already, with label PNGs of the same names."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pathzoo.ct.volume import ReadOptions, Volume
from pathzoo.datasets.csv_table import TableForm, read_csv_table
from pathzoo.errors import ConfigError, DataError

_SUFFIXES = (".png", ".jpg", ".jpeg")
_NAME = re.compile(r"(?P<case>.+?)_slice_(?P<slice>\d+)")
_FORM = TableForm(one="picture", many="pictures", needed=("image", "case", "slice"))


@dataclass(frozen=True)
class Picture:
    """A slice: its number in the case, its picture and its label picture."""

    number: int
    image: Path
    label: Path


@dataclass(frozen=True)
class PictureCase:
    """The pictures of one case, in the order of their numbers; see `pathzoo.ct.volume.Case`.

    Pictures have to be in display orientation: row 0 anterior, column 0 the patient's right.

    Attributes:
        name, patient: as in `Case`.
        shape: (S, H, W).
        spacing: as the user gave it, else None.
        pictures: of each slice.
        known_range: (low, high) in HU: a pixel value v means low + v / 255 * (high - low).
        options: how they are read.
    """

    name: str
    patient: str | None
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float] | None
    pictures: tuple[Picture, ...]
    known_range: tuple[float, float]
    options: ReadOptions

    @property
    def where(self) -> str:
        """The first picture."""
        return str(self.pictures[0].image)

    def read(self, with_hu: bool) -> Volume:
        """Reads the labels, and the HU where asked for.

        Raises:
            DataError: a damaged picture, not 8 bits, coloured, of another size than its label; a label value without
                a meaning.
        """
        planes = []
        for one in self.pictures:
            values = read_grey(one.label)[None]
            if values.shape[1:] != self.shape[1:]:
                raise DataError(
                    f"{one.label}: has {values.shape[2]} x {values.shape[1]} px, its image {one.image} "
                    f"{self.shape[2]} x {self.shape[1]}: give each picture the label of the same pixels"
                )
            planes.append(self.options.label_map.apply(values, str(one.label), self.name)[0])
        hu = np.stack([self._hu(one.image) for one in self.pictures]) if with_hu else None
        return Volume(np.stack(planes), hu, tuple(one.number for one in self.pictures), self.spacing)

    def _hu(self, path: Path) -> np.ndarray:
        low, high = self.known_range
        return np.rint(low + read_grey(path, shown=True).astype(np.float64) / 255 * (high - low)).astype(np.int16)


def find_pictures(
    images: Path,
    labels: Path,
    manifest: Path | None,
    known_range: tuple[float, float],
    options: ReadOptions,
) -> tuple[list[PictureCase], list[str]]:
    """The cases in a folder of pictures, the case as the patient, and notes on what was left out.

    Args:
        images, labels: folders; a label is the PNG of its image's stem.
        manifest: CSV with the columns image (a name in `images`), case and slice; None for names such as
            case_00025_slice_0060.png.
        known_range: see `PictureCase`.
        options: how they are read.

    Raises:
        ConfigError: no such folder or table, a range that is none.
        DataError: no picture, a name that does not tell case and slice, two pictures of one slice, a missing label,
            pictures of several sizes in one case.
    """
    low, high = known_range
    if not -32768 <= low < high <= 32767:
        raise ConfigError(f"--known-range {low:g} {high:g}: give LOW and HIGH in HU, low below high")
    for option, folder in (("--pictures", images), ("--labels", labels)):
        if not folder.is_dir():
            raise ConfigError(f"{option} {folder}: no such folder")
    named, notes = _named(images, manifest)
    of_case: dict[str, dict[int, Picture]] = defaultdict(dict)
    unlabelled = []
    for path, case, number in named:
        label = labels / f"{path.stem}.png"
        if not label.is_file():
            unlabelled.append(path)
            continue
        other = of_case[case].setdefault(number, Picture(number, path, label))
        if other.image != path:
            raise DataError(f"{path}: {other.image.name} is slice {number} of {case} too: remove one of them")
    if unlabelled and not options.skip_incomplete:
        raise DataError(
            f"{unlabelled[0]}: no label {labels / (unlabelled[0].stem + '.png')} ({len(unlabelled)} such pictures): "
            "add it, or leave such pictures out by --skip-incomplete"
        )
    if unlabelled:
        notes.append(f"{len(unlabelled)} pictures without a label were left out, first {unlabelled[0].name}")
    cases = [
        _case(name, [pictures[number] for number in sorted(pictures)], known_range, options)
        for name, pictures in sorted(of_case.items())
        if pictures
    ]
    if not cases:
        raise DataError(f"{images}: no picture with a label in it ({', '.join(_SUFFIXES)})")
    return cases, notes


def read_grey(path: Path, shown: bool = False) -> np.ndarray:
    """A picture of one channel: uint8 (H, W).

    Args:
        path: of the picture.
        shown: a palette picture gives the greys that its palette shows; otherwise its indices, as labels have them.

    Raises:
        DataError: damaged, not 8 bits, or coloured.
    """
    try:
        with Image.open(path) as picture:
            mode = picture.mode
            values = np.asarray(picture.convert("RGB") if mode == "P" and shown else picture)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be read as a picture ({error}): restore it, or take it out") from None
    if mode in ("RGB", "P") and values.ndim == 3 and (values == values[:, :, :1]).all():
        return np.ascontiguousarray(values[:, :, 0])
    if values.ndim != 2 or mode not in ("L", "P"):
        how = " in colour" if mode == "P" else ""
        raise DataError(f"{path}: is a picture of the mode {mode}{how}, not 8-bit grey: save it as such")
    return values


def _case(
    name: str, pictures: Sequence[Picture], known_range: tuple[float, float], options: ReadOptions
) -> PictureCase:
    sizes: dict[tuple[int, int], Path] = {}
    for one in pictures:
        try:
            with Image.open(one.image) as picture:
                sizes.setdefault(picture.size, one.image)
        except (OSError, ValueError) as error:
            raise DataError(f"{one.image}: cannot be read as a picture ({error}): restore it, or take it out") from None
    if len(sizes) > 1:
        (size, path), (other, path2) = list(sizes.items())[:2]
        raise DataError(
            f"{path2}: has {other[0]} x {other[1]} px, {path.name} of the same case {name} {size[0]} x {size[1]}: the "
            "slices of a case have one size"
        )
    width, height = next(iter(sizes))
    shape = (len(pictures), height, width)
    return PictureCase(name, name, shape, options.spacing, tuple(pictures), known_range, options)


def _named(images: Path, manifest: Path | None) -> tuple[list[tuple[Path, str, int]], list[str]]:
    """(path, case, slice number) of each picture, and notes."""
    found = sorted(
        path for path in images.iterdir() if path.suffix.lower() in _SUFFIXES and not path.name.startswith("._")
    )
    if manifest is None:
        return [(path, *_of_name(path)) for path in found], []

    def parse(fields: dict[str, str], where: str) -> dict:
        path = images / fields["image"]
        if not path.is_file():
            raise DataError(f"{where}: no picture {path}: correct the column image, or remove the line")
        if not fields["case"] or not fields["slice"].isdecimal():
            raise DataError(f"{where}: case {fields['case']!r}, slice {fields['slice']!r}: give a name and a number")
        return {"item": fields["image"], "path": path, "case": fields["case"], "slice": int(fields["slice"])}

    rows = read_csv_table(manifest, _FORM, parse)
    rest = sorted(path.name for path in set(found) - {row["path"] for row in rows})
    notes = [f"{len(rest)} pictures that {manifest.name} does not name were left out, first {rest[0]}"] if rest else []
    return [(row["path"], row["case"], row["slice"]) for row in rows], notes


def _of_name(path: Path) -> tuple[str, int]:
    found = _NAME.fullmatch(path.stem)
    if found is None:
        raise DataError(
            f"{path}: its name does not tell case and slice as case_00025_slice_0060.png does: rename it, or give "
            "--manifest CSV with image,case,slice"
        )
    return found["case"], int(found["slice"])
