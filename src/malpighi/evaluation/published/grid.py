"""Which numbers of samples a column of printed percentages allows: each must be k right answers out of n."""

from collections.abc import Iterable, Sequence
from itertools import product

import numpy as np

from malpighi.evaluation.invariants import on_grid
from malpighi.evaluation.published.rows import Paper, Row

_TIES = 1e-9


def sizes_that_fit(rows: Sequence[Row], most: int) -> list[int]:
    """Every n up to `most` for which each row is k/n to its printed digits.

    Example:
        >>> from malpighi.evaluation.published.rows import paper
        >>> column = paper("patho-r1").find(dataset="PathMMU-Atlas", split="test_tiny")
        >>> sizes_that_fit(column, 500)
        [208, 416]
    """
    n = np.arange(1, most + 1)
    fits = np.ones(len(n), bool)
    for row in rows:
        k = np.rint(row.value * n)
        fits &= np.abs(k / n - row.value) <= row.unit / 2 + _TIES
    return [int(size) for size in n[fits]]


def question_counts(paper: Paper) -> dict[tuple[str, str], int]:
    """Questions per (data set, split) of a paper that prints only their totals.

    For each stated total: the sizes that each column's percentages allow, and of their combinations the one
    that adds up to the total. Totals with no or several combinations give nothing, and so do percentages that
    carry intervals, which tell more (see `intervals.implied_sizes`).
    """
    found: dict[tuple[str, str], int] = {}
    for stated in paper.stated:
        covered = [row for row in paper.own if row.low is None and stated.holds(row)]
        names = list(dict.fromkeys((row.dataset, row.split) for row in covered))
        if len(names) < 2:
            continue
        columns = [paper.find(dataset=dataset, split=split) for dataset, split in names]
        sums = combinations([sizes_that_fit(column, stated.samples) for column in columns], stated.samples)
        if len(sums) == 1:
            found |= dict(zip(names, sums[0], strict=True))
    return found


def combinations(allowed: Sequence[Sequence[int]], total: int) -> list[tuple[int, ...]]:
    """One size of each list so that they add up to a total: all ways to do so.

    Example:
        >>> combinations([[208, 416], [80, 160]], 288)
        [(208, 80)]
    """
    least = [min(sizes, default=total + 1) for sizes in allowed]
    # No size may be so large that the smallest of the others exceed the total; thousands fall away here.
    room = [total - sum(least) + own for own in least]
    small = [[size for size in sizes if size <= most] for sizes, most in zip(allowed, room, strict=True)]
    return [sizes for sizes in product(*small) if sum(sizes) == total]


def off_grid(rows: Iterable[Row], n: int) -> list[Row]:
    """The rows that are no k right answers out of n, to their printed digits."""
    return [row for row in rows if not on_grid(100 * row.value, n, row.decimals - 2 * (not row.percent))]
