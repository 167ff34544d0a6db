"""The tasks of a suite, scored from prediction rows: exams folded, answers filtered, by their own metrics."""

from collections.abc import Callable, Iterable, Sequence

import msgspec

from malpighi.errors import DataError
from malpighi.evaluation import metrics
from malpighi.evaluation.statistics import Bootstrap, Estimate, matrix_interval, mean_interval
from malpighi.evaluation.suite import Suite, Task
from malpighi.records import Prediction

# The part of a grade that a metric is the mean of; "" is the grade's score.
_PARTS = {
    "accuracy": "exact", "recall": "exact", "ap30": "ap_tie30", "ap50": "ap_tie50", "ap70": "ap_tie70",
    "dice": "dice", "bleu4": "bleu4", "score": "",
}  # fmt: skip
_MATRIX: dict[str, Callable[..., metrics.Floats]] = {
    "balanced_accuracy": metrics.balanced_accuracy,
    "macro_f1": metrics.macro_f1,
}
_ELSEWHERE = {
    "bertscore": "needs a language model; see `inference.contextual_match`",
    "judge": "needs a judge; see `malpighi judge`",
    **dict.fromkeys(
        ("recall@1", "recall@5", "recall@10", "recall@20"), "is of encoders; see `malpighi probe`"
    ),
}


class TaskScore(msgspec.Struct, frozen=True, kw_only=True):
    """One model in one task.

    Attributes:
        suite: the suite's name.
        group: of tasks that are averaged together.
        task: its name.
        model: who answered.
        metric: the task's own.
        n: rows.
        groups: patients or slides among them.
        score: the metric with its interval over groups; None where rows cannot give it.
        further: the task's further metrics that rows can give.
        why: what keeps the metric from being given; "" where nothing does.
        stated_n: samples that the paper states.
        implied_n: samples that its figures imply.
        external: whether the paper trained on none of the data set.
    """

    suite: str
    group: str
    task: str
    model: str
    metric: str
    n: int
    groups: int
    score: Estimate | None
    further: dict[str, Estimate]
    why: str = ""
    stated_n: int | None = None
    implied_n: int | None = None
    external: bool = False


class GroupMean(msgspec.Struct, frozen=True):
    """The unweighted mean of a model over the tasks of a group, as the papers average; no interval."""

    group: str
    model: str
    tasks: int
    of: int
    score: float


def task_scores(
    suite: Suite, rows: Iterable[Prediction], bootstrap: Bootstrap | None = None, *, negatives: bool = False
) -> list[TaskScore]:
    """Every task that the rows answer to, by task and then by model.

    Args:
        suite: what was set.
        rows: of any models.
        bootstrap: draws, seed, level.
        negatives: whether questions for what is not there count too.
    """
    options = bootstrap or Bootstrap()
    by_exam: dict[str, list[Prediction]] = {}
    for row in rows:
        by_exam.setdefault(row.exam, []).append(row)
    found = []
    for task in suite.tasks:
        exams = (*task.exams, *(task.negatives if negatives else ()))
        asked = [row for exam in exams for row in by_exam.get(exam, ()) if _counts(row, task)]
        for model in dict.fromkeys(row.model for row in asked):
            mine = [row for row in asked if row.model == model]
            found.append(_score(suite, task, mine, options))
    return found


def group_means(suite: Suite, scores: Sequence[TaskScore]) -> list[GroupMean]:
    """The mean of each group and model over the tasks that have a score."""
    means = []
    for group in suite.groups:
        for model in dict.fromkeys(score.model for score in scores if score.group == group.name):
            values = [
                s.score.value
                for s in scores
                if (s.group, s.model) == (group.name, model) and s.score is not None
            ]
            if values:
                mean = sum(values) / len(values)
                means.append(GroupMean(group.name, model, len(values), len(group.tasks), mean))
    return means


def task_rows(scores: Sequence[TaskScore], means: Sequence[GroupMean]) -> list[dict[str, object]]:
    """The scores and the means as rows of a table."""
    shown: list[dict[str, object]] = [
        {
            "group": s.group,
            "task": s.task,
            "model": s.model,
            "metric": s.metric,
            "score": s.score.value if s.score else None,
            "from": s.score.low if s.score else None,
            "to": s.score.high if s.score else None,
            "n": s.n,
            "n of the paper": s.implied_n or s.stated_n,
            "note": s.why,
        }
        for s in scores
    ]
    return shown + [
        {
            "group": m.group,
            "task": f"mean of {m.tasks} of {m.of} tasks",
            "model": m.model,
            "metric": "",
            "score": m.score,
            "note": "unweighted",
        }
        for m in means
    ]


def _counts(row: Prediction, task: Task) -> bool:
    if not task.answer:
        return True
    truth = row.truth
    return isinstance(truth, dict) and truth["options"][truth["index"]] == task.answer


def _score(suite: Suite, task: Task, rows: Sequence[Prediction], options: Bootstrap) -> TaskScore:
    why, score = "", None
    try:
        score = metric_of(task.metric, rows, options)
    except DataError as error:
        why = str(error)
    further = {}
    for name in task.further or ():
        try:
            further[name] = metric_of(name, rows, options)
        except DataError:
            continue
    return TaskScore(
        suite=suite.name,
        group=suite.group_of(task.name).name,
        task=task.name,
        model=rows[0].model,
        metric=task.metric,
        n=len(rows),
        groups=len({row.group for row in rows}),
        score=score,
        further=further,
        why=why,
        stated_n=task.stated_n,
        implied_n=task.implied_n,
        external=task.external,
    )


def metric_of(name: str, rows: Sequence[Prediction], options: Bootstrap) -> Estimate:
    """A suite's metric of rows, with its interval over groups; failed rows count as 0.

    Raises:
        DataError: rows cannot give it; the message says what can.
    """
    if name in _ELSEWHERE:
        raise DataError(f"{name} {_ELSEWHERE[name]}")
    groups = [row.group for row in rows]
    if name in _MATRIX:
        classes = metrics.shared_options(rows)
        if classes is None:
            raise DataError(f"{name} needs the same options in every question")
        place = metrics.cells(rows, len(classes))
        return matrix_interval(place, (len(classes), len(classes) + 1), groups, _MATRIX[name], options)
    part = _PARTS[name]
    if part and not any(part in row.grade.parts for row in rows):
        raise DataError(f"{name} is no part of how these answers are graded")
    values = [row.grade.parts.get(part, 0.0) if part else row.grade.score for row in rows]
    return mean_interval(values, groups, options)
