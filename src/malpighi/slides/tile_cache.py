"""The last decoded tiles, shared by threads, within a bound of bytes."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

from malpighi.slides.slide import Pixels

_FEW = 2
_NOTHING = 1e-6


class TileCache:
    """Keeps what was used last; a tile that several threads want at once is decoded once.

    Of tiles that have been handed out in full only the last few are kept: whoever walks over a slide is done
    with them. So a walk in bands is served from one row of tiles, and the memory of a new tile is that of one
    just used, which is still near the processor.

    Args:
        limit: bytes of pixels kept at most, beside the few.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._held = limit, 0
        self._tiles: OrderedDict[Hashable, Pixels] = OrderedDict()
        self._spent: OrderedDict[Hashable, Pixels] = OrderedDict()
        self._left: dict[Hashable, float] = {}
        self._coming: dict[Hashable, threading.Event] = {}
        self._lock = threading.Lock()

    @property
    def held(self) -> int:
        """Bytes of pixels kept now, beside the few."""
        return self._held

    def find(self, key: Hashable) -> Pixels | None:
        """A tile if it is kept; None otherwise."""
        with self._lock:
            return self._find(key)

    def take(self, key: Hashable, decode: Callable[[], Pixels | None]) -> Pixels | None:
        """A tile, decoded if it is not kept; None is handed on and not kept."""
        while True:
            with self._lock:
                tile, coming = self._find(key), self._coming.get(key)
                if tile is not None:
                    return tile
                if coming is None:
                    mine = self._coming[key] = threading.Event()
            if coming is None:
                return self._fetch(key, decode, mine)
            coming.wait()

    def used(self, key: Hashable, share: float) -> None:
        """Say that a share of a tile (1: all of it) was handed out."""
        with self._lock:
            if key not in self._left:
                return
            self._left[key] -= share
            if self._left[key] > _NOTHING:
                return
            self._spent[key] = self._forget(key)
            if len(self._spent) > _FEW:
                self._spent.popitem(last=False)

    def _find(self, key: Hashable) -> Pixels | None:
        for kept in (self._tiles, self._spent):
            if key in kept:
                kept.move_to_end(key)
                return kept[key]
        return None

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
            self._tiles[key], self._left[key] = tile, 1.0
            self._held += tile.nbytes
            while self._held > self._limit and self._tiles:
                self._forget(next(iter(self._tiles)))

    def _forget(self, key: Hashable) -> Pixels:
        tile = self._tiles.pop(key)
        del self._left[key]
        self._held -= tile.nbytes
        return tile
