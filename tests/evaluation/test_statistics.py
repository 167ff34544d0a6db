import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from malpighi.errors import ConfigError
from malpighi.evaluation import metrics
from malpighi.evaluation.statistics import (
    Bootstrap,
    average_ranks,
    effective_groups,
    group_sums,
    holm,
    interval,
    kinds_of,
    matrix_interval,
    mcnemar,
    mean_interval,
    paired_difference,
    resample,
    wilcoxon,
    wilson,
)

FAST = Bootstrap(draws=1000, seed=3)


def alone(n: int) -> list[str]:
    return [f"g{i}" for i in range(n)]


def mean_of(totals):
    return totals[:, 0] / totals[:, 1]


def test_same_seed_same_interval_and_another_seed_another():
    scores = np.random.default_rng(0).random(80)
    one = mean_interval(scores, alone(80), FAST)
    assert one == mean_interval(scores, alone(80), FAST)
    assert one != mean_interval(scores, alone(80), Bootstrap(1000, 4))


def test_order_of_rows_changes_nothing():
    random = np.random.default_rng(1)
    scores, groups = random.random(60), [f"g{i % 13}" for i in range(60)]
    order = random.permutation(60)
    turned = mean_interval(scores[order], [groups[i] for i in order], FAST)
    straight = mean_interval(scores, groups, FAST)
    assert turned.low == pytest.approx(straight.low, abs=1e-12)
    assert turned.high == pytest.approx(straight.high, abs=1e-12)


def test_groups_widen_the_interval():
    random = np.random.default_rng(2)
    patients = random.normal(0.5, 0.2, 40)
    scores = np.clip(np.repeat(patients, 20) + random.normal(0, 0.05, 800), 0.01, 0.99)
    whole = mean_interval(scores, [f"p{i // 20}" for i in range(800)], FAST)
    naive = mean_interval(scores, alone(800), FAST)
    assert whole.value == pytest.approx(naive.value)
    assert (whole.high - whole.low) > 3 * (naive.high - naive.low)


def test_merging_equal_groups_keeps_the_law_of_the_bootstrap():
    scores = (np.random.default_rng(5).random(300) < 0.3).astype(float)
    sums = group_sums(np.column_stack([scores, np.ones(300)]), alone(300))
    kinds = kinds_of(sums)
    assert len(kinds.counts) == 2
    merged = resample(kinds, mean_of, Bootstrap(8000))
    random = np.random.default_rng(6)
    straight = scores[random.integers(0, 300, (8000, 300))].mean(axis=1)
    assert merged.mean() == pytest.approx(straight.mean(), abs=0.002)
    assert merged.std() == pytest.approx(straight.std(), rel=0.04)


def test_interval_covers_about_as_often_as_it_says():
    random = np.random.default_rng(7)
    hits = 0
    for trial in range(200):
        scores = random.beta(2, 2, 60)
        found = mean_interval(scores, alone(60), Bootstrap(400, trial))
        hits += found.low <= 0.5 <= found.high
    assert 180 <= hits <= 199


def test_many_draws_are_made_in_pieces_of_bounded_memory(monkeypatch):
    scores = np.random.default_rng(0).random(50)
    whole = mean_interval(scores, alone(50), FAST)
    monkeypatch.setattr("malpighi.evaluation.statistics._CHUNK", 700)
    assert mean_interval(scores, alone(50), FAST) == whole


def test_right_or_wrong_answers_get_wilson_over_what_the_groups_are_worth():
    singles = [1.0] * 30 + [0.0] * 10
    found = mean_interval(singles, alone(40), FAST)
    assert (found.method, found.low, found.high) == ("wilson", *wilson(30, 40))
    few = mean_interval([1, 1, 0, 1], ["a", "a", "b", "c"], FAST)
    worth = effective_groups(np.array([2, 1, 1]))
    assert worth == pytest.approx(8 / 3)
    assert (few.low, few.high) == wilson(0.75 * worth, worth), "too few to tell how alike a group is"
    perfect = mean_interval([1.0] * 100, alone(100), FAST)
    assert (perfect.method, perfect.high) == ("wilson", 1.0)
    assert perfect.low < 0.97
    assert mean_interval([0.5, 0.6, 0.7], alone(3), FAST).method == "bootstrap"


def test_alike_groups_widen_a_wilson_interval_and_mixed_groups_do_not():
    groups = [f"g{i // 10}" for i in range(400)]
    random = np.random.default_rng(4)
    mixed = random.permutation(np.repeat([1.0, 0.0], [300, 100]))
    alike = np.repeat(random.permutation(np.repeat([1.0, 0.0], [30, 10])), 10)
    free = wilson(300, 400)
    narrow, wide = mean_interval(mixed, groups, FAST), mean_interval(alike, groups, FAST)
    assert narrow.high - narrow.low < 1.4 * (free[1] - free[0])
    assert (wide.low, wide.high) == pytest.approx(wilson(30, 40), abs=1e-9)


def test_one_group_allows_no_interval_for_graded_scores():
    found = mean_interval([0.2, 0.4], ["a", "a"], FAST)
    assert (found.value, found.low, found.high, found.method) == (pytest.approx(0.3), None, None, "none")


@given(st.integers(1, 400), st.floats(0, 1), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_wilson_holds_its_share_and_stays_in_range(n, share, level):
    low, high = wilson(share * n, n, level)
    assert 0 <= low <= share + 1e-12
    assert share - 1e-12 <= high <= 1
    assert high > low


def test_macro_f1_interval_of_single_and_grouped_samples_agree_with_slow_resampling():
    random = np.random.default_rng(8)
    truth = random.integers(0, 3, 240)
    predicted = np.where(random.random(240) < 0.7, truth, random.integers(0, 4, 240))
    for groups in (alone(240), [f"g{i // 4}" for i in range(240)]):
        fast = matrix_interval((truth, predicted), (3, 4), groups, metrics.macro_f1, Bootstrap(4000))
        names = np.unique(groups)
        members = {name: np.flatnonzero(np.asarray(groups) == name) for name in names}
        slow = []
        for _ in range(1500):
            chosen = np.concatenate([members[name] for name in random.choice(names, len(names))])
            counts = np.zeros((3, 4))
            np.add.at(counts, (truth[chosen], predicted[chosen]), 1)
            slow.append(metrics.macro_f1(counts))
        assert fast.low == pytest.approx(np.quantile(slow, 0.025), abs=0.012)
        assert fast.high == pytest.approx(np.quantile(slow, 0.975), abs=0.012)


def test_interval_holds_its_point():
    sums = np.array([[1.0, 1.0], [0.0, 1.0], [0.5, 1.0]])
    found = interval(kinds_of(sums), mean_of, FAST)
    assert found.low <= found.value <= found.high


def test_paired_difference_names_its_test():
    a, b = np.zeros(40), np.r_[np.ones(12), np.zeros(28)]
    right_wrong = paired_difference(a, b, alone(40), FAST)
    assert (right_wrong.test, right_wrong.p) == ("mcnemar", mcnemar(a, b))
    assert right_wrong.estimate.value == pytest.approx(0.3)
    assert right_wrong.ties == 0.7
    assert right_wrong.sign_share == 1 / 1001
    graded = paired_difference(a, b / 2, alone(40), FAST)
    assert (graded.test, graded.p) == ("wilcoxon", wilcoxon(b / 2))
    grouped = paired_difference(a, b, [f"g{i // 2}" for i in range(40)], FAST)
    assert (grouped.test, grouped.n, grouped.groups) == ("wilcoxon on groups", 40, 20)
    assert grouped.p > right_wrong.p


def test_no_difference_has_p_one_and_no_sign():
    scores = [0.1, 0.5, 0.9, 1.0]
    for groups in (alone(4), ["a", "a", "b", "c"], ["a"] * 4):
        same = paired_difference(scores, scores, groups, FAST)
        assert (same.p, same.sign_share, same.estimate.value, same.ties) == (1.0, 1.0, 0.0, 1.0)


def test_turning_the_pair_turns_the_sign():
    random = np.random.default_rng(9)
    a, b = random.random(50), random.random(50)
    there, back = paired_difference(a, b, alone(50), FAST), paired_difference(b, a, alone(50), FAST)
    assert there.estimate.value == pytest.approx(-back.estimate.value)
    assert there.p == pytest.approx(back.p)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_never_lowers_and_keeps_the_order(p_values):
    adjusted = holm(p_values)
    assert all(p <= q <= 1 for p, q in zip(p_values, adjusted, strict=True))
    ranked = [adjusted[i] for i in np.argsort(p_values, kind="stable")]
    assert ranked == sorted(ranked)


def test_holm_of_nothing():
    assert holm([]) == []


def test_average_ranks_share_ties():
    assert average_ranks([[1.0, 1.0, 1.0]]) == [2.0, 2.0, 2.0]


@pytest.mark.parametrize("wrong", [{"draws": 0}, {"level": 1.0}, {"level": 0.0}])
def test_impossible_bootstraps_are_refused(wrong):
    with pytest.raises(ConfigError, match="bootstrap"):
        Bootstrap(**wrong)
