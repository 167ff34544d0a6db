import logging

import msgspec
import pytest

from malpighi.evaluation.majority import majority_predictions
from malpighi.geometry import Box
from malpighi.grading.grade import grade
from malpighi.records import (
    Boxes,
    Choice,
    ImageRef,
    Provenance,
    Sample,
    Scale,
    Status,
    TaskKind,
    Text,
    Turn,
)


def a_sample(number, answer, **fields) -> Sample:
    sample = Sample(
        id=f"s{number}",
        dataset="toy",
        exam="toy/e",
        task=TaskKind.CLASSIFICATION,
        scale=Scale.CELL,
        images=(ImageRef("0" * 64, (100, 50)),),
        turns=(Turn("user", "?"),),
        answer=answer,
        group="g",
        licence="CC0-1.0",
        provenance=Provenance("test"),
    )
    return msgspec.structs.replace(sample, **fields)


def test_the_commonest_training_class_is_always_answered():
    options = ("NILM", "LSIL", "HSIL")
    train = [a_sample(n, Choice(i), options=options) for n, i in enumerate([2, 1, 1, 0, 1])]
    test = [a_sample(n + 10, Choice(i), options=options) for n, i in enumerate([1, 2])]
    rows = majority_predictions(train, test, grade)
    assert [row.text for row in rows] == ["<answer>LSIL</answer>"] * 2
    assert [row.grade.score for row in rows] == [1.0, 0.0]
    assert {row.model for row in rows} == {"majority"}
    assert rows[0].truth == {"index": 1, "options": list(options)}
    assert {row.grade.status for row in rows} == {Status.OK}


def test_test_answers_are_never_looked_at():
    options = ("a", "b")
    train = [a_sample(0, Choice(0), options=options)]
    test = [a_sample(n + 1, Choice(1), options=options) for n in range(5)]
    assert {row.grade.score for row in majority_predictions(train, test, grade)} == {0.0}


def test_where_the_commonest_name_is_not_offered_the_commonest_position_is_taken():
    train = [a_sample(n, Choice(1), options=("kidney", f"organ {n}")) for n in range(3)]
    test = [a_sample(9, Choice(1), options=("lung", "liver")), a_sample(10, Choice(0), options=("lung",))]
    assert [row.text for row in majority_predictions(train, test, grade)] == [
        "<answer>liver</answer>",
        "<answer>lung</answer>",
    ]


def test_the_mean_box_is_scaled_to_the_image():
    train = [
        a_sample(0, Boxes((Box(10, 10, 30, 30),)), task=TaskKind.DETECTION),
        a_sample(1, Boxes((Box(30, 10, 50, 30),)), task=TaskKind.DETECTION),
    ]
    same = a_sample(2, Boxes((Box(20, 10, 40, 30),)), task=TaskKind.DETECTION)
    double = a_sample(3, Boxes((Box(40, 20, 80, 60),)), task=TaskKind.DETECTION)
    double = msgspec.structs.replace(double, images=(ImageRef("1" * 64, (200, 100)),))
    rows = majority_predictions(train, [same, double], grade)
    assert [row.text for row in rows] == [
        "<answer>[[20, 10, 40, 30]]</answer>",
        "<answer>[[40, 20, 80, 60]]</answer>",
    ]
    assert [row.grade.parts["ap_tie50"] for row in rows] == [1.0, 1.0]


def test_the_whole_picture_is_answered_where_it_earns_more_than_the_mean_box():
    corner = Boxes(tuple(Box(n, n, n + 2, n + 2) for n in range(20)))
    full = Boxes((Box(0, 0, 100, 50),))
    train = [a_sample(n, corner if n == 0 else full, task=TaskKind.DETECTION) for n in range(3)]
    (row,) = majority_predictions(train, [a_sample(9, full, task=TaskKind.DETECTION)], grade)
    assert (row.text, row.grade.score) == ("<answer>[[0, 0, 100, 50]]</answer>", 1.0)


def test_empty_training_boxes_and_words():
    empty = a_sample(0, Boxes(()), task=TaskKind.DETECTION, exam="boxes")
    words = [
        a_sample(n, Text(t), task=TaskKind.VQA, exam="words") for n, t in enumerate(["H&E", "Pap", "Pap"], 1)
    ]
    rows = majority_predictions([empty, *words], [empty, words[0], words[1]], grade)
    assert [row.text for row in rows] == [
        "<answer>[]</answer>",
        "<answer>Pap</answer>",
        "<answer>Pap</answer>",
    ]
    assert [row.grade.score for row in rows] == [1.0, 0.0, pytest.approx(1.0)]


def test_an_exam_without_training_samples_gets_no_answer(caplog):
    test = [a_sample(0, Choice(0), options=("a", "b"), exam="unseen")]
    with caplog.at_level(logging.WARNING):
        assert majority_predictions([], test, grade) == []
    assert "exam unseen has no training samples" in caplog.text
