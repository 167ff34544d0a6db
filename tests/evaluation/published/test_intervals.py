import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from malpighi.evaluation.published.intervals import (
    implied_sizes,
    sizes_that_fit,
    student_interval,
    totals,
    uncut_low,
)
from malpighi.evaluation.published.rows import Row, paper
from malpighi.evaluation.statistics import wilson


def a_row(value, low, high) -> Row:
    ends = (round(float(low), 3), round(float(high), 3))
    plain = paper("smartpath-r1").rows[0]
    return plain._replace(value=round(value, 3), low=ends[0], high=ends[1], printed=f"{value:.3f}")


def test_every_accuracy_interval_is_found(smartpath):
    columns = implied_sizes(smartpath)
    assert len(columns) == 43
    assert sum(len(column.rows) for column in columns if column.fits) == 258


IMPLIED = {
    "CCRCC": (1986, 1989, 1998, 2000, 2019),
    "CRC-MSI": (1972, 1977, 1982, 1984, 2000),
    "ESCA": (2000,),
    "PanCancer-TIL": (2000,),
    "Chaoyang": (1000,),
    "UniToPatho": (976, 1000),
    "BreakHis": (1000,),
    "PanCancer-TCGA": (1983, 1997, 2000),
    "PathMMU-PathCLS/test_tiny": (165,),
    "PathMMU-PathCLS/val": (90,),
    "PathVQA/closed": (3334, 3342, 3344, 3354, 3362),
    "BRACS": (545,),
    "CAMELYON": (898,),
    "TCGA-BRCA": (92,),
    "TCGA-HNSC": (25,),
    "TCGA-VQA-Risk Factors": (11,),
    "TCGA-VQA-Biomarker Analysis": (12,),
}


def test_implied_sizes(smartpath):
    found = {column.column: column for column in implied_sizes(smartpath)}
    assert {name: found[name].fits for name in IMPLIED} == IMPLIED
    assert 2213 in found["CPTAC-NSCLC"].fits
    assert 1213 not in found["CPTAC-NSCLC"].fits
    assert all(1058 in found[f"BCNB-{name}"].fits for name in ("HER2 Expression", "HER2 Type", "Tumor Type"))
    assert 926 in found["BCNB-Grading"].fits
    other = {name for name, column in found.items() if not column.agrees}
    assert other == {
        "CCRCC", "Chaoyang", "CRC-MSI", "ESCA", "PanCancer-TIL", "UniToPatho", "BreakHis", "CPTAC-NSCLC",
    }  # fmt: skip


def test_the_n_that_is_meant(smartpath):
    meant = {column.column: column.n for column in implied_sizes(smartpath)}
    assert [meant[name] for name in ("CCRCC", "UniToPatho", "ESCA", "PanCancer-TCGA", "CAMELYON")] == [
        2000, 1000, 2000, 2000, 898,
    ]  # fmt: skip
    assert meant["PathVQA/closed"] is None


def test_totals_of_several_columns(smartpath):
    found = {
        total.stated.covers: (total.stated.samples, total.implied)
        for total in totals(smartpath, implied_sizes(smartpath))
    }
    assert found == {
        "PathMMU-PubMed": (514, 514),
        "PathMMU-Atlas": (288, 288),
        "PathMMU-EduContent": (401, 401),
        "PathMMU-PathCLS": (257, 255),
        "TCGA-VQA-*": (1501, 1494),
    }


def test_the_interval_is_scipys_between_the_cuts():
    scores = np.repeat([1.0, 0.0], [30, 70])
    low, high = stats.t.interval(0.95, 99, scores.mean(), stats.sem(scores))
    found = student_interval(np.array(30), np.array(100))
    assert [float(end) for end in found] == pytest.approx([low, high], abs=1e-12)


def test_the_cuts():
    low, high = student_interval(np.array([0, 1, 10, 11]), np.array(11))
    assert low.round(3).tolist() == [0.0, 0.0, 0.818, 1.0]
    assert high.round(3).tolist() == [0.0, 0.293, 1.0, 1.0]
    assert uncut_low(0.909, 11) == pytest.approx(0.707, abs=0.0005)


@settings(max_examples=60, deadline=None)
@given(st.integers(12, 3000), st.data())
def test_the_true_n_is_always_among_those_that_fit(n, data):
    rights = data.draw(st.lists(st.integers(0, n), min_size=1, max_size=6))
    rows = [a_row(k / n, *student_interval(np.array(k), np.array(n))) for k in rights]
    limited = [row for row in rows if row.high - row.low > 0.002]
    if limited:
        assert n in sizes_that_fit(rows)


def test_intervals_of_another_kind_fit_nothing():
    rows = [a_row(k / 200, *wilson(k, 200)) for k in (14, 31, 60, 97, 120)]
    assert sizes_that_fit(rows) == []


def test_one_wrong_digit_fits_nothing(smartpath, changed):
    broken = changed(smartpath, {"dataset": "BRACS", "metric": "accuracy", "method": "PathoR1"}, low=0.001)
    (column,) = (each for each in implied_sizes(broken) if each.column == "BRACS")
    assert (column.fits, column.n, column.agrees) == ((), None, False)
