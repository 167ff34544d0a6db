"""The predictions file: appended batch by batch, checked and cut back to whole batches when opened again."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, TypeVar

import msgspec

from malpighi.durable import mending, replacing, sync, sync_folder
from malpighi.errors import DataError, UserError
from malpighi.records import Failure, Prediction, from_json, to_json

log = logging.getLogger(__name__)

FORMAT_VERSION = 1

T = TypeVar("T", bound=msgspec.Struct)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What a predictions file was begun with; rows of different settings never share a file.

    Attributes:
        model: model name.
        adapter: LoRA adapter; "" for none.
        fingerprint: hash of the weights; "" where unknown.
        batch_size: prompts per batch.
        max_new_tokens: length limit of a completion, tokens.
        temperature: sampling temperature; 0 is greedy.
        seed: sampling seed.
        samples: SHA-256 over the samples' canonical JSON, in order.
        version: version of this file format.
    """

    model: str
    adapter: str
    fingerprint: str
    batch_size: int
    max_new_tokens: int
    temperature: float
    seed: int
    samples: str
    version: int = FORMAT_VERSION


class _Named(msgspec.Struct):
    """As much of a row as tells whose it is."""

    model: str


class RowFile:
    """An open predictions file with the failures file beside it.

    Attributes:
        predictions: every finished row, in order.
        failures: the failures of those rows.
        failed: path of the failures file.
    """

    def __init__(self, out: Path, predictions: list[Prediction], failures: list[Failure]) -> None:
        self.predictions = predictions
        self.failures = failures
        self.failed = _beside(out, ".failures.jsonl")
        self._rows: BinaryIO = out.open("ab")
        self._failed: BinaryIO = self.failed.open("ab")
        sync_folder(out.parent)

    @classmethod
    def open(
        cls, out: Path, settings: Settings, keys: Sequence[tuple[str, str]], batch_size: int
    ) -> "RowFile":
        """Open `out` for appending; cut a half-written end back to whole batches.

        Args:
            out: the predictions file; made with its folder where absent.
            settings: what the rows are made with.
            keys: (model, sample id) of every row the full file will hold, in order.
            batch_size: rows per batch; the last batch may be shorter.

        Raises:
            UserError: the file is damaged before its end, or its rows are not `keys`, or it was begun with
                other settings.
        """
        with mending(out.parent):
            out.parent.mkdir(parents=True, exist_ok=True)
        lines = _whole_lines(out, keys)
        found = [_decode(line, Prediction, f"{out}, line {n}") for n, line in enumerate(lines, 1)]
        _check_keys(found, keys, out)
        _check_settings(out, settings, begun=bool(found))
        whole = len(found) if len(found) == len(keys) else len(found) // batch_size * batch_size
        _cut(out, sum(len(line) for line in lines[:whole]))
        failures = _keep_failures(_beside(out, ".failures.jsonl"), {row.sample for row in found[:whole]})
        return cls(out, found[:whole], failures)

    def append(self, predictions: Sequence[Prediction], failures: Sequence[Failure]) -> None:
        """Put one batch on disk; failures go first, so a row on disk is never without its reason."""
        with mending(self.failed.parent):
            _write(self._failed, failures)
            lines = _write(self._rows, predictions)
        self.predictions.extend(from_json(line, Prediction) for line in lines)
        self.failures.extend(failures)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._rows.close()
        self._failed.close()


def read_predictions(path: Path) -> list[Prediction]:
    """All rows of a finished predictions file.

    Raises:
        UserError: the file is absent, or a line is not a prediction (the message names the line).
    """
    return list(stream_predictions(path))


def stream_predictions(path: Path) -> Iterator[Prediction]:
    """The rows of a finished predictions file one by one, so that a large file needs no memory.

    Raises:
        UserError: as `read_predictions`.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such predictions file; run the examination that writes it first")
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            yield _decode(line, Prediction, f"{path}, line {number}")


def models_in(path: Path) -> list[str]:
    """The models that a predictions file holds rows of, in the order of their first row.

    Raises:
        UserError: as `read_predictions`.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such predictions file; run the examination that writes it first")
    with path.open("rb") as file:
        lines = (_decode(line, _Named, f"{path}, line {number}") for number, line in enumerate(file, 1))
        return list(dict.fromkeys(line.model for line in lines))


def write_predictions(path: Path, predictions: Iterable[Prediction]) -> None:
    """Write rows at once: to a temporary file, then renamed, so that a reader never sees half of them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace(path, b"".join(to_json(row) + b"\n" for row in predictions))


def rows_in(path: Path) -> int:
    """Number of whole lines of a predictions file; 0 where there is none."""
    try:
        with path.open("rb") as file:
            return sum(line.endswith(b"\n") for line in file)
    except FileNotFoundError:
        return 0


def refuse_others(out: Path, settings: Settings) -> None:
    """Refuse to go on with a file that was begun with other settings; one that is not there is no such file.

    Raises:
        UserError: naming what differs.
    """
    if not rows_in(out):
        return
    path = _beside(out, ".settings.json")
    if path.is_file():
        _refuse_changes(out, _decode(path.read_bytes(), Settings, str(path)), settings)


def gather(parts: Sequence[Path], out: Path) -> None:
    """Put finished predictions files together in one, with their failures, in the order given.

    The rows appear last and at once, so where they are, all of it is. What an earlier file of this name was
    begun with is forgotten.

    Raises:
        UserError: a part is missing, or the folder cannot be written.
    """
    with mending(out.parent):
        _beside(out, ".settings.json").unlink(missing_ok=True)
        for ending in (".failures.jsonl", ""):
            with replacing(_beside(out, ending)) as file:
                for part in parts:
                    file.write(_beside(part, ending).read_bytes())


def _whole_lines(out: Path, keys: Sequence[tuple[str, str]]) -> list[bytes]:
    if not out.exists():
        return []
    lines = out.read_bytes().splitlines(keepends=True)
    if lines and not lines[-1].endswith(b"\n"):
        _refuse_foreign_tail(lines[-1], out, keys[0][0] if keys else "")
        lines.pop()
    return lines


def _refuse_foreign_tail(tail: bytes, out: Path, model: str) -> None:
    # A half line is about to be cut off; be sure that it is one of ours and not a file named by mistake.
    begin = b'{"model":' + msgspec.json.encode(model)
    if tail[: len(begin)] != begin[: len(tail)]:
        raise UserError(
            f"{out} ends in text that is not a prediction of model {model!r}; "
            "it is left as it is: name another file, or delete this one"
        )


def _decode(line: bytes, kind: type[T], where: str) -> T:
    try:
        return from_json(line, kind)
    except DataError as error:
        raise UserError(
            f"{where}: {error}; the file is damaged or is none of ours: restore or delete it, and run again"
        ) from error


def _check_keys(found: Sequence[Prediction], keys: Sequence[tuple[str, str]], out: Path) -> None:
    if len(found) > len(keys):
        raise UserError(
            f"{out} holds {len(found)} rows but {len(keys)} samples are asked; "
            "it belongs to other samples: name another file, or delete this one"
        )
    for number, (row, key) in enumerate(zip(found, keys, strict=False), 1):
        if (row.model, row.sample) != key:
            raise UserError(
                f"{out}, line {number}: found model {row.model!r}, sample {row.sample!r}; "
                f"expected model {key[0]!r}, sample {key[1]!r}. The file belongs to another examination: "
                "name another file, or delete this one"
            )


def _check_settings(out: Path, settings: Settings, *, begun: bool) -> None:
    path = _beside(out, ".settings.json")
    if begun and path.is_file():
        _refuse_changes(out, _decode(path.read_bytes(), Settings, str(path)), settings)
    _replace(path, to_json(settings) + b"\n")


def _refuse_changes(out: Path, before: Settings, settings: Settings) -> None:
    changes = [
        f"{name} was {getattr(before, name)!r}, now {getattr(settings, name)!r}"
        for name in settings.__struct_fields__
        if getattr(before, name) != getattr(settings, name)
    ]
    if changes:
        raise UserError(
            f"{out} was begun with other settings ({'; '.join(changes)}); "
            "name another file, or delete this one"
        )


def _cut(out: Path, size: int) -> None:
    if out.exists() and out.stat().st_size > size:
        log.warning("%s: cut off %d bytes of an unfinished batch", out, out.stat().st_size - size)
        with out.open("r+b") as file:
            file.truncate(size)
            sync(file)


def _keep_failures(path: Path, samples: set[str]) -> list[Failure]:
    if not path.exists():
        return []
    lines = [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    found = [_decode(line, Failure, str(path)) for line in lines]
    failures = [failure for failure in found if failure.id in samples]
    _replace(path, b"".join(to_json(failure) + b"\n" for failure in failures))
    return failures


def _write(file: BinaryIO, records: Sequence[msgspec.Struct]) -> list[bytes]:
    lines = [to_json(record) + b"\n" for record in records]
    if lines:
        file.write(b"".join(lines))
        sync(file)
    return lines


def _replace(path: Path, data: bytes) -> None:
    with replacing(path) as file:
        file.write(data)


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)
