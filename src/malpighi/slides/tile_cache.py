"""The last decoded tiles, shared by threads, within a bound of bytes."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

from malpighi.slides.slide import Pixels


class TileCache:
    """Keeps what was used last; a tile that several threads want at once is decoded once.

    Args:
        limit: bytes of pixels kept at most.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._held = limit, 0
        self._tiles: OrderedDict[Hashable, Pixels] = OrderedDict()
        self._coming: dict[Hashable, threading.Event] = {}
        self._lock = threading.Lock()

    @property
    def held(self) -> int:
        """Bytes of pixels kept now."""
        return self._held

    def find(self, key: Hashable) -> Pixels | None:
        """A tile if it is kept; None otherwise."""
        with self._lock:
            tile = self._tiles.get(key)
            if tile is not None:
                self._tiles.move_to_end(key)
            return tile

    def take(self, key: Hashable, decode: Callable[[], Pixels | None]) -> Pixels | None:
        """A tile, decoded if it is not kept; None is handed on and not kept."""
        while True:
            with self._lock:
                tile, coming = self._tiles.get(key), self._coming.get(key)
                if tile is not None:
                    self._tiles.move_to_end(key)
                    return tile
                if coming is None:
                    mine = self._coming[key] = threading.Event()
            if coming is None:
                return self._fetch(key, decode, mine)
            coming.wait()

    def _fetch(
        self, key: Hashable, decode: Callable[[], Pixels | None], done: threading.Event
    ) -> Pixels | None:
        try:
            tile = decode()
            if tile is not None:
                self._keep(key, tile)
            return tile
        finally:
            with self._lock:
                del self._coming[key]
            done.set()

    def _keep(self, key: Hashable, tile: Pixels) -> None:
        with self._lock:
            self._tiles[key] = tile
            self._held += tile.nbytes
            while self._held > self._limit and self._tiles:
                self._held -= self._tiles.popitem(last=False)[1].nbytes
