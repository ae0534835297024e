"""The mark of drawn tissue: a phantom.json above its files, which goes with whatever is made of them."""

import os
from collections.abc import Iterable
from pathlib import Path

from pathzoo.fileio import write_json

MARK = "phantom.json"


def any_phantom(paths: Iterable[str | os.PathLike]) -> bool:
    """Whether any file lies below a folder with a phantom.json, which pathzoo's phantoms put at their top."""
    folders = {Path(path).parent for path in paths}
    above = {folder for lowest in folders for folder in (lowest, *lowest.parents)}
    return any((folder / MARK).is_file() for folder in above)


def keep_mark(folder: Path, sources: Iterable[str | os.PathLike]) -> None:
    """Marks `folder` where any of the files that it was made from is a phantom's.

    Without it a model that was trained on tiles of drawn slides would be published as one of patients' tissue.
    """
    if any_phantom(sources):
        write_json(folder / MARK, {"phantom": "made from a phantom's files"})
