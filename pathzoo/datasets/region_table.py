"""The files that describe a lab's own regions with label masks. Needs no torch.

    ROOT/regions.csv     image,mask,patient,slide,mpp
                         images/0001.png,masks/0001.png,P07,S12,1.0
    ROOT/classes.json    {"format": 1, "classes": ["normal", "benign", "malignant"],
                          "colors": [[228, 228, 228], [0, 158, 115], [213, 94, 0]], "ignore_index": 255}

`image`, `mask` and `patient` are needed; an empty mask says that nobody has labelled the region, an empty patient (or
`unknown`) that it is not known. `slide` and `mpp` are by choice. classes.json is by choice where the data set has
classes of its own.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pathzoo.datasets.csv_table import TableForm, absolute_root, item_of, parse_mpp, parse_patient, read_csv_table
from pathzoo.errors import ConfigError, DataError
from pathzoo.fileio import write_json
from pathzoo.wsi.colors import BACKGROUND_COLOR, class_colors

#: The mask value of pixels that count neither in the loss nor in a measure.
IGNORE = 255
_FORM = TableForm(
    one="region",
    many="regions",
    needed=("image", "mask", "patient"),
    by_choice=("slide", "mpp"),
    may_be_empty={"mask": "where nobody has labelled the region", "patient": "where not known"},
)


class ClassList(NamedTuple):
    """What the values of a mask mean: names in the order of the values, and an RGB colour of each, 0..255."""

    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]


def read_region_table(
    path: str | Path, data_root: str | Path | None = None, problems: list[DataError] | None = None
) -> list[dict[str, Any]]:
    """Reads and checks the table, not the images and masks.

    Args:
        path: the CSV.
        data_root: what relative paths are relative to; None for the CSV's folder.
        problems: where given, mistakes in a line are appended here and the line is left out.

    Returns:
        One dict per line: img_path (absolute), item (POSIX path of the image relative to the root, the region's id),
        mask_path (absolute, None for an unlabelled region), patient (str or None), slide (str or None), mpp (float,
        microns per pixel, or None), where ("FILE:LINE", for messages).

    Raises:
        ConfigError: no such file.
        DataError: not text, empty, a missing column, no region; without `problems` also a wrong number of fields, an
            empty image, an image or mask that stands twice, a resolution that is not positive.
    """
    root = absolute_root(path, data_root)
    masks: dict[str, str] = {}

    def parse(fields: dict[str, str], where: str) -> dict[str, Any]:
        if not fields["image"]:
            raise DataError(f"{where}: image is empty: fill it or remove the line")
        img_path, item = item_of(fields["image"], root)
        mask_path = item_of(fields["mask"], root)[0] if fields["mask"] else None
        row = {
            "img_path": img_path,
            "item": item,
            "mask_path": mask_path,
            "patient": parse_patient(fields["patient"]),
            "slide": fields.get("slide") or None,
            "mpp": parse_mpp(fields.get("mpp", ""), where),
            "where": where,
        }
        if mask_path == img_path:
            raise DataError(f"{where}: image and mask are one file ({fields['image']!r}): correct the column mask")
        if mask_path is not None and masks.setdefault(mask_path, where) != where:
            raise DataError(
                f"{where}: the mask {fields['mask']!r} stands already in {masks[mask_path]}: give each image its own"
            )
        return row

    return read_csv_table(path, _FORM, parse, problems)


def read_classes(path: str | Path) -> ClassList | None:
    """What a classes.json says; None where there is no such file.

    Raises:
        DataError: not JSON of this form, a name twice, another number of colours, an ignore_index other than 255.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not JSON ({error}): correct or remove it") from None
    if not isinstance(content, dict) or content.get("format") != 1:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise DataError(f'{path}: expected classes of "format": 1, found {found!r}: correct or remove it')
    classes = content.get("classes")
    if not isinstance(classes, list) or not classes or not all(isinstance(name, str) and name for name in classes):
        raise DataError(f"{path}: classes is {classes!r}: give a list of names in the order of the mask values")
    problem = class_problem(classes)
    if problem:
        raise DataError(f"{path}: {problem}")
    if content.get("ignore_index", IGNORE) != IGNORE:
        raise DataError(
            f"{path}: ignore_index is {content['ignore_index']!r}, pathzoo ignores {IGNORE}: write {IGNORE}, and give "
            f"the data set value_map with {{{content['ignore_index']!r}: {IGNORE}}} if the masks hold another value"
        )
    colors = content.get("colors")
    if colors is None:
        return ClassList(tuple(classes), default_palette(len(classes)))
    if not _are_colors(colors, len(classes)):
        raise DataError(f"{path}: colors is {colors!r}: give [r, g, b] in 0..255 for each of {len(classes)} classes")
    return ClassList(tuple(classes), tuple((int(r), int(g), int(b)) for r, g, b in colors))


def resolve_classes(
    wanted: tuple[Any, Any],
    own: Mapping[str, Any],
    file: str | Path,
    mapped: bool,
) -> ClassList:
    """The classes and colours of a data set.

    Args:
        wanted: classes and palette as the user gave them; None each where not.
        own: `classes` and `palette` of the data set's kind, where it has any.
        file: classes.json, which need not be there.
        mapped: the masks are read through a value_map, so the file's classes may be others.

    Raises:
        ConfigError: no classes from anywhere; classes that are not the file's, though its values are read as they are;
            a palette of another length.
        DataError: as `read_classes`.
    """
    listed = read_classes(file)
    given = wanted[0] if wanted[0] is not None else own.get("classes")
    if given is None:
        if listed is None:
            raise ConfigError(f"{file}: no such file, so the classes are not known: write it, or give classes=(...)")
        given = listed.classes
    classes = tuple(given)
    problem = "give a list of names" if isinstance(given, str) else class_problem(classes)
    if problem:
        raise ConfigError(f"classes={given!r}: {problem}")
    if listed is not None and not mapped and classes != listed.classes:
        raise ConfigError(
            f"{file} says that the mask values 0, 1, ... mean {', '.join(listed.classes)}, but the data set's classes "
            f"are {', '.join(classes)}: give classes=... as the file has them, or value_map to translate"
        )
    if wanted[1] is not None:
        colors = [list(color) for color in wanted[1]]
        if not _are_colors(colors, len(classes)):
            raise ConfigError(f"palette={wanted[1]!r}: give (r, g, b) of 0..255 for each of {len(classes)} classes")
        return ClassList(classes, tuple((r, g, b) for r, g, b in colors))
    for names, palette in ((listed or (None, None)), (own.get("classes"), own.get("palette"))):
        if names is not None and tuple(names) == classes and palette is not None:
            return ClassList(classes, tuple((r, g, b) for r, g, b in palette))
    return ClassList(classes, default_palette(len(classes)))


def write_classes(path: str | Path, classes: ClassList) -> None:
    """Writes classes.json, whole or not at all."""
    colors = [list(color) for color in classes.palette]
    write_json(path, {"format": 1, "classes": list(classes.classes), "colors": colors, "ignore_index": IGNORE})


def default_palette(count: int) -> tuple[tuple[int, int, int], ...]:
    """RGB colours of `count` classes: a light grey for the first, then those of pathzoo's own predictions."""
    return (BACKGROUND_COLOR, *class_colors([str(index) for index in range(1, count)]).values())


def class_problem(classes: Any) -> str | None:
    """Why names cannot be classes, None where they can."""
    twice = sorted({name for name in classes if list(classes).count(name) > 1})
    if twice:
        return f"the class {twice[0]!r} stands twice: name each once"
    if not 1 < len(classes) < IGNORE:
        return f"{len(classes)} classes: give 2 to {IGNORE - 1}, the background among them"
    return None


def _are_colors(colors: Any, count: int) -> bool:
    return (
        isinstance(colors, list)
        and len(colors) == count
        and all(
            isinstance(color, list)
            and len(color) == 3
            and all(isinstance(value, int) and 0 <= value <= 255 for value in color)
            for color in colors
        )
    )
