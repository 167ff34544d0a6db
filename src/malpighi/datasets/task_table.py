"""Questions of one's own, from a CSV table beside the files they are about: one row, one question.

What is the same whether the files are slides (`slide_tasks.py`) or pictures (`picture_table.py`).
"""

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from malpighi.config import digest
from malpighi.datasets.adapter import STAGE, Picture, read_text
from malpighi.datasets.split import Member, SplitPlan, assign
from malpighi.errors import DataError
from malpighi.geometry import Box, Size
from malpighi.records import (
    Answer,
    Boxes,
    Choice,
    Failure,
    Item,
    Provenance,
    Sample,
    Scale,
    Split,
    TaskKind,
    Text,
    Turn,
)

VERSION = 1
UNSTATED = "not stated"
Row = dict[str, str]
"""Every known column of the table, stripped; "" where the table lacks it or the cell is empty."""

_OPTIONAL = ("question", "task", "options", "exam", "split", "organ", "stain")
_SCALES = (Scale.CELL, Scale.ROI)


@dataclass(frozen=True)
class Form:
    """Which columns a kind of table has and what its rows may ask.

    Attributes:
        file: the column that names the file.
        extra: columns that only this kind has: `mpp`, `boxes`, `scale`.
        questions: what is asked where a row asks nothing, by kind of task; the kinds that a row may have
            besides `vqa`. `{label}` and `{organ}` are filled in.
        scale: how much of a slide is seen, where the row does not say.
        operation: of the records' provenance.
    """

    file: str
    extra: tuple[str, ...]
    questions: Mapping[TaskKind, str]
    scale: Scale
    operation: str

    @property
    def required(self) -> tuple[str, ...]:
        """Columns that a table must have."""
        return (self.file, "label", "group")

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that a table may have."""
        return (*self.required, *_OPTIONAL, *self.extra)


@dataclass(frozen=True)
class TaskTable:
    """A table of questions.

    Attributes:
        name: of the data set: first part of ids and exams.
        path: the CSV file.
        licence: as the source states it.
        form: its columns.
    """

    name: str
    path: Path
    licence: str
    form: Form

    def rows(self) -> list[Row]:
        """All rows.

        Raises:
            DataError: the table is missing or empty, or a column missing or unknown.
        """
        reader = csv.DictReader(io.StringIO(read_text(self.path), newline=""))
        columns, form = set(reader.fieldnames or ()), self.form
        missing, unknown = set(form.required) - columns, columns - set(form.columns)
        if missing or unknown:
            optional = [name for name in form.columns if name not in form.required]
            raise DataError(
                f"{self.path}: columns missing: {', '.join(sorted(missing)) or 'none'}; not known: "
                f"{', '.join(sorted(map(str, unknown))) or 'none'}; expected {', '.join(form.required)} and "
                f"any of {', '.join(optional)}"
            )
        rows = [{name: (row.get(name) or "").strip() for name in form.columns} for row in reader]
        if not rows:
            raise DataError(f"{self.path} holds no row below its header")
        return rows

    def read(self, open_file: Callable[[Row], Picture], plan: SplitPlan | None) -> Iterator[Item | Failure]:
        """Samples and failures, row by row.

        A file of the same content as one of another group is left out: it would lie on both sides of a split.

        Args:
            open_file: the file that a row is about, found to be whole; raises DataError.
            plan: split fractions and seed.

        Raises:
            DataError: at the first step, as `rows`.
        """
        rows = self.rows()
        faults = [_fault(row, self.form) for row in rows]
        good = [row for row, fault in zip(rows, faults, strict=True) if not fault]
        splits = assign(
            (Member(row["group"], row["label"], _official(row)) for row in good), plan or SplitPlan()
        )
        deal = _Deal(_labels(good), splits)
        names: set[str] = set()
        owners: dict[str, Row] = {}
        for row, fault in zip(rows, faults, strict=True):
            name = self._id(row)
            try:
                if fault or name in names:
                    raise DataError(
                        fault or f"an earlier row asks the same of {row[self.form.file]}; left out"
                    )
                names.add(name)
                picture = open_file(row)
                self._refuse_straddling(row, owners.setdefault(picture.ref.key, row))
                sample = self._sample(row, picture, deal)
                yield Item(sample, (picture.blob,) if picture.blob is not None else ())
            except DataError as error:
                yield Failure(name, STAGE, str(error))

    def _refuse_straddling(self, row: Row, owner: Row) -> None:
        if owner["group"] != row["group"]:
            raise DataError(
                f"same content as {owner[self.form.file]} of group {owner['group']!r}, but group "
                f"{row['group']!r}; give both one group"
            )

    def _id(self, row: Row) -> str:
        asked = f":{digest(row['question'])[:8]}" if row["question"] else ""
        if _task_name(row) == TaskKind.DETECTION:
            asked = f":{row['label']}{asked}"
        return f"{self.name}/{row[self.form.file]}:{_exam(row)}{asked}"

    def _sample(self, row: Row, picture: Picture, deal: "_Deal") -> Sample:
        task = _task(row)
        options = _options(row, task, deal.labels)
        return Sample(
            id=self._id(row),
            dataset=self.name,
            exam=f"{self.name}/{_exam(row)}",
            task=task,
            scale=Scale(row.get("scale") or self.form.scale),
            images=(picture.ref,),
            turns=(Turn("user", self._question(row, task)),),
            answer=_answer(row, task, options, picture.ref.size),
            options=options,
            group=row["group"],
            split=deal.splits[row["group"]],
            organ=row["organ"],
            stain=row["stain"],
            licence=self.licence,
            provenance=Provenance(self.form.operation, VERSION),
        )

    def _question(self, row: Row, task: TaskKind) -> str:
        return row["question"] or self.form.questions[task].format(
            label=row["label"], organ=row["organ"] or "tissue"
        )


class _Deal(NamedTuple):
    """What rows share: the labels of each exam, and the split of each group."""

    labels: dict[str, tuple[str, ...]]
    splits: dict[str, Split]


def level0_mpp(row: Row) -> float | None:
    """The row's micrometres per level-0 px; None where it states none.

    Raises:
        ValueError: no number above 0.
    """
    number = float(row["mpp"]) if row["mpp"] else None
    if number is not None and not 0 < number < float("inf"):
        raise ValueError(row["mpp"])
    return number


def _fault(row: Row, form: Form) -> str:
    """What makes a row unusable, before its file is looked at; "" for nothing."""
    empty = [name for name in form.required if not row[name]]
    kinds = [kind.value for kind in (*form.questions, TaskKind.VQA)]
    if empty:
        return f"no {', '.join(empty)}; without a group no split is safe"
    if row["task"] and row["task"] not in kinds:
        return f"task {row['task']!r}; expected one of {', '.join(kinds)}"
    if row["split"] and row["split"] not in list(Split):
        return f"split {row['split']!r}; expected {', '.join(Split)}, or nothing"
    if _task(row) is TaskKind.VQA and not row["question"]:
        return "a vqa row without a question"
    return _extra_fault(row)


def _extra_fault(row: Row) -> str:
    if row.get("scale") and row["scale"] not in _SCALES:
        return f"scale {row['scale']!r}; expected {', '.join(_SCALES)}, or nothing"
    if (_task(row) is TaskKind.DETECTION) != bool(row.get("boxes")):
        return "boxes and the task detection go together; write [] where there is nothing to find"
    try:
        level0_mpp({"mpp": row.get("mpp", "")})
    except ValueError:
        return f"mpp {row['mpp']!r}; expected micrometres per level-0 px above 0, or nothing"
    return ""


def _task(row: Row) -> TaskKind:
    return TaskKind(_task_name(row))


def _exam(row: Row) -> str:
    return row["exam"] or _task_name(row)


def _task_name(row: Row) -> str:
    """The kind of task as written, which need not exist; where none is, as the boxes imply."""
    return row["task"] or (TaskKind.DETECTION if row.get("boxes") else TaskKind.CLASSIFICATION).value


def _official(row: Row) -> Split | None:
    return Split(row["split"]) if row["split"] else None


def _labels(rows: Sequence[Row]) -> dict[str, tuple[str, ...]]:
    """The labels of each exam, sorted: what a classification is chosen from."""
    found: dict[str, set[str]] = {}
    for row in rows:
        found.setdefault(_exam(row), set()).add(row["label"])
    return {exam: tuple(sorted(labels)) for exam, labels in found.items()}


def _options(row: Row, task: TaskKind, labels: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    if row["options"]:
        return tuple(option.strip() for option in row["options"].split("|"))
    return labels[_exam(row)] if task is TaskKind.CLASSIFICATION else ()


def _answer(row: Row, task: TaskKind, options: tuple[str, ...], size: Size) -> Answer:
    if task is TaskKind.DETECTION:
        return Boxes(tuple(_boxes(row["boxes"], size)))
    if not options:
        return Text(row["label"])
    if row["label"] not in options:
        raise DataError(f"label {row['label']!r} is none of the options {', '.join(options)}")
    return Choice(options.index(row["label"]))


def _boxes(text: str, size: Size) -> Iterator[Box]:
    """Boxes of `[[x0, y0, x1, y1], ...]`, image px; none may reach over the edge."""
    try:
        found = [tuple(map(float, corners)) for corners in json.loads(text)]
    except (TypeError, ValueError) as error:
        raise DataError(f"boxes {text[:60]!r}; expected JSON of the form [[x0, y0, x1, y1], ...]") from error
    for corners in found:
        if len(corners) != 4:
            raise DataError(f"box {list(corners)}; expected the four numbers x0, y0, x1, y1 in image px")
        x0, y0, x1, y1 = corners
        if not (0 <= x0 < x1 <= size[0] and 0 <= y0 < y1 <= size[1]):
            raise DataError(
                f"box {list(corners)} does not lie in the image of {size[0]} x {size[1]} px; expected "
                "corners x0 < x1, y0 < y1 in image px (not x, y, width, height)"
            )
        yield Box(x0, y0, x1, y1)
