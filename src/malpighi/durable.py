"""Files that appear whole or not at all, and failures of the file system in words that say what to do."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from malpighi.errors import UserError

_MENDS = {
    errno.ENOSPC: "the disk is full; free space or give a folder on another disk",
    errno.EDQUOT: "your disk quota is used up; free space or give a folder on another disk",
    errno.EACCES: "permission denied; give a folder that you may write to",
    errno.EPERM: "permission denied; give a folder that you may write to",
    errno.EROFS: "the file system is read-only; give a folder on a writable one",
}


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write, that appears under its name whole and durable, or not at all.

    Example:
        >>> with replacing(Path("table.bin")) as file:  # doctest: +SKIP
        ...     file.write(b"all of it")
    """
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            yield file
            sync(file)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    sync_folder(path.parent)


@contextmanager
def mending(folder: Path) -> Iterator[None]:
    """Turn a failure to write in `folder` into words that say what to do.

    Raises:
        UserError: in place of any OSError.
    """
    try:
        yield
    except OSError as error:
        advice = _MENDS.get(error.errno or 0, f"{error.strerror or error}; check the folder and its disk")
        raise UserError(f"cannot write in {folder}: {advice}") from error


def sync(file: BinaryIO) -> None:
    """Make what was written to `file` survive a power cut."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make a rename durable; folders cannot be opened everywhere (Windows), and there it is not needed."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
