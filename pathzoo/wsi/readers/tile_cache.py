"""Recently decoded tiles, each made once however many threads ask for it."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future

from pathzoo.wsi.types import RGB


class TileCache:
    """Keeps the tiles used last, of at most `capacity` bytes in all. Failures are not kept.

    Safe to use from several threads: of those that ask for one tile at once, the first makes it and the others wait.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._tiles: OrderedDict[Hashable, RGB] = OrderedDict()
        self._making: dict[Hashable, Future[RGB]] = {}
        self._bytes = 0

    def get(self, key: Hashable, make: Callable[[], RGB]) -> RGB:
        """The tile of that key; `make` is called where it is not at hand, and its errors are passed on."""
        with self._lock:
            tile = self._tiles.get(key)
            if tile is not None:
                self._tiles.move_to_end(key)
                return tile
            future = self._making.get(key)
            mine = future is None
            if future is None:
                future = self._making[key] = Future()
        if not mine:
            return future.result()
        try:
            tile = make()
        except BaseException as error:
            with self._lock:
                del self._making[key]
            future.set_exception(error)
            raise
        with self._lock:
            del self._making[key]
            self._keep(key, tile)
        future.set_result(tile)
        return tile

    def peek(self, key: Hashable) -> RGB | None:
        """The tile if it is at hand."""
        with self._lock:
            return self._tiles.get(key)

    def clear(self) -> None:
        """Forgets all tiles."""
        with self._lock:
            self._tiles.clear()
            self._bytes = 0

    def _keep(self, key: Hashable, tile: RGB) -> None:
        self._tiles[key] = tile
        self._bytes += tile.nbytes
        while self._bytes > self._capacity and self._tiles:
            _, oldest = self._tiles.popitem(last=False)
            self._bytes -= oldest.nbytes
