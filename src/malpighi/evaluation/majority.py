"""The floor under every exam: always the same answer, learnt from the training answers alone."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from malpighi.evaluation.evaluate import image_hash, truth_of
from malpighi.records import Boxes, Choice, Grade, MaskRef, Prediction, Sample, Text

log = logging.getLogger(__name__)

MODEL = "majority"

_TRIALS = 60

Fractions = tuple[float, float, float, float]
T = TypeVar("T")


def majority_predictions(
    train: Iterable[Sample], test: Sequence[Sample], grade_of: Callable[[Sample, str], Grade]
) -> list[Prediction]:
    """Rows of model `majority`: per exam one constant answer, graded as any other.

    A choice is answered with the option named most often in training; where the test sample does not offer
    that name, with the position that was right most often. An open question is answered with the most
    frequent text; detection and segmentation with one box, the mean training box scaled to the image or the
    whole picture, whichever earns more on the first training samples. Ties go to the answer seen first. An
    exam without training samples gets no rows, and the log says so.

    Args:
        train: training samples, any exams.
        test: the samples to answer, in the order of the rows.
        grade_of: the exams' grader; boxes in the text are in image px.
    """
    habits: dict[str, _Habit] = {}
    for sample in train:
        habits.setdefault(sample.exam, _Habit()).learn(sample)
    for habit in habits.values():
        habit.settle(grade_of)
    for exam in sorted({sample.exam for sample in test} - set(habits)):
        log.warning("exam %s has no training samples, hence no majority answer", exam)
    return [
        _row(sample, habits[sample.exam].answer(sample), grade_of) for sample in test if sample.exam in habits
    ]


class _Habit:
    """What was seen in one exam's training answers."""

    def __init__(self) -> None:
        self.words: Counter[str] = Counter()
        self.positions: Counter[int] = Counter()
        self.boxes: list[Fractions] = []
        self.trials: list[Sample] = []
        self.box: Fractions | None = None

    def learn(self, sample: Sample) -> None:
        match sample.answer:
            case Choice(index=index):
                self.words[sample.options[index]] += 1
                self.positions[index] += 1
            case Boxes(boxes=boxes) | MaskRef(boxes=boxes):
                width, height = sample.images[0].size
                self.boxes += [(b.x0 / width, b.y0 / height, b.x1 / width, b.y1 / height) for b in boxes]
                self.trials += [sample] if len(self.trials) < _TRIALS else []
            case Text(value=value):
                self.words[value] += 1

    def settle(self, grade_of: Callable[[Sample, str], Grade]) -> None:
        """Choose the one box of the exam: a box around everything can earn more than any true box would."""
        if not self.boxes:
            return
        mean = [sum(side) / len(self.boxes) for side in zip(*self.boxes, strict=True)]
        earned: dict[Fractions, float] = {
            box: sum(grade_of(sample, _in_words(box, sample)).score for sample in self.trials)
            for box in ((mean[0], mean[1], mean[2], mean[3]), (0.0, 0.0, 1.0, 1.0))
        }
        self.box = max(earned, key=lambda box: earned[box])

    def answer(self, sample: Sample) -> str:
        match sample.answer:
            case Choice():
                return f"<answer>{self._option(sample.options)}</answer>"
            case Text():
                words = _first(self.words)
                return f"<answer>{words or ''}</answer>"
            case _:
                return _in_words(self.box, sample) if self.box else "<answer>[]</answer>"

    def _option(self, options: Sequence[str]) -> str:
        known: Counter[str] = Counter({name: count for name, count in self.words.items() if name in options})
        name = _first(known)
        if name is not None:
            return name
        places = Counter({place: count for place, count in self.positions.items() if place < len(options)})
        return options[_first(places) or 0]


def _in_words(box: Fractions, sample: Sample) -> str:
    width, height = sample.images[0].size
    corners = [round(side * scale) for side, scale in zip(box, (width, height) * 2, strict=True)]
    return f"<answer>{[corners]}</answer>"


def _first(counts: Counter[T]) -> T | None:
    return counts.most_common(1)[0][0] if counts else None


def _row(sample: Sample, text: str, grade_of: Callable[[Sample, str], Grade]) -> Prediction:
    return Prediction(
        model=MODEL,
        exam=sample.exam,
        sample=sample.id,
        group=sample.group,
        task=sample.task,
        text=text,
        grade=grade_of(sample, text),
        truth=truth_of(sample),
        image_hash=image_hash(sample),
    )
