"""One file over HTTP: resumed after a cut, verified, and under its name only when whole."""

import hashlib
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx

from malpighi.durable import mending, sync, sync_folder
from malpighi.errors import ConfigError, DataError

PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers of a server that is busy: worth another try."""

_GAIN = 1 << 20
"""Bytes that a try must bring for the count of tries to begin anew: a large file may be cut many times."""

Progress = Callable[[str, int, int | None], None]
"""Called with a file's name, bytes done, and bytes in all where known."""


@dataclass(frozen=True)
class RemoteFile:
    """A file to be fetched.

    Attributes:
        name: where it is put, below the data set's folder.
        url: where it is.
        size: bytes; None where not known.
        checksum: `md5:` or `sha256:` and hexadecimal digits; "" where none is published.
    """

    name: str
    url: str
    size: int | None = None
    checksum: str = ""


@dataclass(frozen=True)
class Patience:
    """How patiently a server is asked.

    Attributes:
        timeout: seconds without a byte after which a connection counts as dead.
        attempts: tries without gain, the first included.
        backoff: seconds before the second try; doubles with each further one.
        longest: most seconds between two tries, whatever the server asks for.
    """

    timeout: float = 60.0
    attempts: int = 6
    backoff: float = 1.0
    longest: float = 120.0

    def __post_init__(self) -> None:
        """Refuse numbers that cannot work."""
        if self.attempts < 1 or self.timeout <= 0 or self.backoff < 0 or self.longest < 0:
            raise ConfigError(
                f"attempts={self.attempts} must be at least 1, timeout={self.timeout} above 0, and "
                f"backoff={self.backoff} and longest={self.longest} not negative"
            )

    def pause(self, attempt: int, asked: str = "") -> None:
        """Wait before the next try: what the server asks for, else doubling and a little random."""
        seconds = float(asked) if asked.isdigit() else self.backoff * 2.0 ** (attempt - 1)
        time.sleep(min(seconds * (1 + 0.1 * random.random()), self.longest))


class _PassingError(Exception):
    """A failure that may pass; `wait` is what the server asked for."""

    def __init__(self, reason: str, wait: str = "") -> None:
        super().__init__(reason)
        self.wait = wait


def fetch(
    client: httpx.Client, file: RemoteFile, folder: Path, patience: Patience, progress: Progress
) -> Path:
    """Put a file into a folder, whole and verified, or not at all.

    What a broken try leaves is `<name>.part`. It is gone on with where the file has a checksum; without one
    it is not known to be of the same file, and the next call begins anew.

    Returns:
        path: the file; one that is there already and right is left as it is.

    Raises:
        DataError: the server does not have it, gives up no whole file, or what it gives has another checksum;
            or another file of that name is there.
        UserError: the folder cannot be written to.
    """
    path = folder / file.name
    part = path.with_name(path.name + ".part")
    with mending(folder):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            return _known(file, path)
        if not file.checksum:
            part.unlink(missing_ok=True)
        resumed = part.is_file() and part.stat().st_size > 0
        _fill(client, file, part, patience, progress)
        wrong = _wrong(file, part)
        if wrong and resumed:
            # What was there before may have been of another file; one clean try decides.
            part.unlink()
            _fill(client, file, part, patience, progress)
            wrong = _wrong(file, part)
        if wrong:
            part.unlink()
            raise DataError(
                f"{file.url} gave another file than published: {wrong}; it was removed, try later"
            )
        part.replace(path)
        sync_folder(path.parent)
    return path


def get_json(client: httpx.Client, url: str, patience: Patience) -> object:
    """A JSON answer, with the same patience.

    Raises:
        DataError: none comes.
    """
    for attempt in range(1, patience.attempts + 1):
        wait = ""
        try:
            reply = client.get(url)
            _check(reply, url)
            return reply.json()
        except (_PassingError, httpx.RequestError, ValueError) as error:
            reason, wait = _reason(error), getattr(error, "wait", "")
        if attempt < patience.attempts:
            patience.pause(attempt, wait)
    raise DataError(f"{url}: no usable answer after {patience.attempts} tries: {reason}")


def _known(file: RemoteFile, path: Path) -> Path:
    wrong = _wrong(file, path)
    if wrong:
        raise DataError(f"{path} is there but is not the published file: {wrong}; move it away and try again")
    return path


def _wrong(file: RemoteFile, path: Path) -> str:
    """How a file differs from what is published; "" where it does not."""
    size = path.stat().st_size
    if file.size is not None and size != file.size:
        return f"{size} bytes, expected {file.size}"
    kind, _, digits = file.checksum.partition(":")
    if not digits:
        return ""
    with path.open("rb") as data:
        found = hashlib.file_digest(data, kind).hexdigest()
    return "" if found == digits.lower() else f"{kind} {found}, expected {digits}"


def _fill(client: httpx.Client, file: RemoteFile, part: Path, patience: Patience, progress: Progress) -> None:
    """Try until `part` has all bytes; tries are counted anew after each that brought something."""
    transfer = _Transfer(client, file, part, progress)
    attempt = 0
    while True:
        before = _size(part)
        try:
            transfer.go_on()
            return
        except (_PassingError, httpx.RequestError) as error:
            reason, wait = _reason(error), getattr(error, "wait", "")
        attempt = 1 if _size(part) - before >= _GAIN else attempt + 1
        if attempt >= patience.attempts:
            kept = f"; {part.name} is kept, try again to go on" if file.checksum and _size(part) else ""
            raise DataError(f"{file.url}: no whole file after {attempt} tries: {reason}{kept}")
        patience.pause(attempt, wait)


class _Transfer:
    """The tries at one file; remembers what tells that the server still has the same file."""

    def __init__(self, client: httpx.Client, file: RemoteFile, part: Path, progress: Progress) -> None:
        self._client = client
        self._file = file
        self._part = part
        self._progress = progress
        self._validator = ""

    def go_on(self) -> None:
        """One try, from where the last one ended.

        Raises:
            _PassingError: it broke off.
            DataError: there is no use in trying again.
        """
        have = _size(self._part)
        if have and not (self._file.checksum or self._validator):
            have = 0
        if have and have == self._file.size:
            return
        headers = {"Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
            if self._validator:
                headers["If-Range"] = self._validator
        with self._client.stream("GET", self._file.url, headers=headers) as reply:
            if reply.status_code == 416 and have:
                self._past_the_end(reply, have)
                return
            _check(reply, self._file.url)
            self._validator = _validator(reply)
            self._take(reply, have if reply.status_code == 206 else 0)

    def _past_the_end(self, reply: httpx.Response, have: int) -> None:
        """The server has no bytes after those we have: all of them, or those of another file."""
        if reply.headers.get("content-range", "") != f"bytes */{have}":
            self._part.unlink()
            raise _PassingError("what was there before is longer than the file; begun anew")

    def _take(self, reply: httpx.Response, start: int) -> None:
        if start and not reply.headers.get("content-range", "").startswith(f"bytes {start}-"):
            self._part.unlink()
            raise _PassingError("the server went on at another place than asked; begun anew")
        length = reply.headers.get("content-length", "")
        total = start + int(length) if length.isdigit() else self._file.size
        done = start
        with self._part.open("ab" if start else "wb") as out:
            try:
                for chunk in reply.iter_raw():
                    out.write(chunk)
                    done += len(chunk)
                    if self._file.size is not None and done > self._file.size:
                        raise DataError(
                            f"{self._file.url} gives more than the {self._file.size} bytes published"
                        )
                    self._progress(self._file.name, done, total)
            finally:
                sync(out)
        if total is not None and done < total:
            raise _PassingError(f"cut after {done} of {total} bytes")


def _check(reply: httpx.Response, url: str) -> None:
    code = reply.status_code
    if code in PASSING:
        raise _PassingError(f"the server answered {code}", reply.headers.get("retry-after", ""))
    if code in (401, 403):
        raise DataError(f"{url}: access is refused ({code}); it may need an account or an accepted form")
    if code not in (200, 206):
        raise DataError(f"{url}: the server answered {code}; the file may have moved")


def _validator(reply: httpx.Response) -> str:
    """What names this very version of the file; weak tags name none."""
    tag: str = reply.headers.get("etag", "")
    return tag if tag.startswith('"') else ""


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, _PassingError) else f"{type(error).__name__}: {error}"


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
