import json
import random

import msgspec
import pytest
from rich.console import Console

from malpighi.errors import UserError
from malpighi.evaluation.statistics import Bootstrap
from malpighi.evaluation.tables import exam_confusions, metric_label, results, to_dict, to_rich
from malpighi.records import Grade, Prediction, Status, TaskKind

FAST = Bootstrap(draws=200)
DETECTION = {"format": 1.0, "ap_tie50": 0.5, "ap_emit50": 0.6, "ap_tie30": 0.7}


def a_row(model, exam, number, score, **fields) -> Prediction:
    defaults = {
        "group": f"g{number}",
        "task": TaskKind.CLASSIFICATION,
        "truth": {"index": 0, "options": ["[red]a", "b"]},
        "grade": Grade(score, Status.OK, 0 if score else 1, {"exact": score, "task": score, "format": 1.0}),
    }
    return Prediction(model=model, exam=exam, sample=f"{exam}/{number}", text="", **(defaults | fields))


def some_rows(models=("untrained", "supervised"), n=40) -> list[Prediction]:
    rows = []
    for place, model in enumerate(models):
        draw = random.Random(model)
        for number in range(n):
            rows.append(a_row(model, "toy/class", number, float(draw.random() < 0.3 + 0.4 * place)))
        for number in range(n // 2):
            score = draw.random() * (0.5 + 0.5 * place)
            parts = {**DETECTION, "ap_tie50": score, "task": score}
            grade = Grade(score, Status.OK, [[0, 0, 1, 1]], parts)
            rows.append(
                a_row(model, "toy/boxes", number, score, task=TaskKind.DETECTION, truth=[], grade=grade)
            )
    return rows


@pytest.fixture(scope="module")
def table():
    return results(some_rows(), [("untrained", "supervised")], FAST)


def test_one_row_per_exam_and_model_in_order(table):
    assert [(row.exam, row.model) for row in table.rows] == [
        ("toy/boxes", "untrained"),
        ("toy/boxes", "supervised"),
        ("toy/class", "untrained"),
        ("toy/class", "supervised"),
    ]
    assert table.models == ["untrained", "supervised"]
    assert [row.score_name for row in table.rows] == ["AP50 (tie)"] * 2 + ["accuracy"] * 2
    assert [row.n for row in table.rows] == [20, 20, 40, 40]
    assert all(row.score.low <= row.score.value <= row.score.high for row in table.rows)


def test_the_score_is_the_mean_grade(table):
    scores = [row.grade.score for row in some_rows() if (row.exam, row.model) == ("toy/boxes", "supervised")]
    assert table.rows[1].score.value == pytest.approx(sum(scores) / len(scores))
    assert [row.best for row in table.rows] == [False, True, False, True]


def test_metrics_are_those_of_the_exam_without_the_score_itself(table):
    assert sorted(table.rows[0].metrics) == ["ap_emit50", "ap_tie30", "format"]
    assert sorted(table.rows[2].metrics) == ["balanced accuracy", "format", "kappa", "macro-F1"]
    assert table.rows[0].metrics["ap_tie30"].value == pytest.approx(0.7)
    assert table.rows[2].metrics["macro-F1"].low is not None


def test_comparisons_per_exam_per_kind_and_overall(table):
    assert [(row.scope, row.name) for row in table.comparisons] == [
        ("exam", "toy/boxes"),
        ("exam", "toy/class"),
        ("task", "classification"),
        ("task", "detection"),
        ("overall", "all exams"),
    ]
    overall = table.comparisons[-1]
    assert overall.difference.n == 60
    assert overall.difference.groups == 40
    assert overall.difference.test == "wilcoxon on groups"
    assert overall.difference.estimate.value > 0
    assert table.comparisons[1].difference.test == "mcnemar"
    assert all(row.p_holm >= row.difference.p for row in table.comparisons)
    assert overall.p_holm == overall.difference.p


def test_samples_of_only_one_model_are_left_out_and_counted():
    rows = [row for row in some_rows() if not (row.model == "supervised" and row.sample == "toy/class/3")]
    found = {row.name: row for row in results(rows, [("untrained", "supervised")], FAST).comparisons}
    assert found["toy/class"].unpaired == 1
    assert found["toy/class"].difference.n == 39
    assert found["toy/boxes"].unpaired == 0


def test_an_exam_that_one_model_did_not_take_is_not_ranked():
    rows = [row for row in some_rows() if (row.model, row.exam) != ("supervised", "toy/boxes")]
    found = results(rows, [("untrained", "supervised")], FAST)
    assert found.ranked_exams == 1
    assert found.ranks == {"untrained": 2.0, "supervised": 1.0}
    assert [row.name for row in found.comparisons] == ["toy/class", "classification", "all exams"]
    assert "–" in shown(found)


def test_unreadable_answers_are_in_the_row():
    grade = Grade(0.0, Status.TRUNCATED)
    rows = [a_row("m", "e", n, 0.0, grade=grade) if n < 3 else a_row("m", "e", n, 1.0) for n in range(10)]
    row = results(rows, (), FAST).rows[0]
    assert (row.invalid, row.invalid_by_status) == (0.3, {"truncated": 3})
    assert row.score.value == 0.7


def a_mask_row(number, score, **parts) -> Prediction:
    grade = Grade(score, Status.OK, [[0, 0, 1, 1]], {"dice": score, "task": score, **parts})
    return a_row("m", "toy/masks", number, score, task=TaskKind.SEGMENTATION, truth=[], grade=grade)


def test_the_ceiling_stands_beside_the_dice():
    failed = a_row("m", "toy/masks", 3, 0.0, task=TaskKind.SEGMENTATION, grade=Grade(0.0, Status.MALFORMED))
    rows = [a_mask_row(0, 0.5, dice_ceiling=0.9), a_mask_row(1, 0.7, dice_ceiling=0.8), failed]
    found = results(rows, (), FAST)
    assert found.rows[0].ceiling == pytest.approx(0.85), "a sample that failed has none"
    assert "dice_ceiling" not in found.rows[0].metrics
    assert "Dice (ceiling 0.850)" in shown(found)
    assert to_dict(found)["rows"][0]["ceiling"] == pytest.approx(0.85)


def test_rows_without_a_ceiling_claim_none():
    found = results([a_mask_row(0, 0.5)], (), FAST)
    assert found.rows[0].ceiling is None
    assert "ceiling" not in shown(found)


def test_an_exam_of_mixed_questions_claims_no_metric_as_its_score():
    closed = a_row("m", "e", 0, 1.0, task=TaskKind.VQA, truth="yes")
    words = Grade(0.4, Status.OK, "x", {"bleu4": 0.4, "exact": 0.0, "task": 0.4})
    mixed = [closed, a_row("m", "e", 1, 0.4, task=TaskKind.VQA, truth="x", grade=words)]
    assert results(mixed, (), FAST).rows[0].score_name == "score"
    assert results(mixed[1:], (), FAST).rows[0].score_name == "BLEU-4"


def test_collapse_is_said_but_not_of_the_majority_answer():
    truth = [{"index": n % 2, "options": ["a", "b"]} for n in range(20)]
    same = Grade(0.5, Status.OK, 1, {})
    for model, warned in (("m", True), ("majority", False)):
        rows = [a_row(model, "e", n, 0.5, truth=truth[n], grade=same) for n in range(20)]
        found = results(rows, (), FAST)
        assert bool(found.rows[0].warning) is warned
        assert ("! e, m" in shown(found)) is warned


def test_groups_of_two_data_sets_are_not_taken_for_one():
    """Both count their patients from 1; a patient of TCGA is one in every data set."""

    def rows(model, score):
        return [
            a_row(model, exam, number, score, group=f"TCGA-A1-A0S{number}" if number > 7 else str(number))
            for exam in ("one/class", "two/class")
            for number in range(10)
        ]

    found = results([*rows("a", 0.0), *rows("b", 1.0)], [("a", "b")], FAST).comparisons
    assert [(row.scope, row.difference.groups) for row in found] == [
        ("exam", 10),
        ("exam", 10),
        ("task", 18),
        ("overall", 18),
    ]


def test_wrong_input_is_refused():
    rows = some_rows()
    with pytest.raises(UserError, match="twice"):
        results([*rows, rows[0]])
    with pytest.raises(UserError, match="'reinforced' to compare; found untrained, supervised"):
        results(rows, [("supervised", "reinforced")])


def test_no_rows_give_an_empty_table():
    empty = results([])
    assert (empty.rows, empty.comparisons, empty.ranks) == ([], [], {})
    assert "Exams" in shown(empty)


def shown(table, width=110) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    with console.file:
        console.print(to_rich(table))
    return console.export_text()


@pytest.mark.parametrize("width", [60, 110, 200])
def test_terminal_table_renders_and_takes_names_literally(table, width):
    named = msgspec.structs.replace(
        table, rows=[msgspec.structs.replace(row, exam=f"[red]{row.exam[4]}") for row in table.rows]
    )
    text = shown(named, width)
    assert "[red]" in text
    assert max(map(len, text.splitlines())) <= width
    assert "against" in text
    assert "…" not in text


def test_json_holds_everything(table):
    plain = json.loads(json.dumps(to_dict(table)))
    assert plain["rows"][0]["score"]["method"] == "bootstrap"
    assert msgspec.convert(plain, type(table)) == table


def test_confusions_of_classification_only():
    found = exam_confusions(some_rows())
    assert sorted(found) == [("toy/class", "supervised"), ("toy/class", "untrained")]
    assert found["toy/class", "untrained"].counts.sum() == 40


def test_metric_labels():
    assert metric_label("ap_tie30") == "AP30 tie"
    assert metric_label("dice_filled") == "Dice of filled boxes"
    assert metric_label("my_part") == "my part"


def test_rows_are_held_against_the_laws_between_their_figures(table):
    assert table.notes == []
    parts = {**DETECTION, "ap_tie30": 0.1}
    grade = Grade(0.5, Status.OK, [[0, 0, 1, 1]], parts)
    odd = [
        a_row("odd", "toy/boxes", n, 0.5, task=TaskKind.DETECTION, truth=[], grade=grade) for n in range(12)
    ]
    (note,) = results([*some_rows(), *odd], bootstrap=FAST).notes
    assert note.startswith("toy/boxes, odd: these figures cannot be right")
    assert "0.100 at IoU 0.3 is below 0.500 at 0.5" in note
    # The accuracy is held against the macro-F1 beside it, which is read off the answers themselves.
    truths = [{"index": n % 2, "options": ["a", "b"]} for n in range(12)]
    grades = [Grade(0.0, Status.OK, n % 2, {"exact": 0.0}) for n in range(12)]
    odd = [a_row("odd", "toy/class", n, 0.0, truth=truths[n], grade=grades[n]) for n in range(12)]
    (note,) = results(odd, bootstrap=FAST).notes
    assert "macro-F1 1.000 with accuracy 0.000" in note
