"""Claims on the items of a shared job: no two processes hold one, and a dead process holds none.

One lock file for the whole job, one byte of it per item: the system lets go of a process's bytes when it
ends, however it ends, so nothing has to be cleaned up after a kill. Works between machines where the file
system shares byte-range locks (NFS 4 and most cluster file systems do).
"""

import fcntl
import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_RANGE = 2**62


class Claims:
    """The claims that this process holds in one job; threads may share it.

    Opening the same file twice in one process would lose claims (POSIX lets go of all of them when any of
    them is closed), so a process opens it once.

    Args:
        path: the lock file; made where missing, left behind empty.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        self._mine: set[int] = set()
        self._guard = threading.Lock()

    @contextmanager
    def holding(self, name: str, *, wait: bool = False) -> Iterator[bool]:
        """Hold the claim on an item; False where another has it.

        Args:
            name: of the item.
            wait: until the other lets go; for other processes only.
        """
        place = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little") % _RANGE
        got = self._take(place, wait=wait)
        try:
            yield got
        finally:
            if got:
                fcntl.lockf(self._file, fcntl.LOCK_UN, 1, place)
                with self._guard:
                    self._mine.discard(place)

    def close(self) -> None:
        """Let go of everything."""
        os.close(self._file)

    def __enter__(self) -> "Claims":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take(self, place: int, *, wait: bool) -> bool:
        with self._guard:
            if place in self._mine:
                return False
            self._mine.add(place)
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), 1, place)
        except (BlockingIOError, PermissionError):
            with self._guard:
                self._mine.discard(place)
            return False
        return True
