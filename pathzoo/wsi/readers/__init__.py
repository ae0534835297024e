"""Readers of slide files and the choice between them."""

from pathlib import Path

from pathzoo.errors import SlideError
from pathzoo.wsi.readers.base import Level, Reader
from pathzoo.wsi.readers.image_reader import IMAGE_SUFFIXES, ImageReader
from pathzoo.wsi.readers.openslide_reader import OpenSlideReader

__all__ = ["READERS", "Level", "Reader", "open_reader"]

#: name -> class, in the order in which `open_reader` asks them.
READERS: dict[str, type[OpenSlideReader] | type[ImageReader]] = {
    OpenSlideReader.name: OpenSlideReader,
    ImageReader.name: ImageReader,
}


def open_reader(path: Path, name: str | None = None) -> Reader:
    """The first reader that knows the file, or the one called `name`.

    Raises:
        SlideError: No such file, no reader for it, or a file that its reader finds damaged.
    """
    if not path.exists():
        raise SlideError(f"{path}: no such file")
    if name is not None and name not in READERS:
        raise SlideError(f"{path}: no reader is called {name!r}; there are {', '.join(READERS)}")
    for reader in READERS.values() if name is None else (READERS[name],):
        if reader.knows(path):
            return reader(path)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        raise SlideError(f"{path}: damaged, not an image as its name says")
    raise SlideError(
        f"{path}: not readable as a slide (OpenSlide knows no format like it: damaged, incomplete, or another kind of "
        "file); open it in its viewer, or copy it again"
    )
