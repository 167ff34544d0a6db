"""Intervals and tests from per-sample scores, with the group (patient, slide, source figure) as the unit.

Tiles of one patient resemble each other, so intervals that treat them as independent are too narrow. Every
interval here draws whole groups.

Shapes: N samples, G groups, M columns that are summed per group, B bootstrap draws.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy import stats

from malpighi.errors import ConfigError

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]

_CHUNK = 4_000_000  # bootstrap weights held in memory at once


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are drawn.

    Attributes:
        draws: number of resamples of the groups.
        seed: of the random generator; same rows and seed, same interval.
        level: coverage that is aimed at, e.g. 0.95.
    """

    draws: int = 2000
    seed: int = 0
    level: float = 0.95

    def __post_init__(self) -> None:
        if self.draws < 1 or not 0 < self.level < 1:
            raise ConfigError(
                f"bootstrap of {self.draws} draws at level {self.level}; use e.g. 2000 and 0.95"
            )


class Estimate(msgspec.Struct, frozen=True):
    """A number with its interval.

    Attributes:
        value: the point estimate.
        low: lower end; None where the data allow no interval (one group only).
        high: upper end; None likewise.
        method: `bootstrap`, `wilson` or `none`.
    """

    value: float
    low: float | None = None
    high: float | None = None
    method: str = "none"


class Difference(msgspec.Struct, frozen=True):
    """The paired difference of two models on the same samples.

    Attributes:
        estimate: mean of second minus first, with its group-bootstrap interval.
        sign_share: twice the smaller share of draws on one side of 0, at least 1/(B+1): reads like a
            two-sided p value but is none.
        p: of the test; 1.0 where no pair differs.
        test: `mcnemar`, `wilcoxon`, or `wilcoxon on groups` where groups hold several samples.
        n: pairs.
        groups: groups among them.
        ties: share of pairs (or groups) without any difference.
    """

    estimate: Estimate
    sign_share: float
    p: float
    test: str
    n: int
    groups: int
    ties: float


def group_sums(values: NDArray[Any], groups: Sequence[str]) -> Floats:
    """Column sums per group; groups sorted by name.

    Args:
        values: (N, M).
        groups: N group names.

    Returns:
        (G, M).

    Example:
        >>> group_sums(np.array([[1.0], [2.0], [4.0]]), ["b", "a", "b"]).tolist()
        [[2.0], [5.0]]
    """
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    sums = np.zeros((len(names), values.shape[1]))
    np.add.at(sums, index, values)
    return sums


class Kinds(NamedTuple):
    """Groups by what they sum to: equal groups are interchangeable in a bootstrap.

    Attributes:
        sums: (U, M), the distinct sums.
        counts: (U,), how many groups have them.
    """

    sums: Floats
    counts: NDArray[np.int64]


def kinds_of(sums: Floats) -> Kinds:
    """The distinct rows of (G, M) group sums and how often each occurs."""
    distinct, counts = np.unique(sums, axis=0, return_counts=True)
    return Kinds(distinct, counts)


def resample(kinds: Kinds, statistic: Statistic, options: Bootstrap) -> Floats:
    """The statistic of B resamples of whole groups.

    Groups of one kind are drawn as one category of a multinomial, which has the same law as drawing groups
    one by one and makes 0/1 scores of any number of samples cheap.

    Args:
        kinds: the groups.
        statistic: maps (B, M) totals to (B,) values.
        options: draws and seed.

    Returns:
        (B,) values.
    """
    random = np.random.default_rng(options.seed)
    groups = int(kinds.counts.sum())
    step = max(1, _CHUNK // len(kinds.counts))
    parts = []
    for start in range(0, options.draws, step):
        size = min(step, options.draws - start)
        weights = random.multinomial(groups, kinds.counts / groups, size=size)
        parts.append(statistic(weights @ kinds.sums))
    return np.concatenate(parts)


def interval(kinds: Kinds, statistic: Statistic, options: Bootstrap) -> Estimate:
    """A statistic of group sums with its percentile interval; no interval for fewer than two groups.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), section 13.3.
    """
    value = _point(kinds, statistic)
    if kinds.counts.sum() < 2:
        return Estimate(value)
    return _percentile(value, resample(kinds, statistic, options), options)


def mean_interval(scores: Sequence[float], groups: Sequence[str], options: Bootstrap) -> Estimate:
    """Mean of per-sample scores with an interval over groups.

    Right/wrong scores from fewer than 30 groups, or all alike, get a Wilson interval, because a percentile
    interval is too narrow there (and has no width where all scores agree). Its n is the number of groups, not
    of samples.

    Departs: Wilson's interval is for independent trials; taking the groups as the trials is the cautious end,
        as if all samples of a group agreed.
    """
    values = np.asarray(scores, float)
    sums = group_sums(np.column_stack([values, np.ones_like(values)]), groups)
    mean = float(values.mean())
    binary = bool(np.isin(values, (0.0, 1.0)).all())
    if binary and (len(sums) < 30 or mean in (0.0, 1.0)):
        low, high = wilson(mean * len(sums), len(sums), options.level)
        return Estimate(mean, low, high, "wilson")
    return interval(kinds_of(sums), _ratio_of_sums, options)


def matrix_interval(
    cells: tuple[NDArray[Any], NDArray[Any]],
    shape: tuple[int, int],
    groups: Sequence[str],
    metric: Callable[[NDArray[Any]], Floats],
    options: Bootstrap,
) -> Estimate:
    """A metric of a confusion matrix with its interval: groups are drawn by weighting their own matrices.

    Args:
        cells: row and column of each sample in the matrix, two (N,) arrays.
        shape: (rows, columns) of the matrix.
        groups: N group names.
        metric: maps (B, rows, columns) counts to (B,) values.
        options: draws, seed, level.
    """
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    cell = cells[0] * shape[1] + cells[1]
    if len(names) == len(cell):
        counts = np.bincount(cell, minlength=shape[0] * shape[1])
        kinds = Kinds(np.eye(len(counts))[counts > 0], counts[counts > 0])
    else:
        sums = np.zeros((len(names), shape[0] * shape[1]))
        np.add.at(sums, (index, cell), 1)
        kinds = kinds_of(sums)
    return interval(kinds, lambda totals: metric(totals.reshape(-1, *shape)), options)


def wilson(successes: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion.

    Source: Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927).

    Example:
        >>> low, high = wilson(0, 10)
        >>> low == 0.0, round(high, 3)
        (True, 0.278)
    """
    z = float(stats.norm.ppf((1 + level) / 2))
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * float(np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)))
    return (max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share)))


def paired_difference(
    first: Sequence[float], second: Sequence[float], groups: Sequence[str], options: Bootstrap
) -> Difference:
    """How much better the second model is than the first on the same samples.

    The test's unit is the group: with one sample per group, exact McNemar for right/wrong and Wilcoxon for
    graded scores; with several, Wilcoxon on the groups' mean differences.
    """
    a, b = np.asarray(first, float), np.asarray(second, float)
    sums = group_sums(np.column_stack([b - a, np.ones_like(a)]), groups)
    estimate, share = _difference(kinds_of(sums), options)
    if len(sums) < len(a):
        means = sums[:, 0] / sums[:, 1]
        p, test, ties = wilcoxon(means), "wilcoxon on groups", float((means == 0).mean())
    elif bool(np.isin(np.concatenate([a, b]), (0.0, 1.0)).all()):
        p, test, ties = mcnemar(a, b), "mcnemar", float((a == b).mean())
    else:
        p, test, ties = wilcoxon(b - a), "wilcoxon", float((a == b).mean())
    return Difference(estimate, share, p, test, len(a), len(sums), ties)


def mcnemar(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Exact two-sided p of McNemar's test on right/wrong answers to the same samples.

    Args:
        first: (N,) 0 or 1.
        second: (N,) 0 or 1.

    Example:
        >>> mcnemar(np.array([1, 0, 0, 0]), np.array([1, 1, 1, 1]))
        0.25
    """
    gained = int(((first == 0) & (second == 1)).sum())
    lost = int(((first == 1) & (second == 0)).sum())
    if gained + lost == 0:
        return 1.0
    return float(stats.binomtest(gained, gained + lost, 0.5).pvalue)


def wilcoxon(differences: NDArray[Any]) -> float:
    """Two-sided p of the signed-rank test, zeros after Pratt; 1.0 where nothing differs.

    Source: Pratt, Remarks on zeros and ties in the Wilcoxon signed rank procedures, JASA 54 (1959).
    """
    if not np.any(differences):
        return 1.0
    return float(stats.wilcoxon(differences, zero_method="pratt", method="approx").pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """P values adjusted for their number by Holm's step-down rule, in the order given.

    Source: Holm, A simple sequentially rejective multiple test procedure, Scand. J. Stat. 6 (1979).

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values)
    adjusted = np.empty(len(p_values))
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, p_values[index] * (len(p_values) - rank)))
        adjusted[index] = largest
    return [float(value) for value in adjusted]


def average_ranks(scores: Sequence[Sequence[float]]) -> list[float]:
    """Mean rank of each model over exams, 1 is best; tied models share the mean of their ranks.

    Args:
        scores: one row per exam, one column per model.

    Example:
        >>> average_ranks([[0.9, 0.8, 0.8], [0.2, 0.5, 0.1]])
        [1.5, 1.75, 2.75]
    """
    ranks = stats.rankdata(-np.asarray(scores, float), axis=1)
    return [float(rank) for rank in ranks.mean(axis=0)]


def _difference(kinds: Kinds, options: Bootstrap) -> tuple[Estimate, float]:
    value = _point(kinds, _ratio_of_sums)
    if kinds.counts.sum() < 2:
        return Estimate(value), 1.0
    draws = resample(kinds, _ratio_of_sums, options)
    side = min(float((draws <= 0).mean()), float((draws >= 0).mean()))
    return _percentile(value, draws, options), min(1.0, max(2 * side, 1 / (len(draws) + 1)))


def _point(kinds: Kinds, statistic: Statistic) -> float:
    return float(statistic(kinds.counts[None] @ kinds.sums)[0])


def _ratio_of_sums(totals: Floats) -> Floats:
    return np.asarray(totals[:, 0] / totals[:, 1], float)


def _percentile(value: float, draws: Floats, options: Bootstrap) -> Estimate:
    low, high = np.quantile(draws, [(1 - options.level) / 2, (1 + options.level) / 2])
    return Estimate(value, min(float(low), value), max(float(high), value), "bootstrap")
