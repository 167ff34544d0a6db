"""How large a paired difference is, in units that compare across exams.

Gained and lost are the samples that only the second, or only the first, model gets right.
"""

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy import stats


class Effect(msgspec.Struct, frozen=True):
    """A size of effect; positive (or above 1 for a ratio) where the second model is better.

    Attributes:
        value: the size.
        low: lower end of its interval; None where none is computed.
        high: upper end; None likewise, and where the ratio has no upper end.
    """

    value: float
    low: float | None = None
    high: float | None = None


def odds_ratio(gained: int, lost: int, level: float = 0.95) -> Effect:
    """Odds of gaining against losing a sample, with its exact interval.

    Where one of the two is 0, half a sample is added to both for the value; the interval needs no such help.

    Source: Agresti, Categorical Data Analysis (2002), section 10.1.3: conditional on the discordant pairs the
    odds are those of a binomial share, whose interval is Clopper and Pearson's.

    Example:
        >>> odds_ratio(12, 4).value
        3.0
    """
    pairs = gained + lost
    if not pairs:
        return Effect(1.0)
    tail = (1 - level) / 2
    low = float(stats.beta.ppf(tail, gained, lost + 1)) if gained else 0.0
    high = float(stats.beta.isf(tail, gained + 1, lost)) if lost else None
    half = 0.0 if gained and lost else 0.5
    return Effect(
        (gained + half) / (lost + half), low / (1 - low), None if high is None else high / (1 - high)
    )


def cohens_h(first: float, second: float) -> Effect:
    """Difference of two shares on the arcsine scale: 0.2 is small, 0.5 medium, 0.8 large.

    Source: Cohen, Statistical Power Analysis for the Behavioral Sciences (1988), section 6.2.
    """
    return Effect(float(2 * np.arcsin(np.sqrt(second)) - 2 * np.arcsin(np.sqrt(first))))


def cohens_d(differences: NDArray[Any]) -> Effect:
    """Mean difference over the standard deviation of the differences (d_z); 0 where they have none.

    Source: Cohen (1988), section 2.3.5.
    """
    spread = float(np.std(differences, ddof=1)) if len(differences) > 1 else 0.0
    # Rounding gives equal differences a spread of the last digit.
    even = spread <= 1e-12 * max(1.0, float(np.abs(differences).max(initial=0.0)))
    return Effect(0.0 if even else float(np.mean(differences)) / spread)


def rank_biserial(differences: NDArray[Any]) -> Effect:
    """Share of the signed ranks that favour the second model minus the share against it, -1 to 1.

    Source: Kerby, The simple difference formula, Comprehensive Psychology 3 (2014); differences of 0 take
    ranks as in Pratt's test and favour neither side.
    """
    ranks = stats.rankdata(np.abs(differences))
    total = float(ranks[differences != 0].sum())
    return Effect(float((ranks * np.sign(differences)).sum()) / total if total else 0.0)
