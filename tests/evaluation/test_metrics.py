import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from malpighi.errors import DataError
from malpighi.evaluation import metrics
from malpighi.records import Grade, Prediction, Status, TaskKind

OPTIONS = ["NILM", "LSIL", "HSIL"]


def a_row(truth, parsed, *, status=Status.OK, options=OPTIONS, parts=None, number=0) -> Prediction:
    return Prediction(
        model="m",
        exam="e",
        sample=str(number),
        group="g",
        task=TaskKind.CLASSIFICATION,
        text="",
        grade=Grade(float(truth == parsed), status, parsed, parts or {}),
        truth={"index": truth, "options": options},
    )


ROWS = [
    a_row(0, 0),
    a_row(0, 1),
    a_row(1, 1),
    a_row(2, None, status=Status.NO_ANSWER),
    a_row(2, 2),
    a_row(2, 7),
]


def test_unreadable_and_impossible_answers_fall_into_the_last_column():
    matrix = metrics.confusion(ROWS)
    assert matrix.options == tuple(OPTIONS)
    assert matrix.counts.tolist() == [[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 2]]


def test_an_answer_of_a_bad_status_is_invalid_even_if_it_was_parsed():
    matrix = metrics.confusion([a_row(0, 0, status=Status.AMBIGUOUS)])
    assert matrix.counts[0].tolist() == [0, 0, 0, 1]


def test_figures_of_a_matrix_by_hand():
    counts = metrics.confusion(ROWS).counts
    assert metrics.accuracy(counts) == pytest.approx(3 / 6)
    assert metrics.balanced_accuracy(counts) == pytest.approx((1 / 2 + 1 + 1 / 3) / 3)
    assert metrics.macro_f1(counts) == pytest.approx((2 / 3 + 2 / 3 + 2 / 4) / 3)


def test_figures_work_on_stacks_and_on_nothing():
    counts = metrics.confusion(ROWS).counts
    stack = np.stack([counts, counts * 2, counts * 0])
    for figure in (metrics.accuracy, metrics.balanced_accuracy, metrics.macro_f1):
        assert figure(stack).tolist() == [figure(counts), figure(counts), 0.0]


def test_no_matrix_where_the_options_change_or_are_none():
    assert metrics.confusion([a_row(0, 0), a_row(0, 0, options=["a", "b"])]) is None
    words = Prediction(
        model="m",
        exam="e",
        sample="1",
        group="g",
        task=TaskKind.VQA,
        text="",
        grade=Grade(0, Status.OK),
        truth="x",
    )
    assert metrics.confusion([words]) is None
    assert metrics.confusion([]) is None


def test_a_truth_outside_the_options_is_refused():
    with pytest.raises(DataError, match="option 3 of 3"):
        metrics.confusion([a_row(3, 0)])


def test_unreadable_answers_are_counted_by_status():
    rows = [*ROWS, a_row(0, None, status=Status.TRUNCATED), a_row(0, None, status=Status.NO_ANSWER)]
    assert metrics.invalid_counts(rows) == {"no_answer": 2, "truncated": 1}
    assert metrics.invalid_rate(rows) == 3 / 8


def test_part_means_count_failed_samples_as_zero_but_not_other_questions():
    rows = [a_row(0, 0, parts={"bleu4": 0.8}), a_row(0, 0, parts={}), a_row(0, 0, parts={"exact": 1.0})]
    assert metrics.part_means(rows) == {"bleu4": 0.4, "exact": 0.5}


def test_collapse_is_noticed_and_a_skewed_exam_is_not_blamed():
    same = [a_row(n % 3, 1, number=n) for n in range(30)]
    assert metrics.collapse(same).startswith("100% of the answers are LSIL; the commonest truth is 33%")
    assert metrics.collapse([a_row(n % 3, n % 3) for n in range(30)]) == ""
    assert metrics.collapse([a_row(1, 1) for _ in range(30)]) == ""
    assert metrics.collapse(same[:9]) == ""
    assert metrics.collapse([a_row(n % 3, None, status=Status.NO_ANSWER) for n in range(30)]) == ""


def a_mask_row(dice, gain, number):
    grade = Grade(dice, Status.OK, [[0, 0, 9, 9]], {"dice": dice, "dice_gain": gain})
    return msgspec.structs.replace(a_row(0, 0, number=number), grade=grade, task=TaskKind.SEGMENTATION)


def test_a_dice_that_the_whole_picture_has_too_is_noticed():
    assert "above the whole picture as the answer it gains 0.000" in metrics.blindness(
        [a_mask_row(0.7, 0.0, n) for n in range(20)]
    )
    assert metrics.blindness([a_mask_row(0.7, 0.3 * (n % 2), n) for n in range(20)]) == ""
    assert metrics.blindness([a_mask_row(0.05, 0.0, n) for n in range(20)]) == ""
    assert metrics.blindness([a_mask_row(0.7, 0.0, n) for n in range(9)]) == ""
    assert metrics.blindness([a_row(1, 1) for _ in range(30)]) == ""


@st.composite
def matrices(draw, *, invalid: bool):
    classes = draw(st.integers(2, 5))
    cells = st.lists(st.integers(0, 30), min_size=classes + 1, max_size=classes + 1)
    counts = np.array([draw(cells) for _ in range(classes)])
    if not invalid:
        counts[:, -1] = 0
    np.fill_diagonal(counts, counts.diagonal() + 1)
    return counts


@given(matrices(invalid=False))
def test_macro_f1_never_beats_its_bound_where_every_answer_is_a_class(counts):
    classes, right = len(counts), metrics.accuracy(counts)
    assert metrics.macro_f1(counts) <= (classes - 2 + 2 * right) / classes + 1e-12


@given(matrices(invalid=True))
def test_macro_f1_with_invalid_answers_keeps_the_weaker_bound(counts):
    classes, right = len(counts), metrics.accuracy(counts)
    assert metrics.macro_f1(counts) <= (classes - 1 + 2 * right / (1 + right)) / classes + 1e-12


def test_the_strong_bound_does_not_hold_with_invalid_answers():
    counts = np.array([[5, 0, 5], [0, 5, 5]])
    assert metrics.accuracy(counts) == 0.5
    assert metrics.macro_f1(counts) == pytest.approx(2 / 3)


@given(matrices(invalid=True))
def test_invalid_answers_never_help(counts):
    readable = counts.copy()
    readable[np.arange(len(counts)), np.arange(len(counts))] += counts[:, -1]
    readable[:, -1] = 0
    for figure in (metrics.accuracy, metrics.balanced_accuracy, metrics.macro_f1):
        assert figure(counts) <= figure(readable) + 1e-12
