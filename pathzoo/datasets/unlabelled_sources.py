"""Where unlabelled tiles come from: folders, single files, slides, tables, packed stores. Nothing is decoded here."""

import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tifffile
from mmengine.logging import print_log

from pathzoo.datasets.file_search import files_below
from pathzoo.datasets.packed_tiles import PackedTiles, is_packed
from pathzoo.datasets.tile_table import read_tile_table
from pathzoo.errors import ConfigError, DataError

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
SLIDE_SUFFIXES = (".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".svslide")
_TABLE = "tiles.csv"
_MASK_WORDS = {"mask", "masks", "labels"}
_TABLE_SUFFIXES = (".csv", ".tsv", ".txt")


def list_tiles(source: str | Path | Sequence[str | Path]) -> tuple[list[dict[str, Any]], dict[str, PackedTiles]]:
    """Lists what one or several sources hold.

    | source | what is taken |
    |---|---|
    | a folder with a `tiles.csv` | the lines of that table, as for a `.csv` |
    | another folder | every picture and slide below it, linked folders too, but for hidden files and masks |
    | a `.csv` | its lines, see `pathzoo.datasets.tile_table`; only `path` is needed, and a path may name a slide |
    | a `.safetensors` | the tiles of a packed store |
    | a slide or a picture | itself |

    A mask is what has the word mask, masks or labels in the name of its file or folder; how many there are is logged.
    A TIFF is a slide where it is stored in tiles, as scanners write them, otherwise a picture.

    Args:
        source: a path, or several.

    Returns:
        A dict for each picture, slide and stored tile: kind ("picture", "slide" or "stored"), img_path (absolute), item
        (its id; that of the second of several sources begins with `2/`), label, patient, slide, mpp, x, y (None where
        not known) and where (for messages); of a stored tile also row, sha256, width and height. And the stores, by
        img_path.

    Raises:
        ConfigError: no source, no such file, or a kind that is not known.
        DataError: a folder without any picture or slide, a malformed table, a store that cannot be used.
    """
    sources = [source] if isinstance(source, str | os.PathLike) else list(source)
    if not sources:
        raise ConfigError("source=[]: give a folder, a CSV, a slide or a packed store, or several of them")
    infos: list[dict[str, Any]] = []
    stores: dict[str, PackedTiles] = {}
    for number, one in enumerate(sources, 1):
        prefix = f"{number}/" if len(sources) > 1 else ""
        path = Path(os.path.abspath(one))  # noqa: PTH100 - resolve() would follow links
        if is_packed(path):
            stores[str(path)] = PackedTiles(path)
            found = _of_store(stores[str(path)])
        elif path.suffix.lower() in _TABLE_SUFFIXES and not path.is_dir():
            found = _of_table(path)
        elif (path / _TABLE).is_file():  # it knows patients and resolutions, which the pictures do not
            found = _of_table(path / _TABLE)
        elif path.is_dir():
            found = _of_folder(path)
        else:
            found = [_of_file(path, path.name, str(path))]
        infos += [{**info, "item": prefix + info["item"]} for info in found]
    return infos, stores


def is_slide(path: str | os.PathLike) -> bool:
    """Whether a file is read as a slide, by place and resolution, rather than as one picture."""
    suffix = Path(path).suffix.lower()
    if suffix not in (".tif", ".tiff"):
        return suffix in SLIDE_SUFFIXES
    try:
        with tifffile.TiffFile(path) as tiff:
            return bool(tiff.pages[0].is_tiled)
    except Exception:  # whatever is wrong with it is said when it is read as a picture
        return False


def _kind(path: str | os.PathLike) -> str:
    return "slide" if is_slide(path) else "picture"


def _of_table(path: Path) -> list[dict[str, Any]]:
    return [{"kind": _kind(info["img_path"]), **info} for info in read_tile_table(path, labelled=False)]


def _of_folder(folder: Path) -> list[dict[str, Any]]:
    known = (*PICTURE_SUFFIXES, *SLIDE_SUFFIXES)
    found = [
        path
        for path in files_below(folder)
        if path.suffix.lower() in known and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    paths = [path for path in found if not _is_mask(path.relative_to(folder))]
    if not paths:
        masks = f" but {len(found)} masks" if found else ""
        raise DataError(
            f"{folder}: holds no picture ({', '.join(PICTURE_SUFFIXES)}) and no slide{masks}, in none of its folders: "
            "correct the path; a packed store is given by its file"
        )
    if len(paths) < len(found):
        first = next(path for path in found if _is_mask(path.relative_to(folder)))
        text = f"{folder}: left out {len(found) - len(paths)} pictures that are masks by their names, first {first}"
        print_log(text, logger="current", level=logging.WARNING)
    return [_of_file(path, path.relative_to(folder).as_posix(), str(folder)) for path in paths]


def _is_mask(path: Path) -> bool:
    """Whether a word of a relative path says that it holds labels, not tissue."""
    return not _MASK_WORDS.isdisjoint(re.findall("[a-z]+", str(path.with_suffix("")).lower()))


def _of_file(path: Path, item: str, where: str) -> dict[str, Any]:
    if not path.exists():
        raise ConfigError(f"{path}: no such folder, table, store, slide or picture; correct source")
    if path.suffix.lower() not in (*PICTURE_SUFFIXES, *SLIDE_SUFFIXES):
        raise ConfigError(
            f"{path}: {path.suffix or 'no suffix'} is no kind of source; give a folder, a .csv, a slide, a picture or "
            "a packed store (.safetensors)"
        )
    kind = _kind(path)
    unknown = dict.fromkeys(("label", "patient", "mpp", "x", "y"))
    slide = path.stem if kind == "slide" else None
    return {"kind": kind, "img_path": str(path), "item": item, "slide": slide, "where": where, **unknown}


def _of_store(store: PackedTiles) -> list[dict[str, Any]]:
    _, height, width, _ = store.shape
    shared = {"kind": "stored", "img_path": str(store.path), "width": width, "height": height, "where": str(store.path)}
    names = (None if label < 0 else store.classes[label] for label in store.labels)
    # Of a tile from a picture the digest of that file: what splits of labelled data know it by.
    digests = [
        (source if source.any() else own).tobytes().hex()
        for source, own in zip(store.source_sha256, store.sha256, strict=True)
    ]
    columns = zip(
        store.items, store.patients, store.slides, names, store.mpp.tolist(), store.x.tolist(), store.y.tolist(),
        digests, strict=True,
    )  # fmt: skip
    return [
        {
            **shared,
            "row": row,
            "item": item,
            "patient": patient,
            "slide": slide,
            "label": label,
            "mpp": round(mpp, 6) if mpp == mpp else None,  # float32 has no more digits
            "x": x if x >= 0 else None,
            "y": y if y >= 0 else None,
            "sha256": sha256,
        }
        for row, (item, patient, slide, label, mpp, x, y, sha256) in enumerate(columns)
    ]
