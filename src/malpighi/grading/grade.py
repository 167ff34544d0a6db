"""The spine: (sample, completion) -> Grade, one function for rewards and for evaluation.

Reading goes in three steps: the tags (`tags.py`), the answer in its typed form (`choice.py`, `boxes.py`), the
comparison (`match.py`, `masks.py`, `words.py`). An answer that cannot be read has score 0, all parts of its
task 0, and a status that says why; it is counted, never dropped and never guessed. How the completion behaves
besides (`conduct.py`, `consistency.py`) stands in further parts, which a reward may weigh.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from malpighi.errors import ConfigError, DataError
from malpighi.geometry import Box, Frame, Size, View
from malpighi.grading import masks, match, words
from malpighi.grading.boxes import read_boxes, to_image
from malpighi.grading.choice import ChoiceReading, read_choice
from malpighi.grading.conduct import Length, mixing, overlong, repetition
from malpighi.grading.consistency import categories_of, inconsistency
from malpighi.grading.published import Mode, published_choice, published_reply
from malpighi.grading.tags import read_reply
from malpighi.guidelines.pack import Pack
from malpighi.records import Boxes, Choice, Grade, MaskRef, Sample, Status, TaskKind, Text

YES_NO = ("yes", "no")


@dataclass(frozen=True)
class Reading:
    """How a completion is to be read.

    Attributes:
        view: how the frames of the sample's (first) image hang together; None takes the stored image alone.
        frame: the frame that the model's boxes are spoken in.
        truncated: generation ended at the token limit.
        load_mask: boolean mask (height, width) of a corpus key; needed for segmentation.
        segment: the mask (height, width) of an image of that size for boxes in image px, e.g. a promptable
            segmenter; None fills the boxes, whose Dice has a ceiling well below 1 (see `masks.filled`).
        ceiling: what `dice_ceiling` gives for the sample; gives the part `dice_ceiling`.
        mode: how answers are read, what keeps the form, and which part is the score.
        length: how long the completion is and may be; gives the part `overlong`.
        pack: a guideline; gives the part `inconsistent`.
    """

    view: View | None = None
    frame: Frame = Frame.IMAGE
    truncated: bool = False
    load_mask: Callable[[str], masks.Mask] | None = None
    segment: Callable[[Size, tuple[Box, ...]], masks.Mask] | None = None
    ceiling: float | None = None
    mode: Mode = Mode.ROBUST
    length: Length | None = None
    pack: Pack | None = None


class Verdict(NamedTuple):
    """What one grader found; `parsed` is JSON-able, and `parts` count only where the status is ok."""

    status: Status
    parsed: Any = None
    parts: dict[str, float] = {}  # noqa: RUF012 -- a NamedTuple's default, never written to


class Grader(NamedTuple):
    """A way of grading.

    Attributes:
        parts: what it finds; the first is the score.
        judge: the function that finds them.
        published: the part that is the score in `Mode.PAPER`.
    """

    parts: tuple[str, ...]
    judge: Callable[[Sample, str, Reading], Verdict]
    published: str


def grade(sample: Sample, completion: str, reading: Reading | None = None) -> Grade:
    """The verdict on one completion.

    Args:
        sample: the question with its right answer.
        completion: what the model wrote, raw; any string.
        reading: how to read it; None for boxes in image px and nothing truncated.

    Returns:
        Grade with the parts `task` (equal to the score), those of the sample's grader in `GRADERS`, `format`
        (1 where the tags are kept), the faults `repetition`, `mixing`, `overlong` (with `Reading.length`)
        and `inconsistent` (with `Reading.pack`), where 0 is none and 1 the worst, and `dice_ceiling` (with
        `Reading.ceiling`), which is the sample's and not the answer's.

    Raises:
        DataError: the sample's task and answer do not go together, or the view does not know the frame.
        ConfigError: a segmentation sample is graded without `load_mask`, or `length` contradicts itself.

    Source: SmartPath-R1 eq. 5-10 for `Mode.PAPER`; see `published.py` for what the paper leaves open.
    """
    reading = reading or Reading()
    grader = _grader(sample)
    paper = reading.mode is Mode.PAPER
    reply = published_reply(completion) if paper else read_reply(completion)
    cut = reading.truncated and not reply.closed and not paper
    verdict = _judged(grader, sample, reply.answer, reading, cut=cut)
    parts = verdict.parts if verdict.status is Status.OK else dict.fromkeys(grader.parts, 0.0)
    score = parts[grader.published if paper else grader.parts[0]]
    return Grade(
        score=score,
        status=verdict.status,
        parsed=verdict.parsed,
        parts={
            "format": float(reply.well_formed),
            "task": score,
            **parts,
            **_faults(sample, completion, verdict, reading),
            **({} if reading.ceiling is None else {"dice_ceiling": reading.ceiling}),
        },
    )


def dice_ceiling(sample: Sample, reading: Reading) -> float | None:
    """The Dice that the right boxes reach on the way of a reading: no more is to be expected of boxes.

    Args:
        sample: a segmentation; any other kind has no ceiling.
        reading: gives `load_mask` and `segment`.

    Returns:
        0 to 1; None where the answer is no mask. A lucky answer can stand above it.
    """
    if not isinstance(sample.answer, MaskRef):
        return None
    view = _view(sample, reading)
    return masks.dice(_mask(sample.answer.boxes, view, reading), _truth_mask(sample, reading))


def _faults(sample: Sample, completion: str, verdict: Verdict, reading: Reading) -> dict[str, float]:
    asked = [*(turn.text for turn in sample.turns), *sample.options, _truth_text(sample)]
    found = {"repetition": repetition(completion), "mixing": mixing(completion, "\n".join(asked))}
    if reading.length is not None:
        found["overlong"] = overlong(reading.length)
    if reading.pack is not None:
        found["inconsistent"] = _inconsistency(sample, completion, verdict, reading.pack)
    return found


def _inconsistency(sample: Sample, completion: str, verdict: Verdict, pack: Pack) -> float:
    categories = categories_of(sample.options, pack)
    if categories is None:
        return 0.0
    chosen = verdict.status is Status.OK and isinstance(verdict.parsed, int)
    said = categories[verdict.parsed] if chosen else None
    return inconsistency(completion, said, pack)


def _judged(grader: Grader, sample: Sample, answer: str, reading: Reading, *, cut: bool) -> Verdict:
    if cut:
        return Verdict(Status.TRUNCATED)
    if not answer:
        return Verdict(Status.NO_ANSWER)
    return grader.judge(sample, answer, reading)


def _read_choice(reading: Reading) -> Callable[..., ChoiceReading]:
    return published_choice if reading.mode is Mode.PAPER else read_choice


def _judge_choice(sample: Sample, answer: str, reading: Reading) -> Verdict:
    # Prompts put no letters to yes and no, so a letter is no answer there.
    closed = sorted(option.casefold() for option in sample.options) == sorted(YES_NO)
    read = _read_choice(reading)(answer, sample.options, lettered=not closed)
    right = sample.answer.index if isinstance(sample.answer, Choice) else _right_option(sample)
    return Verdict(read.status, read.option, {"exact": float(read.option == right)})


def _judge_yes_no(sample: Sample, answer: str, reading: Reading) -> Verdict:
    read = _read_choice(reading)(answer, YES_NO, lettered=False)
    said = None if read.option is None else YES_NO[read.option]
    return Verdict(read.status, said, {"exact": float(said == _truth_text(sample).casefold())})


def _judge_boxes(sample: Sample, answer: str, reading: Reading) -> Verdict:
    read = read_boxes(answer)
    view = _view(sample, reading)
    boxes = to_image(read.corners, view, reading.frame)
    parts = _box_parts(boxes, sample.answer.boxes if isinstance(sample.answer, Boxes | MaskRef) else (), view)
    return Verdict(read.status, [box.corners for box in boxes], parts)


def _judge_mask(sample: Sample, answer: str, reading: Reading) -> Verdict:
    read = read_boxes(answer)
    if read.status is not Status.OK:
        return Verdict(read.status)
    view = _view(sample, reading)
    boxes = to_image(read.corners, view, reading.frame)
    truth = _truth_mask(sample, reading)
    flat = masks.filled(boxes, view.image_size)
    mask = _mask(boxes, view, reading)
    parts = {
        "dice": masks.dice(mask, truth),
        "dice_gain": masks.dice_gain(mask, truth),
        "iou": masks.mask_iou(mask, truth),
        "dice_filled": masks.dice(flat, truth),
    }
    return Verdict(read.status, [box.corners for box in boxes], parts)


def _mask(boxes: tuple[Box, ...], view: View, reading: Reading) -> masks.Mask:
    # Identical boxes add nothing to a union, but each costs the segmenter a pass.
    solid = tuple(dict.fromkeys(box for box in map(view.clip, boxes) if box.area > 0))
    if reading.segment is None or not solid:
        return masks.filled(solid, view.image_size)
    return reading.segment(view.image_size, solid)


def _truth_mask(sample: Sample, reading: Reading) -> masks.Mask:
    assert isinstance(sample.answer, MaskRef)
    if reading.load_mask is None:
        raise ConfigError(f"sample '{sample.id}' is a segmentation; pass Reading.load_mask to grade it")
    return reading.load_mask(sample.answer.key)


def _judge_words(sample: Sample, answer: str, reading: Reading) -> Verdict:
    truth = _truth_text(sample)
    parts = {
        "bleu4": words.bleu4(answer, truth),
        "bleu4_sacrebleu": words.bleu4_sacrebleu(answer, truth),
        "bleu4_paper": words.bleu4_paper(answer, truth),
        "token_f1": words.token_f1(answer, truth),
        "exact": words.exact_match(answer, truth),
    }
    return Verdict(Status.OK, answer, parts)


_WORD_PARTS = ("bleu4", "bleu4_sacrebleu", "bleu4_paper", "token_f1")

CHOICE = Grader(("exact",), _judge_choice, "exact")
CLOSED = Grader(("exact",), _judge_yes_no, "exact")
BOXES = Grader((*match.part_names((0.5, 0.3, 0.7)), "soft_f1"), _judge_boxes, "ap_paper50")
MASK = Grader(("dice", "dice_gain", "iou", "dice_filled"), _judge_mask, "dice")
WORDS = Grader((*_WORD_PARTS, "exact"), _judge_words, "bleu4_paper")
NAME = Grader(("exact", *_WORD_PARTS), _judge_words, "exact")

GRADERS: dict[tuple[TaskKind, type], Grader] = {
    (TaskKind.CLASSIFICATION, Choice): CHOICE,
    (TaskKind.CLASSIFICATION, Text): NAME,
    (TaskKind.DETECTION, Boxes): BOXES,
    (TaskKind.SEGMENTATION, MaskRef): MASK,
    (TaskKind.VQA, Choice): CHOICE,
    (TaskKind.VQA, Boxes): BOXES,
    (TaskKind.VQA, Text): WORDS,
    (TaskKind.CAPTION, Text): WORDS,
    (TaskKind.CONVERSATION, Choice): CHOICE,
    (TaskKind.CONVERSATION, Text): WORDS,
}


def _grader(sample: Sample) -> Grader:
    grader = GRADERS.get((sample.task, type(sample.answer)))
    if grader is None:
        raise DataError(
            f"sample '{sample.id}' asks for {sample.task.value}, but its answer is a "
            f"{type(sample.answer).__name__}; no grader compares these: mend the adapter that made the sample"
        )
    if isinstance(sample.answer, Text) and sample.task in (TaskKind.VQA, TaskKind.CLASSIFICATION):
        if _right_option(sample) is not None:
            return CHOICE
        if _truth_text(sample).casefold() in YES_NO:
            return CLOSED
    return grader


def _right_option(sample: Sample) -> int | None:
    """Index of the option that a worded answer equals; None where it is none of them."""
    truth = _truth_text(sample).casefold()
    folded = [option.strip().casefold() for option in sample.options]
    return folded.index(truth) if truth in folded else None


def _truth_text(sample: Sample) -> str:
    return sample.answer.value.strip() if isinstance(sample.answer, Text) else ""


def _view(sample: Sample, reading: Reading) -> View:
    if reading.view is not None:
        return reading.view
    if not sample.images:
        raise DataError(f"sample '{sample.id}' asks for boxes but has no image; pass Reading.view")
    return View(sample.images[0].size)


def _box_parts(boxes: tuple[Box, ...], truth: tuple[Box, ...], view: View) -> dict[str, float]:
    inside = [clipped for clipped in map(view.clip, truth) if clipped.area > 0]
    predicted, true = match.corners_of(boxes), match.corners_of(inside)
    return match.detection_parts(predicted, true) | {"soft_f1": match.soft_f1(predicted, true)}
