"""What the terminal shows: progress of a run, and tables."""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from inspect import Parameter, Signature
from typing import Any, Self, get_type_hints

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from malpighi.records import Failure

NOTICE = "Research use only. Not a medical device."

EXIT_FAILED_ITEMS = 3
"""Exit status of a command that finished with failed items."""

SHOWN_FAILURES = 20
_SECONDS_BETWEEN_LINES = 15.0


class ConsoleListener:
    """Shows a run: one bar per stage with time left, or a line now and then where there is no terminal.

    Args:
        console: where to write.
        stages: names of all stages, in order.
    """

    def __init__(self, console: Console, stages: Sequence[str]) -> None:
        self.console = console
        self.stages = list(stages)
        self._width = max(len(name) for name in self.stages)
        self._stage = ""
        self._told = 0.0
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.fields[label]}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.description}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=None, label="", visible=False)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def started(self, stage: str, *, resumed: bool) -> None:
        """A stage begins, or goes on."""
        self._stage, self._told = stage, time.monotonic()
        text = "goes on from where it was" if resumed else ""
        self._bar.reset(self._task, total=None, visible=True, label=self._label(stage), description=text)
        if not self.console.is_terminal:
            self._line(f"{self._label(stage)} ... {text}")

    def progressed(self, done: int, total: int, text: str) -> None:
        """Some of the stage's work is done."""
        self._bar.update(self._task, completed=done, total=total, description=text)
        if not self.console.is_terminal and time.monotonic() - self._told > _SECONDS_BETWEEN_LINES:
            self._told = time.monotonic()
            self._line(f"{self._label(self._stage)} {done}/{total} {text}")

    def finished(self, stage: str, seconds: float, *, skipped: bool) -> None:
        """A stage is finished, or was already."""
        self._bar.update(self._task, visible=False)
        what = "kept, was finished" if skipped else duration(seconds)
        self._line(f"{self._label(stage)} [green]done[/] [dim]{what}[/]")

    def _label(self, stage: str) -> str:
        place = self.stages.index(stage) + 1
        return f"[bold]{place}/{len(self.stages)} {stage:<{self._width}}[/]"

    def _line(self, text: str) -> None:
        self.console.print(text, highlight=False)


def log_width(console: Console) -> Console:
    """The console, wide where there is no terminal: a log file has no 80 columns to keep to."""
    if not console.is_terminal:
        console.width = max(console.width, 120)
    return console


console = log_width(Console())
"""Where results go."""

errors = Console(stderr=True)
"""Where progress and errors go when results are JSON."""


def duration(seconds: float) -> str:
    """Seconds in the unit a person would use.

    Example:
        >>> duration(4.2), duration(75), duration(7320)
        ('4 s', '1 min 15 s', '2 h 2 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def table(title: str, rows: Iterable[Mapping[str, object]], right: Sequence[str] = ()) -> Table:
    """Rows as a table; the columns are those of the first row, `right` names the ones to align right."""
    rows = list(rows)
    made = Table(
        title=title, title_justify="left", title_style="bold", header_style="dim", box=None, pad_edge=False
    )
    for column in rows[0] if rows else ():
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*(Text(str(value)) for value in row.values()))
    return made


def failures_table(failures: Sequence[Failure], listed: str = "the report") -> Table:
    """The first failed items by id with the reason; the title counts all and says where all are listed."""
    shown = [{"item": f.id, "stage": f.stage, "reason": f.reason} for f in failures[:SHOWN_FAILURES]]
    more = f"; the first {SHOWN_FAILURES}, all are in {listed}" if len(failures) > SHOWN_FAILURES else ""
    return table(f"{len(failures)} items failed and were set aside{more}", shown)


def print_json(value: Mapping[str, Any]) -> None:
    """One JSON object on a line of its own: what `--json` gives."""
    typer.echo(json.dumps(value))


def escaped(text: str) -> str:
    """Words that are no markup of ours, e.g. a model's."""
    return text.replace("[", r"\[")


def told(value: object) -> str:
    """A value of a table: numbers with three decimals, nothing for none."""
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else str(value)


@contextmanager
def progress_bar(console: Console, text: str) -> Iterator[Callable[[float, float | None], None]]:
    """A bar while something is at work; called with (done, total or None where unknown)."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(text)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def command(app: typer.Typer) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Enters a function as a command whose options are the fields of its arguments' types.

    The arguments are NamedTuples, so that commands share groups of options.
    """

    def enter(function: Callable[..., None]) -> Callable[..., None]:
        kinds = {name: kind for name, kind in get_type_hints(function).items() if name != "return"}
        taken = []
        for kind in kinds.values():
            hints = get_type_hints(kind, include_extras=True)
            for field in kind._fields:
                default = kind._field_defaults.get(field, Parameter.empty)
                taken.append(
                    Parameter(field, Parameter.KEYWORD_ONLY, default=default, annotation=hints[field])
                )

        def run(**given: Any) -> None:
            function(**{name: kind(**{f: given[f] for f in kind._fields}) for name, kind in kinds.items()})

        run.__name__, run.__doc__ = function.__name__, function.__doc__
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in taken}
        run.__signature__ = Signature(taken)  # type: ignore[attr-defined]
        app.command()(run)
        return function

    return enter
