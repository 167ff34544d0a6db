import msgspec
import numpy as np
import pytest

from malpighi.evaluation.calibration import Bin, brier, calibration, ece, reliability
from malpighi.records import Grade, Prediction, Status, TaskKind, from_json, to_json


def a_row(number, truth, chances, options=("a", "b")) -> Prediction:
    return Prediction(
        model="m", exam="e", sample=str(number), group="g", task=TaskKind.CLASSIFICATION, text="",
        grade=Grade(1.0, Status.OK, truth), truth={"index": truth, "options": list(options)}, chances=chances,
    )  # fmt: skip


ROWS = [a_row(0, 0, (0.9, 0.1)), a_row(1, 1, (0.8, 0.2)), a_row(2, 1, (0.3, 0.7)), a_row(3, 0, (0.6, 0.4))]


def test_figures_by_hand():
    found = calibration(ROWS)
    assert (found.n, found.missing) == (4, 0)
    assert found.brier == pytest.approx(2 * (0.1**2 + 0.8**2 + 0.3**2 + 0.4**2) / 4)
    assert found.ece == pytest.approx((0.1 + 0.8 + 0.3 + 0.4) / 4), "each in a bin of its own"
    assert found.auroc == pytest.approx(3 / 4)
    assert found.aurc == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 4) / 4)
    assert found.curve == [(0.25, 0.0), (0.5, 0.5), (0.75, pytest.approx(1 / 3)), (1.0, 0.25)]
    assert sum(row.n for row in found.reliability) == 4


def test_rows_without_chances_are_counted_and_left_out():
    lost = [a_row(9, 0, ()), a_row(10, 0, (0.2, 0.3, 0.5)), msgspec.structs.replace(ROWS[0], truth="words")]
    found = calibration([*ROWS, *lost])
    assert (found.n, found.missing) == (4, 3)
    assert msgspec.structs.replace(found, missing=0) == calibration(ROWS)
    assert calibration(lost) is None


def test_questions_with_other_options_have_no_roc_curve():
    found = calibration([*ROWS, a_row(4, 2, (0.2, 0.2, 0.6), ("x", "y", "z"))])
    assert found.auroc is None
    assert found.brier == pytest.approx((4 * calibration(ROWS).brier + 0.04 + 0.04 + 0.16) / 5)


def test_order_of_samples_changes_nothing_even_with_ties():
    random = np.random.default_rng(0)
    confidence = random.integers(5, 10, 60) / 10
    right = (random.random(60) < 0.6).astype(float)
    order = random.permutation(60)
    for equal_mass in (False, True):
        there = ece(confidence, right, 7, equal_mass=equal_mass)
        assert ece(confidence[order], right[order], 7, equal_mass=equal_mass) == pytest.approx(there)


def test_bins_of_equal_mass_hold_equally_many():
    found = reliability(np.random.default_rng(1).random(100), np.zeros(100), 4, equal_mass=True)
    assert [row.n for row in found] == [25] * 4
    assert reliability(np.full(6, 0.4), np.ones(6), 4, equal_mass=True) == [Bin(6, pytest.approx(0.4), 1.0)]


def test_certain_and_right_is_perfect_and_certain_and_wrong_is_worst():
    certain = np.eye(3)
    assert brier(certain, np.arange(3)) == 0
    assert brier(certain, np.array([1, 2, 0])) == 2


def test_chances_travel_in_rows_and_old_rows_are_read():
    assert from_json(to_json(ROWS[0]), Prediction).chances == (0.9, 0.1)
    assert b"chances" not in to_json(a_row(0, 0, ()))
    assert from_json(to_json(a_row(0, 0, ())), Prediction).chances == ()
