"""How many samples it takes to see a difference between two models, and what a given number can see.

A difference is "seen" if the test that `statistics.paired_difference` uses calls it significant at `alpha`,
and that happens with probability `power`. The design effect says how many dependent samples are worth one
independent one: 1 + (m - 1) ICC for groups of m samples with intra-class correlation ICC.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from malpighi.errors import ConfigError

Floats = NDArray[np.float64]

_WILCOXON_EFFICIENCY = 3 / math.pi  # of the signed-rank test for normal differences
_FEW = 200  # discordant pairs up to which power is computed exactly


@dataclass(frozen=True)
class Aim:
    """What a comparison is to achieve.

    Attributes:
        power: chance to see the difference if it is there.
        alpha: chance to see one that is not, two-sided.
        design_effect: samples per independent sample, 1 or more.
    """

    power: float = 0.8
    alpha: float = 0.05
    design_effect: float = 1.0

    def __post_init__(self) -> None:
        if not (0 < self.alpha < self.power < 1) or self.design_effect < 1:
            raise ConfigError(
                f"power {self.power}, alpha {self.alpha}, design effect {self.design_effect}; "
                "give 0 < alpha < power < 1 and a design effect of 1 or more"
            )


DEFAULT = Aim()


def design_effect(group_size: float, correlation: float) -> float:
    """Samples of a group that are worth one independent sample, for groups of one size.

    Source: Kish, Survey Sampling (1965), section 5.4.

    Args:
        group_size: samples per group.
        correlation: intra-class correlation of the paired differences; below 0 counts as 0.
    """
    return 1 + (group_size - 1) * max(correlation, 0.0)


def samples_needed_right_wrong(difference: float, discordant: float, aim: Aim = DEFAULT) -> int:
    """Samples for the exact McNemar test to see a difference in accuracy.

    Source: Fleiss, Levin and Paik, Statistical Methods for Rates and Proportions (2003), the number of
    discordant pairs for a test of one half, with their correction for the discreteness of the exact test.
    Departs: below 200 discordant pairs the exact power, summed over their number, has the last word.

    Args:
        difference: of the two accuracies, above 0.
        discordant: share of the samples on which just one of the two is right; at least `difference`.
        aim: power, level, design effect.

    Raises:
        ConfigError: a difference that the discordance does not allow.

    Example:
        >>> samples_needed_right_wrong(0.05, 0.2)
        658
    """
    if not 0 < difference <= discordant <= 1:
        raise ConfigError(
            f"a difference of {difference} with {discordant} discordant pairs cannot be; "
            "give 0 < difference <= discordant <= 1"
        )
    lean = difference / discordant
    pairs = math.ceil(_needed_discordant(lean, aim) / discordant)
    while pairs * discordant < _FEW and _exact_power(pairs, lean, discordant, aim.alpha) < aim.power:
        pairs += 1
    return math.ceil(pairs * aim.design_effect)


def samples_needed_graded(difference: float, deviation: float, aim: Aim = DEFAULT) -> int:
    """Samples for the signed-rank test to see a mean difference of graded scores (AP, Dice, BLEU).

    Source: Noether, Sample size determination for some common nonparametric tests, JASA 82 (1987), by the
    test's efficiency of 3/pi against the t test for normal differences.

    Args:
        difference: mean of the paired differences, above 0.
        deviation: their standard deviation, above 0.
        aim: power, level, design effect.

    Raises:
        ConfigError: a difference or a deviation that is not above 0.

    Example:
        >>> samples_needed_graded(0.02, 0.2)
        824
    """
    if difference <= 0 or deviation <= 0:
        raise ConfigError(f"difference {difference}, deviation {deviation}; both must be above 0")
    reach = _reach(aim)
    pairs = (reach * deviation / difference) ** 2 / _WILCOXON_EFFICIENCY
    # The normal quantile is too small for few pairs; the usual addition for Student's t.
    return math.ceil((pairs + float(stats.norm.isf(aim.alpha / 2)) ** 2 / 2) * aim.design_effect)


def visible_right_wrong(samples: int, discordant: float, aim: Aim = DEFAULT) -> float | None:
    """The smallest difference in accuracy that so many samples can see.

    Args:
        samples: pairs.
        discordant: share of them on which just one model is right.
        aim: power, level, design effect.

    Returns:
        The difference; None where not even all discordant pairs on one side would be enough.
    """
    if not 0 < discordant <= 1 or samples < 1:
        return None
    worth = samples / aim.design_effect
    if not _seen(1.0, worth, discordant, aim):
        return None
    low, high = 0.0, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (low, middle) if _seen(middle, worth, discordant, aim) else (middle, high)
    return high * discordant


def visible_graded(samples: int, deviation: float, aim: Aim = DEFAULT) -> float | None:
    """The smallest mean difference of graded scores that so many samples can see; None for too few."""
    left = samples / aim.design_effect - stats.norm.isf(aim.alpha / 2) ** 2 / 2
    if left <= 0 or deviation <= 0:
        return None
    return float(_reach(aim) * deviation / math.sqrt(left * _WILCOXON_EFFICIENCY))


def _needed_discordant(lean: float, aim: Aim) -> float:
    """Discordant pairs to see that their shares differ by `lean`, 0 to 1, from a half each."""
    level, miss = float(stats.norm.isf(aim.alpha / 2)), float(stats.norm.isf(1 - aim.power))
    plain = ((level + miss * math.sqrt(max(0.0, 1 - lean**2))) / lean) ** 2
    corrected = plain / 4 * (1 + math.sqrt(1 + 4 / (plain * lean))) ** 2
    # All pairs on one side: the two-sided exact p is 2^(1 - pairs).
    return max(corrected, 1 - math.log2(aim.alpha))


def _seen(lean: float, samples: float, discordant: float, aim: Aim) -> bool:
    if samples * discordant >= _FEW:
        return _needed_discordant(lean, aim) <= samples * discordant
    return _exact_power(int(samples), lean, discordant, aim.alpha) >= aim.power


def _exact_power(samples: int, lean: float, discordant: float, alpha: float) -> float:
    """Chance that the exact test is significant, over the numbers of discordant pairs that may come up."""
    found, chances = _discordant_pairs(samples, discordant)
    below = _critical(alpha, len(found))
    side = (1 + lean) / 2
    seen = special.bdtr(below, found, side) + special.bdtr(below, found, 1 - side)
    return float((chances * np.where(below >= 0, seen, 0.0)).sum())


@lru_cache(maxsize=64)
def _discordant_pairs(samples: int, discordant: float) -> tuple[NDArray[np.int64], Floats]:
    """Numbers of discordant pairs, 0 to all but the most unlikely, and their chances."""
    found = np.arange(int(stats.binom.isf(1e-10, samples, discordant)) + 1)
    return found, np.asarray(stats.binom.pmf(found, samples, discordant))


@lru_cache(maxsize=64)
def _critical(alpha: float, count: int) -> Floats:
    """For 0, 1, ... pairs the most on the smaller side with which the exact test is significant; -1: none."""
    pairs = np.arange(count)
    below = stats.binom.ppf(alpha / 2, pairs, 0.5)
    return np.asarray(np.where(2 * special.bdtr(below, pairs, 0.5) <= alpha, below, below - 1))


def _reach(aim: Aim) -> float:
    return float(stats.norm.isf(aim.alpha / 2) + stats.norm.isf(1 - aim.power))
