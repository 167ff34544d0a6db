"""Which number of samples the printed intervals of accuracies imply.

SmartPath-R1 prints an interval beside every accuracy. Student's t on 0/1 scores gives all of them to the last
digit, if n is chosen well; so n is found by search, and set against the number of test samples stated.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from malpighi.evaluation.published.rows import Paper, Row, Stated, by_column

_SLACK = 1e-9
_HALF_UNIT = 0.0005
_AROUND = np.arange(-6, 7)
"""k is looked for this far around value * n: half a printed unit spans 4 of 8,000 samples."""


class Implied(NamedTuple):
    """What the intervals of one column say about its number of samples.

    Attributes:
        rows: the accuracies of one data set and split, a row per method.
        fits: every n that gives all values and all ends as printed; empty for none.
        stated: the number that the paper states for this column alone; None where it states none.
    """

    rows: tuple[Row, ...]
    fits: tuple[int, ...]
    stated: int | None

    @property
    def n(self) -> int | None:
        """The n that is meant: the stated one, the only one, or the only round hundred; None where open."""
        round_ones = [n for n in self.fits if n % 100 == 0]
        if self.stated in self.fits:
            return self.stated
        return next((found[0] for found in (self.fits, round_ones) if len(found) == 1), None)

    @property
    def column(self) -> str:
        """Data set and split."""
        return self.rows[0].column

    @property
    def agrees(self) -> bool:
        """Whether the stated number fits, or none is stated."""
        return self.stated is None or self.stated in self.fits


class Total(NamedTuple):
    """A stated number that several columns share, beside the sum that their intervals imply."""

    stated: Stated
    columns: tuple[Implied, ...]
    implied: int

    @property
    def agrees(self) -> bool:
        """Whether the sum is the stated number."""
        return self.implied == self.stated.samples


def student_interval(k: NDArray[Any], n: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The 95% interval of k right answers out of n as the paper makes it.

    Mean and standard deviation (n - 1) of the 0/1 scores, t with n - 1 degrees of freedom; the half-width is
    cut to what is left above the mean, and the lower end at 0. At small n the first cut raises the lower end
    too: 10 of 11 give (0.818, 1) where the uncut form gives (0.707, 1.111).

    Source: recovered from the printed intervals; Wald, Wilson, Clopper-Pearson and Agresti-Coull give fewer
        than half of them.

    Args:
        k: right answers.
        n: samples, 2 or more.

    Returns:
        Lower and upper ends, shaped as k and n broadcast.
    """
    mean = k / n
    half = stats.t.ppf(0.975, n - 1) * np.sqrt(np.clip(mean * (1 - mean), 0, None) / (n - 1))
    half = np.minimum(half, 1 - mean)
    return np.maximum(0.0, mean - half), mean + half


def implied_sizes(paper: Paper) -> list[Implied]:
    """Every column of accuracies that carries intervals, with the n that fit; averages are left out."""
    found = []
    for (_, _, _, metric), rows in by_column(paper.own):
        if metric == "accuracy" and all(row.low is not None for row in rows):
            found.append(Implied(tuple(rows), tuple(sizes_that_fit(rows)), _alone(paper, rows)))
    return found


def totals(paper: Paper, columns: Sequence[Implied]) -> Iterator[Total]:
    """The stated numbers that several of the columns share, where each of them has exactly one fitting n."""
    for stated in paper.stated:
        shared = tuple(column for column in columns if stated.holds(column.rows[0]))
        everything = {row.column for row in paper.own if stated.holds(row)}
        if len(shared) > 1 and len(shared) == len(everything) and all(len(c.fits) == 1 for c in shared):
            yield Total(stated, shared, sum(column.fits[0] for column in shared))


def sizes_that_fit(rows: Sequence[Row]) -> list[int]:
    """Every n for which each row's value and ends are those of some k right answers, to the printed digit."""
    n = np.arange(2, _largest(rows) + 1)
    for row in rows:
        n = n[_fits(row, n)]
    return [int(size) for size in n]


def _fits(row: Row, n: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which n have a k whose value and both ends round to the row's; k is tried in columns."""
    k_NK = np.clip(np.rint(row.value * n)[:, None] + _AROUND, 0, n[:, None])
    low_NK, high_NK = student_interval(k_NK, n[:, None])
    alike: NDArray[np.bool_] = np.ones(k_NK.shape, np.bool_)
    for found, printed in ((k_NK / n[:, None], row.value), (low_NK, row.low), (high_NK, row.high)):
        if printed is not None:
            alike[np.abs(found - printed) > _HALF_UNIT + _SLACK] = False
    fits: NDArray[np.bool_] = np.asarray(alike.any(axis=1))
    return fits


def _largest(rows: Sequence[Row]) -> int:
    """An n above which no row's interval can be as wide as printed.

    The half-width is t sqrt(p (1 - p) / (n - 1)) and t is below 2.011 from n = 50 on; a row whose width
    rounding could make 0 sets no limit, so the narrowest limit of the others holds for the column.
    """
    limits = []
    for row in rows:
        half = ((row.high or 0.0) - (row.low or 0.0)) / 2 - _HALF_UNIT
        if half > 0:
            limits.append(math.ceil(1 + (2.011 / half) ** 2 * _variance(row.value)))
    return max(50, min(limits, default=10_000))


def _variance(share: float) -> float:
    """The largest p (1 - p) among values that print alike."""
    near = min(max(0.5, share - _HALF_UNIT), share + _HALF_UNIT)
    return near * (1 - near)


def _alone(paper: Paper, rows: Sequence[Row]) -> int | None:
    """The stated number that is for this column and no other."""
    stated = paper.stated_for(rows[0])
    if stated is None or {row.column for row in paper.own if stated.holds(row)} != {rows[0].column}:
        return None
    return stated.samples


def uncut_low(value: float, n: int) -> float:
    """The lower end of the Student interval without the cut at the top, from a printed share of n samples."""
    mean = round(value * n) / n
    half = float(stats.t.ppf(0.975, n - 1)) * math.sqrt(mean * (1 - mean) / (n - 1))
    return max(0.0, mean - half)
