"""Intervals and tests on simulated models whose truth is known: do 95 % mean 95 %, and 5 % 5 %?

Groups are patients: each has a level of its own, and its samples scatter around it. The quick tests hold wide
margins over a few hundred runs, the slow ones narrow margins over thousands.
"""

import numpy as np
import pytest

from malpighi.evaluation import metrics
from malpighi.evaluation.statistics import Bootstrap, holm, matrix_interval, mean_interval, paired_difference

GROUPINGS = {
    "30 of 10": lambda random: np.full(30, 10),
    "60 unequal": lambda random: 1 + random.geometric(1 / 10, 60),
    "100 very unequal": lambda random: np.ceil(random.lognormal(1.5, 0.7, 100)).astype(int),
}
DRAWS = Bootstrap(draws=500)


def names_of(sizes):
    return np.repeat([f"patient{g}" for g in range(len(sizes))], sizes).tolist()


def right_wrong(random, sizes, accuracy, alike):
    """0/1 scores with intra-class correlation `alike` (beta-binomial)."""
    weight = 1 / alike - 1
    levels = random.beta(accuracy * weight, (1 - accuracy) * weight, len(sizes))
    return (random.random(sizes.sum()) < np.repeat(levels, sizes)).astype(float)


def graded(random, sizes, mean, alike):
    """Scores from 0 to 1 around a level per patient; each has mean `mean`."""
    weight = 1 / alike - 1
    levels = np.repeat(random.beta(mean * weight, (1 - mean) * weight, len(sizes)), sizes)
    return random.beta(4 * levels + 1e-9, 4 * (1 - levels) + 1e-9)


def accuracy_held(random, sizes, options):
    found = mean_interval(right_wrong(random, sizes, 0.8, 0.15), names_of(sizes), options)
    return found.low <= 0.8 <= found.high


def mean_held(random, sizes, options):
    found = mean_interval(graded(random, sizes, 0.6, 0.2), names_of(sizes), options)
    return found.low <= 0.6 <= found.high


ERRORS = np.array([[0.75, 0.15, 0.08, 0.02], [0.2, 0.65, 0.13, 0.02], [0.05, 0.1, 0.83, 0.02]])
PREVALENCE = np.array([0.5, 0.3, 0.2])


def macro_f1_held(random, sizes, options):
    """A patient leans to a class, and to being misread; over all patients `ERRORS` and `PREVALENCE` hold."""
    lean = random.dirichlet(PREVALENCE * 4, len(sizes))
    misread = np.stack([random.dirichlet(row * 12, len(sizes)) for row in ERRORS], axis=1)
    patient = np.repeat(np.arange(len(sizes)), sizes)
    truth = drawn(random, lean[patient])
    predicted = drawn(random, misread[patient, truth])
    found = matrix_interval((truth, predicted), (3, 4), names_of(sizes), metrics.macro_f1, options)
    return found.low <= float(metrics.macro_f1(PREVALENCE[:, None] * ERRORS)) <= found.high


def drawn(random, chances_NK):
    """One option per row, by its chances."""
    place = (random.random(len(chances_NK))[:, None] > chances_NK.cumsum(axis=1)).sum(axis=1)
    return np.minimum(place, chances_NK.shape[1] - 1)


HELD = {"accuracy": accuracy_held, "mean grade": mean_held, "macro-F1": macro_f1_held}


def coverage(figure, grouping, runs):
    random = np.random.default_rng(0)
    return float(np.mean([HELD[figure](random, GROUPINGS[grouping](random), DRAWS) for _ in range(runs)]))


@pytest.mark.parametrize("grouping", GROUPINGS)
@pytest.mark.parametrize("figure", HELD)
def test_intervals_hold_the_truth_about_as_often_as_they_say(figure, grouping):
    assert 0.91 <= coverage(figure, grouping, 250) <= 0.985


@pytest.mark.slow
@pytest.mark.parametrize("grouping", GROUPINGS)
@pytest.mark.parametrize("figure", HELD)
def test_coverage_lies_between_93_and_97_percent(figure, grouping):
    assert 0.93 <= coverage(figure, grouping, 3000) <= 0.97


def alarms(runs, exams, kind):
    """Share of runs in which any of several exams shows a difference, after Holm, though there is none."""
    random = np.random.default_rng(1)
    found = []
    for _ in range(runs):
        p_values = []
        for _ in range(exams):
            sizes = np.ones(80, int) if kind != "groups" else 1 + random.geometric(0.2, 40)
            easy = graded(random, sizes, 0.6, 0.3)
            if kind == "right/wrong":
                pair = [(random.random(len(easy)) < easy).astype(float) for _ in range(2)]
            else:
                pair = [np.clip(easy + random.normal(0, 0.1, len(easy)), 0, 1) for _ in range(2)]
            p_values.append(paired_difference(*pair, names_of(sizes), Bootstrap(20)).p)
        found.append(min(holm(p_values)) <= 0.05)
    return float(np.mean(found))


@pytest.mark.parametrize("kind", ["right/wrong", "graded", "groups"])
def test_equal_models_rarely_differ(kind):
    # 120 runs at 5 %: more than 12 alarms come up once in 100 times.
    assert alarms(120, 5, kind) <= 0.1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["right/wrong", "graded", "groups"])
def test_false_alarms_stay_below_5_percent(kind):
    # Two standard errors of 1,500 runs at 5 % are 1.1 %.
    assert alarms(1500, 5, kind) <= 0.05 + 0.011
