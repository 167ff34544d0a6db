"""A paper's tables, what came of recomputing them, and a run beside them, for the terminal."""

from collections.abc import Collection, Iterable, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from malpighi.evaluation.published.beside import Beside, BesideRow, Published
from malpighi.evaluation.published.check import CheckReport
from malpighi.evaluation.published.contradictions import contradictions
from malpighi.evaluation.published.rows import Row, by_column, paper
from malpighi.evaluation.tables import metric_label

_MOST_METHODS = 8  # more than these stand below each other, not beside each other
_MOST_NAMES = 12
_METRICS = {
    "accuracy": "accuracy",
    "macro_f1": "F1",
    "bleu4": "BLEU-4",
    "bertscore": "BERTScore",
    "dice": "Dice",
}


def tables(name: str) -> Group:
    """The tables of a paper as it prints them; a figure that another contradicts carries an exclamation mark.

    Args:
        name: one of `rows.NAMES`.

    Raises:
        ConfigError: no such paper.
    """
    source = paper(name)
    doubted = {
        (fault.table, fault.column, method)
        for fault in contradictions(source)
        if fault.kind != "second_best_mark"
        for method in fault.method.split(", ")
    }
    numbers = dict.fromkeys(row.table for row in source.rows)
    parts: list[RenderableType] = [Text(source.title, style="bold")]
    parts += [_printed([row for row in source.rows if row.table == number], doubted) for number in numbers]
    return Group(*parts, Text("! another figure contradicts this one; see --check", style="dim"))


def check_tables(report: CheckReport) -> Group:
    """What came of recomputing a paper: counts, numbers of samples, ranks, claims, contradictions."""
    parts: list[RenderableType] = [Text(f"{report.title}: {report.rows} figures", style="bold")]
    tallies = ((t.subject, t.rule, f"{t.holds} of {t.of}") for t in report.tallies)
    parts.append(_table("Recomputed", ("figures", "held against", "hold"), tallies, right={"hold"}))
    if report.samples:
        shown = (
            (s.column, _count(s.stated), _sizes(s.implied), "" if s.agrees else "no") for s in report.samples
        )
        parts.append(
            _table(
                "Numbers of samples",
                ("data", "stated", "implied by the figures", "agree"),
                shown,
                right={"stated"},
            )
        )
    if report.ranks:
        parts.append(_ranks(report))
    claims = ((c.section, c.subject, c.printed, c.found, "" if c.holds else "no") for c in report.claims)
    parts.append(
        _table("Figures of the text", ("section", "of", "printed", "by the tables", "holds"), claims)
    )
    faults = (
        (f"{f.table} {f.column}", f.method, f.printed + (f"\nfound {f.found}" if f.found else ""), f.reason)
        for f in report.contradictions
    )
    title = f"{len(report.contradictions)} rows contradict others"
    parts.append(_table(title, ("table", "model", "printed", "why it cannot be"), faults))
    return Group(*parts)


def beside_tables(found: Beside) -> Group:
    """A run beside a paper: our figure, the paper's own model, its best other model, and what differs.

    The figures of all the paper's models are in the rows themselves.
    """
    notes: dict[str, int] = {}
    for row in found.rows:
        for words in row.protocol:
            notes.setdefault(words, len(notes) + 1)
    table = _frame(
        f"This run beside {found.title}", ("exam", "ours", found.system, "ours less", "best other", "notes")
    )
    for row in found.rows:
        table.add_row(*_beside_cells(row, found.system, notes))
    parts: list[RenderableType] = [table]
    parts += [Text(f"{number:>3}  {words}", style="dim") for words, number in notes.items()]
    parts.append(
        Text("! contradicted by another figure of the paper. Differences are no tests: other samples.")
    )
    if found.absent:
        shown = ", ".join(found.absent[:_MOST_NAMES]) + (" ..." if len(found.absent) > _MOST_NAMES else "")
        parts.append(Text(f"{len(found.absent)} exams published, not in this run: {shown}", style="dim"))
    if found.unmatched:
        parts.append(Text(f"In this run, not published: {', '.join(found.unmatched)}", style="dim"))
    return Group(*parts)


def _beside_cells(row: BesideRow, system: str, notes: dict[str, int]) -> tuple[Text, ...]:
    own = next((each for each in row.published if each.method == system), None)
    others = [each for each in row.published if each is not own]
    best = max(others, key=lambda each: each.value, default=None)
    exam = Text(row.exam).append(f"\n{row.ours_is}, {row.model}", style="dim")
    ours = Text(f"{row.ours.value:.3f}", style="bold").append(
        _ends(row.ours.low, row.ours.high), style="not bold dim"
    )
    ours.append(f"\nn {row.n:,}", style="not bold dim")
    gap = Text("" if own is None else f"{own.difference:+.3f}")
    if own is not None and own.apart:
        gap.append("\nintervals apart", style="dim")
    marks = ", ".join(str(notes[words]) for words in row.protocol)
    return exam, ours, _figure(own), gap, _figure(best, name=True), Text(marks, style="dim")


def _figure(found: Published | None, *, name: bool = False) -> Text:
    if found is None:
        return Text("–", style="dim")
    text = Text(f"{found.value:.3f}{'!' if found.doubts else ''}").append(
        _ends(found.low, found.high), style="dim"
    )
    return text.append(f"\n{found.method}", style="dim") if name else text


def _printed(rows: Sequence[Row], doubted: set[tuple[int, str, str]]) -> Table:
    methods = list(dict.fromkeys(row.method for row in rows))
    columns = {
        _heading(column[0]): {row.method: _cell(row, doubted) for row in column}
        for _, column in by_column(list(rows))
    }
    title = f"Table {rows[0].table}: {rows[0].group.replace('_', ' ')}"
    if len(methods) > _MOST_METHODS:
        lines = ((method, *(cells.get(method, "") for cells in columns.values())) for method in methods)
        return _table(title, ("model", *columns), lines, right=set(columns))
    lines = ((name, *(cells.get(method, "") for method in methods)) for name, cells in columns.items())
    return _table(title, ("data", *methods), lines, right=set(methods))


def _heading(row: Row) -> str:
    return f"{row.column} {_METRICS.get(row.metric, metric_label(row.metric))}"


def _cell(row: Row, doubted: set[tuple[int, str, str]]) -> str:
    mark = "!" if (row.table, row.column, row.method) in doubted else ""
    value, _, ends = row.printed.partition(" ")
    return f"{value}{mark}" + (f"\n{ends}" if ends else "")


def _ranks(report: CheckReport) -> Table:
    models = list(dict.fromkeys(model for each in report.ranks for model in each.ranks))
    lines = (
        (
            each.rule,
            *(f"{each.ranks[m]:.3f}\n{each.firsts[m]} first" if m in each.ranks else "" for m in models),
        )
        for each in report.ranks
    )
    return _table(
        f"Mean ranks over {report.ranks[0].tasks} tasks", ("rule", *models), lines, right=set(models)
    )


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"


def _sizes(fits: Sequence[int]) -> str:
    return " or ".join(f"{n:,}" for n in fits)


def _ends(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"\n{low:.3f}–{high:.3f}"


def _table(
    title: str, columns: Sequence[str], lines: Iterable[Sequence[str]], right: Collection[str] = ()
) -> Table:
    table = _frame(title, columns, right)
    for line in lines:
        table.add_row(*(Text(cell) for cell in line))
    return table


def _frame(title: str, columns: Sequence[str], right: Collection[str] = ()) -> Table:
    table = Table(title=Text(title), box=box.SIMPLE_HEAD, title_justify="left", padding=(0, 1))
    for name in columns:
        table.add_column(Text(name), justify="right" if name in right else "left", overflow="fold")
    return table
