import numpy as np
import pytest
from scipy import stats

from malpighi.errors import ConfigError
from malpighi.evaluation.power import (
    Aim,
    design_effect,
    samples_needed_graded,
    samples_needed_right_wrong,
    visible_graded,
    visible_right_wrong,
)
from malpighi.evaluation.statistics import Bootstrap, paired_difference, wilcoxon

RIGHT_WRONG = [(0.05, 0.2), (0.02, 0.1), (0.2, 0.25), (0.3, 0.3), (0.1, 0.1)]


@pytest.mark.parametrize(("difference", "discordant"), RIGHT_WRONG)
def test_so_many_samples_see_a_difference_as_often_as_aimed_at(difference, discordant):
    random = np.random.default_rng(1)
    n = samples_needed_right_wrong(difference, discordant)
    pairs = random.binomial(n, discordant, 8000)
    gained = random.binomial(pairs, (1 + difference / discordant) / 2)
    p = np.minimum(1, 2 * stats.binom.cdf(np.minimum(gained, pairs - gained), pairs, 0.5))
    assert (p <= 0.05).mean() == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize(("difference", "deviation"), [(0.05, 0.2), (0.15, 0.2)])
def test_so_many_graded_samples_see_a_difference_as_often_as_aimed_at(difference, deviation):
    random = np.random.default_rng(2)
    n = samples_needed_graded(difference, deviation)
    seen = [wilcoxon(random.normal(difference, deviation, n)) <= 0.05 for _ in range(600)]
    assert np.mean(seen) == pytest.approx(0.8, abs=0.05)


def test_groups_need_their_design_effect():
    random = np.random.default_rng(3)
    size, correlation, deviation, difference = 10, 0.3, 0.2, 0.05
    aim = Aim(design_effect=design_effect(size, correlation))
    groups = -(-samples_needed_graded(difference, deviation, aim) // size)
    names = [f"g{i // size}" for i in range(groups * size)]
    seen = []
    for _ in range(250):
        shared = np.repeat(random.normal(0, deviation * correlation**0.5, groups), size)
        own = random.normal(0, deviation * (1 - correlation) ** 0.5, groups * size)
        gains = difference + shared + own
        found = paired_difference(np.zeros(len(gains)), gains, names, Bootstrap(20))
        seen.append(found.p <= 0.05)
    assert np.mean(seen) == pytest.approx(0.8, abs=0.08)


@pytest.mark.parametrize(("difference", "discordant"), RIGHT_WRONG)
def test_what_is_visible_is_the_inverse_of_what_is_needed(difference, discordant):
    n = samples_needed_right_wrong(difference, discordant)
    assert visible_right_wrong(n, discordant) == pytest.approx(difference, rel=0.02)
    needed = samples_needed_graded(difference, 0.2)
    assert visible_graded(needed, 0.2) == pytest.approx(difference, rel=0.06)


def test_more_of_anything_needs_more_samples():
    assert samples_needed_right_wrong(0.02, 0.2) > samples_needed_right_wrong(0.05, 0.2)
    assert samples_needed_right_wrong(0.05, 0.2, Aim(power=0.9)) > samples_needed_right_wrong(0.05, 0.2)
    assert samples_needed_graded(0.05, 0.2, Aim(alpha=0.01)) > samples_needed_graded(0.05, 0.2)
    twice = samples_needed_right_wrong(0.05, 0.2, Aim(design_effect=2))
    assert twice == pytest.approx(2 * samples_needed_right_wrong(0.05, 0.2), abs=1)


def test_too_few_samples_see_nothing():
    assert visible_right_wrong(5, 1.0) is None
    assert visible_right_wrong(100, 0.0) is None
    assert visible_graded(1, 0.2) is None
    assert visible_graded(100, 0.0) is None


def test_what_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="cannot be"):
        samples_needed_right_wrong(0.3, 0.2)
    with pytest.raises(ConfigError, match="above 0"):
        samples_needed_graded(0.0, 0.2)
    with pytest.raises(ConfigError, match="design effect"):
        Aim(design_effect=0.5)
    with pytest.raises(ConfigError, match="alpha"):
        Aim(power=0.01)
