"""A paper's tables recomputed: how much of them holds, and every row that does not."""

from collections.abc import Callable, Iterator, Sequence

import msgspec

from malpighi.evaluation import invariants
from malpighi.evaluation.published import averages, grid, intervals, ranks
from malpighi.evaluation.published.claims import Claim, claims
from malpighi.evaluation.published.contradictions import (
    Contradiction,
    contradictions,
    curves_of,
    f1_pairs,
    is_model,
    marked_columns,
)
from malpighi.evaluation.published.rows import Paper, paper


class Tally(msgspec.Struct, frozen=True):
    """How many figures of one kind hold.

    Attributes:
        subject: the kind of figure.
        rule: what they were held against.
        holds: figures that pass.
        of: figures tested.
    """

    subject: str
    rule: str
    holds: int
    of: int


class SampleSize(msgspec.Struct, frozen=True):
    """The number of samples behind a column, as its figures imply it.

    Attributes:
        column: data set and split; a pattern where a stated number covers several columns.
        stated: number that the paper states; None where none is stated for this column alone.
        implied: every n that fits all figures of the column.
        n: the one that is meant: the stated one, the only one or the only round hundred; None where open.
        agrees: whether the stated number is among those that fit, or none is stated.
    """

    column: str
    stated: int | None
    implied: list[int]
    n: int | None
    agrees: bool


class MeanRanks(msgspec.Struct, frozen=True):
    """Average ranks under one rule of ties.

    Attributes:
        rule: in words.
        tasks: how many.
        ranks: model -> mean rank; 1 is best.
        firsts: model -> tasks without a better one.
    """

    rule: str
    tasks: int
    ranks: dict[str, float]
    firsts: dict[str, int]


class CheckReport(msgspec.Struct, frozen=True):
    """What came of recomputing a paper.

    Attributes:
        paper: name as on the command line.
        title: of the paper.
        rows: figures read.
        tallies: how many hold, kind by kind.
        samples: implied against stated numbers of samples.
        ranks: average ranks under every rule; empty for papers without.
        claims: figures of the text beside those of the tables.
        contradictions: every row that another contradicts.
    """

    paper: str
    title: str
    rows: int
    tallies: list[Tally]
    samples: list[SampleSize]
    ranks: list[MeanRanks]
    claims: list[Claim]
    contradictions: list[Contradiction]


def check(name: str) -> CheckReport:
    """Recompute a paper's averages, intervals, ranks and claims from its rows; list what contradicts itself.

    Args:
        name: one of `rows.NAMES`.

    Raises:
        ConfigError: no such paper.

    Example:
        >>> report = check("singpath-vl")
        >>> report.tallies[0].holds, report.tallies[0].of
        (12, 12)
    """
    tables = paper(name)
    columns = intervals.implied_sizes(tables)
    told = claims(tables)
    return CheckReport(
        paper=name,
        title=tables.title,
        rows=len(tables.rows),
        tallies=[*_averages(tables), *_intervals(columns), *_laws(tables), _tally_claims(told)],
        samples=list(_samples(tables, columns)),
        ranks=_ranks(tables),
        claims=told,
        contradictions=contradictions(tables),
    )


def _averages(tables: Paper) -> Iterator[Tally]:
    plain = averages.unweighted(tables)
    for subject, belongs in _AVERAGES.items():
        chosen = [each for each in plain if belongs(each)]
        if chosen:
            yield Tally(
                subject, "mean of their rows, one unit of the last digit", *_share(chosen, "mean_holds")
            )
    weighted = averages.weighted(tables, grid.question_counts(tables))
    if weighted:
        yield Tally("overalls, weighted", "mean of their rows by questions", *_share(weighted, "mean_holds"))
    ends = [each for each in plain if each.row.low is not None]
    if ends:
        rule = "Student t over their rows, cut at 0"
        yield Tally("intervals of averages", rule, *_share(ends, "interval_holds"))


def _share(found: Sequence[averages.Averaged], name: str) -> tuple[int, int]:
    return sum(getattr(each, name) for each in found), len(found)


_AVERAGES: dict[str, Callable[[averages.Averaged], bool]] = {
    "averages": lambda each: each.row.metric != "mean_recall" and each.row.dataset != averages.OVERALL,
    "mean recalls": lambda each: each.row.metric == "mean_recall",
    "overalls, unweighted": lambda each: each.row.dataset == averages.OVERALL,
}


def _intervals(columns: Sequence[intervals.Implied]) -> Iterator[Tally]:
    if columns:
        yield Tally(
            "intervals of accuracies",
            "Student t on 0/1 scores, one n for all rows of a column",
            sum(len(column.rows) for column in columns if column.fits),
            sum(len(column.rows) for column in columns),
        )
        stated = [column for column in columns if column.stated is not None]
        yield Tally(
            "stated numbers of samples",
            "among those that the intervals of the column allow",
            sum(column.agrees for column in stated),
            len(stated),
        )


def _laws(tables: Paper) -> Iterator[Tally]:
    found = [
        Tally(
            "average precisions at rising IoU",
            "never rise",
            *_kept(
                invariants.ap_order({int(row.metric[2:]): row.value for row in rows})
                for rows in curves_of(tables, "ap")
            ),
        ),
        Tally(
            "recalls at rising k",
            "never fall",
            *_kept(
                invariants.recall_order({int(row.metric.partition("@")[2]): row.value for row in rows})
                for rows in curves_of(tables, "recall@")
            ),
        ),
        Tally(
            "figures with an interval",
            "lie inside it",
            *_kept(
                invariants.point_inside(row.value, row.low, row.high)
                for row in tables.rows
                if row.low is not None
            ),
        ),
        Tally(
            "macro-F1 beside accuracy",
            "at most (K - 2 + 2 accuracy) / K",
            *_kept(
                invariants.f1_against_accuracy(f1.value, accuracy.value, f1.classes, slack=f1.unit)
                for accuracy, f1 in f1_pairs(tables)
            ),
        ),
        Tally(
            "marks of the second best",
            "stand at it",
            *_kept("" if marked <= second else "no" for _, marked, second in marked_columns(tables)),
        ),
        *_grids(tables),
    ]
    return (tally for tally in found if tally.of)


def _grids(tables: Paper) -> Iterator[Tally]:
    for number in dict.fromkeys(row.table for row in tables.rows):
        rows = [row for row in tables.own if row.table == number and row.low is None and is_model(row)]
        on_grid, tested = 0, 0
        for row in rows:
            stated = tables.stated_for(row)
            if stated is not None and "*" not in stated.covers:
                tested += 1
                on_grid += not grid.off_grid([row], stated.samples)
        if tested:
            yield Tally(f"accuracies of Table {number}", "k of the stated n", on_grid, tested)


def _kept(faults: Iterator[str]) -> tuple[int, int]:
    found = list(faults)
    return sum(not fault for fault in found), len(found)


def _tally_claims(told: Sequence[Claim]) -> Tally:
    return Tally("figures of the text", "given by the tables", sum(claim.holds for claim in told), len(told))


def _samples(tables: Paper, columns: Sequence[intervals.Implied]) -> Iterator[SampleSize]:
    for column in columns:
        yield SampleSize(column.column, column.stated, list(column.fits), column.n, column.agrees)
    for total in intervals.totals(tables, columns):
        yield SampleSize(
            total.stated.covers, total.stated.samples, [total.implied], total.implied, total.agrees
        )
    for (dataset, split), n in grid.question_counts(tables).items():
        yield SampleSize(f"{dataset}/{split}", None, [n], n, agrees=True)


def _ranks(tables: Paper) -> list[MeanRanks]:
    if not tables.find(method=ranks.MODELS[-1]):
        return []
    return [MeanRanks(each.rule, each.tasks, each.ranks, each.firsts) for each in ranks.rankings(tables)]
