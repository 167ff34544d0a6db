import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from malpighi.evaluation import metrics
from malpighi.evaluation.invariants import (
    ap_order,
    exam_faults,
    f1_against_accuracy,
    macro_f1_bound,
    on_grid,
    point_inside,
    recall_order,
)
from malpighi.evaluation.statistics import Estimate
from malpighi.grading.match import detection_parts


@st.composite
def answers(draw, *, unread: bool):
    classes = draw(st.integers(2, 6))
    count = draw(st.integers(classes, 40))
    truth = [*range(classes), *draw(st.lists(st.integers(0, classes - 1), min_size=count, max_size=count))]
    highest = classes if unread else classes - 1
    predicted = draw(st.lists(st.integers(0, highest), min_size=len(truth), max_size=len(truth)))
    return classes, np.array(truth), np.array(predicted)


@settings(max_examples=300, deadline=None)
@given(answers(unread=False))
def test_no_answers_beat_the_bound(given_answers):
    classes, truth, predicted = given_answers
    score = f1_score(truth, predicted, labels=range(classes), average="macro", zero_division=0)
    assert f1_against_accuracy(score, float((truth == predicted).mean()), classes) == ""


@settings(max_examples=300, deadline=None)
@given(answers(unread=True))
def test_unread_answers_keep_the_weaker_bound_of_our_own_macro_f1(given_answers):
    classes, truth, predicted = given_answers
    counts = np.zeros((classes, classes + 1), np.int64)
    np.add.at(counts, (truth, predicted), 1)
    score, right = float(metrics.macro_f1(counts)), float(metrics.accuracy(counts))
    assert f1_against_accuracy(score, right, classes, all_answered=False) == ""


def test_the_bounds_are_reached():
    # Three classes: a single right answer for the last, all errors between the two others, in equal shares.
    truth = [0] * 5000 + [1] * 5000 + [2]
    predicted = [0] * 3000 + [1] * 2000 + [1] * 3000 + [0] * 2000 + [2]
    score = f1_score(truth, predicted, average="macro")
    assert score == pytest.approx(macro_f1_bound(0.6, 3), abs=1e-4)
    assert f1_against_accuracy(score, 0.6, 3, slack=1e-4) == ""
    # Two classes of which one is all there is, in effect: unread answers cost recall alone.
    counts = np.array([[1, 0, 0], [0, 60, 39]])
    assert metrics.macro_f1(counts) == pytest.approx(macro_f1_bound(0.61, 2, all_answered=False), abs=0.005)
    assert metrics.macro_f1(counts) > macro_f1_bound(0.61, 2)


@pytest.mark.parametrize(
    ("score", "accuracy", "classes", "possible"),
    [(0.478, 0.188, 2, False), (0.188, 0.188, 2, True), (0.977, 0.838, 5, False), (0.93, 0.838, 5, True)],
)
def test_macro_f1_beside_accuracy(score, accuracy, classes, possible):
    fault = f1_against_accuracy(score, accuracy, classes)
    assert (fault == "") is possible
    assert possible or f"{score:.3f}" in fault


def test_a_single_class_sets_no_bound():
    assert macro_f1_bound(0.2, 1) == 1.0


@pytest.mark.parametrize(
    ("curve", "sound"),
    [
        ({0.3: 0.5, 0.5: 0.5, 0.7: 0.1}, True),
        ({0.7: 0.1, 0.3: 0.6, 0.5: 0.2}, True),
        ({0.5: 0.4}, True),
        ({}, True),
        ({0.3: 0.000, 0.5: 0.001, 0.7: 0.000}, False),
        ({0.7: 0.3, 0.3: 0.4, 0.5: 0.2}, False),
    ],
)
def test_average_precision_falls_with_the_threshold(curve, sound):
    assert (ap_order(curve) == "") is sound
    assert ap_order(curve, slack=1.0) == ""


def test_our_own_average_precisions_never_break_the_law():
    draw = np.random.default_rng(0)
    for _ in range(100):
        corners = [
            np.concatenate(
                [low := draw.uniform(0, 50, (count, 2)), low + draw.uniform(5, 50, (count, 2))], axis=1
            )
            for count in draw.integers(1, 8, 2)
        ]
        parts = detection_parts(*corners)
        assert exam_faults({name: Estimate(value) for name, value in parts.items()}) == []


@pytest.mark.parametrize(
    ("curve", "sound"),
    [
        ({1: 0.2, 5: 0.2, 10: 0.4}, True),
        ({10: 0.4, 1: 0.2, 5: 0.3}, True),
        ({1: 0.0204, 5: 0.0019, 10: 0.0037}, False),
        ({1: 0.1, 5: 0.3, 10: 0.2}, False),
    ],
)
def test_recall_rises_with_k(curve, sound):
    assert (recall_order(curve) == "") is sound


@pytest.mark.parametrize(
    ("value", "low", "high", "sound"),
    [
        (0.5, 0.4, 0.6, True),
        (0.4, 0.4, 0.6, True),
        (0.5, None, None, True),
        (0.889, 0.849, 0.888, False),
        (0.342, 0.365, 0.613, False),
        (0.342, 0.365, None, False),
    ],
)
def test_a_figure_lies_in_its_interval(value, low, high, sound):
    assert (point_inside(value, low, high) == "") is sound


@given(st.integers(1, 12_000), st.data())
def test_every_share_lies_on_its_own_grid(n, data):
    k = data.draw(st.integers(0, n))
    for decimals in (0, 1, 2):
        assert on_grid(round(100 * k / n, decimals), n, decimals)


def test_what_is_no_share_lies_on_no_grid():
    assert not on_grid(91.2, 153, 1)
    assert not on_grid(50.0, 3, 1)
    assert not on_grid(133.3, 3, 1)


def test_a_sound_row_of_ours_has_no_faults():
    figures = {
        "exact": Estimate(0.7, 0.6, 0.8, "wilson"),
        "macro-F1": Estimate(0.65, 0.5, 0.7),
        "ap_tie30": Estimate(0.5),
        "ap_tie50": Estimate(0.5),
        "ap_emit70": Estimate(0.9),
        "recall@1": Estimate(0.2),
        "recall@10": Estimate(0.3),
    }
    assert exam_faults(figures, accuracy=0.7, classes=2) == []


@pytest.mark.parametrize(
    ("figures", "word"),
    [
        ({"exact": Estimate(0.7, 0.71, 0.8)}, "exact: 0.700 lies outside"),
        ({"macro-F1": Estimate(0.95)}, "macro-F1: macro-F1 0.950"),
        ({"f1_30": Estimate(0.1), "f1_50": Estimate(0.2)}, "f1_: 0.100 at IoU 0.3"),
        ({"recall@1": Estimate(0.4), "recall@10": Estimate(0.3)}, "recall: Recall@1"),
    ],
)
def test_each_broken_law_is_told(figures, word):
    (fault,) = exam_faults(figures, accuracy=0.7, classes=2)
    assert fault.startswith(word)


def test_macro_f1_is_left_alone_where_the_classes_are_unknown():
    assert exam_faults({"macro-F1": Estimate(1.0)}, accuracy=0.1) == []
    assert exam_faults({"macro-F1": Estimate(1.0)}, classes=2) == []
