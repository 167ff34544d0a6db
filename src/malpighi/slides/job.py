"""The same work over many slides: shared by processes, killed anywhere, gone on with, same result.

    job.json            whose settings these are
    slides/<id>/        a finished slide: what the work wrote, and row.json
    slides/<id>.part/   a slide at work, or one whose process was killed
    failures/<id>.json  a slide that could not be done, and why
    log.jsonl           who began and ended what, when: the record of claims
    manifest.json       all slides in order with their figures; written last
    summary.csv         the same figures as a table

A command that is started again, or twice at once, on the same folder shares the work: a slide is claimed
before it is begun (see `claims`) and its folder takes its name when it is whole.
"""

import csv
import errno
import io
import json
import os
import re
import secrets
import shutil
import socket
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from malpighi.claims import Claims
from malpighi.config import digest
from malpighi.durable import mending, replacing, sync_folder
from malpighi.errors import ConfigError, FormatVersionError, UserError
from malpighi.records import Failure, from_json
from malpighi.slides.crew import Crew

FORMAT = "malpighi-slide-job"
VERSION = 1

Work = Callable[[Path, Path], dict[str, object]]
"""Does one slide: (slide, empty folder for its files) -> figures for the summary. Picklable."""

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_SECONDS_BETWEEN_LOOKS = 0.1
_DEADLY = "the process that worked on it was killed or crashed; look at the file, or give more memory"


class Listener(Protocol):
    """Is told how a job goes."""

    def progressed(self, done: int, total: int, text: str) -> None:
        """`done` of `total` slides are settled; `text` names the latest."""


class Finished(msgspec.Struct, frozen=True):
    """A slide that is done.

    Attributes:
        id: its name in the job.
        path: the slide.
        row: figures for the summary.
        source: what its file looked like (see `state_of`).
    """

    id: str
    path: str
    row: dict[str, Any]
    source: str


class _Failed(msgspec.Struct, frozen=True):
    failure: Failure
    path: str
    source: str


class JobResult(msgspec.Struct, frozen=True):
    """What a job came to.

    Attributes:
        finished: slides that are done, in the order given, with the folder of each.
        failures: slides that are not, in the order given.
    """

    finished: list[tuple[Finished, Path]]
    failures: list[Failure]


class Job:
    """A job's folder and its slides.

    Args:
        out: the folder.
        paths: slides, in the order of the result.
        verb: what is done, e.g. `tiles`.
        work: does one slide.

    Attributes:
        ids: name of each slide in the job, by path.
    """

    def __init__(self, out: Path, paths: Sequence[Path], verb: str, work: Work) -> None:
        self.out, self.verb, self.work = out, verb, work
        self.ids = {path: slide_id(path) for path in dict.fromkeys(paths)}
        self._token = secrets.token_hex(8)  # tells this run's processes from earlier ones of the same number

    def folder(self, path: Path) -> Path:
        """Where a slide's files are once it is done."""
        return self.out / "slides" / self.ids[path]

    def begin(self, settings_hash: str, claims: Claims, *, retry: bool) -> None:
        """Make the folder, or find it made by the same command.

        Raises:
            ConfigError: it holds the result of another command or of other settings.
            UserError: it cannot be written.
        """
        head = {"format": FORMAT, "version": VERSION, "verb": self.verb, "settings": settings_hash}
        with claims.holding("job", wait=True):
            for part in ("slides", "failures"):
                (self.out / part).mkdir(exist_ok=True)
            path = self.out / "job.json"
            if path.is_file():
                _check_head(path, json.loads(path.read_bytes()), head)
            else:
                with replacing(path) as file:
                    file.write(json.dumps(head).encode())
            for name in self.ids.values() if retry else ():
                with claims.holding(name) as mine:
                    if mine:
                        (self.out / "failures" / f"{name}.json").unlink(missing_ok=True)

    def settled(self, path: Path) -> Finished | Failure | None:
        """What became of a slide; None where it is to do, or its file has changed since."""
        state = state_of(path)
        row = self.folder(path) / "row.json"
        if row.is_file():
            done = from_json(row.read_bytes(), Finished)
            if state in ("", done.source):  # a slide that is gone since stays done
                return done
        note = self.out / "failures" / f"{self.ids[path]}.json"
        if note.is_file():
            failed = from_json(note.read_bytes(), _Failed)
            if failed.source == state:
                return failed.failure
        return None

    def work_off(self, claims: Claims) -> Iterator[Path]:
        """Do every slide that is to do and that nobody else is at, until all are settled.

        Yields:
            Each slide as soon as it is known to be settled, by us or by another.
        """
        left = list(self.ids)
        while left:
            before = len(left)
            for path in list(left):
                if self.settled(path) is None:
                    with claims.holding(self.ids[path]) as mine:
                        if mine and self.settled(path) is None:
                            self._do(path)
                        if not mine:
                            continue
                left.remove(path)
                yield path
            if len(left) == before:  # others are at what is left; should they die, it is ours
                time.sleep(_SECONDS_BETWEEN_LOOKS)

    def fail(self, path: Path, reason: str) -> None:
        """Record that a slide cannot be done."""
        name = self.ids[path]
        self.note("failed", path, reason=reason)
        failed = _Failed(Failure(str(path), self.verb, reason), str(path), state_of(path))
        with replacing(self.out / "failures" / f"{name}.json") as file:
            file.write(msgspec.json.encode(failed))

    def note(self, event: str, path: Path, **more: object) -> None:
        """One line into the log, whole even where processes write at once."""
        who = {"host": socket.gethostname(), "pid": os.getpid(), "time": round(time.time(), 3)}
        line = {"event": event, "slide": self.ids[path], **who, **more}
        with (self.out / "log.jsonl").open("ab", buffering=0) as file:
            file.write(json.dumps(line).encode() + b"\n")

    def bury(self, claims: Claims, pid: int) -> bool:
        """A process of this run died: what it was at is to blame, and must not kill the next one too.

        Returns:
            Whether it was at a slide at all.
        """
        paths = [path for path in self.ids if self._owner(path) == f"{self._token} {pid}"]
        for path in paths:
            with claims.holding(self.ids[path], wait=True):
                if self.settled(path) is None:
                    self.fail(path, _DEADLY)
                shutil.rmtree(self._part(path), ignore_errors=True)
        return bool(paths)

    def _part(self, path: Path) -> Path:
        return self.folder(path).with_name(f"{self.ids[path]}.part")

    def _owner(self, path: Path) -> str:
        """Run and process that a slide at work belongs to."""
        try:
            return (self._part(path) / "owner").read_text()
        except FileNotFoundError:
            return ""

    def _do(self, path: Path) -> None:
        began, final = time.monotonic(), self.folder(path)
        part = self._part(path)
        if self._owner(path).startswith(self._token):
            self.fail(path, _DEADLY)
            return
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        (part / "owner").write_text(f"{self._token} {os.getpid()}")
        self.note("begun", path)
        source = state_of(path)
        try:
            row = self.work(path, part)
        except Exception as error:
            if isinstance(error, OSError) and error.errno in _NO_ROOM:
                raise  # the next slide would fail alike
            if not isinstance(error, UserError):
                self.note("traceback", path, text=traceback.format_exc())
            self.fail(path, failure_of(path, self.verb, error).reason)
            shutil.rmtree(part, ignore_errors=True)
            return
        with replacing(part / "row.json") as file:
            file.write(msgspec.json.encode(Finished(final.name, str(path), row, source)))
        (part / "owner").unlink()
        shutil.rmtree(final, ignore_errors=True)
        part.rename(final)
        sync_folder(final.parent)
        self.note("done", path, seconds=round(time.monotonic() - began, 3))


class JobSettings(msgspec.Struct, frozen=True):
    """How a job runs.

    Attributes:
        settings_hash: hash of all that decides the result.
        workers: processes at once.
        retry: whether slides that failed earlier are tried again.
        merge: joins the results into files of the job's folder once all slides are settled; None for nothing.
    """

    settings_hash: str
    workers: int = 1
    retry: bool = False
    merge: Callable[[JobResult, Path], None] | None = None


def run_job(
    paths: Sequence[Path], out: Path, verb: str, work: Work, how: JobSettings, listener: Listener
) -> JobResult:
    """Do the same work on many slides; goes on from where an earlier or another process is.

    Returns when every slide is settled, also those that other processes are at.

    Args:
        paths: slides, in the order of the result.
        out: folder of the job.
        verb: what is done, e.g. `tiles`.
        work: does one slide.
        how: processes, and what comes of failed slides.
        listener: is told how it goes.

    Raises:
        ConfigError: the folder holds the result of another command or of other settings.
        UserError: the folder cannot be written.
    """
    job = Job(out, paths, verb, work)
    with mending(out):
        out.mkdir(parents=True, exist_ok=True)
        with Claims(out / "claims.lock") as claims:
            job.begin(how.settings_hash, claims, retry=how.retry)
            _work_off(job, claims, how.workers, listener)
            result = _result(job)
            with claims.holding("merge", wait=True):
                _finish(job, result, how.merge)
    return result


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def failure_of(path: Path, stage: str, error: Exception) -> Failure:
    """What is told of a slide that raised `error`."""
    known = isinstance(error, UserError)
    return Failure(str(path), stage, str(error) if known else f"{type(error).__name__}: {error}")


def slide_id(path: Path) -> str:
    """The name of a slide in a job: what its file is called, and a hash of where it lies.

    Example:
        >>> slide_id(Path("/data/a b.svs"))
        'a-b-ab251cd3'
    """
    where = digest(str(path.absolute()))[:8]
    stem = re.sub(r"[^\w.-]+", "-", path.stem).strip("-.").encode()[:80].decode(errors="ignore")
    return f"{stem or 'slide'}-{where}"


def state_of(path: Path) -> str:
    """Lengths and times of change of a slide's files: tells that they changed; "" where there is none."""
    try:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        stats = [file.stat() for file in files]
    except OSError:
        return ""
    return digest([[stat.st_size, stat.st_mtime_ns] for stat in stats])


def _work_off(job: Job, claims: Claims, workers: int, listener: Listener) -> None:
    """Until every slide is settled: here, by a crew, or by another command."""
    total = len(job.ids)
    if workers == 1:
        for done, path in enumerate(job.work_off(claims), start=1):
            listener.progressed(done, total, path.name)
        return
    left = [path for path in job.ids if job.settled(path) is None]
    crew, lost = Crew(_crew_member, (job,), min(workers, len(left))), 0
    try:
        while left:
            for pid in crew.look():
                lost += not job.bury(claims, pid)
            if lost > workers:
                raise UserError("the processes that should do the work end at once; try --workers 1")
            settled = [path for path in left if job.settled(path) is not None]
            left = [path for path in left if path not in settled]
            listener.progressed(total - len(left), total, settled[-1].name if settled else "")
            time.sleep(_SECONDS_BETWEEN_LOOKS if left else 0)
    finally:
        crew.end()


def _crew_member(job: Job) -> None:
    with Claims(job.out / "claims.lock") as claims:
        for _ in job.work_off(claims):
            pass


def _result(job: Job) -> JobResult:
    finished, failures = [], []
    for path in job.ids:
        found = job.settled(path)
        if isinstance(found, Finished):
            finished.append((found, job.folder(path)))
        else:
            failures.append(found or Failure(str(path), job.verb, "changed while the job ran; run it again"))
    return JobResult(finished, failures)


def _finish(job: Job, result: JobResult, merge: Callable[[JobResult, Path], None] | None) -> None:
    """Join the results and write the manifest, unless another process has done just that."""
    rows = [{"id": done.id, "path": done.path, **done.row} for done, _ in result.finished]
    failed = msgspec.to_builtins(result.failures)
    tree = {"format": FORMAT, "version": VERSION, "verb": job.verb, "finished": rows, "failed": failed}
    manifest = msgspec.json.format(msgspec.json.encode(tree, order="sorted"), indent=1) + b"\n"
    path = job.out / "manifest.json"
    if path.is_file() and path.read_bytes() == manifest:
        return
    path.unlink(missing_ok=True)
    if merge is not None:
        merge(result, job.out)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    table = csv.DictWriter(text, columns, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    with replacing(job.out / "summary.csv") as file:
        file.write(text.getvalue().encode())
    with replacing(path) as file:
        file.write(manifest)


def _check_head(path: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    if (found.get("format"), found.get("version")) != (FORMAT, VERSION):
        raise FormatVersionError(
            f"{path} is of format {found.get('format')!r}, version {found.get('version')}; "
            f"expected {FORMAT!r}, version {VERSION}: use the release that wrote it"
        )
    if found != wanted:
        raise ConfigError(
            f"{path.parent} holds the result of `{found['verb']}` with other settings; "
            "give another --out, or the settings as they were"
        )
