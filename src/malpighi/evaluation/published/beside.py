"""A run's results beside a paper's rows: figures, differences, and where the two do not mean the same."""

import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

import msgspec

from malpighi.errors import ConfigError
from malpighi.evaluation.published.contradictions import Contradiction, contradictions
from malpighi.evaluation.published.grid import question_counts
from malpighi.evaluation.published.intervals import implied_sizes
from malpighi.evaluation.published.rows import Paper, Row, by_column, paper, read_table
from malpighi.evaluation.statistics import Estimate
from malpighi.evaluation.tables import ExamRow, Results, figures_of, metric_label

# Contradictions of the marks and of the number of samples are told elsewhere, or not about the figure.
_NOT_OF_A_CELL = {"second_best_mark", "other_sample_size", "mixed_average"}

# The paper's metric -> the figures of ours that may stand beside it, the nearest in meaning first.
_FIGURES = {
    "accuracy": ("exact",),
    "macro_f1": ("macro-F1",),
    "dice": ("dice",),
    "bleu4": ("bleu4_paper", "bleu4"),
    "bertscore": ("bertscore", "BERTScore"),
    **{f"ap{at}": (f"ap_paper{at}", f"ap_emit{at}", f"ap_tie{at}") for at in (30, 50, 70)},
    **{f"recall@{k}": (f"recall@{k}", f"Recall@{k}") for k in (1, 5, 10, 20)},
}

_DEFINITIONS = {
    "macro_f1": "the paper writes F1; which averaging and which answers it counts are not stated",
    "bertscore": "the paper names neither the model nor the rescaling of its BERTScore",
    "ap30": "how the paper ranks boxes without confidences is not stated",
    "ap50": "how the paper ranks boxes without confidences is not stated",
    "ap70": "how the paper ranks boxes without confidences is not stated",
}


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """One published figure beside ours.

    Attributes:
        method: the paper's model.
        table: number of its table.
        printed: the cell as it stands.
        value: fraction of 1.
        low: lower end of the paper's interval; None where none is printed.
        high: upper end; None likewise.
        difference: ours minus the published value. No test: the samples are not the same.
        apart: whether the two intervals do not overlap; None where one of them is missing.
        doubts: what contradicts this very figure, in words.
    """

    method: str
    table: int
    printed: str
    value: float
    low: float | None
    high: float | None
    difference: float
    apart: bool | None
    doubts: list[str]


class BesideRow(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of one exam and model of ours beside the published ones.

    Attributes:
        exam: ours.
        model: ours.
        column: the paper's data set and split.
        metric: as the paper calls it.
        ours_is: which figure of ours stands beside it.
        ours: that figure with its interval.
        n: samples scored by us.
        groups: patients, slides or source figures among them.
        invalid: share of our answers that could not be read.
        n_stated: samples that the paper states for the column; None where it states none for it alone.
        n_implied: samples that its figures imply; several where more than one fits, empty where unknown.
        published: the paper's models, in its order.
        protocol: where the two do not mean the same, in words.
    """

    exam: str
    model: str
    column: str
    metric: str
    ours_is: str
    ours: Estimate
    n: int
    groups: int
    invalid: float
    n_stated: int | None
    n_implied: list[int]
    published: list[Published]
    protocol: list[str]


class Beside(msgspec.Struct, frozen=True):
    """A run beside a paper.

    Attributes:
        paper: name as on the command line.
        title: of the paper.
        system: the name of its model.
        rows: exam by exam, model by model, metric by metric.
        absent: exams that the paper has figures for and the run has not.
        unmatched: exams of the run without published figures.
    """

    paper: str
    title: str
    system: str
    rows: list[BesideRow]
    absent: list[str]
    unmatched: list[str]


class _Exam(NamedTuple):
    name: str
    group: str
    dataset: str
    split: str
    direction: str
    figure: str


class _Size(NamedTuple):
    stated: int | None
    implied: tuple[int, ...]

    @property
    def contradicts(self) -> bool:
        return bool(self.implied) and self.stated is not None and self.stated not in self.implied


class _Context(NamedTuple):
    paper: Paper
    implied: Mapping[str, tuple[int, ...]]
    faults: Sequence[Contradiction]
    notes: Sequence[Mapping[str, str]]


def beside(results: Results, name: str) -> Beside:
    """A run's tables beside the published rows of the same exams.

    Args:
        results: the run's tables, as `tables.results` gives them.
        name: the paper, one of `rows.NAMES`.

    Raises:
        ConfigError: no such paper, or none of the run's exams has figures in it.
    """
    tables = paper(name)
    exams = {exam_key(exam.name): exam for exam in _exams(name)}
    taken = list(dict.fromkeys(row.exam for row in results.rows))
    if not any(exam_key(exam) in exams for exam in taken):
        known = ", ".join(exam.name for exam in exams.values())
        raise ConfigError(
            f"{name} has no figures for {', '.join(taken) or 'a run without exams'}; it has: {known}"
        )
    notes = [note for note in read_table("protocol.csv")[1] if note["paper"] == name]
    implied = {column.column: column.fits for column in implied_sizes(tables)}
    implied |= {f"{dataset}/{split}": (n,) for (dataset, split), n in question_counts(tables).items()}
    faults = [fault for fault in contradictions(tables) if fault.kind not in _NOT_OF_A_CELL]
    context = _Context(tables, implied, faults, notes)
    rows = [
        row
        for ours in results.rows
        if exam_key(ours.exam) in exams
        for row in _exam_rows(context, exams[exam_key(ours.exam)], ours)
    ]
    keys = {exam_key(exam) for exam in taken}
    return Beside(
        paper=name,
        title=tables.title,
        system=tables.system,
        rows=rows,
        absent=[exam.name for key, exam in exams.items() if key not in keys],
        unmatched=[exam for exam in taken if exam_key(exam) not in exams],
    )


def exam_key(exam: str) -> str:
    """An exam's name for comparison: lower case, every run of other signs one underscore.

    Example:
        >>> exam_key("slidebench/Disease Detection") == exam_key("slidebench/disease_detection")
        True
    """
    return re.sub(r"[^a-z0-9]+", "_", exam.lower()).strip("_")


def published_exams(name: str) -> dict[str, str]:
    """Exams of ours that a paper has figures for -> its data set and split.

    Raises:
        ConfigError: no such paper.
    """
    paper(name)
    return {exam.name: "/".join(filter(None, exam[2:5])) for exam in _exams(name)}


def _exams(name: str) -> Iterator[_Exam]:
    for row in read_table("exams.csv")[1]:
        if row["paper"] == name:
            parts = (row[part] for part in ("exam", "group", "dataset", "split", "direction", "figure"))
            yield _Exam(*parts)


def _exam_rows(context: _Context, exam: _Exam, ours: ExamRow) -> Iterator[BesideRow]:
    figures = figures_of(ours)
    rows = context.paper.find(
        group=exam.group, dataset=exam.dataset, split=exam.split, direction=exam.direction
    )
    for (_, _, _, metric), published in by_column(rows):
        wanted = (exam.figure,) if exam.figure else _FIGURES.get(metric, ())
        found = next((name for name in wanted if name in figures), None)
        if found is None:
            continue
        row, mine = published[0], figures[found]
        size = _size(context, row)
        yield BesideRow(
            exam=ours.exam,
            model=ours.model,
            column=row.column,
            metric=metric,
            ours_is="accuracy" if found == "exact" else metric_label(found),
            ours=mine,
            n=ours.n,
            groups=ours.groups,
            invalid=ours.invalid,
            n_stated=size.stated,
            n_implied=list(size.implied),
            published=[_published(context, each, mine) for each in published],
            protocol=[*_differences(row, ours, mine, size), *_notes(context, row)],
        )


def _published(context: _Context, row: Row, ours: Estimate) -> Published:
    apart = None
    if ours.low is not None and ours.high is not None and row.low is not None and row.high is not None:
        apart = ours.low > row.high or ours.high < row.low
    return Published(
        method=row.method,
        table=row.table,
        printed=row.printed,
        value=row.value,
        low=row.low,
        high=row.high,
        difference=ours.value - row.value,
        apart=apart,
        doubts=[fault.reason for fault in context.faults if _concerns(fault, row)],
    )


def _concerns(fault: Contradiction, row: Row) -> bool:
    """Whether a contradiction is about this figure, or about a pair or a curve that it is part of."""
    here = fault.column in (row.column, row.dataset) and row.method in fault.method.split(", ")
    families = [re.sub(r"\d+$|@.*$", "", metric) for metric in (fault.metric, row.metric)]
    pair = fault.kind == "macro_f1_impossible" and row.metric == "accuracy"
    return here and (families[0] == families[1] or pair)


def _size(context: _Context, row: Row) -> _Size:
    stated = context.paper.stated_for(row)
    alone = stated is not None and len({r.key[:2] for r in context.paper.own if stated.holds(r)}) == 1
    return _Size(stated.samples if stated and alone else None, context.implied.get(row.column, ()))


def _differences(row: Row, ours: ExamRow, mine: Estimate, size: _Size) -> Iterator[str]:
    """What differs by what is known of both: samples, intervals, unread answers, the metric's definition."""
    yield _samples(ours.n, size)
    if row.low is not None and mine.low is not None:
        yield (
            f"interval: here {mine.method} over {ours.groups:,} groups, in the paper Student t over samples "
            "as if they were independent"
        )
    yield (
        f"unread answers: {ours.invalid:.1%} here, counted as wrong; "
        "the paper does not say what it does with them"
    )
    if row.metric in _DEFINITIONS:
        yield _DEFINITIONS[row.metric]


def _samples(n: int, size: _Size) -> str:
    fits = " or ".join(f"{each:,}" for each in size.implied)
    if len(size.implied) > 2:
        fits = f"{min(size.implied):,} to {max(size.implied):,}"
    if size.contradicts:
        words = (
            f"{size.stated:,} stated, but the paper's intervals imply {fits}: a part that is not published"
        )
    elif size.stated is not None:
        words = f"{size.stated:,} in the paper"
    else:
        words = f"{fits} by the paper's figures, which state none" if fits else "not stated in the paper"
    return f"samples: {n:,} here; {words}"


def _notes(context: _Context, row: Row) -> Iterator[str]:
    names = (row.group, row.dataset, row.column, f"{row.group}:{row.dataset}")
    for note in context.notes:
        if any(fnmatchcase(name, note["covers"]) for name in names):
            yield f"{note['topic']}: {note['words']}"
