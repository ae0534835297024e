"""The parent's side of the process that reads slides: starting it, watching it, ending it.

It is a plain child with a socket, not one of `multiprocessing`: the caller's own script is not imported again, and
torch never is. See `pathzoo.wsi.read_worker` for the child's side.
"""

import contextlib
import fcntl
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pathzoo.wsi.read_worker import Board, Channel, Layout, Order, SharedMemory
from pathzoo.wsi.tile_filling import IDLE, Item

#: Seconds that a process may take to start: importing from a cluster's file system is slow.
_START_LIMIT = 120.0
#: Seconds between two looks at what a process has in hand.
_STEP = 0.25
#: Memory that an idle process keeps, at most.
_KEPT_BYTES = 512 << 20
#: Nothing is imported before the paths are set: they begin with the working folder, and whatever lies there.
_BOOT = (
    "import sys; sys.path[:] = sys.argv[3:]; "
    "from pathzoo.wsi.read_worker import serve; serve(int(sys.argv[1]), int(sys.argv[2]))"
)
#: Children of this process that may still run.
living: "set[ReadProcess]" = set()


class UnavailableError(Exception):
    """No process can be started, or it cannot be given the work; read in the caller's own."""


class ReadStoppedError(Exception):
    """The process hung and was killed, or died.

    Args:
        reason: What happened.
        in_hand: What its threads had in hand; where it hung, only what they had had for long.
        hung: Whether it hung.
        killed: Whether it was ended from outside (by the system, for want of memory).
    """

    def __init__(self, reason: str, in_hand: Sequence[Item], hung: bool, killed: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.in_hand, self.hung, self.killed = reason, tuple(in_hand), hung, killed


class ReadProcess:
    """A child that takes one order at a time.

    Raises:
        UnavailableError: It cannot be started.
    """

    def __init__(self) -> None:
        self._owner = os.getpid()
        self._greeted = False
        self._memory: SharedMemory | None = None
        with contextlib.ExitStack() as passed, contextlib.ExitStack() as kept:
            try:
                ours, theirs = (passed.enter_context(end) for end in socket.socketpair())
                read, write = os.pipe()
                passed.callback(os.close, read)
                passed.callback(os.close, write)
                numbers = [_high(theirs.fileno(), passed), _high(read, passed)]
                #: Of a pipe on which nothing is ever written: that it closes is what ends the child, see `serve`.
                self._life = _high(write, kept)
                self._channel = Channel(ours.dup())
                kept.callback(self._channel.close)
                self._child = _start(numbers)
            except (OSError, ValueError) as error:
                raise UnavailableError(f"cannot start a process: {error}") from error
            kept.pop_all()
        living.add(self)

    @property
    def pid(self) -> int:
        """Its number."""
        return self._child.pid

    @property
    def alive(self) -> bool:
        """Whether it runs, as a child of this very process (not of one that this one was forked from)."""
        return self._owner == os.getpid() and self._child.poll() is None

    def memory(self, size: int) -> SharedMemory:
        """Memory of at least that size: what it worked with last, if it is large enough, since new memory costs time.

        Raises:
            UnavailableError: The system gives none.
        """
        if self._memory is not None and self._memory.size >= size:
            return self._memory
        try:
            return SharedMemory(size)
        except OSError as error:
            raise UnavailableError(f"no shared memory of {size} bytes: {error}") from error

    def order(
        self,
        content: object,
        memory: SharedMemory,
        layout: Layout,
        free: Sequence[int] = (),
        suspects: Sequence[Item] = (),
    ) -> None:
        """Gives it work: a `StreamJob`, or (function, arguments).

        Raises:
            UnavailableError: The work cannot be pickled, or the process did not start.
        """
        self._greet()
        try:
            data = pickle.dumps(content)
        except Exception as error:
            raise UnavailableError(f"cannot hand over the work: {error}") from error
        memory.board(layout).clear()
        size = 0 if memory is self._memory else memory.size
        order = Order(data, layout, size, tuple(free), tuple(suspects), _folder())
        with contextlib.suppress(OSError):  # one that is dead says so when asked for an answer
            self._channel.send(order)
            if size:
                self._channel.send_descriptor(memory.descriptor)
        self._memory = memory

    def rest(self) -> None:
        """Has it wait for the next slide; much memory is not kept for that."""
        if self._memory is not None and self._memory.size > _KEPT_BYTES:
            self._memory = None
            with contextlib.suppress(OSError):
                self._channel.send(None)

    def release(self, buffer: int) -> None:
        """Says that a buffer may be filled again."""
        with contextlib.suppress(OSError):
            self._channel.send(buffer)

    def receive(self, board: Board, timeout: float) -> tuple[Any, ...]:
        """Its next message.

        Raises:
            ReadStoppedError: It died, or had one thing in hand, or did nothing, for `timeout` seconds of waiting.
            UnavailableError: It cannot load the work.
            Exception: Whatever went wrong in it, as it was raised there.
        """
        message = self._await(board, timeout)
        if message[0] == "error":
            raise message[1] from _RemoteError(message[2])
        if message[0] == "unloadable":
            raise UnavailableError(f"cannot load the work: {message[1]}")
        return message

    def drain(self) -> list[tuple[Any, ...]]:
        """What it had said before it stopped."""
        messages = []
        with contextlib.suppress(EOFError, OSError):
            while self._channel.poll(0):
                messages.append(self._channel.receive())
        return messages

    def end(self) -> None:
        """Kills it; nothing where it is another process's child."""
        living.discard(self)
        if self._owner == os.getpid():
            self._kill()
        self._let_go()
        self._memory = None

    def forget(self) -> None:
        """After a fork: lets go of what belongs to the parent."""
        self._let_go()
        self._child.returncode = 0  # not ours to wait for

    def _let_go(self) -> None:
        self._channel.close()
        if self._life >= 0:
            os.close(self._life)
        self._life = -1

    def _greet(self) -> None:
        """Waits until it has started: a large order to one that does not listen would never be sent."""
        if self._greeted:
            return
        with contextlib.suppress(EOFError, OSError):
            if self._channel.poll(_START_LIMIT):
                self._channel.receive()
                self._greeted = True
                return
        code = self._child.poll()
        self._kill()
        raise UnavailableError("the process did not start" + (f" (exit code {code})" if code is not None else ""))

    def _await(self, board: Board, timeout: float) -> tuple[Any, ...]:
        watch = _Watch(board, timeout)
        try:
            while not self._channel.poll(watch.step):
                watch.look()
            message: tuple[Any, ...] = self._channel.receive()
            return message
        except ReadStoppedError:
            self._kill()
            raise
        except (EOFError, OSError):
            pass
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(2)  # it closed its end: it is about to be gone, and its own exit code is wanted
        code = self._kill()
        in_hand = [item for _, item in board.rows() if item[0] != IDLE]
        raise ReadStoppedError(_cause(code), in_hand, hung=False, killed=code == -signal.SIGKILL)

    def _kill(self) -> int | None:
        """Its exit code. One that waits for a dead file server cannot be killed; it is left to itself then."""
        self._child.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._child.wait(5)
        return None


class _Watch:
    """Counts how long a process has had the same things in hand, while its parent was waiting for it.

    Only time spent looking counts: where both were stopped for an hour (Ctrl-Z, a scheduler), nothing has hung.
    """

    def __init__(self, board: Board, timeout: float) -> None:
        self.step = min(_STEP, timeout / 4)
        self._board, self._timeout = board, timeout
        self._rows, self._looked = board.rows(), time.monotonic()
        self._waited = [0.0] * len(self._rows)

    def look(self) -> None:
        """Raises ReadStoppedError where something takes too long."""
        rows, now = self._board.rows(), time.monotonic()
        elapsed, self._looked = min(now - self._looked, 2 * self.step), now
        self._waited = [w + elapsed if a == b else 0.0 for w, a, b in zip(self._waited, rows, self._rows, strict=True)]
        self._rows = rows
        busy = [(w, row[1]) for w, row in zip(self._waited, rows, strict=True) if row[1][0] != IDLE]
        if any(w >= self._timeout for w, _ in busy) or min(self._waited) >= self._timeout:
            # Not the slowest alone: it may only be waiting for Python's lock, which another one keeps.
            hung = [item for w, item in busy if w >= self._timeout / 2]
            raise ReadStoppedError(f"decoder gave no answer within {self._timeout:g} s", hung, hung=True)


def _high(descriptor: int, stack: contextlib.ExitStack) -> int:
    """A copy not numbered like stdin, stdout or stderr: of a caller without them the child would overwrite it."""
    number = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
    stack.callback(os.close, number)
    return number


def _start(descriptors: Sequence[int]) -> "subprocess.Popen[bytes]":
    if not sys.executable:
        raise ValueError("the path of Python is unknown")
    paths = [path or _folder() for path in sys.path if isinstance(path, str)]  # others Python passes over, too
    try:
        os.fstat(2)
        errors = None
    except OSError:
        errors = subprocess.DEVNULL
    return subprocess.Popen(
        [sys.executable, "-c", _BOOT, *map(str, descriptors), *paths],
        pass_fds=descriptors,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=errors,
    )


def _folder() -> str:
    try:
        return str(Path.cwd())
    except OSError:  # it was deleted
        return ""


def _cause(code: int | None) -> str:
    if code is None:
        return "decoder gave no answer and could not be ended"
    if code == -signal.SIGKILL:
        return "the reading process was killed (SIGKILL), perhaps for want of memory"
    if code < 0:
        return f"decoder crashed ({signal.Signals(-code).name})"
    return f"decoder ended the reading process (exit code {code})"


class _RemoteError(Exception):
    """Where an error came from, in the words of the process it came from."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"
