"""The process that reads slides, one kept idle for the next slide so that its start is paid once.

`prepare` starts it early and `end_idle` ends it before the caller does; `call_isolated` runs a function in it, `probe`
opens a slide in it; the stream of tiles takes it with `borrow` and brings it back with `give_back`. No process outlives
this one, whichever way this one ends.
"""

import atexit
import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pathzoo.errors import SlideError
from pathzoo.wsi.read_process import ReadProcess, ReadStoppedError, UnavailableError, living
from pathzoo.wsi.read_worker import Layout
from pathzoo.wsi.slide import Slide

_Result = TypeVar("_Result")
_lock = threading.Lock()
_idle: ReadProcess | None = None


def borrow() -> ReadProcess:
    """The idle process, or a new one. It must be given back, or ended.

    Raises:
        UnavailableError: None can be started.
    """
    global _idle
    with _lock:
        process, _idle = _idle, None
    if process is not None and process.alive:
        return process
    if process is not None:
        process.end()
    return ReadProcess()


def give_back(process: ReadProcess) -> None:
    """Keeps a process that has done all its work for the next slide."""
    global _idle
    with _lock:
        if _idle is None and process.alive:
            process.rest()
            _idle = process
            return
    process.end()


def prepare() -> None:
    """Starts a process for the first slide, without waiting: it starts while the caller loads its model."""
    with contextlib.suppress(UnavailableError):
        give_back(borrow())


def end_idle() -> None:
    """Ends the idle process, where a run is over and its memory is wanted."""
    global _idle
    with _lock:
        process, _idle = _idle, None
    if process is not None:
        process.end()


def call_isolated(name: object, timeout: float, function: Callable[..., _Result], *arguments: object) -> _Result:
    """Calls a function in the reading process, where it can hang or crash without harm.

    Args:
        name: What is dealt with (a path), for errors.
        timeout: Seconds that it may take.
        function: Picklable, as are its arguments and its result. Where no process can be had it is called here.
        arguments: Its arguments.

    Raises:
        SlideError: It gave no answer in time, or crashed.
        Exception: Whatever the function raises.
    """
    process, layout = None, Layout(1, 0, (1,))
    try:
        process = borrow()
        memory = process.memory(layout.size)
        process.order((function, arguments), memory, layout)
        result: _Result = process.receive(memory.board(layout), timeout)[1]
        give_back(process)
        process = None
        return result
    except UnavailableError:
        pass
    except ReadStoppedError as stop:
        remedy = "give the run more memory" if stop.killed else "the file is damaged, or its disk does not answer"
        raise SlideError(f"{name}: {stop.reason}; {remedy}") from None
    finally:
        if process is not None:
            process.end()
    return function(*arguments)


def probe(
    path: str | os.PathLike[str], mpp: float | None = None, reader: str | None = None, timeout: float = 60
) -> None:
    """Opens a slide in the reading process, to see whether it opens at all.

    Raises:
        SlideError: It does not, or hangs, or crashes.
    """
    call_isolated(path, timeout, _open_and_close, Path(path), mpp, reader)


def _open_and_close(path: Path, mpp: float | None, reader: str | None) -> None:
    Slide(path, mpp, reader).close()


def _end_all() -> None:
    for process in list(living):
        process.end()


def _forget_all() -> None:
    """In a forked child: the parent's processes are not its own, and it must not keep their sockets open."""
    global _lock, _idle
    _lock, _idle = threading.Lock(), None
    for process in living:
        process.forget()
    living.clear()


atexit.register(_end_all)
os.register_at_fork(after_in_child=_forget_all)
