"""Tables of exam by model and the comparisons between stages, from prediction rows and nothing else."""

import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text as RichText

from malpighi.errors import UserError
from malpighi.evaluation import metrics
from malpighi.evaluation.calibration import Calibration, calibration
from malpighi.evaluation.cells import Cell, Cells, gather, groups_of
from malpighi.evaluation.detection import pooled_precisions
from malpighi.evaluation.friedman import Friedman, friedman
from malpighi.evaluation.invariants import exam_faults
from malpighi.evaluation.majority import MODEL as MAJORITY
from malpighi.evaluation.statistics import (
    Bootstrap,
    Difference,
    Estimate,
    average_ranks,
    holm,
    matrix_interval,
    mean_interval,
    paired_difference,
)
from malpighi.records import Prediction, TaskKind

log = logging.getLogger(__name__)

OVERALL = "all exams"

# The part that is the score -> the name of that score.
SCORE_NAMES = {
    "ap_tie50": "AP50 (tie)",
    "dice": "Dice",
    "bleu4": "BLEU-4",
    "exact": "accuracy",
    "": "score",
}

_PART_NAMES = {
    "ap_tie": "AP{} tie",
    "ap_emit": "AP{} list order",
    "ap_paper": "AP{} (paper)",
    "ap_pooled": "AP{} of all boxes",
    "f1_": "F1 {}",
    "bleu4": "BLEU-4",
    "bleu4_paper": "BLEU-4 (paper)",
    "bleu4_sacrebleu": "BLEU-4 (sacrebleu)",
    "dice": "Dice",
    "dice_gain": "Dice above whole image",
    "dice_filled": "Dice of filled boxes",
    "iou": "IoU",
    "token_f1": "token F1",
}

_MATRIX_METRICS = (
    ("balanced accuracy", metrics.balanced_accuracy),
    ("macro-F1", metrics.macro_f1),
    ("kappa", metrics.kappa),
)


class ExamRow(msgspec.Struct, frozen=True, kw_only=True):
    """One model in one exam.

    Attributes:
        exam: name of the exam.
        task: its kind.
        model: name of the model or stage.
        n: samples.
        groups: patients, slides or source figures among them.
        score_name: what the score is for this exam, e.g. `accuracy`.
        score: mean grade with its interval.
        ceiling: mean Dice of the right boxes through the same segmenter; None where no mask is asked for.
        metrics: further metrics by name, 0 to 1.
        invalid: share of answers that could not be read; they count as wrong.
        invalid_by_status: their number by status.
        warning: a collapsed answer; "" for none.
        best: whether no other model in the exam scores higher.
        calibration: what the probabilities of the options are worth; None where no row carries them.
    """

    exam: str
    task: TaskKind
    model: str
    n: int
    groups: int
    score_name: str
    score: Estimate
    ceiling: float | None = None
    metrics: dict[str, Estimate]
    invalid: float
    invalid_by_status: dict[str, int]
    warning: str = ""
    best: bool = False
    calibration: Calibration | None = None


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Two models on the samples that both answered.

    Attributes:
        first: the earlier stage.
        second: the later stage.
        scope: `exam`, `task` or `overall`.
        name: the exam, the task kind, or `all exams`.
        difference: second minus first, with interval and test.
        p_holm: p adjusted over the comparisons of the same pair and scope.
        unpaired: samples that only one of the two answered, or for which their files name another right
            answer; left out.
    """

    first: str
    second: str
    scope: str
    name: str
    difference: Difference
    p_holm: float
    unpaired: int


class Results(msgspec.Struct, frozen=True):
    """Everything the tables say.

    Attributes:
        models: in the order asked for.
        rows: by exam, then by model.
        comparisons: by pair, then exams, task kinds and overall.
        ranks: mean rank of each model over the exams that all models took; empty without such exams.
        ranked_exams: the number of those exams.
        level: coverage of the intervals, e.g. 0.95.
        friedman: Friedman's test over those exams; None for fewer than three models or two exams.
        notes: what a reader must know before comparing, one sentence each, e.g. that prompts differed, or
            that a row's figures break a law between them.
    """

    models: list[str]
    rows: list[ExamRow]
    comparisons: list[Comparison]
    ranks: dict[str, float]
    ranked_exams: int
    level: float
    friedman: Friedman | None = None
    notes: list[str] = []


def results(
    predictions: Iterable[Prediction],
    pairs: Sequence[tuple[str, str]] = (),
    bootstrap: Bootstrap | None = None,
) -> Results:
    """The tables of all exams and models found in the rows.

    Args:
        predictions: rows of any models; models keep the order of their first row, exams are sorted.
        pairs: (earlier, later) models to compare, e.g. `[("untrained", "supervised")]`.
        bootstrap: draws, seed and level of the intervals.

    Raises:
        UserError: a model answered a sample twice, or a pair names a model without rows.
    """
    return tabulate(gather(predictions), pairs, bootstrap)


def tabulate(
    cells: Cells,
    pairs: Sequence[tuple[str, str]] = (),
    bootstrap: Bootstrap | None = None,
    notes: Sequence[str] = (),
) -> Results:
    """The tables of rows that are sorted already; see `results`.

    Every row is held against the laws between its figures (`invariants.exam_faults`); one that breaks any is
    named in `Results.notes`.

    Raises:
        UserError: a pair names a model without rows.
    """
    options = bootstrap or Bootstrap()
    models = list(dict.fromkeys(model for _, model in cells))
    for name in {name for pair in pairs for name in pair} - set(models):
        raise UserError(f"no predictions of model {name!r} to compare; found {', '.join(models) or 'none'}")
    exams = sorted({exam for exam, _ in cells})
    order = {model: place for place, model in enumerate(models)}
    keys = sorted(cells, key=lambda key: (key[0], order[key[1]]))
    rows = _mark_best([_exam_row(cells[key], options) for key in keys])
    compared = [row for pair in pairs for row in _compare(cells, exams, pair, options)]
    full = _taken_by_all(rows, models)
    ranks = dict(zip(models, average_ranks(full), strict=True)) if full else {}
    test = friedman(models, full) if full else None
    told = [
        *notes,
        *(fault for key, row in zip(keys, rows, strict=True) for fault in _faults(row, cells[key])),
    ]
    return Results(models, rows, compared, ranks, len(full), options.level, test, told)


def figures_of(row: ExamRow) -> dict[str, Estimate]:
    """All figures of a row by name, the score among them under the name of its part, e.g. `ap_tie50`."""
    part = next((part for part, name in SCORE_NAMES.items() if name == row.score_name), "")
    return {**row.metrics, part: row.score}


def to_dict(table: Results) -> dict[str, Any]:
    """The results as plain values for JSON."""
    plain: dict[str, Any] = msgspec.to_builtins(table)
    return plain


def metric_label(name: str) -> str:
    """A metric's name for people.

    Example:
        >>> metric_label("ap_emit50"), metric_label("macro-F1")
        ('AP50 list order', 'macro-F1')
    """
    stem = name.rstrip("0123456789")
    known = _PART_NAMES.get(name) or _PART_NAMES.get(stem)
    return known.format(name[len(stem) :]) if known else name.replace("_", " ")


def pairs_of(comparisons: Iterable[Comparison]) -> dict[tuple[str, str], list[Comparison]]:
    """The comparisons by (earlier, later) pair, in their order."""
    pairs: dict[tuple[str, str], list[Comparison]] = defaultdict(list)
    for row in comparisons:
        pairs[row.first, row.second].append(row)
    return dict(pairs)


def exam_confusions(predictions: Iterable[Prediction]) -> dict[tuple[str, str], metrics.Confusion]:
    """The confusion matrix of every (exam, model) of kind classification whose options never change."""
    found = {}
    for key, rows in gather(predictions).items():
        matrix = metrics.confusion(rows) if rows[0].task is TaskKind.CLASSIFICATION else None
        if matrix is not None:
            found[key] = matrix
    return found


def _exam_row(rows: Cell, options: Bootstrap) -> ExamRow:
    first = rows[0]
    groups = [row.group for row in rows]
    return ExamRow(
        exam=first.exam,
        task=first.task,
        model=first.model,
        n=len(rows),
        groups=len(set(groups)),
        score_name=SCORE_NAMES[_score_part(rows)],
        score=mean_interval([row.grade.score for row in rows], groups, options),
        ceiling=metrics.ceiling(rows),
        metrics=_metrics(rows, groups, options),
        invalid=metrics.invalid_rate(rows),
        invalid_by_status=metrics.invalid_counts(rows),
        calibration=calibration(rows),
        warning="" if first.model == MAJORITY else metrics.collapse(rows) or metrics.blindness(rows),
    )


def _faults(row: ExamRow, rows: Cell) -> list[str]:
    """The laws that a row's figures break, in words; a fault of ours, never of a model."""
    figures = figures_of(row)
    exact = figures.get("exact")
    classes = len({one.truth["index"] for one in rows}) if "macro-F1" in figures else 0
    found = exam_faults(figures, accuracy=exact.value if exact else None, classes=classes)
    return [f"{row.exam}, {row.model}: these figures cannot be right, report it: {fault}" for fault in found]


def _score_part(rows: Cell) -> str:
    """The part that is the score of every row; "" for an exam of mixed questions."""
    named = [set(row.grade.parts) for row in rows if row.grade.parts]
    shared = set.intersection(*named) if named else set()
    words = "exact" if rows[0].task is TaskKind.CLASSIFICATION else "bleu4"
    order = ("ap_tie50", "dice", words, "exact")
    anywhere = set().union(*named)
    first = next((part for part in order if part in anywhere), "")
    return first if first in shared else ""


def _metrics(rows: Cell, groups: Sequence[str], options: Bootstrap) -> dict[str, Estimate]:
    elsewhere = ("task", metrics.CEILING, _score_part(rows))
    means = metrics.part_means(rows)
    found = {name: Estimate(value) for name, value in means.items() if name not in elsewhere}
    found |= {name: Estimate(value) for name, value in pooled_precisions(rows).items()}
    classes = metrics.shared_options(rows)
    if classes is None:
        return found
    place = metrics.cells(rows, len(classes))
    shape = (len(classes), len(classes) + 1)
    for name, metric in _MATRIX_METRICS:
        found[name] = matrix_interval(place, shape, groups, metric, options)
    return found


def _mark_best(rows: Sequence[ExamRow]) -> list[ExamRow]:
    top: dict[str, float] = {}
    for row in rows:
        top[row.exam] = max(top.get(row.exam, 0.0), row.score.value)
    return [msgspec.structs.replace(row, best=row.score.value == top[row.exam]) for row in rows]


def _compare(
    cells: Cells, exams: Sequence[str], pair: tuple[str, str], options: Bootstrap
) -> list[Comparison]:
    both = [exam for exam in exams if all((exam, model) in cells for model in pair)]
    tasks = sorted({cells[exam, pair[0]][0].task for exam in both})
    scopes: list[tuple[str, list[tuple[str, list[str]]]]] = [
        ("exam", [(exam, [exam]) for exam in both]),
        ("task", [(str(t), [e for e in both if cells[e, pair[0]][0].task is t]) for t in tasks]),
        ("overall", [(OVERALL, both)] if both else []),
    ]
    return [row for scope, parts in scopes for row in _scope(cells, pair, scope, parts, options)]


def _scope(
    cells: Cells,
    pair: tuple[str, str],
    scope: str,
    parts: Sequence[tuple[str, Sequence[str]]],
    options: Bootstrap,
) -> list[Comparison]:
    found: list[tuple[str, Difference, int]] = []
    for name, exams in parts:
        first, second = ({r.sample: r for e in exams for r in cells[e, model]} for model in pair)
        shared = [sample for sample, row in first.items() if _same(row, second.get(sample))]
        unpaired = len(first.keys() | second.keys()) - len(shared)
        if unpaired:
            log.warning("%s: %d samples cannot be paired between %s and %s", name, unpaired, *pair)
        if shared:
            scores = [[rows[sample].grade.score for sample in shared] for rows in (first, second)]
            groups = groups_of([first[sample] for sample in shared])
            found.append((name, paired_difference(scores[0], scores[1], groups, options), unpaired))
    adjusted = holm([difference.p for _, difference, _ in found])
    return [
        Comparison(
            first=pair[0], second=pair[1], scope=scope, name=name, difference=d, p_holm=p, unpaired=unpaired
        )
        for (name, d, unpaired), p in zip(found, adjusted, strict=True)
    ]


def _same(row: Prediction, other: Prediction | None) -> bool:
    """Whether the other model answered the same question."""
    return other is not None and row.truth == other.truth


def _taken_by_all(rows: Sequence[ExamRow], models: Sequence[str]) -> list[list[float]]:
    """Scores of all models in the exams that all took; empty for a single model."""
    scores: dict[str, dict[str, float]] = defaultdict(dict)
    for row in rows:
        scores[row.exam][row.model] = row.score.value
    full = [[found[model] for model in models] for found in scores.values() if len(found) == len(models)]
    return full if len(models) > 1 else []


def to_rich(table: Results) -> Group:
    """The results for a terminal: exams by models, then gains by task kind, then the warnings.

    The gains exam by exam are in the report.
    """
    parts: list[RenderableType] = [_exam_table(table)]
    if table.comparisons:
        parts.append(_gain_table(table))
    if table.friedman:
        parts.append(RichText(_friedman_line(table.friedman)))
    parts += [RichText(f"! {note}") for note in table.notes]
    parts += [RichText(f"! {row.exam}, {row.model}: {row.warning}") for row in table.rows if row.warning]
    return Group(*parts)


def _exam_table(results: Results) -> Table:
    table = _table(f"Exams: mean score, {results.level:.0%} interval over groups, unreadable answers", "exam")
    for name in results.models:
        table.add_column(RichText(name), justify="right", overflow="fold")
    found = {(row.exam, row.model): row for row in results.rows}
    for exam in dict.fromkeys(row.exam for row in results.rows):
        rows = [found.get((exam, model)) for model in results.models]
        shown = (_cell(row) if row else RichText("–", style="dim") for row in rows)
        table.add_row(_exam(next(row for row in rows if row)), *shown)
    if results.ranks:
        ranks = (f"{results.ranks[model]:.2f}" for model in results.models)
        table.add_section()
        table.add_row(f"mean rank of {results.ranked_exams} exams", *ranks)
    return table


def _exam(row: ExamRow) -> RichText:
    groups = f" in {row.groups} groups" if row.groups > 1 else " in one group"
    ceiling = "" if row.ceiling is None else f" (ceiling {row.ceiling:.3f})"
    return RichText(row.exam).append(f"\n{row.score_name}{ceiling}, {row.n}{groups}", style="dim")


def _cell(row: ExamRow) -> RichText:
    text = RichText(f"{row.score.value:.3f}", style="bold" if row.best else "")
    if row.score.low is not None and row.score.high is not None:
        text.append(f"\n{row.score.low:.2f}–{row.score.high:.2f}", style="not bold dim")
    if row.invalid:
        text.append(f"\n{row.invalid:.0%} unread", style="not bold yellow")
    return text


def _friedman_line(test: Friedman) -> str:
    alike = "; ".join(" = ".join(run) for run in test.alike) or "no two models"
    return (
        f"Friedman over {test.exams} exams: p = {test.p:.2g}; mean ranks closer than "
        f"{test.critical_difference:.2f} cannot be told apart ({alike})"
    )


def _gain_table(results: Results) -> Table:
    title = f"Gains on the same samples, {results.level:.0%} interval over groups (* zero is outside it)"
    table = _table(title, "")
    scopes = [row.name for row in results.comparisons if row.scope != "exam"]
    names = list(dict.fromkeys(sorted(scopes, key=lambda name: name != OVERALL)))
    for name in names:
        table.add_column(name, justify="right", overflow="fold")
    for pair, rows in pairs_of(results.comparisons).items():
        gains = {row.name: row.difference.estimate for row in rows if row.scope != "exam"}
        shown = (_gain(gains[name]) if name in gains else RichText("–", style="dim") for name in names)
        table.add_row(f"{pair[1]} against {pair[0]}", *shown)
    return table


def _gain(gain: Estimate) -> RichText:
    if gain.low is None or gain.high is None:
        return RichText(f"{gain.value:+.3f}\none group", style="dim")
    clear = gain.low > 0 or gain.high < 0
    text = RichText(f"{gain.value:+.3f}{'*' if clear else ' '}", style="bold" if clear else "")
    return text.append(f"\n{gain.low:+.3f} to {gain.high:+.3f}", style="not bold dim")


def _table(title: str, *left: str) -> Table:
    table = Table(title=RichText(title), box=box.SIMPLE_HEAD, title_justify="left", padding=(0, 1))
    for place, name in enumerate(left):
        table.add_column(name, overflow="fold", min_width=None if place else 14)
    return table
