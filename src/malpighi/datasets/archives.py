"""Unpacking archives from outside: nothing leaves the folder, and the files appear whole or not at all."""

import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from contextlib import AbstractContextManager, closing
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

from malpighi.durable import mending
from malpighi.errors import DataError, UserError

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_MACOS = "__MACOSX"
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,  # a way of packing that is not known here
    RuntimeError,  # encrypted
)


class Member(NamedTuple):
    """A file in an archive: its path, its bytes unpacked, and how the archive calls it."""

    path: PurePosixPath
    size: int
    key: Any


class Unpacked(NamedTuple):
    """What was unpacked: number of files, and of links that were left out."""

    files: int
    links: int


def is_archive(path: Path) -> bool:
    """Whether the name is that of a zip or tar file."""
    return path.name.lower().endswith(SUFFIXES)


def stem_of(path: Path) -> str:
    """The name without its ending, e.g. `TRAIN` of `TRAIN.tar.gz`."""
    ending = max((ending for ending in SUFFIXES if path.name.lower().endswith(ending)), key=len, default="")
    return path.name[: len(path.name) - len(ending)]


def unpack(archive: Path, folder: Path, *, drop_top: bool = False) -> Unpacked:
    """Unpack into a folder; links and what macOS adds are left out.

    All is written aside first and moved when it is whole, so that a cut leaves nothing half there. Files that
    do not all lie in one outer folder get one, named like the archive.

    Args:
        archive: a zip or tar file.
        folder: what to unpack into.
        drop_top: leave out the one outer folder.

    Raises:
        DataError: no archive, a damaged one, or one that holds a path out of the folder; nothing is unpacked.
        UserError: not enough room, or the folder cannot be written to.
    """
    aside = folder / f".unpacking-{archive.name}"
    with mending(folder):
        shutil.rmtree(aside, ignore_errors=True)
        try:
            with _opened(archive) as opened:
                members, links = opened.members()
                check_room(sum(member.size for member in members), folder, f"unpacking {archive.name}")
                outer = _outer(members)
                goal = folder if outer else folder / stem_of(archive)
                for member in members:
                    parts = member.path.parts[1:] if drop_top and outer else member.path.parts
                    _write(opened.open(member), aside.joinpath(*parts))
            _move(aside, goal)
        except (*_DAMAGE, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # of the disk; unpackers raise those without a number for bytes that are wrong
            raise DataError(
                f"{archive} is damaged or no archive ({error}); remove it, fetch it again"
            ) from error
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return Unpacked(len(members), links)


class _Zip:
    """A zip file that is open."""

    def __init__(self, path: Path) -> None:
        self._file = zipfile.ZipFile(path)

    def members(self) -> tuple[list[Member], int]:
        kept, links = [], 0
        for info in self._file.infolist():
            if stat.S_ISLNK(info.external_attr >> 16):
                links += 1
            elif not info.is_dir():
                # The name as stored: `filename` has lost what follows a null byte.
                kept.append(Member(_inside(info.orig_filename), info.file_size, info))
        return _without_macos(kept), links

    def open(self, member: Member) -> IO[bytes]:
        return self._file.open(member.key)

    def close(self) -> None:
        self._file.close()


class _Tar:
    """A tar file that is open, packed or not."""

    def __init__(self, path: Path) -> None:
        self._file = tarfile.open(path)  # noqa: SIM115 -- closed by `close`

    def members(self) -> tuple[list[Member], int]:
        kept, links = [], 0
        for info in self._file.getmembers():
            if info.isfile():
                kept.append(Member(_inside(info.name), info.size, info))
            elif not info.isdir():
                links += 1
        while self._file.fileobj and self._file.fileobj.read(1 << 20):
            pass  # to the end, where a packed file has its checksum, which no reading of members comes to
        return _without_macos(kept), links

    def open(self, member: Member) -> IO[bytes]:
        data = self._file.extractfile(member.key)
        if data is None:
            raise DataError(f"{member.path} cannot be read")
        return data

    def close(self) -> None:
        self._file.close()


def _opened(path: Path) -> AbstractContextManager[_Zip | _Tar]:
    return closing(_Zip(path) if path.name.lower().endswith(".zip") else _Tar(path))


def _inside(name: str) -> PurePosixPath:
    """A member's path, below the folder.

    Raises:
        DataError: it leads elsewhere.
    """
    path = PurePosixPath(name)
    odd = "\\" in name or "\0" in name or ":" in name.partition("/")[0]
    if path.is_absolute() or ".." in path.parts or odd or not path.parts:
        raise DataError(f"the archive holds {name!r}, a path out of its folder; nothing was unpacked")
    return path


def _without_macos(members: list[Member]) -> list[Member]:
    return [m for m in members if _MACOS not in m.path.parts and not m.path.name.startswith("._")]


def _outer(members: list[Member]) -> str:
    """The one folder that all files lie in; "" where there is none."""
    tops = {member.path.parts[0] for member in members}
    nested = all(len(member.path.parts) > 1 for member in members)
    return tops.pop() if nested and len(tops) == 1 else ""


def check_room(needed: int, folder: Path, what: str) -> None:
    """See that a folder's disk has room.

    Args:
        needed: bytes.
        folder: that is written to.
        what: for the message.

    Raises:
        UserError: it has not.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{what} needs {needed / 1e9:.1f} GB in {folder}, where {free / 1e9:.1f} GB are free; "
            "free space or give a folder on another disk"
        )


def _write(data: IO[bytes], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with data, path.open("xb") as out:
        shutil.copyfileobj(data, out, 1 << 20)


def _move(source: Path, goal: Path) -> None:
    """Move all files of a folder into another, over what is there."""
    for path in sorted(source.rglob("*")):
        if path.is_file():
            target = goal / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
