"""How a slide is called in outputs."""

from pathlib import PurePath

#: Endings of files that are read as slides; other known ones are images.
SLIDE_SUFFIXES = (".svs", ".tif", ".tiff", ".ndpi", ".vms", ".vmu", ".scn", ".mrxs", ".svslide", ".bif", ".dcm", ".czi")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")


def slide_name(path: PurePath) -> str:
    """The file's name without its ending: `a.b.svs` is called `a.b`; `2024.17`, which has none, stays `2024.17`."""
    return path.stem if path.suffix.lower() in SLIDE_SUFFIXES + IMAGE_SUFFIXES else path.name
