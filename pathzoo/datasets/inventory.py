"""What lies on disk: size, digest and soundness of image files. Needs no torch.

Every picture is decoded to its last row once, in threads; a file that has not changed since is not read again.
"""

import contextlib
import hashlib
import io
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageFile

from pathzoo.datasets.pixel_modes import mode_problem
from pathzoo.fileio import sha256_bytes
from pathzoo.pixel_depth import channel_bits

#: A file written within this many seconds before the scan is not remembered: it could change again within the
#: resolution of its time stamp and look the same.
_SETTLED_SECONDS = 2.0
_PROGRESS_AFTER_SECONDS = 1.0
#: Raised whenever `inspect_image` refuses more than before: what an older format remembers as sound may not be.
_CACHE_FORMAT = 3


@dataclass(frozen=True)
class ImageRecord:
    """One scanned file.

    Attributes:
        path: as it was asked for.
        sha256: of the file's bytes, 64 hexadecimal digits; None where the file could not be read.
        width: in pixels; None where the picture could not be decoded.
        height: in pixels; None likewise.
        error: None for a sound picture, otherwise what is wrong with it, in a few words.
        missing: there is no file at that path.
    """

    path: str
    sha256: str | None
    width: int | None
    height: int | None
    error: str | None
    missing: bool = False


def inspect_image(path: str | os.PathLike) -> ImageRecord:
    """Reads and decodes one file to the end; never raises for what is wrong with it, but says so in `error`.

    A PNG's chunk checksums are verified as well. JPEG has no checksum: changed bytes that still decode are not seen
    here, but by the digest that a saved split holds. A sound picture that the loader would refuse, since its pixels
    have no plain RGB meaning (16 bits per channel, float grey, CMYK), is an error too.
    """
    path = str(path)
    read = read_picture(path)
    if read.picture is None:
        return ImageRecord(path, read.sha256, None, None, read.error, read.missing)
    problem = mode_problem(read.picture, read.bits)
    if problem:
        return ImageRecord(path, read.sha256, None, None, problem)
    return ImageRecord(path, read.sha256, *read.picture.size, None)


class ReadPicture(NamedTuple):
    """A picture decoded to its end, or why it could not be: digest of the bytes, format, error, no such file, bits.

    `bits` are those per channel in the file; decoded 16-bit colour has lost half of them.
    """

    picture: Image.Image | None
    sha256: str | None
    kind: str | None = None
    error: str | None = None
    missing: bool = False
    bits: int = 8


def read_picture(path: str | os.PathLike) -> ReadPicture:
    """Reads and decodes one file to the end, in the mode it is stored in; never raises for what is wrong with it."""
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        return ReadPicture(None, None, error="no such file", missing=True)
    except OSError as error:
        return ReadPicture(None, None, error=f"cannot be read ({error.strerror})")
    digest = sha256_bytes(data)
    if not data:
        return ReadPicture(None, digest, error="empty file (0 bytes)")
    try:
        with Image.open(io.BytesIO(data)) as picture:
            kind, bits = picture.format, channel_bits(picture)
            picture.load()
        if kind == "PNG":  # load() skips the checksum of the pixel data
            with Image.open(io.BytesIO(data)) as again:
                again.verify()
    except Image.UnidentifiedImageError:
        return ReadPicture(None, digest, error="not an image in any format that Pillow reads")
    except Exception as error:  # the decoders raise OSError, SyntaxError, struct.error, zlib.error, ...
        return ReadPicture(None, digest, error=f"truncated or damaged ({_one_line(error)})")
    return ReadPicture(picture, digest, kind, bits=bits)


def scan_images(
    paths: Sequence[str | os.PathLike], workers: int | None = None, cache: bool = True, progress: bool = True
) -> list[ImageRecord]:
    """Inspects image files in threads (hashing and decoding release the interpreter lock).

    Args:
        paths: image files.
        workers: threads; None for one per core, at most 16.
        cache: remembers sound pictures in `cache_file()`, keyed by the hashed absolute path with size, modification
            and change time, so that a second scan only asks the file system. Damaged ones are read again each time.
        progress: shows a bar on standard error once the scan has taken a second.

    Returns:
        One record per path, in the order of `paths`.
    """
    names = [str(path) for path in paths]
    stamps = [_stamp(name) for name in names]
    known = _recall(stamps) if cache else {}
    records: list[ImageRecord | None] = [
        ImageRecord(name, *known[stamp], error=None) if stamp in known else None
        for name, stamp in zip(names, stamps, strict=True)
    ]
    todo = [index for index, record in enumerate(records) if record is None]
    settled = time.time_ns() - int(_SETTLED_SECONDS * 1e9)
    fresh = {}
    try:
        found = inspect_all([names[i] for i in todo], inspect_image, workers, progress, "checking images")
        for index, record in zip(todo, found, strict=True):
            records[index] = record
            stamp = stamps[index]
            if stamp is not None and record.error is None and max(stamp[2:]) < settled:
                fresh[stamp] = (record.sha256, record.width, record.height)
    finally:  # an interrupted scan keeps what it has read
        if cache and fresh:
            _remember(fresh)
    return [record for record in records if record is not None]


def cache_folder() -> Path:
    """`$PATHZOO_CACHE`, or `~/.cache/pathzoo`."""
    return Path(os.environ.get("PATHZOO_CACHE") or Path.home() / ".cache" / "pathzoo")


def cache_file() -> Path:
    """The SQLite file of what `scan_images` found; may be deleted at any time. It holds hashed paths only."""
    return cache_folder() / f"images-v{_CACHE_FORMAT}.sqlite"


def inspect_all(
    names: Sequence[str], inspect: Callable[[str], Any], workers: int | None, progress: bool, title: str
) -> Iterator[Any]:
    """What `inspect` says of each file, in order; in threads, with Pillow strict about truncated files.

    Args:
        names: paths.
        inspect: reads one.
        workers: threads; None for one per core, at most 16.
        progress: shows a bar with this `title` on standard error once a second has passed.
    """
    workers = workers or min(16, os.cpu_count() or 1)
    with _strict_pillow(), ThreadPoolExecutor(workers) as pool:
        found = pool.map(inspect, names)
        yield from _with_progress(found, len(names), title) if progress else found


def _with_progress(records: Iterator[Any], total: int, title: str) -> Iterator[Any]:
    """Hands `records` on; draws a bar once a second has passed, so that short scans stay silent."""
    start, bar, task = time.monotonic(), None, None
    try:
        for done, record in enumerate(records, 1):
            if bar is None and sys.stderr.isatty() and time.monotonic() - start > _PROGRESS_AFTER_SECONDS:
                from rich.console import Console
                from rich.progress import Progress

                bar = Progress(console=Console(stderr=True), transient=True)
                task = bar.add_task(title, total=total)
                bar.start()
            if bar is not None:
                bar.update(task, completed=done)
            yield record
    finally:
        if bar is not None:
            bar.stop()


@contextlib.contextmanager
def _strict_pillow() -> Iterator[None]:
    """Other packages switch on Pillow's global leniency, which fills what a truncated file lacks with grey."""
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


def _stamp(name: str) -> tuple[str, int, int, int] | None:
    """What tells an unchanged file: its path (hashed, since paths can hold names), size and both times."""
    try:
        status = os.stat(name)  # noqa: PTH116 - a third of Path.stat's time, over thousands of files
    except OSError:
        return None
    key = hashlib.sha256(os.path.abspath(name).encode("utf-8", "surrogateescape")).hexdigest()  # noqa: PTH100
    return key, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _recall(stamps: list) -> dict:
    """stamp -> (sha256, width, height) for the files that have not changed since they were scanned."""
    keys = sorted({stamp[0] for stamp in stamps if stamp is not None})
    found = {}
    # The cache is a convenience: whatever goes wrong with it costs a new scan and nothing else.
    with contextlib.suppress(OSError, sqlite3.Error), contextlib.closing(_database()) as database:
        for start in range(0, len(keys), 500):
            part = keys[start : start + 500]
            rows = database.execute(f"SELECT * FROM images WHERE path IN ({','.join('?' * len(part))})", part)
            found.update({row[:4]: row[4:] for row in rows})
    return found


def _remember(found: dict) -> None:
    rows = [(*stamp, *values) for stamp, values in found.items()]
    with contextlib.suppress(OSError, sqlite3.Error), contextlib.closing(_database()) as database:
        database.executemany("INSERT OR REPLACE INTO images VALUES (?,?,?,?,?,?,?)", rows)
        database.commit()


def _database() -> sqlite3.Connection:
    cache_folder().mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(cache_file(), timeout=20)
    database.execute(
        "CREATE TABLE IF NOT EXISTS images (path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, "
        "ctime_ns INTEGER, sha256 TEXT, width INTEGER, height INTEGER)"
    )
    return database


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
