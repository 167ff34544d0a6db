import json
import random

import msgspec
import pytest
from rich.console import Console

from malpighi.errors import DataError, UserError
from malpighi.evaluation.compare import CompareOptions, compare
from malpighi.evaluation.regrade import regrade
from malpighi.evaluation.rows import models_in, read_predictions, stream_predictions, write_predictions
from malpighi.evaluation.statistics import Bootstrap
from malpighi.evaluation.tables import Results, results, to_dict, to_rich
from malpighi.records import Choice, Grade, Prediction, Provenance, Sample, Scale, Status, TaskKind, Turn

FAST = Bootstrap(draws=100)


def a_row(model, exam, number, score, **fields) -> Prediction:
    defaults = {
        "group": f"g{number}",
        "truth": {"index": 0, "options": ["a", "b"]},
        "grade": Grade(score, Status.OK, 0 if score else 1, {"exact": score}),
        "text": "<answer>a</answer>",
        "prompt_hash": f"p{number}",
        "image_hash": f"i{number}",
    }
    given = defaults | fields
    return Prediction(
        model=model, exam=exam, sample=f"{exam}/{number}", task=TaskKind.CLASSIFICATION, **given
    )


def some_rows(model, skill, exams=4, n=30):
    luck = random.Random(f"{model}{skill}")
    return [
        a_row(model, f"e{exam}", number, float(luck.random() < skill))
        for exam in range(exams)
        for number in range(n)
    ]


@pytest.fixture
def runs(tmp_path):
    """Two runs hold a model of the same name, a third is a single file."""
    folders = [tmp_path / "monday", tmp_path / "tuesday"]
    for folder, skill in zip(folders, (0.3, 0.9), strict=True):
        write_predictions(folder / "predictions" / "tuned.jsonl", some_rows("tuned", skill))
        (folder / "predictions" / "tuned.jsonl.failures.jsonl").write_text("")
    write_predictions(tmp_path / "plain.jsonl", some_rows("plain", 0.5))
    return [*folders, tmp_path / "plain.jsonl"]


def options(**fields):
    return CompareOptions(bootstrap=FAST, **fields)


def test_models_of_several_runs_carry_the_name_of_their_run(runs):
    found = compare(runs, options())
    assert found.models == ["tuned (monday)", "tuned (tuesday)", "plain"]
    assert {(row.first, row.second) for row in found.comparisons} == {
        ("tuned (monday)", "tuned (tuesday)"),
        ("tuned (monday)", "plain"),
        ("tuned (tuesday)", "plain"),
    }
    assert compare(runs[1:], options()).models == ["tuned", "plain"]
    assert found.notes == []


def test_runs_of_one_name_are_told_apart_by_their_parents(tmp_path):
    paths = [tmp_path / place / "run" for place in ("here", "there")]
    for path in paths:
        write_predictions(path / "predictions" / "m.jsonl", some_rows("m", 0.5))
    assert compare(paths, options()).models == ["m (here/run)", "m (there/run)"]


def test_tests_ranks_and_friedman_are_those_of_the_rows(runs):
    found = compare(runs, options())
    assert found.friedman.exams == found.ranked_exams == 4
    assert dict(zip(found.friedman.models, found.friedman.ranks, strict=True)) == found.ranks
    exams = [row for row in found.comparisons if row.scope == "exam"]
    assert len(exams) == 12
    assert all(row.p_holm >= row.difference.p for row in exams)
    assert all(set(row.difference.effects) == {"odds ratio", "Cohen's h"} for row in exams)
    assert all(0 < row.difference.visible < 1 for row in exams)
    whole = next(row for row in found.comparisons if row.scope == "overall")
    assert whole.difference.estimate.value > 0.3
    assert set(whole.difference.effects) == {"odds ratio", "Cohen's h"}  # patients of four data sets


def test_one_model_can_be_held_against_all_others(runs):
    found = compare(runs, options(against="plain", exams=("e1", "e2")))
    assert {row.first for row in found.comparisons} == {"plain"}
    assert {row.exam for row in found.rows} == {"e1", "e2"}
    assert compare(runs, options(models=("tuned",))).models == ["tuned (monday)", "tuned (tuesday)"]


def test_json_and_terminal_hold_everything(runs):
    found = compare(runs, options())
    plain = json.loads(json.dumps(to_dict(found)))
    assert msgspec.convert(plain, Results) == found
    console = Console(width=120, record=True, quiet=True)
    with console.capture():
        pass
    text = "".join(str(segment.text) for segment in Console(width=120).render(to_rich(found)))
    assert "Friedman over 4 exams" in text


def test_what_is_not_comparable_is_said_in_words(tmp_path):
    other = [
        a_row("b", "e0", 0, 1.0, truth={"index": 1, "options": ["a", "b"]}),
        *(a_row("b", "e0", n, 1.0, prompt_hash="other") for n in range(1, 6)),
        *(a_row("b", "e0", n, 1.0, image_hash="other", prompt_hash="") for n in range(6, 8)),
        *(a_row("b", "e0", n, 1.0, group="g0") for n in range(8, 20)),
    ]
    write_predictions(tmp_path / "a.jsonl", some_rows("a", 0.5, exams=1))
    write_predictions(tmp_path / "b.jsonl", other)
    found = compare([tmp_path / "a.jsonl", tmp_path / "b.jsonl"], options())
    assert found.notes == [
        "a and b: 10 samples of shared exams were answered by only one of them",
        "a and b: 1 of 20 shared samples have another right answer (left out of the comparison), e.g. e0/0",
        "a and b: 5 of 20 shared samples have another prompt, e.g. e0/1",
        "a and b: 2 of 20 shared samples have another picture, e.g. e0/6",
        "a and b: 12 of 20 shared samples have another group, e.g. e0/10",
    ]
    assert found.comparisons[0].difference.n == 19
    assert found.comparisons[0].unpaired == 11


def test_models_of_other_exams_share_nothing(tmp_path):
    write_predictions(tmp_path / "a.jsonl", [a_row("a", "e0", n, 1.0) for n in range(5)])
    write_predictions(tmp_path / "b.jsonl", [a_row("b", "e1", n, 1.0) for n in range(5)])
    found = compare([tmp_path / "a.jsonl", tmp_path / "b.jsonl"], options())
    assert found.notes == ["a and b share no sample; their exams cannot be compared in pairs"]
    assert (found.comparisons, found.friedman) == ([], None)


def test_mistakes_are_told(runs, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    for paths, given, words in (
        ([empty, runs[2]], {}, "empty: no predictions"),
        ([runs[2]], {}, "two models or more; found plain"),
        ([runs[2], runs[2]], {}, "given twice"),
        (runs, {"against": "nobody"}, "no model 'nobody'"),
        (runs, {"models": ("plain", "tuned", "nobody")}, "no predictions of model 'nobody'"),
        (runs, {"exams": ("e0", "e9")}, "no predictions of exam e9"),
    ):
        with pytest.raises(UserError, match=words):
            compare(paths, options(**given))


def test_rows_are_read_one_by_one(tmp_path):
    path = tmp_path / "p.jsonl"
    rows = some_rows("m", 0.5, exams=1, n=3)
    write_predictions(path, rows)
    assert list(stream_predictions(path)) == read_predictions(path) == rows
    assert models_in(path) == ["m"]
    path.write_bytes(path.read_bytes() + b"{broken\n")
    stream = stream_predictions(path)
    assert [next(stream) for _ in range(3)] == rows
    with pytest.raises(UserError, match="line 4"):
        next(stream)
    with pytest.raises(UserError, match="line 4"):
        models_in(path)
    with pytest.raises(UserError, match="no such predictions file"):
        models_in(tmp_path / "absent.jsonl")


def test_stored_answers_are_graded_again():
    row = a_row("m", "e0", 0, 1.0)
    sample = Sample(
        id="e0/0", dataset="d", exam="e0", task=TaskKind.CLASSIFICATION, scale=Scale.ROI, images=(),
        turns=(Turn("user", "?"),), answer=Choice(1), options=("a", "b"), group="g", licence="CC0-1.0",
        provenance=Provenance("test"),
    )  # fmt: skip
    verdict = Grade(0.25, Status.OK)
    (found,) = regrade([row], {"e0/0": sample}, lambda _, text: verdict if "a" in text else row.grade)
    assert (found.grade, found.truth, found.text) == (verdict, {"index": 1, "options": ["a", "b"]}, row.text)
    with pytest.raises(DataError, match="'e0/0'"):
        list(regrade([row], {}, lambda *_: verdict))


def test_chances_give_a_row_its_calibration():
    rows = [a_row("m", "e", n, 1.0, chances=(0.9, 0.1)) for n in range(10)]
    assert results(rows, (), FAST).rows[0].calibration.brier == pytest.approx(0.02)
    assert results(some_rows("m", 0.5), (), FAST).rows[0].calibration is None
