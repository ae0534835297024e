"""Output folders that appear whole or not at all, and what goes into them."""

import csv
import os
import platform
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import cv2

from pathzoo._version import __version__
from pathzoo.errors import SlideError
from pathzoo.wsi.types import RGB

_PACKAGES = (
    "numpy",
    "opencv-python-headless",
    "openslide-python",
    "openslide-bin",
    "pillow",
    "shapely",
    "tifffile",
    "imagecodecs",
)


@contextmanager
def atomic_folder(path: str | os.PathLike[str], overwrite: bool | None = None) -> Iterator[Path]:
    """Gives a temporary folder beside `path`; on success its files are flushed and it is renamed to `path`.

    On an exception the temporary folder is removed, parents made for it too, and what stood at `path` stays as it was.

    Args:
        path: The folder to make.
        overwrite: Replace an existing folder, once the new one is complete; None where the user has no such choice.

    Raises:
        SlideError: `path` exists and `overwrite` is not True, or it cannot be written to.
    """
    path = Path(path)
    _refuse_existing(path, overwrite)
    made = [parent for parent in (path.parent, *path.parent.parents) if not parent.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise SlideError(f"{path}: cannot be written: {error.strerror or error}") from error
    try:
        yield temporary
        _flush(temporary)
        temporary.chmod(0o777 & ~_umask())
        _refuse_existing(path, overwrite)
        _exchange(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        for parent in made:
            if not any(parent.iterdir()):
                parent.rmdir()
        raise


def write_csv(path: str | os.PathLike[str], header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Writes a table as CSV, UTF-8, with line feeds (not atomic: it belongs into a folder that is)."""
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def write_picture(path: str | os.PathLike[str], picture: RGB) -> None:
    """Writes (h, w, 3) uint8 as PNG (not atomic: it belongs into a folder that is).

    By OpenCV, whose run-length strategy takes a fourth of Pillow's time for a photograph of the same size in bytes.
    """
    ok, data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    assert ok
    Path(path).write_bytes(data.tobytes())


def package_versions() -> dict[str, str]:
    """Versions of Python, pathzoo and the packages that decode, resample and write."""
    versions = {"python": platform.python_version(), "pathzoo": __version__}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _refuse_existing(path: Path, overwrite: bool | None) -> None:
    if path.exists() and not overwrite:
        choice = "" if overwrite is None else ", or pass --overwrite"
        raise SlideError(
            f"{path}: exists already; remove it{',' if choice else ' or'} choose another output folder{choice}"
        )


def _exchange(new: Path, path: Path) -> None:
    if not path.exists():
        new.rename(path)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", dir=path.parent))
    path.rename(old / path.name)
    try:
        new.rename(path)
    except BaseException:
        (old / path.name).rename(path)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _flush(folder: Path) -> None:
    for path in [folder, *folder.rglob("*")]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
