"""How a command that a scheduler ends gives back what it holds."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

#: Ended by SIGTERM: the same command goes on (DESIGN, exit codes).
EXIT_PREEMPTED = 75
_LINE = b"pathzoo: ended by SIGTERM; what is done is kept, and the same command goes on\n"


@contextmanager
def ended_cleanly_by_sigterm() -> Iterator[None]:
    """SIGTERM raises SystemExit(75), so that temporary folders are removed and claims given back.

    A second one, as launchers and schedulers may send, does not disturb that.
    """
    before = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread() or before is _stop:
        yield
        return
    signal.signal(signal.SIGTERM, _stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _stop(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.write(2, _LINE)  # a print may be under way where the signal comes
    raise SystemExit(EXIT_PREEMPTED)
