"""Who works on which slide: several processes share one output folder without doing a slide twice.

A claim is an advisory lock (flock) on a file below OUT/.claims. The kernel lets go of it when its process ends, however
it ends, so what was killed is taken up by whoever comes next. Slides that are done, and those that failed with the
reason, are noted for the other processes; the last one to leave takes notes and folder away, so a later call tries
again.
"""

import errno
import fcntl
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from pathzoo.errors import SlideError
from pathzoo.fileio import write_text

FOLDER = ".claims"
_WITHOUT_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


class Claims:
    """The claims on one output folder; a context manager around all the work of one process.

    Args:
        out: The folder that slides' folders go to; made if missing, and removed again if nothing comes into it.

    Raises:
        SlideError: On entering, where the folder cannot be written to.
    """

    def __init__(self, out: Path) -> None:
        self._out, self._folder = out, out / FOLDER
        self._made: list[Path] = []
        self._presence: int | None = None
        self._locks = True

    def __enter__(self) -> "Claims":
        self._made = [path for path in (self._out, *self._out.parents) if not path.exists()]
        self._presence = self._open("present")
        if self._try_lock(self._presence, fcntl.LOCK_EX):  # nobody else is here: what notes there are, are old
            for note in (*self._folder.glob("*.failed"), *self._folder.glob("*.done")):
                note.unlink()
        self._try_lock(self._presence, fcntl.LOCK_SH)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._presence is not None
        if self._try_lock(self._presence, fcntl.LOCK_EX):
            shutil.rmtree(self._folder, ignore_errors=True)
        os.close(self._presence)
        for path in self._made:
            with suppress(OSError):  # something was written there
                path.rmdir()

    @contextmanager
    def claim(self, name: str) -> Iterator[bool]:
        """Takes the slide `name` for the length of a `with` block, and clears away what a killed process left of it.

        Yields:
            True where it is ours, False where another process works on it.
        """
        path = self._folder / f"{name}.lock"
        while True:
            handle = self._open(path.name)
            if not self._try_lock(handle, fcntl.LOCK_EX):
                os.close(handle)
                yield False
                return
            if _same_file(handle, path):
                break
            os.close(handle)  # it was done with and removed between opening and locking
        try:
            self._remove_leftovers(name)
            yield True
        finally:
            path.unlink(missing_ok=True)  # while it is locked, see above
            os.close(handle)

    def note_failure(self, name: str, reason: str) -> None:
        """Tells the other processes why the slide failed."""
        write_text(self._folder / f"{name}.failed", reason)

    def failure(self, name: str) -> str | None:
        """Why the slide failed in another process; None if it did not."""
        with suppress(OSError):
            return (self._folder / f"{name}.failed").read_text(encoding="utf-8")
        return None

    def note_done(self, name: str) -> None:
        """Tells the other processes that the slide was done, now and not in an earlier call."""
        write_text(self._folder / f"{name}.done", "")

    def done(self, name: str) -> bool:
        """Whether a process that is, or was, here at the same time as this one did the slide."""
        return (self._folder / f"{name}.done").exists()

    def _open(self, name: str) -> int:
        try:
            while True:
                self._folder.mkdir(parents=True, exist_ok=True)
                with suppress(FileNotFoundError):  # the last of other processes has just removed the folder
                    return os.open(self._folder / name, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise SlideError(f"{self._out}: cannot be written: {error.strerror or error}") from error

    def _try_lock(self, handle: int, kind: int) -> bool:
        if not self._locks:
            return True
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in _WITHOUT_LOCKS:
                raise
        print(f"pathzoo: {self._out}: knows no file locks; let one process alone write to it", file=sys.stderr)
        self._locks = False
        return True

    def _remove_leftovers(self, name: str) -> None:
        """Temporary folders of processes that were killed while they had this slide."""
        pattern = re.compile(re.escape(f".{name}.") + r"(?:old\.)?[a-z0-9_]{8}")
        for path in self._out.iterdir():
            if pattern.fullmatch(path.name) and path.is_dir():
                shutil.rmtree(path, ignore_errors=True)


def _same_file(handle: int, path: Path) -> bool:
    """Whether the file that was locked still stands at its path."""
    try:
        there, ours = path.stat(), os.fstat(handle)
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)
