"""Readers of slide files and the choice between them."""

import os
from collections.abc import Callable
from pathlib import Path

from pathzoo.errors import SlideError
from pathzoo.wsi.readers.base import DeclinedError, Level, NativeGrid, Reader, TiledReader
from pathzoo.wsi.readers.image_reader import IMAGE_SUFFIXES, ImageReader
from pathzoo.wsi.readers.openslide_reader import OpenSlideReader
from pathzoo.wsi.readers.tiled_tiff import TiledTiffReader

__all__ = ["READERS", "DeclinedError", "Level", "NativeGrid", "Reader", "TiledReader", "open_reader"]

#: name -> what makes the reader of a path, in the order in which `open_reader` asks them.
READERS: dict[str, Callable[[Path], Reader]] = {
    TiledTiffReader.name: TiledTiffReader,
    OpenSlideReader.name: OpenSlideReader,
    ImageReader.name: ImageReader,
}


def open_reader(path: Path, name: str | None = None) -> Reader:
    """The first reader that takes the file, or the one called `name`.

    Raises:
        SlideError: No such file, a folder, an empty file or one that may not be read; no reader for it, or not the one
            called `name`; or a file that its reader finds damaged.
    """
    _check(path)
    if name is not None:
        return _open_by(path, name)
    damage = ""
    for make in READERS.values():
        try:
            return make(path)
        except DeclinedError as reason:
            damage = damage or (str(reason) if reason.damaged else "")
    if damage:
        raise SlideError(f"{path}: {damage}; copy it again")
    if path.suffix.lower() in IMAGE_SUFFIXES:
        raise SlideError(f"{path}: damaged, not an image as its name says")
    raise SlideError(
        f"{path}: not readable as a slide (OpenSlide knows no format like it: damaged, incomplete, or another kind of "
        "file); open it in its viewer, or copy it again"
    )


def _open_by(path: Path, name: str) -> Reader:
    if name not in READERS:
        raise SlideError(f"{path}: no reader is called {name!r}; there are {', '.join(READERS)}")
    try:
        return READERS[name](path)
    except DeclinedError as reason:
        raise SlideError(
            f"{path}: reader {name!r} cannot read it: {reason}; choose none, and the one that can is found"
        ) from None


def _check(path: Path) -> None:
    if not path.exists():
        raise SlideError(f"{path}: no such file")
    if path.is_dir():
        raise SlideError(f"{path}: a folder, not a slide; give the slide's file")
    if not os.access(path, os.R_OK):
        raise SlideError(f"{path}: no permission to read it")
    if path.stat().st_size == 0:
        raise SlideError(f"{path}: empty file; copy it again")
