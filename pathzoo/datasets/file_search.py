"""Files below a folder, through linked folders too. Standard library only."""

import os
from pathlib import Path

from pathzoo.errors import DataError


def files_below(root: Path) -> list[Path]:
    """All files below a folder, sorted; linked folders are entered once each, after all that really lie there.

    A folder that is reached twice keeps the name of its real place: ids in saved splits do not change with a link.
    """
    folders, links, files, visited = [str(root)], [], [], set()
    while folders or links:
        folder = folders.pop() if folders else links.pop(0)
        real = os.path.realpath(folder)
        if real in visited:
            continue
        visited.add(real)
        try:
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            raise DataError(f"{folder}: cannot be listed ({error.strerror}): give access or move it away") from None
        for entry in entries:
            if entry.is_dir():
                (links if entry.is_symlink() else folders).append(entry.path)
            else:
                files.append(Path(entry.path))
    return sorted(files)
