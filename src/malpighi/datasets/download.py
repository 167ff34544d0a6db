"""Fetching a data set: its licence first, then its files, verified, then unpacked where its adapter looks."""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import httpx
import msgspec
import yaml

from malpighi.datasets.adapter import Adapter
from malpighi.datasets.archives import check_room, is_archive, unpack
from malpighi.datasets.transfer import Patience, Progress, RemoteFile, fetch, get_json
from malpighi.durable import mending, replacing
from malpighi.errors import DataError, LicenceError

RECEIPT = ".download.json"
"""Written beside the data when all is there: what was fetched, from where, with which checksums. Hidden, as
adapters pass over hidden files."""

_TABLE = Path(__file__).with_name("downloads.yaml")


class Address(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file at a known place; `name` where the address does not end in a good one."""

    url: str
    name: str = ""
    size: int | None = None
    md5: str = ""
    sha256: str = ""


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a data set's files are; see the head of `downloads.yaml`."""

    zenodo: int | None = None
    hub: str = ""
    urls: tuple[Address, ...] = ()
    files: tuple[str, ...] = ()
    unpack: bool = True
    drop_top: bool = False

    @property
    def page(self) -> str:
        """Where a person can read about it."""
        if self.zenodo is not None:
            return f"https://zenodo.org/records/{self.zenodo}"
        return f"https://huggingface.co/datasets/{self.hub}" if self.hub else self.urls[0].url


@dataclass(frozen=True)
class Sites:
    """The interfaces that lists of files are asked from; a test or a mirror has its own."""

    zenodo: str = "https://zenodo.org"
    hub: str = "https://huggingface.co"


class Listing(msgspec.Struct, frozen=True):
    """The files of a source, and the licence that it states itself; "" where it states none."""

    files: tuple[RemoteFile, ...]
    licence: str = ""


class Fetched(msgspec.Struct, frozen=True):
    """What was fetched.

    Attributes:
        name: of the data set.
        page: where it comes from.
        licence: as the adapter states it.
        stated: the licence that the source stated at the time; "" for none.
        time: when, UTC.
        files: name, address, size, checksum.
        unpacked: number of files out of archives.
        links: links in archives, which are left out.
    """

    name: str
    page: str
    licence: str
    stated: str
    time: str
    files: tuple[RemoteFile, ...]
    unpacked: int = 0
    links: int = 0


def sources() -> dict[str, Source]:
    """All data sets that can be fetched directly, by name."""
    return msgspec.convert(yaml.safe_load(_TABLE.read_text(encoding="utf-8")), dict[str, Source])


def source_of(adapter: Adapter) -> Source:
    """Where a data set is fetched from.

    Raises:
        DataError: it cannot be fetched directly; the message says how one gets it.
    """
    source = sources().get(adapter.name)
    if source is None:
        raise DataError(
            f"{adapter.name} cannot be fetched from here. Access: {adapter.access}. Get it from "
            f"{adapter.source}, put {adapter.layout} into a folder named {adapter.name}, and run "
            f"`malpighi data check {adapter.name} {adapter.name}`"
        )
    return source


def licence_note(adapter: Adapter) -> str:
    """What a user must know before anything is fetched."""
    return f"{adapter.name}: licence: {adapter.licence}; use: {adapter.use}; from {source_of(adapter).page}"


def check_licence(adapter: Adapter, *, accepted: bool) -> None:
    """See that the licence allows any use, or that the user accepts it.

    Raises:
        LicenceError: it is for research only, or not verified, and not accepted.
    """
    doubts = []
    if adapter.use != "any":
        doubts.append(f"its use is: {adapter.use}")
    if any(word in adapter.licence.lower() for word in ("not verified", "assumed", "no explicit")):
        doubts.append("its licence is not verified")
    if doubts and not accepted:
        raise LicenceError(
            f"{licence_note(adapter)}. Nothing was fetched, because {' and '.join(doubts)}. Read the licence "
            "at the source; if you accept it, say so with --accept-licence"
        )


def download(
    adapter: Adapter,
    folder: str | Path,
    *,
    accept_licence: bool = False,
    patience: Patience | None = None,
    progress: Progress = lambda *_: None,
    sites: Sites | None = None,
) -> Fetched:
    """Fetch a data set into a folder, ready for its adapter.

    Broken off and called again it goes on; when all is there it does nothing.

    Args:
        adapter: the data set.
        folder: its own folder; made where it is not there.
        accept_licence: the user has read and accepts the licence.
        patience: how patiently servers are asked.
        progress: told of bytes as they come.
        sites: who is asked for lists of files.

    Raises:
        LicenceError: see `check_licence`.
        DataError: no direct download, or a server does not give what is published.
        UserError: not enough room, or the folder cannot be written to.
    """
    folder, patience, sites = Path(folder), patience or Patience(), sites or Sites()
    source = source_of(adapter)
    check_licence(adapter, accepted=accept_licence)
    known = _receipt(folder)
    if known is not None:
        return known
    with mending(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with httpx.Client(timeout=patience.timeout, follow_redirects=True) as client:
        listing = list_files(client, source, patience, sites)
        _room(listing.files, folder, source)
        paths = [fetch(client, file, folder, patience, progress) for file in listing.files]
    archives = [path for path in paths if source.unpack and is_archive(path)]
    unpacked = [unpack(path, folder, drop_top=source.drop_top) for path in archives]
    done = Fetched(
        name=adapter.name,
        page=source.page,
        licence=adapter.licence,
        stated=listing.licence,
        time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        files=listing.files,
        unpacked=sum(one.files for one in unpacked),
        links=sum(one.links for one in unpacked),
    )
    with mending(folder), replacing(folder / RECEIPT) as out:
        out.write(msgspec.json.format(msgspec.json.encode(done)))
    with mending(folder):
        for path in archives:
            path.unlink()
    return done


def list_files(client: httpx.Client, source: Source, patience: Patience, sites: Sites) -> Listing:
    """The files to fetch, with sizes and checksums as far as the source publishes them.

    Raises:
        DataError: the source cannot be asked, answers something else, or has none of the files.
    """
    if source.zenodo is not None:
        listing = _zenodo(get_json(client, f"{sites.zenodo}/api/records/{source.zenodo}", patience))
    elif source.hub:
        url = f"{sites.hub}/api/datasets/{source.hub}/tree/main?recursive=true"
        listing = _hub(get_json(client, url, patience), f"{sites.hub}/datasets/{source.hub}/resolve/main")
    else:
        listing = Listing(tuple(_addressed(address) for address in source.urls))
    wanted = [
        file
        for file in listing.files
        if not source.files or any(fnmatch(file.name, pattern) for pattern in source.files)
    ]
    lost = [pattern for pattern in source.files if not any(fnmatch(f.name, pattern) for f in wanted)]
    if lost or not wanted:
        there = ", ".join(file.name for file in listing.files) or "none"
        raise DataError(f"{source.page} has no file {', '.join(lost) or 'at all'}; there are: {there}")
    return Listing(tuple(wanted), listing.licence)


def _zenodo(tree: Any) -> Listing:
    try:
        files = tuple(
            RemoteFile(
                _safe(entry["key"]), entry["links"]["self"], entry["size"], entry.get("checksum") or ""
            )
            for entry in tree["files"]
        )
    except (KeyError, TypeError) as error:
        raise DataError(f"the record's list of files is not as expected: {error!r}") from error
    licence: Any = tree.get("metadata", {}).get("license") or {}
    return Listing(files, licence.get("id", "") if isinstance(licence, dict) else str(licence))


def _hub(tree: Any, base: str) -> Listing:
    try:
        found = [entry for entry in tree if entry["type"] == "file"]
        files = tuple(
            RemoteFile(
                _safe(entry["path"]),
                f"{base}/{quote(entry['path'])}",
                entry["size"],
                f"sha256:{entry['lfs']['oid']}" if entry.get("lfs") else "",
            )
            for entry in found
        )
    except (KeyError, TypeError) as error:
        raise DataError(f"the repository's list of files is not as expected: {error!r}") from error
    return Listing(files)


def _addressed(address: Address) -> RemoteFile:
    name = address.name or unquote(PurePosixPath(urlsplit(address.url).path).name)
    checksum = f"sha256:{address.sha256}" if address.sha256 else f"md5:{address.md5}" if address.md5 else ""
    return RemoteFile(_safe(name), address.url, address.size, checksum)


def _safe(name: str) -> str:
    """A file's name as a server gives it.

    Raises:
        DataError: it would lie outside the folder.
    """
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or "\\" in name or name == RECEIPT:
        raise DataError(f"the source names a file {name!r}, a path out of the folder; nothing was fetched")
    return name


def _room(files: Sequence[RemoteFile], folder: Path, source: Source) -> None:
    """Archives of images unpack to about their own size again."""
    missing = 0
    for file in files:
        there = [folder / file.name, folder / f"{file.name}.part"]
        have = max((path.stat().st_size for path in there if path.is_file()), default=0)
        missing += max((file.size or 0) - have, 0)
        if source.unpack and is_archive(Path(file.name)):
            missing += file.size or 0
    check_room(missing, folder, "fetching the data set")


def _receipt(folder: Path) -> Fetched | None:
    with suppress(OSError, msgspec.DecodeError):
        return msgspec.json.decode((folder / RECEIPT).read_bytes(), type=Fetched)
    return None
