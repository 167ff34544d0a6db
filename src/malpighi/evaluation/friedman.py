"""Several models over many exams: Friedman's test, average ranks and the critical difference between them.

Source: Demsar, Statistical comparisons of classifiers over multiple data sets, JMLR 7 (2006), section 3.2.2.
"""

import math
from collections.abc import Sequence

import msgspec
import numpy as np
from scipy import stats

from malpighi.errors import ConfigError, DataError
from malpighi.evaluation.statistics import average_ranks


class Friedman(msgspec.Struct, frozen=True):
    """Whether models differ over exams, and by how much their average ranks must differ to be told apart.

    Attributes:
        models: their names.
        ranks: average rank of each, 1 is best, tied models share the mean of their ranks.
        statistic: Friedman's chi-square, corrected for ties.
        p: of the test; 1.0 where all models tie in every exam.
        critical_difference: Nemenyi's, of average ranks, at `alpha`.
        alpha: level of the critical difference.
        exams: number of exams.
        alike: sets of models, from best to worst, that lie within the critical difference.
    """

    models: list[str]
    ranks: list[float]
    statistic: float
    p: float
    critical_difference: float
    alpha: float
    exams: int
    alike: list[list[str]]


def friedman(
    models: Sequence[str], scores: Sequence[Sequence[float]], alpha: float = 0.05
) -> Friedman | None:
    """The test over exams that all models took; None for fewer than three models or two exams.

    Args:
        models: names of the K columns.
        scores: one row per exam, one column per model, higher is better.
        alpha: level of the critical difference.

    Raises:
        DataError: a row does not have one score per model.
    """
    if any(len(row) != len(models) for row in scores):
        raise DataError(f"every exam needs a score of each of the {len(models)} models")
    if len(models) < 3 or len(scores) < 2:
        return None
    values = np.asarray(scores, float)
    ranks = average_ranks(scores)
    tied = bool((values == values[:, :1]).all())
    statistic, p = (0.0, 1.0) if tied else stats.friedmanchisquare(*values.T)
    reach = critical_difference(len(models), len(scores), alpha)
    return Friedman(
        models=list(models),
        ranks=ranks,
        statistic=float(statistic),
        p=float(p),
        critical_difference=reach,
        alpha=alpha,
        exams=len(scores),
        alike=_alike(models, ranks, reach),
    )


def critical_difference(models: int, exams: int, alpha: float = 0.05) -> float:
    """By how much two average ranks must differ, of all pairs of `models` over `exams`.

    Source: Nemenyi 1963, after Demsar (2006): q sqrt(K (K + 1) / 6 N), q the studentised range over sqrt 2.

    Example:
        >>> round(critical_difference(models=4, exams=14), 2)
        1.25

    Raises:
        ConfigError: fewer than two models, no exam, or a level outside 0 to 1.
    """
    if models < 2 or exams < 1 or not 0 < alpha < 1:
        raise ConfigError(f"no critical difference of {models} models over {exams} exams at level {alpha}")
    q = float(stats.studentized_range.ppf(1 - alpha, models, math.inf)) / math.sqrt(2)
    return q * math.sqrt(models * (models + 1) / (6 * exams))


def _alike(models: Sequence[str], ranks: Sequence[float], reach: float) -> list[list[str]]:
    """The largest runs of models in which the first and the last cannot be told apart."""
    order = sorted(range(len(models)), key=lambda k: ranks[k])
    runs: list[list[str]] = []
    last_end = 0
    for start in range(len(order)):
        end = start
        while end + 1 < len(order) and ranks[order[end + 1]] - ranks[order[start]] <= reach:
            end += 1
        if end > start and end > last_end:
            runs.append([models[k] for k in order[start : end + 1]])
            last_end = end
    return runs
