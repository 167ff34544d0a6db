"""Tasks scored as a suite sets them: exams folded, answers filtered, metrics of their own."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score, recall_score

from malpighi.evaluation.statistics import Bootstrap
from malpighi.evaluation.suite import METRICS, load_suite
from malpighi.evaluation.task_scores import _ELSEWHERE, _MATRIX, _PARTS, group_means, task_rows, task_scores
from malpighi.records import Grade, Prediction, Status, TaskKind

FAST = Bootstrap(draws=50)
CLASSES = ("NILM", "ASC-US", "LSIL", "ASC-H", "HSIL", "AGC")


def choices(model, exam, seed, options=CLASSES, count=240):
    random = np.random.default_rng(seed)
    truth = random.integers(0, len(options), count)
    said = np.where(random.random(count) < 0.6, truth, random.integers(0, len(options), count))
    rows = [
        Prediction(
            model=model, exam=exam, sample=f"{exam}/{n}", group=f"g{n // 2}", text="",
            task=TaskKind.CLASSIFICATION,
            grade=Grade(float(t == s), Status.OK, int(s), {"exact": float(t == s)}),
            truth={"index": int(t), "options": list(options)},
        )
        for n, (t, s) in enumerate(zip(truth, said, strict=True))
    ]  # fmt: skip
    return rows, truth, said


def masks(exam, values, parts=("dice",)):
    return [
        Prediction(
            model="m", exam=exam, sample=f"{exam}/{n}", group=f"g{n}", task=TaskKind.SEGMENTATION, text="",
            grade=Grade(value, Status.OK, [], dict.fromkeys(parts, value)), truth=[],
        )
        for n, value in enumerate(values)
    ]  # fmt: skip


def test_every_metric_of_a_suite_is_computed_or_said_to_be_elsewhere():
    assert set(_PARTS) | set(_MATRIX) | set(_ELSEWHERE) == METRICS


def test_recall_of_each_class_is_scikit_learns():
    rows, truth, said = choices("m", "cytocell_bench/class", 1)
    scores = {s.task: s for s in task_scores(load_suite("singpath-vl"), rows, FAST)}
    expected = recall_score(truth, said, average=None)
    found = [scores[name].score.value for name in CLASSES]
    np.testing.assert_allclose(found, expected)
    assert sum(scores[name].n for name in CLASSES) == len(rows)
    assert all(
        scores[name].score.low <= scores[name].score.value <= scores[name].score.high for name in CLASSES
    )


def test_exams_of_one_task_are_folded_and_further_metrics_stand_beside():
    suite = load_suite("smartpath-r1")
    nucls = next(t for t in suite.tasks if t.name.startswith("NuCLS") and "segmentation" in t.name.lower())
    assert len(nucls.exams) == 2
    rows = [*masks(nucls.exams[0], [1.0, 0.5]), *masks(nucls.exams[1], [0.0])]
    (score,) = task_scores(suite, rows, FAST)
    assert (score.task, score.n, score.score.value) == (nucls.name, 3, pytest.approx(0.5))
    rows, truth, said = choices("m", "ccrcc/class", 2, ("a", "b", "c"))
    (score,) = task_scores(suite, rows, FAST)
    assert score.score.value == pytest.approx((truth == said).mean())
    assert score.further["macro_f1"].value == pytest.approx(f1_score(truth, said, average="macro"))
    assert (score.stated_n, score.implied_n) == (5635, 2000)
    assert balanced_accuracy_score(truth, said) > 0


def test_means_are_unweighted_and_say_over_how_many_tasks():
    suite = load_suite("smartpath-r1")
    rows = [
        *choices("m", "ccrcc/class", 2)[0],
        *choices("m", "esca/class", 3)[0][:10],
        *choices("n", "esca/class", 4)[0],
    ]
    scores = task_scores(suite, rows, FAST)
    means = {(mean.group, mean.model): mean for mean in group_means(suite, scores)}
    mine = [score.score.value for score in scores if score.model == "m"]
    assert means["roi_classification", "m"].score == pytest.approx(np.mean(mine))
    assert (means["roi_classification", "m"].tasks, means["roi_classification", "m"].of) == (2, 8)
    shown = task_rows(scores, list(means.values()))
    assert shown[-1]["task"] == "mean of 1 of 8 tasks"
    assert len(shown) == 5


def test_what_rows_cannot_give_is_said_and_never_a_number():
    suite = load_suite("patho-r1")
    captions = masks("arch/books_set", [0.3], ("bleu4",))
    for score in task_scores(suite, captions, FAST):
        assert score.score is None
        assert "malpighi probe" in score.why
    (odd,) = task_scores(load_suite("smartpath-r1"), masks("glas/detection", [0.2], ("dice",)), FAST)
    assert odd.score is None
    assert "no part of how these answers are graded" in odd.why
