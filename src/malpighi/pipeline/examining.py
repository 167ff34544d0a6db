"""Examine any model on any data: `malpighi evaluate`.

    exam.json                 who was examined, on what, how; one entry per model
    data/                     the corpus, where data sets were read
    predictions/<model>.jsonl one row per sample; of controls `<model>@blank.jsonl` and so on
    answers.sqlite            the request cache
    results.json, controls.json, failures.jsonl, report.html

Several models can be examined in one folder, one after the other; the report then sets them side by side.
Several processes, on several machines too, can be given the same command: they share the work.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from malpighi.claims import Claims
from malpighi.errors import ConfigError
from malpighi.evaluation.controls import Controls
from malpighi.evaluation.evaluate import Outcome
from malpighi.evaluation.report import Panel
from malpighi.evaluation.shards import evaluate_shared
from malpighi.evaluation.tables import Results
from malpighi.inference.openai_engine import Spent
from malpighi.inference.request_cache import CacheReport
from malpighi.pipeline.ahead import end, start
from malpighi.pipeline.context import Tell, unheard
from malpighi.pipeline.exam_plan import cost_of
from malpighi.pipeline.exam_report import write_exam
from malpighi.pipeline.exam_room import Room, record
from malpighi.pipeline.exam_settings import Endpoint, ExamSettings
from malpighi.pipeline.examinee import Asking
from malpighi.pipeline.material import Material
from malpighi.records import Failure
from malpighi.training.runtime import settle


@dataclass(frozen=True)
class ExamRun:
    """What an examination left behind.

    Attributes:
        model: the name in rows and tables.
        what: who was examined, in words.
        predictions: rows by name, controls included: file paths.
        results: the tables, of every model in the folder.
        controls: what the controls say; None where none were asked.
        panels: further tables: controls, leakage, tasks of a suite that could not be asked.
        failures: data that could not be used and samples that could not be asked or answered.
        asked: rows that this process has written.
        kept: rows that were there, or that other processes have written.
        spent: what a server was asked by this process.
        cost: of that, in the unit of the prices.
        cached: what the cache did; None without one.
        report: path of the page.
    """

    model: str
    what: str
    predictions: dict[str, Path]
    results: Results
    controls: Controls | None
    panels: list[Panel]
    failures: list[Failure]
    asked: int
    kept: int
    spent: Spent
    cost: float
    cached: CacheReport | None
    report: Path

    @property
    def exit_status(self) -> int:
        """3 where items failed, else 0."""
        return 3 if self.failures else 0


def examine(
    model: str,
    data: str | Path | Material,
    out: Path,
    settings: ExamSettings | None = None,
    tell: Tell = unheard,
) -> ExamRun:
    """Let a model take exams, and write rows, tables and the report; what is done already is kept.

    Args:
        model: a folder of weights, `https://host/v1#model-name`, or `scripted:WORDS`; see `open_examinee`.
        data: a data set, a folder of them, a corpus, `phantom`, or a `Material`; see `open_material`.
        out: the run folder.
        settings: what is asked and how.
        tell: progress: (rows done, rows in all, name with time left and cost so far).

    Raises:
        UserError: model or data cannot be used, the server cannot be reached or refuses the key, or the
            folder was begun otherwise.

    Returns:
        The run; `exit_status` is 3 where items failed.
    """
    settings = settings or ExamSettings()
    room = Room.open(model, data, out, settings, tell)
    asking = room.asking()
    if settings.workers > 1 and isinstance(data, Material):
        raise ConfigError("workers share a corpus on disk; samples in memory are asked by one process")
    room.check_leaks()
    record(room)
    others = [start(_help, model, data, out, settings) for _ in range(1, settings.workers)]
    try:
        outcomes = _ask(room, asking, tell)
    finally:
        end(others)
    failures = [*room.material.failures, *(f for outcome in outcomes.values() for f in outcome.failures)]
    with Claims(out / "report.claims") as claims, claims.holding("report", wait=True):
        written = write_exam(room.page(), failures)
    return ExamRun(
        model=room.examinee.name,
        what=room.examinee.what,
        predictions={name: out / "predictions" / f"{name}.jsonl" for name in outcomes},
        results=written.results,
        controls=written.controls,
        panels=written.panels,
        failures=failures,
        asked=sum(outcome.asked for outcome in outcomes.values()),
        kept=sum(outcome.kept for outcome in outcomes.values()),
        spent=asking.spent,
        cost=cost_of(asking.spent, settings.endpoint),
        cached=asking.cached,
        report=written.report,
    )


def _help(model: str, data: str | Path, out: Path, settings: ExamSettings) -> None:
    """What a further process does: it asks, and leaves the rest to the first."""
    room = Room.open(model, data, out, settings, unheard)
    _ask(room, room.asking(), unheard)


def _ask(room: Room, asking: Asking, tell: Tell) -> dict[str, Outcome]:
    if room.examinee.kind in ("trained", "chat"):
        settle(room.settings.threads)
    sheets = room.sheets()
    progress = _Progress(sum(len(sheet.samples) for sheet in sheets), asking, room.settings.endpoint, tell)
    outcomes = {}
    for sheet in sheets:
        outcomes[sheet.name] = evaluate_shared(
            asking,
            sheet.samples,
            sheet.prompt_of,
            room.grade_of(sheet),
            room.path(sheet),
            room.options(sheet),
            progress.of(sheet.name),
        )
        progress.before += len(sheet.samples)
    return outcomes


class _Progress:
    """Says how far the rows are, how long the rest takes at the pace so far, and what it has cost."""

    def __init__(self, total: int, asking: Asking, prices: Endpoint, tell: Tell) -> None:
        self.before = 0
        self._total = total
        self._asking = asking
        self._prices = prices
        self._tell = tell
        self._first: tuple[float, int] | None = None

    def of(self, name: str) -> Callable[[int, int], None]:
        def told(done: int, _: int) -> None:
            now, rows = time.monotonic(), self.before + done
            self._first = self._first or (now, rows)
            self._tell(rows, self._total, f"{name}{self._left(now, rows)}{self._cost()}")

        return told

    def _left(self, now: float, rows: int) -> str:
        began, kept = self._first or (now, rows)
        if rows <= kept:
            return ""
        seconds = (now - began) / (rows - kept) * (self._total - rows)
        return f", {seconds / 60:.0f} min left" if seconds >= 90 else f", {seconds:.0f} s left"

    def _cost(self) -> str:
        cost = cost_of(self._asking.spent, self._prices)
        return f", cost {cost:.2f}" if cost else ""
