"""Metrics, intervals and tests against scikit-learn, scipy and slow straight code."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, recall_score

from malpighi.evaluation import metrics
from malpighi.evaluation.statistics import (
    Bootstrap,
    average_ranks,
    holm,
    mcnemar,
    mean_interval,
    wilcoxon,
    wilson,
)


def a_matrix(truth, predicted, classes):
    counts = np.zeros((classes, classes + 1), int)
    np.add.at(counts, (truth, predicted), 1)
    return counts


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("classes", [2, 3, 7])
def test_figures_equal_sklearn_with_invalid_as_a_label_outside_the_list(seed, classes):
    random = np.random.default_rng(seed)
    truth = np.r_[np.arange(classes), random.integers(0, classes, 60)]
    predicted = np.where(random.random(len(truth)) < 0.5, truth, random.integers(0, classes + 1, len(truth)))
    counts = a_matrix(truth, predicted, classes)
    labels = list(range(classes))
    assert (counts == confusion_matrix(truth, predicted, labels=[*labels, classes])[:-1]).all()
    scores = {"labels": labels, "average": "macro", "zero_division": 0}
    assert metrics.accuracy(counts) == pytest.approx(accuracy_score(truth, predicted))
    assert metrics.macro_f1(counts) == pytest.approx(f1_score(truth, predicted, **scores))
    assert metrics.balanced_accuracy(counts) == pytest.approx(recall_score(truth, predicted, **scores))


@pytest.mark.parametrize(("right", "n"), [(0, 5), (3, 7), (50, 50), (812, 1000)])
@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_wilson_equals_scipy(right, n, level):
    found = stats.binomtest(right, n).proportion_ci(level, method="wilson")
    assert wilson(right, n, level) == pytest.approx((found.low, found.high), abs=1e-12)


@pytest.mark.parametrize("seed", range(10))
def test_mcnemar_equals_the_sum_over_the_binomial(seed):
    random = np.random.default_rng(seed)
    a, b = random.integers(0, 2, 40), random.integers(0, 2, 40)
    gained, lost = int((a < b).sum()), int((a > b).sum())
    tail = sum(stats.binom.pmf(k, gained + lost, 0.5) for k in range(min(gained, lost) + 1))
    assert mcnemar(a, b) == pytest.approx(min(1.0, 2 * tail))


def pratt_by_hand(differences):
    """Normal approximation with zeros ranked and their ranks dropped; tie correction over the others."""
    size = np.abs(differences)
    ranks = stats.rankdata(size)
    n, zeros = len(size), int((size == 0).sum())
    up = ranks[differences > 0].sum()
    mean = n * (n + 1) / 4 - zeros * (zeros + 1) / 4
    variance = n * (n + 1) * (2 * n + 1) / 24 - zeros * (zeros + 1) * (2 * zeros + 1) / 24
    _, ties = np.unique(size[size > 0], return_counts=True)
    variance -= ((ties**3 - ties).sum()) / 48
    return 2 * stats.norm.sf(abs(up - mean) / np.sqrt(variance))


@pytest.mark.parametrize("seed", range(6))
def test_wilcoxon_equals_the_formula(seed):
    random = np.random.default_rng(seed)
    differences = np.round(random.normal(0.1, 0.5, 50), 1)
    assert wilcoxon(differences) == pytest.approx(pratt_by_hand(differences))


def test_holm_equals_stepping_down_by_hand():
    p_values = [0.01, 0.005, 0.03, 0.04]
    assert holm(p_values) == pytest.approx([0.03, 0.02, 0.06, 0.06])
    assert holm([0.6, 0.9]) == pytest.approx([1.0, 1.0])


def test_bootstrap_agrees_with_scipy():
    scores = np.random.default_rng(0).gamma(2.0, 0.1, 120)
    ours = mean_interval(scores, [str(i) for i in range(120)], Bootstrap(20_000))
    reference = stats.bootstrap(
        (scores,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    width = reference.high - reference.low
    assert ours.low == pytest.approx(reference.low, abs=0.03 * width)
    assert ours.high == pytest.approx(reference.high, abs=0.03 * width)


def test_average_ranks_equal_scipy_row_by_row():
    scores = np.random.default_rng(2).integers(0, 5, (9, 4)) / 4
    by_row = np.mean([stats.rankdata(-row) for row in scores], axis=0)
    assert average_ranks(scores.tolist()) == pytest.approx(by_row)
