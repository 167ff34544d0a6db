"""Suites of exams as data: which tasks a paper set, on what, and which samples here answer to them.

    suite = load_suite("smartpath-r1")
    chosen = suite.select(samples, Draw(per_exam=500))
    chosen.samples                        # what to ask a model
    [(one.task.name, one.reason) for one in chosen.missing]

A suite of one's own is a YAML file of the form of those in `suites/`.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from importlib import resources
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import msgspec

from malpighi.config import Settings
from malpighi.errors import ConfigError, DataError
from malpighi.models.versioned import from_yaml
from malpighi.records import Choice, Sample, Scale, Split

FORMAT_VERSION = 1
METRICS = frozenset(
    {
        "accuracy", "balanced_accuracy", "macro_f1", "recall", "ap30", "ap50", "ap70", "dice", "bleu4",
        "bertscore", "recall@1", "recall@5", "recall@10", "recall@20", "judge", "score",
    }
)  # fmt: skip
"""Names that a suite may ask for; `score` is whatever the task's grader gives."""


class PublishedRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where a paper prints the task's figures.

    Attributes:
        table: as the paper numbers it, e.g. `Table 4`.
        dataset: its name of the data set.
        split: its name of the part; "" where it names none.
        direction: `i2t` or `t2i`, of retrieval.
    """

    table: str
    dataset: str
    split: str = ""
    direction: str = ""


class Task(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """One row of a results table.

    Attributes:
        name: unique in its suite.
        title: in words; "" where the name says it.
        exams: exams of ours that answer to it; samples of any of them count.
        negatives: exams that ask for what is not there; taken only where they are asked for.
        splits: parts of the data that are examined; samples without a split count always.
        answer: only samples with this right answer, as in the recall of one class; "" for all.
        metric: primary metric; the group's where "".
        further: further metrics; the group's where None.
        external: whether none of this data set was trained on.
        published: where the paper prints it; None where it does not.
        stated_n: samples that the paper states.
        implied_n: samples that its figures imply.
        unavailable: why nobody outside can examine it; "" where one can.
        notes: what a comparison must know of the paper's protocol.
    """

    name: str
    title: str = ""
    exams: tuple[str, ...] = ()
    negatives: tuple[str, ...] = ()
    splits: tuple[Split, ...] = (Split.TEST,)
    answer: str = ""
    metric: str = ""
    further: tuple[str, ...] | None = None
    external: bool = False
    published: PublishedRow | None = None
    stated_n: int | None = None
    implied_n: int | None = None
    unavailable: str = ""
    notes: tuple[str, ...] = ()


class Group(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Tasks that are averaged together.

    Attributes:
        name: e.g. `roi_detection`.
        title: in words.
        metric: primary metric of its tasks.
        further: metrics beside it.
        scale: how much of a slide is seen.
        tasks: in the order of the paper.
    """

    name: str
    title: str
    metric: str
    further: tuple[str, ...] = ()
    scale: Scale
    tasks: tuple[Task, ...]


class Draw(Settings, frozen=True):
    """Which samples of a task are taken.

    Attributes:
        per_exam: most samples per exam; 0 for all.
        seed: of the drawing; same samples and seed, same draw, in whatever order they come.
        negatives: whether exams that ask for what is not there are taken as well.
    """

    per_exam: int = 0
    seed: int = 0
    negatives: bool = False

    def __post_init__(self) -> None:
        """Refuse a number below 0."""
        if self.per_exam < 0:
            raise ConfigError(f"per_exam is {self.per_exam}; give 0 for all samples, or a number above it")


class Chosen(NamedTuple):
    """A task and its samples; `available` of them were there to choose from."""

    task: Task
    samples: tuple[Sample, ...]
    available: int


class Missing(NamedTuple):
    """A task that nothing here answers to, and why."""

    task: Task
    reason: str


class Selection(NamedTuple):
    """What a suite takes from samples: every task of it is in one of the two."""

    chosen: tuple[Chosen, ...]
    missing: tuple[Missing, ...]

    @property
    def samples(self) -> list[Sample]:
        """All samples to ask, each once however many tasks it counts for."""
        found = chain.from_iterable(one.samples for one in self.chosen)
        return list({sample.id: sample for sample in found}.values())


class Suite(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, dict=True):
    """The tasks of a paper, or of one's own.

    Attributes:
        format_version: of the file.
        name: e.g. `smartpath-r1`.
        title: in words.
        paper: name of the published tables; "" where there are none.
        notes: what holds for all tasks.
        groups: the tasks.
    """

    format_version: int
    name: str
    title: str
    paper: str = ""
    notes: tuple[str, ...] = ()
    groups: tuple[Group, ...]

    @cached_property
    def tasks(self) -> tuple[Task, ...]:
        """All tasks, with their group's metrics where they have none of their own."""
        return tuple(
            msgspec.structs.replace(
                task,
                metric=task.metric or group.metric,
                further=group.further if task.further is None else task.further,
            )
            for group in self.groups
            for task in group.tasks
        )

    def group_of(self, name: str) -> Group:
        """The group of a task.

        Raises:
            ConfigError: no such task.
        """
        for group in self.groups:
            if any(task.name == name for task in group.tasks):
                return group
        raise ConfigError(f"{self.name} has no task {name!r}; tasks: {', '.join(t.name for t in self.tasks)}")

    def select(self, samples: Iterable[Sample], draw: Draw | None = None) -> Selection:
        """The samples that answer to each task, and the tasks that none answers to.

        A draw is stratified by group: every patient, slide or source figure gives its share of it, rounded up
        or down. It does not depend on the order of the samples, and keeps that order.

        Args:
            samples: of any exams; those of no task are left alone.
            draw: how many of them; all, without negatives, where None.
        """
        draw = draw or Draw()
        by_exam: dict[str, list[Sample]] = defaultdict(list)
        for sample in samples:
            by_exam[sample.exam].append(sample)
        chosen, missing = [], []
        for task in self.tasks:
            found = _of_task(task, by_exam, draw)
            if isinstance(found, str):
                missing.append(Missing(task, found))
            else:
                chosen.append(found)
        return Selection(tuple(chosen), tuple(missing))


def suite_names() -> tuple[str, ...]:
    """Names of the suites that ship with the package."""
    files = (resources.files("malpighi.evaluation") / "suites").iterdir()
    return tuple(sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml")))


def load_suite(name: str | Path) -> Suite:
    """A suite by name, or from a YAML file of one's own.

    Args:
        name: as in `suite_names`, or a path that ends in `.yaml` or `.yml`.

    Raises:
        ConfigError: no such suite.
        DataError: a file that cannot be read, or does not hold a suite.
        FormatVersionError: a file of another format version.
    """
    if str(name).endswith((".yaml", ".yml")):
        try:
            data = Path(name).read_bytes()
        except OSError as error:
            raise DataError(f"cannot read the suite {name}: {error.strerror}") from error
    elif name in suite_names():
        data = (resources.files("malpighi.evaluation") / "suites" / f"{name}.yaml").read_bytes()
    else:
        raise ConfigError(
            f"unknown suite {str(name)!r}; known: {', '.join(suite_names())}, or the path of a .yaml file"
        )
    suite = from_yaml(data, Suite, FORMAT_VERSION, str(name))
    _check(suite, str(name))
    return suite


def _check(suite: Suite, where: str) -> None:
    """Refuse tasks that cannot be told apart, asked or scored.

    Raises:
        DataError: naming the task.
    """
    names: set[str] = set()
    if not suite.tasks:
        raise DataError(f"{where} holds no task")
    for task in suite.tasks:
        if task.name in names:
            raise DataError(f"{where}: two tasks are named {task.name!r}")
        names.add(task.name)
        if bool(task.exams) == bool(task.unavailable):
            raise DataError(f"{where}, {task.name}: expected exams, or why it is unavailable, and not both")
        unnamed = [exam for exam in (*task.exams, *task.negatives) if "/" not in exam.strip("/")]
        if unnamed:
            raise DataError(f"{where}, {task.name}: exam {unnamed[0]!r}; expected e.g. bracs/class")
        unknown = {task.metric, *(task.further or ())} - METRICS
        if unknown:
            known = ", ".join(sorted(METRICS))
            raise DataError(f"{where}, {task.name}: metric {', '.join(sorted(unknown))}; expected {known}")


def _of_task(task: Task, by_exam: Mapping[str, Sequence[Sample]], draw: Draw) -> Chosen | str:
    """The samples of a task, or why there are none."""
    if task.unavailable:
        return task.unavailable
    if not any(by_exam.get(exam) for exam in task.exams):
        return f"no sample of {' or '.join(task.exams)}"
    exams = (*task.exams, *task.negatives) if draw.negatives else task.exams
    found = {exam: [one for one in by_exam.get(exam, ()) if _counts(one, task)] for exam in exams}
    available = sum(map(len, found.values()))
    if not available:
        there = sum(len(by_exam.get(exam, ())) for exam in exams)
        answer = f" with the answer {task.answer}" if task.answer else ""
        return f"{there} samples, none in {' or '.join(task.splits)}{answer}"
    taken = chain.from_iterable(drawn(samples, draw) for samples in found.values())
    return Chosen(task, tuple(taken), available)


def _counts(sample: Sample, task: Task) -> bool:
    if sample.split is not None and sample.split not in task.splits:
        return False
    right = sample.options[sample.answer.index] if isinstance(sample.answer, Choice) else ""
    return not task.answer or right == task.answer


def drawn(samples: Sequence[Sample], draw: Draw) -> list[Sample]:
    """At most `draw.per_exam` samples of one exam, in their order.

    A systematic sample of groups laid end to end in a seeded order: each gives its share, rounded. It depends
    on these samples and the seed alone, neither on their order nor on other exams.
    """
    total = len(samples)
    if not draw.per_exam or total <= draw.per_exam:
        return list(samples)
    line = sorted(
        range(total), key=lambda i: (_lot(draw.seed, samples[i].group), _lot(draw.seed, samples[i].id))
    )
    start = int.from_bytes(_lot(draw.seed, samples[line[0]].exam)[:4], "big") / 2**32
    places = {int((k + start) * total / draw.per_exam) for k in range(draw.per_exam)}
    taken = {line[place] for place in places}
    return [sample for index, sample in enumerate(samples) if index in taken]


def _lot(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}/{name}".encode()).digest()
