"""Prediction rows sorted into exams and models, each reduced to what figures are made from."""

import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from msgspec.structs import replace

from malpighi.errors import UserError
from malpighi.likeness.sources import group_across
from malpighi.records import Grade, Prediction

Cell = list[Prediction]
Cells = dict[tuple[str, str], Cell]


def gather(predictions: Iterable[Prediction]) -> Cells:
    """Rows by (exam, model), in the order found.

    The words of the answers are let go, and what many rows share is kept once, so that a third of a million
    rows fit into a few hundred megabytes when `predictions` is read row by row.

    Raises:
        UserError: a model answers a sample twice.
    """
    cells: Cells = defaultdict(list)
    seen: dict[str, set[str]] = defaultdict(set)
    keep = _Keep()
    for row in predictions:
        if row.sample in seen[row.model]:
            raise UserError(
                f"model {row.model!r} answers sample {row.sample!r} twice; give each predictions file once"
            )
        slim = keep(row)
        seen[slim.model].add(slim.sample)
        cells[slim.exam, slim.model].append(slim)
    return dict(cells)


def groups_of(rows: Sequence[Prediction]) -> list[str]:
    """The group of each row; over several data sets one that two of them do not share by chance."""
    datasets = [row.exam.partition("/")[0] for row in rows]
    if len(set(datasets)) < 2:
        return [row.group for row in rows]
    return [group_across(name, row.group) for name, row in zip(datasets, rows, strict=True)]


class _Keep:
    """Rows without their words; equal names, truths and parts are one object."""

    def __init__(self) -> None:
        self._truths: dict[Any, Any] = {}
        self._parts: dict[Any, dict[str, float]] = {}

    def __call__(self, row: Prediction) -> Prediction:
        grade = row.grade
        return replace(
            row,
            model=sys.intern(row.model),
            exam=sys.intern(row.exam),
            sample=sys.intern(row.sample),
            group=sys.intern(row.group),
            text="",
            looks=(),
            truth=self._truth(row.truth),
            grade=Grade(grade.score, grade.status, grade.parsed, self._shared(grade.parts)),
        )

    def _truth(self, truth: Any) -> Any:
        if not isinstance(truth, dict) or "index" not in truth:
            return truth
        return self._truths.setdefault((truth["index"], tuple(truth["options"])), truth)

    def _shared(self, parts: dict[str, float]) -> dict[str, float]:
        # Right/wrong grades take a handful of values; figures of boxes and words hardly repeat.
        if len(self._parts) > 10_000:
            return parts
        return self._parts.setdefault(tuple(parts.items()), parts)
