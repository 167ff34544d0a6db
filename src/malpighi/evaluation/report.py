"""The report: one HTML file that needs nothing else, works offline, in light and dark and on paper.

Model output is hostile text. The template escapes everything, carries no script, and its content security
policy forbids scripts and any request.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from malpighi.durable import mending, replacing
from malpighi.evaluation.cases import Case
from malpighi.evaluation.charts import gain_bar, heat_map, line_chart
from malpighi.evaluation.metrics import Confusion
from malpighi.evaluation.overview_charts import forest, radar, rank_plot, reliability_chart
from malpighi.evaluation.statistics import Estimate
from malpighi.evaluation.tables import ExamRow, Results, metric_label, pairs_of
from malpighi.records import Failure

NOTICE = "Research use only. Not a medical device."
FAILURES_SHOWN = 200
_COLOURS = 8


@dataclass(frozen=True)
class DatasetRow:
    """One data set in the report.

    Attributes:
        name: its name.
        counts: samples per split, e.g. `{"train": 120, "test": 40}`.
        licence: SPDX name or words.
        split_rule: how groups were dealt to splits.
        traps: known problems of the data, one sentence each.
        failed: items that could not be used.
    """

    name: str
    counts: Mapping[str, int]
    licence: str
    split_rule: str
    traps: Sequence[str] = ()
    failed: int = 0


@dataclass(frozen=True)
class Panel:
    """A table of its own section.

    Attributes:
        name: its anchor, e.g. `leakage`.
        title: its heading.
        note: a sentence on how to read it.
        rows: column -> value; numbers are set to three decimals.
        warnings: what a reader must not miss.
    """

    name: str
    title: str
    note: str = ""
    rows: Sequence[Mapping[str, object]] = ()
    warnings: Sequence[str] = ()

    @property
    def columns(self) -> list[str]:
        """Names of the columns, in the order they are met."""
        return list(dict.fromkeys(column for row in self.rows for column in row))

    @property
    def numbers(self) -> set[str]:
        """Columns that hold numbers alone."""
        found = {column: [row[column] for row in self.rows if column in row] for column in self.columns}
        return {name for name, values in found.items() if all(map(_is_number, values))}


@dataclass(frozen=True)
class ReportInput:
    """What the report shows; empty parts are left out of the page.

    Attributes:
        title: one line.
        summary: a sentence or two below it.
        plan: the stages, one mapping of column to text each, same columns in all.
        datasets: what was learnt from and asked.
        results: tables and comparisons.
        panels: further tables: leakage, controls, published numbers beside these.
        curves: stage -> logged rows such as `{"step": 10, "loss": 0.7, "reward": 0.4}`.
        confusions: (exam, model) -> matrix, in the order shown.
        cases: samples with their answers; each exam shows its own, errors of the last model first.
        failures: items set aside, of data and of examination.
        environment: name -> version or value.
    """

    title: str
    results: Results
    summary: str = ""
    plan: Sequence[Mapping[str, Any]] = ()
    datasets: Sequence[DatasetRow] = ()
    panels: Sequence[Panel] = ()
    curves: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    confusions: Mapping[tuple[str, str], Confusion] = field(default_factory=dict)
    cases: Sequence[Case] = ()
    failures: Sequence[Failure] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


class Task(NamedTuple):
    """The page of one exam.

    Attributes:
        exam: its name.
        anchor: its place on the page.
        kind: of its questions.
        rows: one per model.
        metrics: names of the metric columns.
        forest: paired differences in this exam; empty for none.
        maps: (model, confusion matrix).
        calibrations: one drawing per model whose probabilities are known.
        cases: samples, errors first.
        errors: how many of the cases the last model did not answer right.
    """

    exam: str
    anchor: str
    kind: str
    rows: list[ExamRow]
    metrics: list[str]
    forest: Markup
    maps: list[tuple[str, Markup]]
    calibrations: list[Markup]
    cases: list[Case]
    errors: int


def write_report(report: ReportInput, path: Path) -> None:
    """Write the page; a reader sees the old one or the whole new one.

    Raises:
        UserError: the folder cannot be written.
    """
    with mending(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(render(report).encode())


def render(report: ReportInput) -> str:
    """The page as text."""
    source = resources.files("malpighi.evaluation").joinpath("report.html.j2").read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(num=_num, span=_span, signed=_signed, p=_p, shown=_shown, label=metric_label)
    styles = styles_of(report.results.models)
    found = {(row.exam, row.model): row for row in report.results.rows}
    reach = max((_reach(row.difference.estimate) for row in report.results.comparisons), default=0.0)
    return environment.from_string(source).render(
        report=report,
        notice=NOTICE,
        styles=styles,
        exams=list(dict.fromkeys(row.exam for row in report.results.rows)),
        found=found,
        tasks=_tasks(report, styles),
        ranks=rank_plot(report.results.friedman, styles) if report.results.friedman else None,
        radars=_radars(report.results, styles),
        charts=_charts(report.curves, styles),
        pairs=pairs_of(report.results.comparisons),
        overall=[row for row in report.results.comparisons if row.scope == "overall"],
        gain_bar=lambda estimate: gain_bar(estimate, reach),
        failures_shown=FAILURES_SHOWN,
    )


def styles_of(models: Sequence[str]) -> dict[str, str]:
    """CSS class of each model's colour and dash: the same everywhere on the page.

    Example:
        >>> styles_of(["untrained", "supervised"])
        {'untrained': 's0', 'supervised': 's1'}
    """
    return {model: f"s{place % _COLOURS}" for place, model in enumerate(models)}


def _tasks(report: ReportInput, styles: Mapping[str, str]) -> list[Task]:
    exams: dict[str, list[ExamRow]] = {}
    for row in report.results.rows:
        exams.setdefault(row.exam, []).append(row)
    return [_task(report, styles, number, rows) for number, rows in enumerate(exams.values(), 1)]


def _task(report: ReportInput, styles: Mapping[str, str], number: int, rows: list[ExamRow]) -> Task:
    exam, last = rows[0].exam, report.results.models[-1]
    compared = [row for row in report.results.comparisons if (row.scope, row.name) == ("exam", exam)]
    matrices = ((model, found) for (where, model), found in report.confusions.items() if where == exam)
    cases = sorted((case for case in report.cases if case.exam == exam), key=lambda c: not c.missed_by(last))
    return Task(
        exam=exam,
        anchor=f"task-{number}",
        kind=str(rows[0].task),
        rows=rows,
        metrics=list(dict.fromkeys(name for row in rows for name in row.metrics)),
        forest=forest(compared),
        maps=[(model, heat_map(matrix)) for model, matrix in matrices],
        calibrations=[
            reliability_chart(row.calibration, row.model, styles[row.model])
            for row in rows
            if row.calibration
        ],
        cases=cases,
        errors=sum(case.missed_by(last) for case in cases),
    )


def _radars(results: Results, styles: Mapping[str, str]) -> list[Markup]:
    """One per task kind, over the exams that all models took."""
    scores: dict[str, dict[str, dict[str, float]]] = {}
    for row in results.rows:
        scores.setdefault(str(row.task), {}).setdefault(row.exam, {})[row.model] = row.score.value
    drawn = []
    for kind, exams in scores.items():
        shared = {exam: found for exam, found in exams.items() if len(found) == len(results.models)}
        series = {model: [found[model] for found in shared.values()] for model in results.models}
        drawn.append(radar(kind, list(shared), series, styles))
    return [chart for chart in drawn if chart]


def _charts(
    curves: Mapping[str, Sequence[Mapping[str, Any]]], styles: Mapping[str, str]
) -> list[tuple[str, list[Markup]]]:
    found = []
    for place, (stage, rows) in enumerate(curves.items()):
        names = dict.fromkeys(name for row in rows for name in row if name != "step")
        style = styles.get(stage, f"s{place % _COLOURS}")
        charts = [line_chart(_points(rows, name), name, style) for name in names]
        if any(charts):
            found.append((stage, [chart for chart in charts if chart]))
    return found


def _points(rows: Sequence[Mapping[str, Any]], name: str) -> list[tuple[float, float]]:
    return [
        (float(row.get("step", place)), float(row[name]))
        for place, row in enumerate(rows)
        if isinstance(row.get(name), (int, float))
    ]


def _reach(gain: Estimate) -> float:
    return max(abs(end) for end in (gain.value, gain.low, gain.high) if end is not None)


def _num(value: float) -> str:
    return f"{value:.3f}"


def _span(estimate: Estimate) -> str:
    return "" if estimate.low is None else f"{estimate.low:.3f}–{estimate.high:.3f}"


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _shown(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}".replace("-", "−") if isinstance(value, float) else str(value)
