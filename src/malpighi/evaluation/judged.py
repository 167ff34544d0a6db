"""The table of a judge's verdicts, and how far the judge agrees with exact scoring."""

from collections.abc import Sequence

import msgspec
import numpy as np

from malpighi.evaluation.agreement import cohen_kappa
from malpighi.evaluation.judge import Case, Verdict
from malpighi.evaluation.rubric import Rubric
from malpighi.evaluation.statistics import Bootstrap, Estimate, mean_interval


class JudgedRow(msgspec.Struct, frozen=True, kw_only=True):
    """One model in one exam, as judged.

    Attributes:
        model: who answered.
        exam: what.
        n: answers that have a verdict.
        missing: answers without one; they are in no mean.
        score: mean over criteria and answers with its interval over groups; 0 is the rubric's lowest score, 1
            its highest.
        criteria: the same per criterion.
        correct: share that the judge takes for right.
        exact: share that exact scoring takes for right; None for open questions.
        agreement: share of answers where both say the same; None for open questions.
        kappa: that agreement above chance (Cohen); None for open questions, and where one of the two gives
            one verdict throughout.
    """

    model: str
    exam: str
    n: int
    missing: int
    score: Estimate | None
    criteria: dict[str, Estimate]
    correct: Estimate | None
    exact: float | None = None
    agreement: float | None = None
    kappa: float | None = None


def judged_rows(
    cases: Sequence[Case], verdicts: Sequence[Verdict], rubric: Rubric, bootstrap: Bootstrap | None = None
) -> list[JudgedRow]:
    """The table of a judge's verdicts, by exam and model in the order met."""
    cells: dict[tuple[str, str], list[tuple[Case, Verdict]]] = {}
    for case, verdict in zip(cases, verdicts, strict=True):
        cells.setdefault((case.prediction.exam, case.prediction.model), []).append((case, verdict))
    return [
        _row(exam, model, pairs, rubric, bootstrap or Bootstrap()) for (exam, model), pairs in cells.items()
    ]


def _row(
    exam: str, model: str, pairs: Sequence[tuple[Case, Verdict]], rubric: Rubric, bootstrap: Bootstrap
) -> JudgedRow:
    read = [(case, verdict) for case, verdict in pairs if not verdict.fault]
    missing = len(pairs) - len(read)
    if not read:
        return JudgedRow(model=model, exam=exam, n=0, missing=missing, score=None, criteria={}, correct=None)
    groups = [case.prediction.group for case, _ in read]

    def mean(values: Sequence[float]) -> Estimate:
        return mean_interval(values, groups, bootstrap)

    def share(score: float) -> float:
        return (score - rubric.lowest) / (rubric.highest - rubric.lowest)

    names = [criterion.name for criterion in rubric.criteria]
    said = [bool(verdict.correct) for _, verdict in read]
    exact, agreement, kappa = _agreement(read, said)
    return JudgedRow(
        model=model,
        exam=exam,
        n=len(read),
        missing=missing,
        score=mean([share(float(np.mean(list(verdict.scores.values())))) for _, verdict in read]),
        criteria={name: mean([share(verdict.scores[name]) for _, verdict in read]) for name in names},
        correct=mean([float(right) for right in said]),
        exact=exact,
        agreement=agreement,
        kappa=kappa,
    )


def _agreement(
    read: Sequence[tuple[Case, Verdict]], said: Sequence[bool]
) -> tuple[float | None, float | None, float | None]:
    """Share right by exact scoring, share of equal verdicts, and Cohen's kappa of the two."""
    if not all(case.closed for case, _ in read):
        return None, None, None
    exact = np.asarray([case.prediction.grade.score >= 1 for case, _ in read])
    judged = np.asarray(said)
    counts = np.bincount(2 * exact + judged, minlength=4).reshape(2, 2)
    constant = not counts.sum(0).all() or not counts.sum(1).all()
    same = float((exact == judged).mean())
    return float(exact.mean()), same, None if constant else cohen_kappa(counts)
