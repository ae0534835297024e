"""How far a prediction is: per slide and over all, on a terminal or in a log."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_TERMINAL_SECONDS, _LOG_SECONDS = 0.25, 30.0


class Line:
    """A line that a terminal shows anew, at most four times a second; a log gets one every 30 s, and the last."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._shown = time.monotonic()
        self._width = 0

    def show(self, text: str, last: bool = False) -> None:
        """Shows `text`, or leaves it out where the last one is too young; `last` is always shown."""
        now = time.monotonic()
        if not last and now - self._shown < (_TERMINAL_SECONDS if self._terminal else _LOG_SECONDS):
            return
        self._shown = now
        if self._terminal:
            text = "\r" + text.ljust(self._width)
            self._width = 0 if last else len(text) - 1
        print(text, end="\n" if last or not self._terminal else "", file=sys.stderr, flush=True)

    def leave(self) -> None:
        """Lets what comes next begin on a line of its own."""
        if self._width:
            print(file=sys.stderr, flush=True)
            self._width = 0


def tell(reason: str) -> None:
    """One line on an input that fails while others go on."""
    print(f"pathzoo: {reason}", file=sys.stderr)


def counter(title: str, unit: str) -> Callable[[int, int], None]:
    """A callback (done, total) that shows both."""
    line = Line()

    def show(done: int, total: int) -> None:
        line.show(f"{title}: {done}/{total} {unit}", last=done >= total)

    return show


class BatchProgress:
    """Counts slides, and judges by file sizes how long the rest takes (other processes may take some of it).

    Args:
        paths: All slides of the batch.
        many: Failures are told at once; the only slide's failure ends the command, which tells it.
    """

    def __init__(self, paths: Sequence[Path], many: bool) -> None:
        self._many = many
        self._sizes = {path: path.stat().st_size if path.is_file() else 1 for path in paths}
        self._todo = dict(self._sizes)
        self._left = sum(self._sizes.values())
        self._done_bytes, self._busy_seconds = 0, 0.0
        self._waiting = False

    @contextmanager
    def slide(self, path: Path) -> Iterator[Callable[..., None]]:
        """Gives the callback (tiles done, tiles in all, and what they are where they are no tiles) of one slide."""
        line, started = Line(), time.monotonic()
        title, began = f"{self._number()} {path.name}", {"tiles": started}

        def show(done: int, total: int, unit: str = "tiles") -> None:
            seconds = time.monotonic() - began.setdefault(unit, time.monotonic())
            speed = f", {done / seconds:.1f} {unit}/s" if seconds > 1 else ""
            rest = f", slide ends in {_clock(seconds * (total - done) / done)}" if 0 < done < total else ""
            line.show(f"{title}: {done}/{total} {unit}{speed}{rest}{self._rest()}", last=done >= total)

        try:
            yield show
        finally:
            line.leave()
        self._busy_seconds += time.monotonic() - started
        self._done_bytes += self._sizes[path]
        self.settled(path)

    def reused(self, path: Path, elsewhere: bool = False) -> None:
        """An output that stood already, or that another process has made meanwhile."""
        said = "done by another process" if elsewhere else "done before, left as it is"
        print(f"{self._number()} {path.name}: {said}", file=sys.stderr)
        self.settled(path)

    def failed(self, path: Path, reason: str) -> None:
        """One clear line on a slide that fails."""
        self.settled(path)
        if self._many:
            tell(reason)

    def settled(self, path: Path) -> None:
        """Nothing is left to do for a slide."""
        self._left -= self._todo.pop(path, 0)

    def wait_for(self, n: int) -> None:
        """Says once that other processes still work on n slides."""
        if not self._waiting:
            print(f"waiting for {n} slides that other processes work on", file=sys.stderr)
            self._waiting = True

    def _number(self) -> str:
        return f"[{len(self._sizes) - len(self._todo) + 1}/{len(self._sizes)}]"

    def _rest(self) -> str:
        if not self._done_bytes or len(self._todo) < 2:
            return ""
        left = self._left * self._busy_seconds / self._done_bytes
        return f"; all: {len(self._sizes) - len(self._todo)}/{len(self._sizes)} slides, {_clock(left)} to go"


def _clock(seconds: float) -> str:
    """3:07 or 2:04:05."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
