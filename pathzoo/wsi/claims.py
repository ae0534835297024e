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
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from pathzoo.errors import OutputError, SlideError
from pathzoo.fileio import sha256_bytes, write_text

FOLDER = ".claims"
#: What a file system answers that knows no locks (Lustre without -o flock, some network file systems).
WITHOUT_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
#: Temporary folders of `pathzoo.wsi.outputs.atomic_folder`.
_LEFTOVER = re.compile(r"\.(.+)\.[a-z0-9_]{8}")
_LONGEST_NAME = 200


class Claims:
    """The claims on one output folder; a context manager around all the work of one process.

    Args:
        out: The folder that slides' folders go to; made if missing, and removed again if nothing comes into it.
        rank: Of this process among those that one launcher started; None where it was started alone.

    Raises:
        SlideError: On entering, where the folder cannot be written to.
    """

    def __init__(self, out: Path, rank: int | None = None) -> None:
        self._out, self._folder, self._rank = out, out / FOLDER, rank
        self._presence: int | None = None
        self._leftovers: dict[str, list[Path]] = {}
        #: Whether the file system knows locks; where it does not, every slide is anybody's.
        self.locks = True

    def __enter__(self) -> "Claims":
        out = self._out.absolute()
        made = [path for path in (out, *out.parents) if not path.exists()]
        while True:
            handle = self._open("present")
            if self._lock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB) and self._stands(handle):
                # Nobody else is here: what notes there are, are old.
                for kind in ("failed", "done", "here"):
                    for note in self._folder.glob(f"*.{kind}"):
                        note.unlink()
            self._lock(handle, fcntl.LOCK_SH)  # waits for one who is just coming or going, a moment
            if self._stands(handle):
                break
            os.close(handle)  # the last of the others removed it meanwhile
        self._presence = handle
        if made:
            self._note(self._folder / "made", "\n".join(map(str, made)))
        if self._rank is not None:
            self._note(self._folder / f"{self._rank}.here", "")
        self._leftovers = self._find_leftovers()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._presence is not None
        if self._lock(self._presence, fcntl.LOCK_EX | fcntl.LOCK_NB) and self._stands(self._presence):
            made = []
            with suppress(OSError):
                made = (self._folder / "made").read_text(encoding="utf-8").splitlines()
            shutil.rmtree(self._folder, ignore_errors=True)
            for path in made:
                with suppress(OSError):  # something was written there
                    Path(path).rmdir()
        os.close(self._presence)

    @contextmanager
    def claim(self, name: str) -> Iterator[bool]:
        """Takes the slide `name` for the length of a `with` block, and clears away what a killed process left of it.

        Yields:
            True where it is ours, False where another process works on it.
        """
        path = self._file(name, "lock")
        while True:
            handle = self._open(path.name)
            if not self._lock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB):
                os.close(handle)
                yield False
                return
            if _same_file(handle, path):
                break
            os.close(handle)  # it was done with and removed between opening and locking
        try:
            if self.locks:
                self._remove_leftovers(name, killed=os.fstat(handle).st_size > 0)
                os.ftruncate(handle, 1)  # who lets go of it removes it; one of this size was let go of by the kernel
            yield True
        finally:
            path.unlink(missing_ok=True)  # while it is locked, see above
            os.close(handle)

    def wait_for_arrivals(self, count: int, seconds: float) -> bool:
        """Waits until `count` ranks have come, but no longer than that; whether they have.

        One that comes when all others have left would know nothing of what they did.
        """
        deadline = time.monotonic() + seconds
        while sum(1 for _ in self._folder.glob("*.here")) < count:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True

    def wait_for_others(self, seconds: float) -> None:
        """Waits until no other process is here, but no longer than that; nothing may be claimed afterwards."""
        assert self._presence is not None
        deadline = time.monotonic() + seconds
        while not self._lock(self._presence, fcntl.LOCK_EX | fcntl.LOCK_NB) and time.monotonic() < deadline:
            time.sleep(0.1)

    def note_failure(self, name: str, reason: str) -> None:
        """Tells the other processes why the slide failed; raises OutputError where nothing can be written."""
        self._note(self._file(name, "failed"), reason)

    def failure(self, name: str) -> str | None:
        """Why the slide failed in another process; None if it did not."""
        with suppress(OSError):
            return self._file(name, "failed").read_text(encoding="utf-8")
        return None

    def note_done(self, name: str) -> None:
        """Tells the other processes that the slide was done, now and not in an earlier call; raises OutputError."""
        self._note(self._file(name, "done"), "")

    def done(self, name: str) -> bool:
        """Whether a process that is, or was, here at the same time as this one did the slide."""
        return self._file(name, "done").exists()

    def _file(self, name: str, kind: str) -> Path:
        encoded = os.fsencode(name)
        return self._folder / f"{sha256_bytes(encoded) if len(encoded) > _LONGEST_NAME else name}.{kind}"

    def _note(self, path: Path, text: str) -> None:
        try:
            write_text(path, text)
        except OSError as error:
            raise OutputError(
                f"{self._out}: cannot be written: {error.strerror or error}; what is done is kept. Make room, and "
                "give the same command again"
            ) from error

    def _open(self, name: str) -> int:
        try:
            while True:
                self._folder.mkdir(parents=True, exist_ok=True)
                with suppress(FileNotFoundError):  # the last of other processes has just removed the folder
                    return os.open(self._folder / name, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise SlideError(f"{self._out}: cannot be written: {error.strerror or error}") from error

    def _lock(self, handle: int, kind: int) -> bool:
        """Whether the lock is ours now; with LOCK_NB it is refused at once where another process has it."""
        if not self.locks:
            return True
        try:
            fcntl.flock(handle, kind)
            return True
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in WITHOUT_LOCKS:
                raise SlideError(f"{self._out}: cannot be locked: {error.strerror or error}") from error
        print(f"pathzoo: {self._out}: knows no file locks; start no second command on it", file=sys.stderr)
        self.locks = False
        return True

    def _stands(self, handle: int) -> bool:
        return _same_file(handle, self._folder / "present")

    def _find_leftovers(self) -> dict[str, list[Path]]:
        """By slide: temporary folders, also those that other processes are at work in."""
        found: dict[str, list[Path]] = {}
        for entry in os.scandir(self._out):
            match = _LEFTOVER.fullmatch(entry.name)
            if match and entry.is_dir(follow_symlinks=False):
                path, name = Path(entry.path), match[1]
                if name.endswith(".old") and (path / name[:-4]).exists():  # what was to be replaced
                    name = name[:-4]
                found.setdefault(name, []).append(path)
        return found

    def _remove_leftovers(self, name: str, killed: bool) -> None:
        """What processes that were killed left of a slide that is ours."""
        left = self._leftovers.pop(name, [])
        if killed:  # while we are here
            left = self._find_leftovers().get(name, [])
        for path in left:
            shutil.rmtree(path, ignore_errors=True)


def _same_file(handle: int, path: Path) -> bool:
    """Whether the file that was locked still stands at its path."""
    try:
        there, ours = path.stat(), os.fstat(handle)
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)
