"""The child process that reads slides: what it says and shares, and its main loop. It dies when its parent does.

A decoder that hangs or crashes takes only this process with it. Pixels are written straight into memory shared with
the parent (`SharedMemory`); what each thread has in hand stands on a `Board` in the same memory, so that the parent can
tell which tile to leave out. The parent's side is `pathzoo.wsi.read_process`.
"""

import contextlib
import fcntl
import mmap
import os
import pickle
import signal
import socket
import struct
import tempfile
import threading
import traceback
import weakref
from dataclasses import dataclass
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

import cv2
import numpy as np

from pathzoo.wsi.tile_filling import IDLE, OPENING, FilledBatch, Item, StreamJob, decode_item, fill_batches
from pathzoo.wsi.types import RGBBatch

_ROW = struct.Struct("=5q")  # a count that tells one item from the next, then the item


@dataclass(frozen=True)
class Layout:
    """What lies in the shared memory: the board's rows, then `buffers` arrays of `shape` uint8."""

    rows: int
    buffers: int
    shape: tuple[int, ...]

    @property
    def start(self) -> int:
        """Where the buffers begin."""
        return -(-self.rows * _ROW.size // mmap.PAGESIZE) * mmap.PAGESIZE

    @property
    def size(self) -> int:
        """Bytes in all."""
        return self.start + self.buffers * int(np.prod(self.shape, dtype=np.int64))


class SharedMemory:
    """Memory of which a file descriptor is passed on; it goes with the last array or process that uses it.

    Anonymous memory (memfd) where the system has it: a container's small /dev/shm does not limit it. Elsewhere an
    unnamed temporary file.

    Raises:
        OSError: The system gives none.
    """

    def __init__(self, size: int, descriptor: int | None = None) -> None:
        self.size = size
        self.descriptor = _anonymous_file(size) if descriptor is None else descriptor
        weakref.finalize(self, os.close, self.descriptor)
        self._map = mmap.mmap(self.descriptor, size)

    def buffers(self, layout: Layout) -> list[RGBBatch]:
        """The arrays; they keep the memory alive."""
        count = layout.size - layout.start
        pixels = np.frombuffer(self._map, np.uint8, count, layout.start)
        return list(pixels.reshape(layout.buffers, *layout.shape))

    def board(self, layout: Layout) -> "Board":
        """The board."""
        return Board(memoryview(self._map), layout.rows)


class Board:
    """What each thread has in hand: an `Announcer` in the child, read by the parent."""

    def __init__(self, memory: memoryview, rows: int) -> None:
        self._memory, self._rows, self._taken = memory, rows, 0
        self._lock, self._local = threading.Lock(), threading.local()

    def begin(self, item: Item) -> None:
        """The calling thread takes `item` in hand."""
        local = self._local
        try:
            local.count += 1
        except AttributeError:
            with self._lock:
                local.offset, local.count = min(self._taken, self._rows - 1) * _ROW.size, 1
                self._taken += 1
        _ROW.pack_into(self._memory, local.offset, local.count, *item)

    def end(self) -> None:
        """The calling thread has nothing in hand."""
        _ROW.pack_into(self._memory, self._local.offset, self._local.count, IDLE, 0, 0, 0)

    def rows(self) -> list[tuple[int, Item]]:
        """By thread: a count that changes with every item, and the item."""
        values = [_ROW.unpack_from(self._memory, row * _ROW.size) for row in range(self._rows)]
        return [(count, (kind, a, b, c)) for count, kind, a, b, c in values]

    def clear(self) -> None:
        """Nothing in hand, for a new child."""
        self._memory[: self._rows * _ROW.size] = bytes(self._rows * _ROW.size)


@dataclass(frozen=True)
class Order:
    """What the child is to do; a descriptor of its memory follows, where it is not that of the order before."""

    #: Pickled `StreamJob`, or (function, arguments).
    content: bytes
    layout: Layout
    #: Bytes of memory that come with it; 0 for those that the child has.
    memory: int = 0
    #: Numbers of the buffers that are free.
    free: tuple[int, ...] = ()
    #: What may have killed the last child: tried alone first.
    suspects: tuple[Item, ...] = ()
    #: Paths are relative to this folder; empty where it is gone.
    folder: str = ""


class Channel:
    """One end of the connection: Python objects, and file descriptors."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._connection = Connection(os.dup(end.fileno()))
        self.send, self.receive, self.poll = self._connection.send, self._connection.recv, self._connection.poll

    def send_descriptor(self, descriptor: int) -> None:
        """Passes a file descriptor on."""
        socket.send_fds(self._socket, [b"d"], [descriptor])

    def receive_descriptor(self) -> int:
        """A file descriptor, now of this process too."""
        descriptors = socket.recv_fds(self._socket, 1, 1)[1]
        if not descriptors:
            raise EOFError
        return descriptors[0]

    def close(self) -> None:
        """Closes this end."""
        self._socket.close()
        self._connection.close()


def serve(descriptor: int, life: int) -> None:
    """The child's main loop: orders from the parent, until it goes.

    Args:
        descriptor: Of the socket that orders come by.
        life: Of a pipe whose other end the parent has. When that closes, the system ends this process (Linux): also
            where a decoder hangs with Python's lock, so that the thread that listens to the socket cannot notice.
    """
    with contextlib.suppress(OSError):  # a system that has it for terminals only
        signal.signal(signal.SIGIO, signal.SIG_DFL)
        fcntl.fcntl(life, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(life, fcntl.F_SETFL, os.O_ASYNC)
    # Ctrl-C and a scheduler's signal reach the whole group: the parent decides, and the child goes when it does.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    cv2.setNumThreads(1)  # the threads here are those that read
    channel = Channel(socket.socket(fileno=descriptor))
    inbox = _Inbox(channel)
    channel.send(("hello",))
    while True:
        order, memory, free = inbox.orders.get()
        _obey(channel, order, memory, free)
        del order, memory, free  # before waiting: they are large


class _Inbox:
    """Listens in a thread of its own, so that the parent's end is noticed whatever the other threads are at."""

    def __init__(self, channel: Channel) -> None:
        self.orders: SimpleQueue[tuple[Order, SharedMemory, SimpleQueue[int]]] = SimpleQueue()
        self._channel = channel
        threading.Thread(target=self._listen, name="pathzoo-parent", daemon=True).start()

    def _listen(self) -> None:
        free: SimpleQueue[int] = SimpleQueue()
        memory: SharedMemory | None = None
        try:
            while True:
                message = self._channel.receive()
                if message is None:
                    memory = None
                elif isinstance(message, int):
                    free.put(message)
                else:
                    if message.memory:
                        memory = SharedMemory(message.memory, self._channel.receive_descriptor())
                    assert memory is not None
                    free = SimpleQueue()
                    for number in message.free:
                        free.put(number)
                    self.orders.put((message, memory, free))
        except BaseException:  # the parent is gone, or cannot be understood
            os._exit(0)


def _obey(channel: Channel, order: Order, memory: SharedMemory, free: "SimpleQueue[int]") -> None:
    board = memory.board(order.layout)
    try:
        if order.folder:
            os.chdir(order.folder)
        board.begin((OPENING, 0, 0, 0))
        try:
            content = pickle.loads(order.content)
        except (AttributeError, ImportError) as error:  # a class of the caller's own script
            channel.send(("unloadable", f"{type(error).__name__}: {error}"))
            return
        if isinstance(content, StreamJob):
            board.end()
            _stream(channel, content, order, memory, board, free)
        else:
            function, arguments = content
            channel.send(("value", function(*arguments)))
            board.end()
    except Exception as error:
        channel.send(("error", _portable(error), traceback.format_exc()))


def _stream(
    channel: Channel, job: StreamJob, order: Order, memory: SharedMemory, board: Board, free: "SimpleQueue[int]"
) -> None:
    def take(wait: bool) -> int | None:
        return free.get() if wait or not free.empty() else None

    with job.slide:
        for item in order.suspects:
            board.begin(item)
            decode_item(job, item)
            board.end()
        channel.send(("opened",))
        for filled in fill_batches(job, memory.buffers(order.layout), take, board):
            damage = {n: (np.packbits(mask), mask.shape, why) for n, (mask, why) in filled.damage.items()}
            channel.send(("batch", filled.batch, filled.buffer, damage))


def unpacked(message: tuple[Any, ...]) -> FilledBatch:
    """The batch that a message tells of."""
    _, batch, buffer, packed = message
    damage = {
        number: (np.unpackbits(bits, count=shape[0] * shape[1]).reshape(shape).astype(np.bool_), why)
        for number, (bits, shape, why) in packed.items()
    }
    return FilledBatch(batch, buffer, damage)


def _portable(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")


def _anonymous_file(size: int) -> int:
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("pathzoo-tiles")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    try:
        os.ftruncate(descriptor, size)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
