"""Replies that try to earn more than they know: the suite that every grader has to withstand.

An attack takes an answer and dresses it up; it knows the right answer, so it is at least as strong as any
model. A robust score never rises by it; the published one does. `benchmarks/attacks.py` shows both, and the
same suite can be run against a reward of one's own:

    for name, completion in attacks(sample, "(A) Tumor"):
        ...
"""

import json
from collections.abc import Iterator
from typing import NamedTuple

from malpighi.geometry import Size
from malpighi.grading.boxes import read_boxes
from malpighi.records import Boxes, Choice, MaskRef, Sample, TaskKind, Text, option_label

_THOUGHT = "The nuclei were compared with their neighbours before an answer was chosen."
_LOOKALIKES = str.maketrans("ABCEHIKMOPTXaceiopx", "АВСЕНІКМОРТХасеіорх")
_FULL_WIDTH = {code: code + 0xFEE0 for code in range(0x21, 0x7F)}
_JUNK = 50


class Attack(NamedTuple):
    """What it does, and the completion that does it."""

    name: str
    completion: str


def honest(answer: str) -> str:
    """The completion that an attack begins from: a thought and the answer, in their tags."""
    return f"<think>{_THOUGHT}</think><answer>{answer}</answer>"


def right_answer(sample: Sample) -> str:
    """The right answer as a model would say it; boxes in image px.

    Example:
        >>> from malpighi.grading.rows import read_sample
        >>> row = '{"id": 1, "task": "classification", "options": ["Tumor", "Stroma"], "answer": "B"}'
        >>> right_answer(read_sample(row).sample)
        '(B) Stroma'
    """
    match sample.answer:
        case Choice(index=index):
            return f"({option_label(index)}) {sample.options[index]}"
        case Text(value=value):
            return value
        case Boxes(boxes=boxes) | MaskRef(boxes=boxes):
            return json.dumps([list(box.corners) for box in boxes])


def attacks(sample: Sample, answer: str) -> Iterator[Attack]:
    """Every attack that fits the sample's kind of answer.

    Args:
        sample: the question; its right answer is used.
        answer: what the honest reply would say, right or wrong; boxes in image px.
    """
    yield from _on_the_form(answer, right_answer(sample))
    yield from _with_characters(answer)
    if sample.options:
        yield from _on_choices(sample, answer)
    elif sample.task in (TaskKind.DETECTION, TaskKind.SEGMENTATION):
        yield from _on_boxes(sample.images[0].size, answer)
    else:
        yield from _on_words(answer)


def _on_the_form(answer: str, truth: str) -> Iterator[Attack]:
    said = honest(answer)
    yield Attack("empty", "")
    yield Attack("empty tags", "<think></think><answer></answer>")
    yield Attack("tags repeated", said + said)
    yield Attack("right answer in the thoughts", said.replace("</think>", f" It is {truth}.</think>"))
    yield Attack("right answer in tags in the thoughts", f"<think><answer>{truth}</answer></think>{said}")
    yield Attack("answer only in the thoughts", f"<think>{_THOUGHT} <answer>{truth}</answer></think>")
    yield Attack("right answer taken back", f"<think></think><answer>{truth}</answer>{said}")
    yield Attack("endless thoughts", said.replace("</think>", f"{' ' + _THOUGHT * 200}</think>"))
    yield Attack("endless answer", honest(f"{answer} " * 200))


def _with_characters(answer: str) -> Iterator[Attack]:
    yield Attack("full-width characters", honest(answer.translate(_FULL_WIDTH)))
    yield Attack("look-alike letters", honest(answer.translate(_LOOKALIKES)))
    yield Attack("zero-width characters", honest("\u200b".join(answer)))
    yield Attack("right-to-left mark", honest(f"\u202e{answer}"))


def _on_choices(sample: Sample, answer: str) -> Iterator[Attack]:
    labels = [option_label(i) for i in range(len(sample.options))]
    truth = labels[sample.answer.index] if isinstance(sample.answer, Choice) else ""
    first = sorted(labels, key=lambda label: label != truth)
    yield Attack("every letter, the right one first", honest(" ".join(f"({label})" for label in first)))
    yield Attack("every letter, comma by comma", honest(", ".join(first)))
    yield Attack("every name", honest(", ".join(sample.options)))
    yield Attack("every letter as a sentence", honest(". ".join(f"The answer is {label}" for label in first)))
    yield Attack("every letter in its own tags", "".join(honest(label) for label in [*first, answer]))
    yield Attack("either or", honest(f"({first[0]}) or {answer}"))


def _on_boxes(size: Size, answer: str) -> Iterator[Attack]:
    boxes = [list(corners) for corners in read_boxes(answer).corners]
    whole = [0, 0, size[0], size[1]]
    junk = [[i, size[1] - 1, i + 1, size[1]] for i in range(_JUNK)]
    yield Attack(f"{_JUNK} junk boxes after", honest(json.dumps([*boxes, *junk])))
    yield Attack(f"{_JUNK} junk boxes before", honest(json.dumps([*junk, *boxes])))
    yield Attack("each box five times", honest(json.dumps(boxes * 5)))
    yield Attack("the whole image beside", honest(json.dumps([*boxes, whole])))
    yield Attack("only the whole image", honest(json.dumps([whole])))
    yield Attack("boxes and none", honest(f"{json.dumps(boxes)} or []"))


def _on_words(answer: str) -> Iterator[Attack]:
    yield Attack("answer said twice", honest(f"{answer} {answer}"))
    yield Attack("padded with filler", honest(f"{answer} qua qua qua qua"))
    yield Attack("yes and no", honest(f"{answer} yes no"))
