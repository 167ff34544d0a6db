"""The papers' averages, and the intervals of averages, from the rows that they average."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from malpighi.evaluation.published.rows import Paper, Row

OVERALL = "PathMMU-Overall"
MIXED = "mean_acc_bleu4_bertscore"
"""SmartPath-R1's Table 31 averages accuracy, BLEU-4 and BERTScore; its average carries this metric."""

ENDS = 0.0012
"""How far an interval's end may lie off: one unit printed, and what rounded rows move the half-width by."""


class Averaged(NamedTuple):
    """An average beside what its rows give.

    Attributes:
        row: the printed average.
        members: the rows that it averages.
        mean: what they give; weighted by questions where the paper weights.
        low: lower end of the Student interval over the members; None where the paper prints no interval.
        high: upper end; None likewise.
    """

    row: Row
    members: tuple[Row, ...]
    mean: float
    low: float | None
    high: float | None

    @property
    def mean_holds(self) -> bool:
        """Whether the printed average is the mean, to one unit of the last printed digit."""
        return abs(self.mean - self.row.value) <= self.row.unit + 1e-9

    @property
    def interval_holds(self) -> bool:
        """Whether both printed ends are those of the Student interval, to `ENDS`."""
        return all(
            found is not None and printed is not None and abs(found - printed) <= ENDS
            for found, printed in ((self.low, self.row.low), (self.high, self.row.high))
        )


def members(paper: Paper, average: Row) -> tuple[Row, ...]:
    """The rows that an average is said to be over: its method's in the same kind of task.

    Averages of retrieval are over the four k of one data set and direction, those of PathMMU over the five
    sources of one split, all others over the data sets.
    """
    return tuple(row for row in paper.own if row.method == average.method and _belongs(row, average))


def student_interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95% interval that SmartPath-R1 prints beside an average: Student t over data sets, cut at 0.

    It describes how data sets differ, not how sure a score is: with the same data sets for every method it
    says nothing about a difference between methods.

    Source: recovered from the printed intervals: 46 of 52 agree; standard deviation with n - 1.

    Example:
        >>> [round(end, 3) for end in student_interval([0.2, 0.4, 0.9])]
        [0.0, 1.396]
    """
    count = len(values)
    mean = float(np.mean(values))
    half = float(stats.t.ppf(0.975, count - 1) * np.std(values, ddof=1) / math.sqrt(count))
    return max(0.0, mean - half), mean + half


def unweighted(paper: Paper) -> list[Averaged]:
    """Every average of a paper beside the plain mean of its rows."""
    return [_averaged(average, members(paper, average)) for average in paper.averages]


def weighted(paper: Paper, sizes: Mapping[tuple[str, str], int]) -> list[Averaged]:
    """The PathMMU overalls of Patho-R1 beside the mean weighted by questions.

    Args:
        paper: Patho-R1's tables.
        sizes: (data set, split) -> questions, see `grid.question_counts`.
    """
    found = []
    for average in paper.find(dataset=OVERALL):
        parts = members(paper, average)
        weights = [sizes[part.dataset, part.split] for part in parts]
        mean = float(np.average([part.value for part in parts], weights=weights))
        found.append(Averaged(average, parts, mean, None, None))
    return found


def _belongs(row: Row, average: Row) -> bool:
    if average.metric == "mean_recall":
        return (row.dataset, row.direction) == (average.dataset, average.direction)
    if average.dataset == OVERALL:
        return row.dataset.startswith("PathMMU-") and row.split == average.split
    return row.group == average.group and average.metric in (row.metric, MIXED)


def _averaged(average: Row, parts: tuple[Row, ...]) -> Averaged:
    values = [part.value for part in parts]
    low, high = student_interval(values) if average.low is not None else (None, None)
    return Averaged(average, parts, float(np.mean(values)), low, high)
