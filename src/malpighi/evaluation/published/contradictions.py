"""Every printed figure that another printed figure contradicts, with the reason in words.

Each rule takes a paper's rows and knows nothing else; where it has no business it finds nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations

import msgspec

from malpighi.evaluation import invariants
from malpighi.evaluation.published import averages, grid, intervals
from malpighi.evaluation.published.rows import Paper, Row, by_column


class Contradiction(msgspec.Struct, frozen=True, kw_only=True):
    """One figure, or a few, that cannot stand.

    Attributes:
        kind: which rule, e.g. `macro_f1_impossible`.
        table: number of the table.
        column: data set, split, direction.
        method: the model; several joined by comma; "" for all.
        metric: what is measured.
        printed: the cells as they stand.
        found: what the rule gives instead; "" where it only forbids.
        reason: why it cannot be, in words.
    """

    kind: str
    table: int
    column: str
    method: str
    metric: str
    printed: str
    found: str = ""
    reason: str


Rule = Callable[[Paper], Iterator[Contradiction]]


def contradictions(paper: Paper) -> list[Contradiction]:
    """All that the rules find in a paper, rule by rule."""
    return [found for rule in RULES for found in rule(paper)]


def of_row(kind: str, row: Row, reason: str, *, printed: str = "", found: str = "") -> Contradiction:
    """A contradiction in one row."""
    return Contradiction(
        kind=kind,
        table=row.table,
        column=row.column,
        method=row.method,
        metric=row.metric,
        printed=printed or row.printed,
        found=found,
        reason=reason,
    )


def averages_off(paper: Paper) -> Iterator[Contradiction]:
    """Averages, and intervals of averages, that their rows do not give."""
    overall = {each.row: each for each in averages.weighted(paper, grid.question_counts(paper))}
    for each in (overall.get(each.row, each) for each in averages.unweighted(paper)):
        row, ends = each.row, each.low is not None
        if each.mean_holds and (each.interval_holds or not ends):
            continue
        scale = 100 if row.percent else 1
        found = f"{each.mean * scale:.{row.decimals}f}"
        if each.low is not None and each.high is not None:
            found += f" ({each.low:.3f}, {each.high:.3f})"
        wrong = "the average" if not each.mean_holds else "the interval"
        weighting = ", weighted by questions" if row in overall else ""
        reason = f"{wrong} is not that of its {len(each.members)} rows{weighting}"
        yield of_row("average", row, reason + _copied_from(paper, row), found=found)


def mixed_averages(paper: Paper) -> Iterator[Contradiction]:
    """Averages over rows of different metrics, one finding per table."""
    for table in dict.fromkeys(row.table for row in paper.averages):
        row = next(row for row in paper.averages if row.table == table)
        metrics = sorted({part.metric for part in averages.members(paper, row)})
        if len(metrics) > 1 and row.metric != "mean_recall":
            reason = f"one average over {len(metrics)} metrics ({', '.join(metrics)}) has no unit"
            found = of_row("mixed_average", row, reason, printed="all averages of the table")
            yield msgspec.structs.replace(found, method="")


def ap_not_monotone(paper: Paper) -> Iterator[Contradiction]:
    """AP that rises with the IoU threshold; printed figures are rounded alike, so no slack is due."""
    for rows in _curves(paper, "ap"):
        fault = invariants.ap_order({int(row.metric[2:]) / 100: row.value for row in rows})
        if fault:
            yield of_row("ap_not_monotone", rows[0], fault, printed=_cells(rows))


def recall_not_monotone(paper: Paper) -> Iterator[Contradiction]:
    """Recall@k that falls as k grows."""
    for rows in _curves(paper, "recall@"):
        fault = invariants.recall_order({int(row.metric.partition("@")[2]): row.value for row in rows})
        if fault:
            yield of_row("recall_not_monotone", rows[0], fault, printed=_cells(rows))


def value_outside_interval(paper: Paper) -> Iterator[Contradiction]:
    """Figures outside the interval printed beside them."""
    for row in paper.rows:
        fault = invariants.point_inside(row.value, row.low, row.high)
        if fault:
            yield of_row("value_outside_interval", row, fault)


def macro_f1_impossible(paper: Paper) -> Iterator[Contradiction]:
    """Macro-F1 above what the accuracy of the same method on the same data allows."""
    for accuracy, f1 in f1_pairs(paper):
        fault = invariants.f1_against_accuracy(f1.value, accuracy.value, f1.classes, slack=f1.unit)
        if fault:
            reason = f"{fault}, if both count the same answers; one of them drops or replaces unread ones"
            yield of_row("macro_f1_impossible", f1, reason, printed=_cells((accuracy, f1)))


def other_sample_size(paper: Paper) -> Iterator[Contradiction]:
    """Columns of accuracies whose intervals exclude the number of samples stated."""
    columns = intervals.implied_sizes(paper)
    for column in columns:
        if column.agrees:
            continue
        row = column.rows[0]
        elsewhere = [
            count.samples for count in paper.stated if count.holds(row) and count.samples in column.fits
        ]
        text = f"; {elsewhere[0]:,} of the running text does" if elsewhere else ""
        reason = (
            f"no Student interval over {column.stated:,} samples prints like these {len(column.rows)}{text}: "
            "the data scored are not those stated"
        )
        sizes = ", ".join(str(n) for n in column.fits)
        found = of_row(
            "other_sample_size", row, reason, printed=f"n = {column.stated:,}", found=f"n = {sizes}"
        )
        yield msgspec.structs.replace(found, method="")
    for total in intervals.totals(paper, columns):
        if not total.agrees:
            parts = " + ".join(str(column.fits[0]) for column in total.columns)
            reason = f"the intervals of its {len(total.columns)} columns imply {parts} = {total.implied:,}"
            yield Contradiction(
                kind="other_sample_size",
                table=total.stated.table,
                column=total.stated.covers,
                method="",
                metric="accuracy",
                printed=f"n = {total.stated.samples:,}",
                found=f"n = {total.implied:,}",
                reason=reason,
            )


def interval_cut_short(paper: Paper) -> Iterator[Contradiction]:
    """Intervals whose lower end was raised because the upper one would have passed 1."""
    for column in intervals.implied_sizes(paper):
        for row in column.rows if column.n else ():
            low = intervals.uncut_low(row.value, column.n or 0)
            if row.low is not None and row.high == 1.0 and row.low > low + row.unit:
                reason = f"the half-width was cut to 1 - p at both ends; uncut it ends at {low:.3f}"
                yield of_row("interval_cut_short", row, reason, found=f"low {low:.3f}")


def twin_columns(paper: Paper) -> Iterator[Contradiction]:
    """One method with the same value and interval in two columns of a table."""
    seen: dict[tuple[int, str, str, str], Row] = {}
    for row in paper.own:
        if row.low is None or row.value <= row.unit:  # zeros are no sign of copying
            continue
        first = seen.setdefault((row.table, row.method, row.metric, row.printed), row)
        if first is not row:
            reason = f"value and both ends equal those of {row.column} in the same table: one is a copy"
            yield of_row("twin_columns", first, reason)


def twin_rows(paper: Paper) -> Iterator[Contradiction]:
    """Two methods whose Recall@k agree in nearly all cells of a data set."""
    recalls = [row for row in paper.own if row.metric.startswith("recall@")]
    for dataset in dict.fromkeys(row.dataset for row in recalls):
        lines: dict[str, list[Row]] = {}
        for row in recalls:
            if row.dataset == dataset:
                lines.setdefault(row.method, []).append(row)
        for (first, left), (second, right) in combinations(lines.items(), 2):
            same = sum(a.value == b.value for a, b in zip(left, right, strict=True))
            if same >= len(left) - 1:
                reason = f"{same} of {len(left)} recalls of two models are the same: one row is a copy"
                found = of_row("twin_rows", left[0], reason, printed=_cells(left))
                yield msgspec.structs.replace(
                    found, column=dataset, method=f"{first}, {second}", metric="recall@k"
                )


def constant_answer(paper: Paper) -> Iterator[Contradiction]:
    """Accuracies that equal the share of the largest class, where that share is stated."""
    for stated in paper.stated:
        share = stated.largest_class / stated.samples
        for row in paper.find(metric="accuracy") if stated.largest_class else ():
            if stated.holds(row) and abs(row.value - share) <= row.unit / 2:
                reason = (
                    f"{stated.largest_class} of {stated.samples} samples ({share:.4f}) are of one class: "
                    "the accuracy is that of always naming it"
                )
                yield of_row("constant_answer", row, reason)


def no_such_share(paper: Paper) -> Iterator[Contradiction]:
    """Models' accuracies that are no k right answers out of the number of samples stated."""
    for stated in paper.stated:
        rows = [row for row in paper.own if stated.holds(row) and is_model(row)]
        if len({row.column for row in rows}) > 1 or any(row.low is not None for row in rows):
            continue
        for row in grid.off_grid(rows, stated.samples):
            reason = (
                f"no k/{stated.samples} prints so: another metric, another n, or several questions per sample"
            )
            yield of_row("no_such_share", row, reason)


def second_best_marks(paper: Paper) -> Iterator[Contradiction]:
    """Columns in which the mark of the second best does not stand at the second best, and there alone."""
    for rows, marked, second in marked_columns(paper):
        if not marked <= second:
            reason = (
                f"marked: {', '.join(sorted(marked))}; second best: {', '.join(sorted(second))} "
                "(a mark may have been lost or gained when the text was read)"
            )
            found = of_row("second_best_mark", rows[0], reason, printed=_cells(rows))
            yield msgspec.structs.replace(found, method=", ".join(sorted(marked)))


def marked_columns(paper: Paper) -> Iterator[tuple[list[Row], set[str], set[str]]]:
    """Columns that carry marks: their rows, the methods marked, and those that may be called second best.

    Where several share the best value, each of them may be, and so may those of the next value.
    """
    for _, rows in by_column_of_table(paper):
        marked = {row.method for row in rows if row.underlined}
        best, *others = sorted({row.value for row in rows}, reverse=True)
        if not marked or not others:
            continue
        top = [row.method for row in rows if row.value == best]
        second = {row.method for row in rows if row.value == others[0]}
        yield rows, marked, second | set(top if len(top) > 1 else ())


def by_column_of_table(paper: Paper) -> Iterator[tuple[int, list[Row]]]:
    """Rows by table and column, in the order printed."""
    for table in dict.fromkeys(row.table for row in paper.rows):
        for _, rows in by_column([row for row in paper.rows if row.table == table]):
            yield table, rows


def is_model(row: Row) -> bool:
    """Whether the row is a model's: agreement between people is no share of samples."""
    return row.method != "Inter-rater agreement"


def f1_pairs(paper: Paper) -> Iterator[tuple[Row, Row]]:
    """Accuracy and macro-F1 of the same method on the same data."""
    right = {(row.column, row.method): row for row in paper.find(metric="accuracy")}
    for row in paper.find(metric="macro_f1"):
        yield right[row.column, row.method], row


def curves_of(paper: Paper, prefix: str) -> list[list[Row]]:
    """Rows of one method and column whose metric begins so: `ap` or `recall@`."""
    return list(_curves(paper, prefix))


def _curves(paper: Paper, prefix: str) -> Iterator[list[Row]]:
    curves: dict[tuple[str, str], list[Row]] = {}
    for row in paper.rows:
        if row.metric.startswith(prefix):
            curves.setdefault((row.column, row.method), []).append(row)
    yield from curves.values()


def _cells(rows: Sequence[Row]) -> str:
    return "; ".join(f"{row.metric} {row.printed}" for row in rows)


def _copied_from(paper: Paper, row: Row) -> str:
    """Where the same cell of the same method stands too, which tells a slip of the hand."""
    for other in paper.rows:
        if other is not row and (other.method, other.metric, other.printed) == (
            row.method,
            row.metric,
            row.printed,
        ):
            return f"; the same cell stands in Table {other.table} for {other.column}"
    return ""


RULES: tuple[Rule, ...] = (
    averages_off,
    mixed_averages,
    ap_not_monotone,
    recall_not_monotone,
    value_outside_interval,
    macro_f1_impossible,
    other_sample_size,
    interval_cut_short,
    twin_columns,
    twin_rows,
    constant_answer,
    no_such_share,
    second_best_marks,
)
