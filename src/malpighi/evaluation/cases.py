"""The sheet of samples: one picture, its question and truth, and what each model said about it."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup
from PIL import Image

from malpighi.evaluation.charts import Corners, Outline, picture
from malpighi.evaluation.evaluate import truth_of
from malpighi.grading.tags import read_reply
from malpighi.records import Boxes, MaskRef, Prediction, Sample, Status

_LONGEST = 1500
_TAG = re.compile(r"</?(?:think|answer)>", re.IGNORECASE)


class Reply(NamedTuple):
    """What one model said.

    Attributes:
        model: its name.
        style: CSS class of its boxes.
        mark: `right`, `partly`, `wrong` or `unread`.
        score: 0 to 1.
        status: how the reading of the answer went.
        answer: the answer, without tags.
        reasoning: the text before it; "" for none.
    """

    model: str
    style: str
    mark: str
    score: float
    status: str
    answer: str
    reasoning: str


class Case(NamedTuple):
    """One sample with its replies, ready for the page.

    Attributes:
        sample: its id.
        exam: its exam.
        question: the text of the question.
        options: names to choose from; empty for open questions.
        truth: the right answer in words.
        picture: the image with boxes.
        boxed: whether boxes were asked for.
        replies: one per model.
    """

    sample: str
    exam: str
    question: str
    options: tuple[str, ...]
    truth: str
    picture: Markup
    boxed: bool
    replies: tuple[Reply, ...]

    def missed_by(self, model: str) -> bool:
        """Whether a model answered it, and not right."""
        return any(reply.model == model and reply.mark != "right" for reply in self.replies)


def case_of(
    sample: Sample, image: Image.Image, rows: Iterable[Prediction], styles: Mapping[str, str]
) -> Case:
    """A sample's entry in the sheet.

    Args:
        sample: what was asked.
        image: its first image as stored.
        rows: predictions; those of other samples are skipped.
        styles: model name -> CSS class, see `report.styles_of`; models without one are left out.
    """
    mine = [row for row in rows if row.sample == sample.id and row.model in styles]
    truth, boxed = truth_of(sample), isinstance(sample.answer, Boxes | MaskRef)
    outlines = []
    if boxed:
        outlines = [Outline("truth", boxes_of(truth))]
        outlines += [Outline(styles[row.model], boxes_of(row.grade.parsed)) for row in mine]
    return Case(
        sample=sample.id,
        exam=sample.exam,
        question=sample.question,
        options=sample.options,
        truth=truth_text(truth),
        picture=picture(image, outlines),
        boxed=boxed,
        replies=tuple(_reply(row, styles[row.model]) for row in mine),
    )


def truth_text(truth: Any) -> str:
    """A row's truth in words.

    Example:
        >>> truth_text({"index": 1, "options": ["HSIL", "NILM"]})
        'NILM'
        >>> truth_text([[0, 0, 5, 5]])
        '1 box'
    """
    if isinstance(truth, Mapping):
        return str(truth["options"][truth["index"]])
    if isinstance(truth, Sequence) and not isinstance(truth, str):
        return "nothing to find" if not truth else f"{len(truth)} box{'es' if len(truth) > 1 else ''}"
    return str(truth)


def spoken(text: str) -> tuple[str, str]:
    """A completion as (reasoning, answer): the answer that was graded, and what stands before it.

    Example:
        >>> spoken("<think>Round nuclei.</think><answer>NILM</answer>")
        ('Round nuclei.', 'NILM')
    """
    answer = read_reply(text).answer
    before = text[: text.rfind(answer)] if answer else text
    return _TAG.sub("", before).strip(), answer


def boxes_of(value: Any) -> list[Corners]:
    """Four finite numbers per box from a row's truth or parsed answer; anything else is no box."""
    found = value if isinstance(value, (list, tuple)) else []
    return [
        (float(box[0]), float(box[1]), float(box[2]), float(box[3]))
        for box in found
        if isinstance(box, (list, tuple)) and len(box) == 4 and all(isinstance(v, (int, float)) for v in box)
    ]


def _reply(row: Prediction, style: str) -> Reply:
    reasoning, answer = spoken(row.text)
    grade = row.grade
    if grade.status is not Status.OK:
        mark = "unread"
    else:
        mark = "right" if grade.score >= 0.999 else "wrong" if grade.score <= 0.001 else "partly"
    return Reply(row.model, style, mark, grade.score, str(grade.status), _clip(answer), _clip(reasoning))


def _clip(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} … ({len(text) - _LONGEST} more characters)"
