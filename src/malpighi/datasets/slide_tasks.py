"""Questions about whole slides, from a table beside a folder of slides.

    slides.csv: slide,label,group[,question,task,options,exam,split,mpp,organ,stain]

One row is one question about one slide. Nothing is stored of a slide: its view is made when it is asked for.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from malpighi.config import digest
from malpighi.datasets.adapter import STAGE, read_text
from malpighi.datasets.split import Member, SplitPlan, assign
from malpighi.errors import DataError
from malpighi.records import (
    SLIDE_KEY,
    Answer,
    Choice,
    Failure,
    ImageRef,
    Item,
    Provenance,
    Sample,
    Scale,
    Split,
    TaskKind,
    Text,
    Turn,
)
from malpighi.slides.fingerprint import fingerprint
from malpighi.slides.opening import open_slide

VERSION = 1
TABLE = "slides.csv"
UNSTATED = "not stated"
REQUIRED = ("slide", "label", "group")
OPTIONAL = ("question", "task", "options", "exam", "split", "mpp", "organ", "stain")
QUESTIONS = {
    TaskKind.CLASSIFICATION: "What is the diagnosis of this slide?",
    TaskKind.CAPTION: "Describe this slide.",
}


@dataclass(frozen=True)
class SlideTable:
    """A data set of slides: a folder and a table.

    Columns: `slide`, a path below the folder; `label`, the right answer in words; `group`, patient or slide,
    what may never straddle a split; `question`, with a default for classification and caption; `task`:
    `classification` (default), `vqa` or `caption`; `options`, the names to choose from with `|` between
    (classification: all labels of the exam where empty; vqa: an open question where empty); `exam`, second
    half of the exam's name (default: the task); `split`: `train`, `validation` or `test`, dealt out by group
    where empty; `mpp`, micrometres per level-0 px where the file states none or a wrong one; `organ`;
    `stain`.

    Attributes:
        name: first part of ids and exams.
        folder: that the slides lie in, or folders below it.
        licence: as the source states it.
        table: the CSV file; `slides.csv` in the folder where None.
        root: what the paths in records are relative to; the folder where None.
    """

    name: str
    folder: Path
    licence: str
    table: Path | None = None
    root: Path | None = None

    def read(self, plan: SplitPlan | None = None) -> Iterator[Item | Failure]:
        """Samples and failures, row by row; every slide is opened once to see that it is one.

        Args:
            plan: split fractions and seed.

        Raises:
            DataError: at the first step, where the table is missing or empty, or a column missing or unknown.
        """
        rows = _rows(self.table or self.folder / TABLE)
        faults = {number: _fault(row) for number, row in enumerate(rows)}
        good = [row for number, row in enumerate(rows) if not faults[number]]
        labels = _labels(good)
        splits = assign(
            (Member(row["group"], row["label"], _official(row)) for row in good), plan or SplitPlan()
        )
        refs: dict[str, ImageRef | str] = {}
        names: set[str] = set()
        for number, row in enumerate(rows):
            name = self._id(row)
            try:
                if faults[number] or name in names:
                    raise DataError(
                        faults[number] or f"an earlier row asks the same of {row['slide']}; left out"
                    )
                names.add(name)
                yield Item(self._sample(row, self._ref(row, refs), labels, splits), ())
            except DataError as error:
                yield Failure(name, STAGE, str(error))

    def __len__(self) -> int:
        """Rows of the table; raises as the first step of `read`."""
        return len(_rows(self.table or self.folder / TABLE))

    def _id(self, row: dict[str, str]) -> str:
        asked = f":{digest(row['question'])[:8]}" if row["question"] else ""
        return f"{self.name}/{row['slide']}:{_exam(row)}{asked}"

    def _ref(self, row: dict[str, str], known: dict[str, ImageRef | str]) -> ImageRef:
        """The slide of a row, opened once however many rows name it."""
        key = f"{row['slide']}|{row['mpp']}"
        if key not in known:
            try:
                root = self.root or self.folder
                path = self.folder / row["slide"]
                slide = path.relative_to(root) if path.is_relative_to(root) else path
                known[key] = slide_ref(root, slide.as_posix(), _number(row["mpp"]))
            except DataError as error:
                known[key] = str(error)
        found = known[key]
        if isinstance(found, str):
            raise DataError(found)
        return found

    def _sample(
        self, row: dict[str, str], ref: ImageRef, labels: dict[str, tuple[str, ...]], splits: dict[str, Split]
    ) -> Sample:
        task = _task(row)
        options = _options(row, task, labels)
        return Sample(
            id=self._id(row),
            dataset=self.name,
            exam=f"{self.name}/{_exam(row)}",
            task=task,
            scale=Scale.SLIDE,
            images=(ref,),
            turns=(Turn("user", _question(row, task)),),
            answer=_answer(row, options),
            options=options,
            group=row["group"],
            split=splits[row["group"]],
            organ=row["organ"],
            stain=row["stain"],
            licence=self.licence,
            provenance=Provenance("adapter:slide-table", VERSION),
        )


def find_tables(folder: Path) -> dict[str, SlideTable]:
    """Data sets of slides in a folder, or the folder itself, by name; records are relative to `folder`."""
    places = [folder, *sorted(folder.glob("*/"))]
    return {
        place.resolve().name: SlideTable(place.resolve().name, place, UNSTATED, root=folder)
        for place in places
        if (place / TABLE).is_file()
    }


def slide_ref(folder: Path, slide: str, mpp: float | None = None) -> ImageRef:
    """The reference to a slide of which views are made when they are asked for.

    Args:
        folder: that `slide` is relative to.
        slide: path; goes into the record, and names the slide in feature stores.
        mpp: micrometres per level-0 px; overrides what the file states.

    Raises:
        DataError: no such file, or none that can be read as a slide.
    """
    path = folder / slide
    with open_slide(path, mpp=mpp) as opened:
        return ImageRef(SLIDE_KEY + fingerprint(path), opened.size, opened.mpp, slide)


def _rows(path: Path) -> list[dict[str, str]]:
    reader = csv.DictReader(read_text(path).splitlines())
    columns = set(reader.fieldnames or ())
    missing, unknown = set(REQUIRED) - columns, columns - {*REQUIRED, *OPTIONAL}
    if missing or unknown:
        raise DataError(
            f"{path}: columns missing: {', '.join(sorted(missing)) or 'none'}; not known: "
            f"{', '.join(sorted(map(str, unknown))) or 'none'}; expected {', '.join(REQUIRED)} and any of "
            f"{', '.join(OPTIONAL)}"
        )
    known = [{name: (row.get(name) or "").strip() for name in (*REQUIRED, *OPTIONAL)} for row in reader]
    if not known:
        raise DataError(f"{path} holds no row below its header")
    return known


def _fault(row: dict[str, str]) -> str:
    """What makes a row unusable, before its slide is looked at; "" for nothing."""
    empty = [name for name in REQUIRED if not row[name]]
    if empty:
        return f"no {', '.join(empty)}; without a group no split is safe"
    if row["task"] and row["task"] not in (*QUESTIONS, TaskKind.VQA):
        return f"task {row['task']!r}; expected classification, vqa or caption"
    if row["split"] and row["split"] not in list(Split):
        return f"split {row['split']!r}; expected {', '.join(Split)}, or nothing"
    if _task(row) is TaskKind.VQA and not row["question"]:
        return "a vqa row without a question"
    try:
        _number(row["mpp"])
    except ValueError:
        return f"mpp {row['mpp']!r}; expected micrometres per level-0 px above 0, or nothing"
    return ""


def _number(text: str) -> float | None:
    number = float(text) if text else None
    if number is not None and not 0 < number < float("inf"):
        raise ValueError(text)
    return number


def _task(row: dict[str, str]) -> TaskKind:
    return TaskKind(row["task"] or TaskKind.CLASSIFICATION)


def _exam(row: dict[str, str]) -> str:
    return row["exam"] or row["task"] or TaskKind.CLASSIFICATION.value


def _question(row: dict[str, str], task: TaskKind) -> str:
    return row["question"] or QUESTIONS[task]


def _official(row: dict[str, str]) -> Split | None:
    return Split(row["split"]) if row["split"] else None


def _labels(rows: Sequence[dict[str, str]]) -> dict[str, tuple[str, ...]]:
    """The labels of each exam, sorted: what a classification is chosen from."""
    found: dict[str, set[str]] = {}
    for row in rows:
        found.setdefault(_exam(row), set()).add(row["label"])
    return {exam: tuple(sorted(labels)) for exam, labels in found.items()}


def _options(row: dict[str, str], task: TaskKind, labels: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    if row["options"]:
        return tuple(option.strip() for option in row["options"].split("|"))
    return labels[_exam(row)] if task is TaskKind.CLASSIFICATION else ()


def _answer(row: dict[str, str], options: tuple[str, ...]) -> Answer:
    if not options:
        return Text(row["label"])
    if row["label"] not in options:
        raise DataError(f"label {row['label']!r} is none of the options {', '.join(options)}")
    return Choice(options.index(row["label"]))
