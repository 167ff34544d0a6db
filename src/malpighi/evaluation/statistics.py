"""Intervals and tests from per-sample scores, with the group (patient, slide, source figure) as the unit.

Tiles of one patient resemble each other, so intervals that treat them as independent are too narrow. Every
interval here draws whole groups, or counts how many independent samples the groups are worth.

In simulations (`tests/evaluation/test_coverage.py`) intervals of 95 % hold the truth in 93 to 97 % of the
runs with 30 groups of one size, 60 of unequal and 100 of very unequal size. With 8 to 15 groups expect 90
to 97 %; where nearly all answers are right (95 %) and samples of a group resemble each other strongly, about
90 % even with 60 groups.

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
from malpighi.evaluation.effects import Effect, cohens_d, cohens_h, odds_ratio, rank_biserial
from malpighi.evaluation.power import visible_graded, visible_right_wrong

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]

_CHUNK = 1_000_000  # bootstrap weights held in memory at once
_FEW_KINDS = 8  # groups per kind from which drawing kinds is quicker than drawing groups


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
        effects: sizes of the effect by name: `odds ratio` and `Cohen's h` with McNemar's test, else
            `Cohen's d` and `rank-biserial`, over the units of the test.
        visible: the smallest difference that so many pairs (or groups), as variable as these, would show
            with 80 % power at the 5 % level; None where no difference could be shown.
    """

    estimate: Estimate
    sign_share: float
    p: float
    test: str
    n: int
    groups: int
    ties: float
    effects: dict[str, Effect] = {}
    visible: float | None = None


def group_numbers(groups: Sequence[str]) -> tuple[int, NDArray[np.int64]]:
    """How many groups there are, and the place of each sample's group among their sorted names.

    Example:
        >>> count, place = group_numbers(["b", "a", "b"])
        >>> count, place.tolist()
        (2, [1, 0, 1])
    """
    place = {name: number for number, name in enumerate(sorted(set(groups)))}
    return len(place), np.fromiter(map(place.__getitem__, groups), np.int64, len(groups))


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
    count, index = group_numbers(groups)
    return np.column_stack([np.bincount(index, column, count) for column in values.T])


def effective_groups(sizes: NDArray[Any], counts: NDArray[Any] | float = 1) -> float:
    """How many groups of equal size the groups are worth: one large group outweighs many small ones.

    Source: Kish, Survey Sampling (1965), section 11.7.

    Args:
        sizes: samples per group.
        counts: how many groups have that size.

    Example:
        >>> effective_groups(np.array([10, 10])), effective_groups(np.array([100, 1, 1]))
        (2.0, 1.0401919616076785)
    """
    return float((counts * sizes).sum() ** 2 / (counts * sizes**2).sum())


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
    few = len(kinds.counts) * _FEW_KINDS <= groups
    step = max(1, _CHUNK // (len(kinds.counts) if few else groups))
    weigh = _multinomial if few else _one_by_one
    sums = np.ascontiguousarray(kinds.sums, float)
    parts = []
    for start in range(0, options.draws, step):
        weights = weigh(random, kinds.counts, min(step, options.draws - start))
        parts.append(statistic(weights @ sums))
    return np.concatenate(parts)


def _multinomial(random: np.random.Generator, counts: NDArray[np.int64], draws: int) -> Floats:
    groups = int(counts.sum())
    return random.multinomial(groups, counts / groups, size=draws).astype(float)


def _one_by_one(random: np.random.Generator, counts: NDArray[np.int64], draws: int) -> Floats:
    """The same law; quicker where hardly two groups are of one kind."""
    groups, kinds = int(counts.sum()), len(counts)
    chosen = random.integers(0, groups, (draws, groups))
    if kinds < groups:
        chosen = np.repeat(np.arange(kinds), counts)[chosen]
    chosen += np.arange(draws)[:, None] * kinds
    return np.bincount(chosen.ravel(), minlength=draws * kinds).reshape(draws, kinds).astype(float)


def interval(
    kinds: Kinds, statistic: Statistic, options: Bootstrap, sizes: NDArray[Any] | None = None
) -> Estimate:
    """A statistic of group sums with its expanded percentile interval; none for fewer than two groups.

    Plain percentiles are too narrow for few groups: they use n where the variance needs n - 1, and the normal
    quantile where Student's t is due. Taking the percentiles further out mends both.

    Source: Hesterberg, What teachers should know about the bootstrap, Am. Stat. 69 (2015), section 5.3.
    Departs: unequal groups count as their effective number (see `effective_groups`).

    Args:
        kinds: the groups.
        statistic: maps (B, M) totals to (B,) values.
        options: draws, seed, level.
        sizes: (U,) samples in a group of each kind; None where groups weigh alike.
    """
    value = _point(kinds, statistic)
    if kinds.counts.sum() < 2:
        return Estimate(value)
    groups = _effective(kinds, sizes)
    return _percentile(value, resample(kinds, statistic, options), options.level, groups)


def mean_interval(scores: Sequence[float], groups: Sequence[str], options: Bootstrap) -> Estimate:
    """Mean of per-sample scores with an interval over groups.

    Graded scores get the bootstrap. Right/wrong scores get a Wilson interval, which keeps its coverage near 0
    and 1 and for few groups. Its n is the number of independent samples that the groups are worth: all of
    them where each is a group of its own, else by the spread between groups, at least the effective number of
    groups and at most the number of samples. The effective number of groups alone is taken where all scores
    agree, because then nothing tells how alike the samples of a group are.

    Source: Dean and Pagano, Evaluating confidence interval methods for binomial proportions in clustered
    surveys, J. Surv. Stat. Methodol. 3 (2015): modified Wilson with the design effect and Student's t of
    Korn and Graubard (1998).
    Departs: degrees of freedom from the effective number of groups.
    """
    values = np.asarray(scores, float)
    sums = group_sums(np.column_stack([values, np.ones_like(values)]), groups)
    mean = float(values.mean())
    if bool(((values == 0) | (values == 1)).all()):
        n = len(values) if len(sums) == len(values) else _independent(sums, mean, options.level)
        low, high = wilson(mean * n, n, options.level)
        return Estimate(mean, low, high, "wilson")
    kinds = kinds_of(sums)
    return interval(kinds, _ratio_of_sums, options, kinds.sums[:, 1])


def _independent(sums: Floats, mean: float, level: float) -> float:
    """Independent 0/1 samples with as wide an interval as those of (G, 2) sums of scores and sizes."""
    sizes = sums[:, 1]
    groups, samples = effective_groups(sizes), float(sizes.sum())
    if groups < 1.5 or mean in (0.0, 1.0):
        return groups
    spread = ((sums[:, 0] - mean * sizes) ** 2).sum() / samples**2 * groups / (groups - 1)
    tail = (1 - level) / 2
    widening = stats.t.isf(tail, groups - 1) / stats.norm.isf(tail)
    return float(np.clip(mean * (1 - mean) / max(spread, 1e-300) / widening**2, groups, samples))


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
    cell = cells[0] * shape[1] + cells[1]
    if len(set(groups)) == len(cell):
        counts = np.bincount(cell, minlength=shape[0] * shape[1])
        kinds = Kinds(np.eye(len(counts))[counts > 0], counts[counts > 0])
    else:
        width = shape[0] * shape[1]
        count, index = group_numbers(groups)
        sums = np.bincount(index * width + cell, minlength=count * width).reshape(count, width)
        # Large groups are hardly ever alike; sorting them to find out would cost more than it saves.
        alike = len(cell) < 4 * count
        kinds = kinds_of(sums.astype(float)) if alike else Kinds(sums.astype(float), np.ones(count, np.int64))
    return interval(kinds, lambda totals: metric(totals.reshape(-1, *shape)), options, kinds.sums.sum(axis=1))


def wilson(successes: float, n: float, level: float = 0.95) -> tuple[float, float]:
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
    shared = (estimate, share)
    if len(sums) == len(a) and bool(np.isin(np.concatenate([a, b]), (0.0, 1.0)).all()):
        gained, lost = int((a < b).sum()), int((a > b).sum())
        return Difference(
            *shared,
            p=mcnemar(a, b),
            test="mcnemar",
            n=len(a),
            groups=len(sums),
            ties=float((a == b).mean()),
            effects={
                "odds ratio": odds_ratio(gained, lost, options.level),
                "Cohen's h": cohens_h(float(a.mean()), float(b.mean())),
            },
            visible=visible_right_wrong(len(a), (gained + lost) / len(a)),
        )
    units = sums[:, 0] / sums[:, 1]
    return Difference(
        *shared,
        p=wilcoxon(units),
        test="wilcoxon" if len(sums) == len(a) else "wilcoxon on groups",
        n=len(a),
        groups=len(sums),
        ties=float((units == 0).mean()),
        effects={"Cohen's d": cohens_d(units), "rank-biserial": rank_biserial(units)},
        visible=visible_graded(len(units), float(np.std(units, ddof=1))) if len(units) > 1 else None,
    )


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
    groups = _effective(kinds, kinds.sums[:, 1])
    side = min(float((draws <= 0).mean()), float((draws >= 0).mean()))
    return _percentile(value, draws, options.level, groups), min(1.0, max(2 * side, 1 / (len(draws) + 1)))


def _point(kinds: Kinds, statistic: Statistic) -> float:
    return float(statistic(kinds.counts[None] @ kinds.sums)[0])


def _ratio_of_sums(totals: Floats) -> Floats:
    return np.asarray(totals[:, 0] / totals[:, 1], float)


def _effective(kinds: Kinds, sizes: NDArray[Any] | None) -> float:
    return effective_groups(np.ones(len(kinds.counts)) if sizes is None else sizes, kinds.counts)


def _percentile(value: float, draws: Floats, level: float, groups: float) -> Estimate:
    # Below two effective groups Student's t has no degree of freedom left to speak of.
    groups = max(groups, 2.0)
    reach = np.sqrt(groups / (groups - 1)) * stats.t.isf((1 - level) / 2, groups - 1)
    low, high = np.quantile(draws, [stats.norm.sf(reach), stats.norm.cdf(reach)])
    return Estimate(value, min(float(low), value), max(float(high), value), "bootstrap")
