"""Reads from given places of a file, safe between threads, and never past what the file holds."""

import os
import threading
import weakref
from pathlib import Path

from malpighi.errors import DataError


class ByteFile:
    """A file open for reading at any place. Nothing is mapped: a file cut short while read must not kill.

    Attributes:
        path: the file.
        size: its bytes when it was opened.

    Raises:
        DataError: the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except OSError as error:
            raise DataError(f"{path} cannot be opened: {error.strerror}") from error
        self._finish = weakref.finalize(self, os.close, self._handle)
        self._lock = threading.Lock()
        self.size = os.fstat(self._handle).st_size

    def read(self, offset: int, count: int) -> bytes:
        """`count` bytes from `offset`; fewer where the file ends.

        Raises:
            DataError: the file is closed, or the system cannot read it any more.
        """
        if not self._finish.alive:
            raise DataError(f"{self.path} is closed; open the slide again")
        count = min(count, self.size - offset)
        if offset < 0 or count <= 0:
            return b""
        try:
            if hasattr(os, "pread"):
                return os.pread(self._handle, count, offset)
            with self._lock:  # Windows has no read that leaves the position alone
                os.lseek(self._handle, offset, os.SEEK_SET)
                return os.read(self._handle, count)
        except OSError as error:
            raise DataError(f"{self.path} can no longer be read: {error.strerror}") from error

    def close(self) -> None:
        """Let go of the file; closing twice is fine."""
        self._finish()
