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
class ReportInput:
    """What the report shows; empty parts are left out of the page.

    Attributes:
        title: one line.
        summary: a sentence or two below it.
        plan: the stages, one mapping of column to text each, same columns in all.
        datasets: what was learnt from and asked.
        results: tables and comparisons.
        curves: stage -> logged rows such as `{"step": 10, "loss": 0.7, "reward": 0.4}`.
        confusions: (exam, model) -> matrix, in the order shown.
        cases: the sheet of samples.
        failures: items set aside, of data and of examination.
        environment: name -> version or value.
    """

    title: str
    results: Results
    summary: str = ""
    plan: Sequence[Mapping[str, Any]] = ()
    datasets: Sequence[DatasetRow] = ()
    curves: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    confusions: Mapping[tuple[str, str], Confusion] = field(default_factory=dict)
    cases: Sequence[Case] = ()
    failures: Sequence[Failure] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


class Detail(NamedTuple):
    """The table of one task kind.

    Attributes:
        task: the kind.
        metrics: names of the metric columns.
        rows: its exams and models.
    """

    task: str
    metrics: list[str]
    rows: list[ExamRow]


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
    environment.filters.update(num=_num, span=_span, signed=_signed, p=_p, label=metric_label)
    styles = styles_of(report.results.models)
    found = {(row.exam, row.model): row for row in report.results.rows}
    reach = max((_reach(row.difference.estimate) for row in report.results.comparisons), default=0.0)
    return environment.from_string(source).render(
        report=report,
        notice=NOTICE,
        styles=styles,
        exams=list(dict.fromkeys(row.exam for row in report.results.rows)),
        found=found,
        details=_details(report.results),
        charts=_charts(report.curves, styles),
        heat_maps=[(exam, model, heat_map(matrix)) for (exam, model), matrix in report.confusions.items()],
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


def _details(results: Results) -> list[Detail]:
    details = []
    for task in dict.fromkeys(row.task for row in results.rows):
        rows = [row for row in results.rows if row.task is task]
        details.append(Detail(str(task), list(dict.fromkeys(name for r in rows for name in r.metrics)), rows))
    return details


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
