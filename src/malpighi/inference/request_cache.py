"""Answers kept on disk, so that no request is paid for twice: one SQLite file that processes share.

A request is the model, the adapter, the words, the pixels and how the answer is drawn. Its SHA-256 is the
key. An answer is written when it arrives, so what is lost with a killed process is what was under way.
"""

import hashlib
import logging
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from malpighi.claims import Claims
from malpighi.config import digest
from malpighi.durable import mending
from malpighi.errors import UserError
from malpighi.inference.engine import Completion, Engine, Sampling, Streaming
from malpighi.models.pictures import pixel_key
from malpighi.models.prompt import Prompt

log = logging.getLogger(__name__)

VERSION = 1
"""Of the key and of what is kept; part of every key."""

_PATIENCE = 60.0
"""Seconds to wait for another process that writes."""

_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_SIDES = ("", "-wal", "-shm")


class CacheReport(NamedTuple):
    """What a cache did and holds.

    Attributes:
        hits: prompts answered from the file by this engine.
        misses: prompts asked of the model by this engine.
        entries: answers in the file.
        bytes: size of the file.
    """

    hits: int
    misses: int
    entries: int
    bytes: int


class Cached:
    """An engine that asks another one only what nobody has asked before.

    Only requests whose answer is fixed are kept unless told: greedy ones, and draws with a seed other than 0.
    Of draws, the first, second... of one prompt in a call are different requests. Failures are never kept.
    A damaged file is moved aside, with a warning, and a new one is begun.

    Args:
        engine: asked what is not there.
        path: the SQLite file; made where missing, beside it `<path>.lock`. On a disk of this machine:
            SQLite's log does not work over a network.
        fingerprint: of the model: a hash of its weights, or address and name at a server.
        adapter: the LoRA adapter that answers; "" for none, or where the fingerprint says it.
        sampled: keep draws without a seed too.
    """

    def __init__(
        self, engine: Engine, path: Path, fingerprint: str, adapter: str = "", *, sampled: bool = False
    ) -> None:
        self._engine = engine
        self._path = path
        self._model = (fingerprint, adapter)
        self._sampled = sampled
        self._hits = 0
        self._misses = 0

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """One completion per prompt, in order; see `Engine`.

        Raises:
            UserError: the file cannot be written, or any reason of the engine.
        """
        if sampling.temperature > 0 and sampling.seed == 0 and not self._sampled:
            self._misses += len(prompts)
            return self._engine.generate(prompts, sampling)
        keys = self._keys(prompts, sampling)
        known = self._known(keys)
        asked = _to_ask(keys, prompts, known, sampling)
        self._hits += sum(key in known for key in keys)
        fresh: dict[str, Completion] = {}
        with self._store() as store:
            for place, completion in _each(self._engine, [prompts[index] for index in asked], sampling):
                self._misses += 1
                key = keys[asked[place]]
                fresh[key] = completion
                if completion.finish != "error" and key not in known:
                    self._write(store, key, completion)
        return [known[key] if key in known else fresh[key] for key in keys]

    def report(self) -> CacheReport:
        """Hits and misses so far, and the size of the file."""
        with self._store() as store:
            entries = store.execute("SELECT COUNT(*) FROM answers").fetchone()[0]
        size = sum(path.stat().st_size for path in self._files() if path.exists())
        return CacheReport(self._hits, self._misses, entries, size)

    def _keys(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[str]:
        seen: dict[str, int] = {}
        keys = []
        for prompt in prompts:
            shown = request_digest(prompt)
            occurrence = seen.get(shown, 0)
            seen[shown] = occurrence + 1
            drawn = (sampling.temperature, sampling.seed, occurrence) if sampling.temperature else ()
            asked = (VERSION, *self._model, shown, sampling.max_new_tokens, *drawn)
            keys.append(hashlib.sha256(msgspec.json.encode(asked)).hexdigest())
        return keys

    def _known(self, keys: Iterable[str]) -> dict[str, Completion]:
        try:
            return self._read(set(keys))
        except sqlite3.DatabaseError as error:  # sound at its beginning, damaged further on
            self._mend(error)
            return {}

    def _write(self, store: sqlite3.Connection, key: str, completion: Completion) -> None:
        try:
            row = (key, msgspec.json.encode(completion))
            store.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", row)
        except sqlite3.DatabaseError as error:
            self._mend(error)  # this answer is not kept, the next call's are

    def _read(self, keys: Iterable[str]) -> dict[str, Completion]:
        found = {}
        with self._store() as store:
            for key in keys:
                row = store.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone()
                completion = _decoded(row[0]) if row else None
                if completion is not None:
                    found[key] = completion
        return found

    def _files(self) -> list[Path]:
        return [self._path.with_name(self._path.name + side) for side in _SIDES]

    @contextmanager
    def _store(self) -> Iterator[sqlite3.Connection]:
        """The open file; it is opened anew for each call, so threads and forked processes do not share it."""
        try:
            with closing(self._opened()) as store:
                yield store
        except sqlite3.OperationalError as error:
            raise UserError(
                f"the request cache {self._path} cannot be used: {error}; is its disk full, or read-only?"
            ) from error

    def _opened(self) -> sqlite3.Connection:
        try:
            return _open(self._path)
        except sqlite3.DatabaseError as error:
            self._mend(error)
            return _open(self._path)

    def _mend(self, error: sqlite3.DatabaseError) -> None:
        """Move a damaged file aside; one process does, another that saw the damage finds the new file."""
        if not _is_damage(error):
            raise error
        lock = self._path.with_name(self._path.name + ".lock")
        with Claims(lock) as claims, claims.holding("mend", wait=True):
            try:
                with closing(_open(self._path)) as store:
                    sound = store.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok"
            except sqlite3.DatabaseError:
                sound = False
            if not sound:
                self._move_aside(error)

    def _move_aside(self, error: Exception) -> None:
        number = 1
        while (aside := self._path.with_name(f"{self._path.name}.damaged-{number}")).exists():
            number += 1
        log.warning("the request cache %s is damaged (%s); moved to %s", self._path, error, aside.name)
        for path, side in zip(self._files(), _SIDES, strict=True):
            if path.exists():
                path.rename(aside.with_name(aside.name + side))


def request_digest(prompt: Prompt) -> str:
    """Hash over what a model is told and shown, pixel by pixel, and the answers whose chances are asked."""
    said = [[turn.role, turn.text] for turn in prompt.turns]
    seen = [pixel_key(image) for image in prompt.images]
    return digest(prompt.system, said, seen, prompt.image_places, prompt.answers)


def _to_ask(
    keys: Sequence[str], prompts: Sequence[Prompt], known: dict[str, Completion], sampling: Sampling
) -> list[int]:
    """Places of the prompts to ask: of equal greedy requests one, of equal draws all or none.

    An engine tells equal draws of a call apart by counting them, so it must be given all of them.
    """
    if sampling.temperature == 0:
        first = {key: index for index, key in reversed(list(enumerate(keys)))}
        return sorted(index for key, index in first.items() if key not in known)
    missing = {prompts[index].digest for index, key in enumerate(keys) if key not in known}
    return [index for index, prompt in enumerate(prompts) if prompt.digest in missing]


def _each(engine: Engine, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[tuple[int, Completion]]:
    if not prompts:
        return
    if isinstance(engine, Streaming):
        yield from engine.each(prompts, sampling)
    else:
        yield from enumerate(engine.generate(prompts, sampling))


def _open(path: Path) -> sqlite3.Connection:
    with mending(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    store = sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None)
    try:
        store.execute("PRAGMA journal_mode=WAL")
        store.execute("PRAGMA synchronous=NORMAL")
        store.execute(
            "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer BLOB NOT NULL) WITHOUT ROWID"
        )
        store.execute("SELECT key FROM answers LIMIT 1").fetchone()
    except BaseException:
        store.close()
        raise
    return store


def _decoded(data: bytes) -> Completion | None:
    """The kept answer; None where it cannot be read, and is asked for again."""
    try:
        return msgspec.json.decode(data, type=Completion)
    except msgspec.DecodeError:
        return None


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    return (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF in _DAMAGED
