"""The CSV that describes a lab's own tiles. Needs no torch.

    path,label,patient,slide,mpp,x,y
    tiles/0001.png,tumour,P07,S12,0.5,10240,8192

`path`, `label` and `patient` are needed (a patient may be empty or `unknown`: not known); the rest is by choice. Other
columns are ignored. UTF-8, with comma, semicolon or tab between the fields, as spreadsheets save it.
"""

from pathlib import Path
from typing import Any

from pathzoo.datasets.csv_table import TableForm, absolute_root, item_of, parse_mpp, parse_patient, read_csv_table
from pathzoo.errors import DataError

_FORM = TableForm(
    one="image",
    many="tiles",
    needed=("path", "label", "patient"),
    by_choice=("slide", "mpp", "x", "y"),
    may_be_empty={"patient": "where not known"},
)
_UNLABELLED = TableForm(
    one="image", many="tiles", needed=("path",), by_choice=("label", "patient", "slide", "mpp", "x", "y")
)


def read_tile_table(
    path: str | Path, data_root: str | Path | None = None, labelled: bool = True
) -> list[dict[str, Any]]:
    """Reads and checks the table, not the images.

    Args:
        path: the CSV.
        data_root: what relative image paths are relative to; None for the CSV's folder.
        labelled: False needs the column `path` alone, and a label may be empty.

    Returns:
        One dict per line: img_path (absolute), item (POSIX path relative to the root, the image's id), label (str; None
        where there is none), patient (str or None), slide (str or None), mpp (float, microns per pixel, or None), x, y
        (int, level-0 pixels, or None), where ("FILE:LINE", for messages).

    Raises:
        ConfigError: no such file.
        DataError: not text, empty, a missing column, a wrong number of fields, an empty path or label, a path that
            stands twice, a resolution that is not positive, a coordinate that is not a whole number.
    """
    root = absolute_root(path, data_root)
    form, filled = (_FORM, ("path", "label")) if labelled else (_UNLABELLED, ("path",))
    return read_csv_table(path, form, lambda fields, where: _parse(fields, root, where, filled))


def _parse(fields: dict[str, str], root: Path, where: str, filled: tuple[str, ...]) -> dict[str, Any]:
    for name in filled:
        if not fields[name]:
            raise DataError(f"{where}: {name} is empty: fill it or remove the line")
    img_path, item = item_of(fields["path"], root)
    return {
        "img_path": img_path,
        "item": item,
        "label": fields.get("label") or None,
        "patient": parse_patient(fields.get("patient", "")),
        "slide": fields.get("slide") or None,
        "mpp": parse_mpp(fields.get("mpp", ""), where),
        "x": _whole(fields.get("x", ""), "x", where),
        "y": _whole(fields.get("y", ""), "y", where),
        "where": where,
    }


def _whole(text: str, name: str, where: str) -> int | None:
    try:
        return int(text) if text else None
    except ValueError:
        raise DataError(f"{where}: {name} {text!r} is not a whole number of level-0 pixels") from None
