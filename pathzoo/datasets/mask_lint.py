"""Finds everything that is wrong with a data set of regions and masks, and says it all at once. Needs no torch."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pathzoo.datasets.inventory import ImageRecord, scan_images
from pathzoo.datasets.masks import (
    MaskRecord,
    class_counts,
    scan_masks,
    size_problem,
    unknown_value_text,
    value_lookup,
)
from pathzoo.datasets.region_table import IGNORE, ClassList, read_region_table
from pathzoo.errors import DataError

#: kind -> what is looked for.
KINDS = {
    "line": "a line of the table that cannot be read",
    "missing": "an image or mask that is not there",
    "damaged": "an image or mask that cannot be decoded, or is no RGB picture, or not one lossless 8-bit channel",
    "size": "a mask of another size than its image",
    "value": "a mask value that is no class and not 255",
    "empty": "a mask without any labelled pixel, or of nothing but the first class",
    "patient": "a region whose patient is not known: such regions are split as if they came from one patient",
    "duplicate": "two images, or two masks that show several classes, with identical bytes",
}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        kind: a key of `KINDS`.
        where: "TABLE:LINE".
        file: the image, mask or table that it is about.
        value: what was found.
        remedy: what to do.
    """

    kind: str
    where: str
    file: str
    value: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}: {self.kind}: {self.file}: {self.value}: {self.remedy}"


@dataclass(frozen=True)
class LintReport:
    """What was looked at, and everything wrong with it in the order of the table."""

    n_regions: int
    n_masks: int
    problems: tuple[Problem, ...]


def lint_masks(
    table: str | Path,
    classes: ClassList,
    data_root: str | Path | None = None,
    value_map: Mapping[Any, int] | None = None,
) -> LintReport:
    """Reads a table, all its images and all its masks.

    Args:
        table: regions.csv.
        classes: what the mask values mean.
        data_root: what paths in it are relative to; None for its folder.
        value_map: as in `RegionSegmentation`.

    Raises:
        ConfigError: no such table, or a value_map that cannot be.
        DataError: a table without header or lines.
    """
    lines: list[DataError] = []
    infos = read_region_table(table, data_root, lines)
    images = scan_images([info["img_path"] for info in infos])
    masked = [info for info in infos if info["mask_path"] is not None]
    masks = dict(zip((i["item"] for i in masked), scan_masks([i["mask_path"] for i in masked]), strict=True))
    lookup = value_lookup(len(classes.classes), value_map)
    problems = [_line_problem(str(error), str(table)) for error in lines]
    for info, image in zip(infos, images, strict=True):
        problems += _of_region(info, image, masks.get(info["item"]), lookup, classes.classes)
    problems += _duplicates(infos, images, masks)
    problems.sort(key=lambda problem: _line_number(problem.where))
    return LintReport(len(infos) + len(lines), len(masked), tuple(problems))


def _of_region(
    info: dict[str, Any], image: ImageRecord, mask: MaskRecord | None, lookup: np.ndarray, classes: Sequence[str]
) -> Iterator[Problem]:
    where = info["where"]
    if info["patient"] is None:
        yield Problem("patient", where, info["item"], "no patient", "fill the column patient where it is known")
    for record, what in ((image, "image"), (mask, "mask")):
        if record is None or not record.error:
            continue
        if record.missing:
            yield Problem("missing", where, record.path, f"no {what} file", "correct the path or remove the line")
        else:
            yield Problem("damaged", where, record.path, record.error, "restore the file or save it anew")
    if mask is None or mask.error or mask.counts is None:
        return
    size = None if image.error else size_problem(image, mask)
    if size:
        yield Problem("size", where, mask.path, size, "export the mask at the image's size")
    unknown = unknown_value_text(mask, lookup, classes)
    if unknown:
        yield Problem("value", where, mask.path, unknown, "correct the mask, or translate its values by a value map")
        return
    pixels = class_counts(mask.counts, lookup, len(classes))
    if not any(pixels):
        remedy = "label it, or leave the column mask empty"
        yield Problem("empty", where, mask.path, "no labelled pixel, all are 255", remedy)
    elif not any(pixels[1:]):
        ignored = sum(count for value, count in enumerate(mask.counts) if lookup[value] == IGNORE)
        value = f"nothing but {classes[0]}" + (f", and {ignored} pixels that are ignored" if ignored else "")
        foreign = f"; if {IGNORE} stands for a class, translate it by a value map" if mask.counts[IGNORE] else ""
        yield Problem("empty", where, mask.path, value, f"check that no lesion was left out{foreign}")


def _duplicates(
    infos: Sequence[dict[str, Any]], images: Sequence[ImageRecord], masks: Mapping[str, MaskRecord]
) -> Iterator[Problem]:
    seen: dict[str, dict[str, str]] = defaultdict(dict)
    for info, image in zip(infos, images, strict=True):
        mask = masks.get(info["item"])
        several = mask is not None and mask.counts is not None and sum(count > 0 for count in mask.counts) > 1
        for record, what in ((image, "image"), (mask if several else None, "mask")):
            if record is None or record.error or record.sha256 is None:
                continue
            first = seen[what].setdefault(record.sha256, f"{record.path} ({info['where']})")
            if not first.startswith(f"{record.path} ("):
                remedy = f"remove one of the lines, or give the region its own {what}"
                yield Problem("duplicate", info["where"], record.path, f"the bytes of {first}", remedy)


def _line_problem(text: str, table: str) -> Problem:
    """A line's error as a problem: "TABLE:LINE: what: remedy"; the parts stay readable where it has another form."""
    number = text.removeprefix(f"{table}:").split(":", 1)[0].split(" ", 1)[0]
    rest = text.removeprefix(f"{table}:{number}").lstrip(": ")
    value, _, remedy = rest.rpartition(": ")
    return Problem("line", f"{table}:{number}", table, value or rest, remedy if value else "correct the line")


def _line_number(where: str) -> int:
    number = where.rpartition(":")[2]
    return int(number) if number.isdigit() else 0
