"""A file of samples and a file of completions -> a file of grades: what `malpighi grade` does.

    samples.jsonl      {"id", "task", "answer", ...}                      see rows.py
    completions.jsonl  {"id", "text"}                                     any number per sample
    grades.jsonl       {"id", "score", "status", "parsed", "parts"}       one per completion, in their order

A line that cannot be used is recorded and the rest goes on. A sample without a completion counts as wrong: it
gets a grade of 0 (`no_answer`) after the others, and is recorded too.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from malpighi.durable import mending, replacing
from malpighi.errors import ConfigError, DataError
from malpighi.grading.grade import Reading, grade
from malpighi.grading.rows import RowSample, mask_at, read_completion, read_sample
from malpighi.records import Failure, Grade, Status, TaskKind, to_json

STAGE = "grade"
_BOM = b"\xef\xbb\xbf"


class GradeRow(msgspec.Struct, frozen=True):
    """One line of a file of grades."""

    id: str
    score: float
    status: Status
    parsed: Any
    parts: dict[str, float]


class TaskSummary(msgspec.Struct, frozen=True):
    """All grades of one kind of task.

    Attributes:
        task: the kind.
        grades: how many.
        score: their mean score.
        parts: mean of each part over the grades that have it.
        statuses: how many answers were read, or why not.
    """

    task: TaskKind
    grades: int
    score: float
    parts: dict[str, float]
    statuses: dict[str, int]


class Graded(msgspec.Struct, frozen=True):
    """What became of two files.

    Attributes:
        tasks: one summary per kind of task that occurs.
        failures: lines that could not be used, and samples without a completion.
        failed: path of the file that lists the failures; None where there are none.
    """

    tasks: tuple[TaskSummary, ...]
    failures: tuple[Failure, ...]
    failed: str | None


def grade_files(samples: Path, completions: Path, out: Path, reading: Reading | None = None) -> Graded:
    """Grade every completion; failures are listed beside `out`, in `<out>.failures.jsonl`.

    Args:
        samples: JSON lines, one per sample.
        completions: JSON lines, any number per sample.
        out: where the grades go; appears whole or not at all.
        reading: `mode` and `pack`; what a row says of its image is added.

    Raises:
        ConfigError: an input cannot be read, or would be overwritten.
        UserError: `out` cannot be written.
    """
    for path in (samples, completions):
        if path.resolve() == out.resolve():
            raise ConfigError(f"{out} is both read and written; give another name for the grades")
    work = _Grading(reading or Reading())
    work.load(samples)
    with _opened(completions) as lines, mending(out.parent), replacing(out) as file:
        for row in work.rows(completions.name, lines):
            file.write(to_json(row) + b"\n")
    failed = out.with_name(out.name + ".failures.jsonl")
    with mending(out.parent):
        failed.unlink(missing_ok=True)
        if work.failures:
            with replacing(failed) as file:
                file.writelines(to_json(failure) + b"\n" for failure in work.failures)
    return Graded(work.summaries(), tuple(work.failures), str(failed) if work.failures else None)


class _Grading:
    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self.samples: dict[str, RowSample] = {}
        self.failures: list[Failure] = []
        self._statuses: dict[TaskKind, Counter[str]] = {}
        self._sums: dict[TaskKind, dict[str, float]] = {}
        self._counts: dict[TaskKind, Counter[str]] = {}

    def load(self, path: Path) -> None:
        with _opened(path) as lines:
            for number, line in _numbered(lines):
                try:
                    row = read_sample(line, path.parent)
                    if row.sample.id in self.samples:
                        raise DataError(f"the id '{row.sample.id}' was given before; ids are unique")
                    self.samples[row.sample.id] = row
                except DataError as error:
                    self._fail(f"{path.name}:{number}", str(error))
        if not self.samples:
            raise ConfigError(f"{path} holds no sample that can be graded{self._first_failure()}")

    def rows(self, name: str, lines: BinaryIO) -> Iterator[GradeRow]:
        answered = set()
        for number, line in _numbered(lines):
            try:
                completion = read_completion(line)
                sample = self.samples.get(str(completion.id))
                if sample is None:
                    raise DataError(f"no usable sample has the id '{completion.id}'")
                row = self._graded(sample, completion.text, truncated=completion.truncated)
            except DataError as error:
                self._fail(f"{name}:{number}", str(error))
                continue
            answered.add(row.id)
            yield row
        for key, sample in self.samples.items():
            if key not in answered:
                self._fail(key, f"no usable completion in {name}; counted as wrong")
                yield self._graded(sample, "", truncated=False)

    def summaries(self) -> tuple[TaskSummary, ...]:
        return tuple(
            TaskSummary(
                task=task,
                grades=statuses.total(),
                score=self._sums[task]["task"] / statuses.total(),
                parts={part: value / self._counts[task][part] for part, value in self._sums[task].items()},
                statuses=dict(statuses),
            )
            for task, statuses in sorted(self._statuses.items())
        )

    def _graded(self, row: RowSample, text: str, *, truncated: bool) -> GradeRow:
        reading = replace(
            self.reading,
            view=row.view,
            frame=row.frame,
            truncated=truncated,
            load_mask=mask_at,
        )
        found = grade(row.sample, text, reading)
        self._count(row.sample.task, found)
        return GradeRow(row.sample.id, found.score, found.status, found.parsed, found.parts)

    def _count(self, task: TaskKind, found: Grade) -> None:
        self._statuses.setdefault(task, Counter())[str(found.status)] += 1
        self._counts.setdefault(task, Counter()).update(found.parts.keys())
        sums = self._sums.setdefault(task, {})
        for part, value in found.parts.items():
            sums[part] = sums.get(part, 0.0) + value

    def _fail(self, item: str, reason: str) -> None:
        self.failures.append(Failure(item, STAGE, reason))

    def _first_failure(self) -> str:
        return f"; the first: {self.failures[0].id}: {self.failures[0].reason}" if self.failures else ""


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from None


def _numbered(lines: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """(number, line) of every line that is not blank; numbers count from 1."""
    for number, line in enumerate(lines, start=1):
        content = line.removeprefix(_BOM) if number == 1 else line
        if content.strip():
            yield number, content
