"""Agreement among annotators, against published examples and scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from malpighi.errors import DataError
from malpighi.evaluation.agreement import (
    agreement,
    cohen_kappa,
    fleiss_kappa,
    gwet_ac1,
    item_counts,
    label_matrix,
    percent_agreement,
)
from malpighi.evaluation.statistics import Bootstrap

# Ten subjects, 14 raters, five categories: the worked example of Fleiss' kappa, 0.210.
FLEISS = np.array(
    [
        [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
    ]
)  # fmt: skip
# Twelve units, four raters, with missing labels: the example of Gwet (2014); his results are below.
GWET = [
    [1, 1, None, 1], [2, 2, 3, 2], [3, 3, 3, 3], [3, 3, 3, 3], [2, 2, 2, 2], [1, 2, 3, 4], [4, 4, 4, 4],
    [1, 1, 2, 1], [2, 2, 2, 2], [None, 5, 5, 5], [None, None, 1, 1], [None, None, 3, None],
]  # fmt: skip


def test_fleiss_worked_example():
    assert fleiss_kappa(FLEISS) == pytest.approx(0.20993070442195522, abs=1e-12)  # statsmodels 0.15
    assert percent_agreement(FLEISS) == pytest.approx(0.378, abs=5e-4)


def test_gwet_example_with_missing_labels():
    labels = label_matrix(GWET)
    counts = item_counts(labels)
    assert percent_agreement(counts) == pytest.approx(0.8181818, abs=1e-7)
    assert gwet_ac1(counts) == pytest.approx(0.77544, abs=1e-5)
    assert fleiss_kappa(counts) == pytest.approx(0.76117, abs=1e-5)
    found = agreement(labels)
    assert (found.items, found.raters, found.groups, len(found.pairs)) == (11, 4, 11, 6)
    for one in (found.percent, found.kappa, found.ac1):
        assert one.low < one.value < one.high <= 1
    assert found.ac1.value == pytest.approx(gwet_ac1(counts), abs=1e-12)


def test_cohen_against_an_example_and_ac1_where_one_category_is_rare():
    assert cohen_kappa(np.array([[44, 5, 1], [7, 20, 3], [9, 5, 6]])) == pytest.approx(0.49152542372881347)
    # 118 of 125 agree, but one category only: kappa is near 0, AC1 is not.
    matrix = np.array([[118, 5], [2, 0]])
    counts = np.repeat([[2, 0], [1, 1], [0, 2]], [118, 7, 0], axis=0)
    assert cohen_kappa(matrix) == pytest.approx(-0.0234, abs=1e-4)
    assert gwet_ac1(counts) == pytest.approx(0.9408, abs=1e-4)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 5), st.integers(2, 40))
def test_two_raters_against_scikit_learn(seed, k, n):
    random = np.random.default_rng(seed)
    first = random.integers(0, k, n)
    second = np.where(random.random(n) < 0.6, first, random.integers(0, k, n))
    table = [[f"c{a}", f"c{b}"] for a, b in zip(first, second, strict=True)]
    found = agreement(label_matrix(table), bootstrap=Bootstrap(draws=20))
    (_, _, percent, kappa) = found.pairs[0]
    assert percent.value == found.percent.value == pytest.approx((first == second).mean(), abs=1e-12)
    if len(set(first) | set(second)) > 1:
        assert kappa.value == pytest.approx(cohen_kappa_score(first, second), abs=1e-9)
    assert -1 <= found.kappa.value <= 1
    assert found.kappa.value <= found.percent.value + 1e-12
    assert found.ac1.value <= found.percent.value + 1e-12


def test_one_category_for_all_is_full_agreement():
    counts = np.array([[3, 0], [3, 0]])
    assert [measure(counts) for measure in (percent_agreement, fleiss_kappa, gwet_ac1)] == [1, 1, 1]
    assert cohen_kappa(np.array([[5, 0], [0, 0]])) == 1
    alone = label_matrix([["a", "a"]])
    found = agreement(alone)
    assert (found.kappa.value, found.kappa.low) == (1.0, None)


def test_intervals_draw_whole_groups():
    random = np.random.default_rng(0)
    table, groups = [], []
    for patient in range(20):  # annotators agree on all cells of a patient, or on none
        same = random.random() < 0.7
        for _ in range(10):
            label = str(random.integers(0, 2))
            table.append([label, label if same else str(1 - int(label))])
            groups.append(f"p{patient}")
    labels = label_matrix(table)
    grouped, single = agreement(labels, groups), agreement(labels)
    assert grouped.kappa.value == single.kappa.value
    width = [one.kappa.high - one.kappa.low for one in (grouped, single)]
    assert width[0] > 2 * width[1]
    assert (grouped.groups, single.groups) == (20, 200)


def test_seven_annotators_with_few_labels():
    table = [["x", "", None, "x", "", "y", ""], ["", "", "x", "", "", "", ""], [""] * 7, ["y"] * 7]
    found = agreement(label_matrix(table), ["a", "b", "c", "d"])
    assert (found.items, found.groups) == (2, 2)
    assert (0, 1) in [pair[:2] for pair in found.pairs]
    assert found.percent.value == pytest.approx((1 / 3 + 1) / 2)


def test_tables_that_say_nothing_are_refused():
    for table, word in (
        ([], "lengths none"),
        ([["a"], ["a", "b"]], "one length"),
        ([[None, ""]], "any label"),
    ):
        with pytest.raises(DataError, match=word):
            label_matrix(table)
    lonely = label_matrix([["a", None], [None, "b"]])
    with pytest.raises(DataError, match="two labels"):
        agreement(lonely)
    with pytest.raises(DataError, match="two labels"):
        fleiss_kappa(item_counts(lonely))
    with pytest.raises(DataError, match="1 groups for 2 items"):
        agreement(label_matrix([["a", "b"], ["a", "a"]]), ["g"])
