import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from malpighi.errors import ConfigError, DataError
from malpighi.geometry import Box, Frame, View
from malpighi.grading.conduct import Length
from malpighi.grading.grade import GRADERS, Reading, dice_ceiling, grade
from malpighi.grading.masks import filled
from malpighi.grading.published import Mode
from malpighi.guidelines.pack import load_pack
from malpighi.records import (
    Boxes,
    Choice,
    ImageRef,
    MaskRef,
    Provenance,
    Sample,
    Scale,
    Status,
    TaskKind,
    Text,
    Turn,
    from_json,
    to_json,
)

CELLS = ("Normal", "Koilocyte", "Dyskeratotic")
BOXES = (Box(10, 10, 30, 30), Box(50, 50, 90, 90))
IMAGE = ImageRef("k", (200, 100))
FORM = "<think>because</think><answer>{}</answer>"


def sample(task, answer, options=(), images=(IMAGE,)):
    return Sample(
        id="s1", dataset="d", exam="d/x", task=task, scale=Scale.ROI, images=images,
        turns=(Turn("user", "What is it?"),), answer=answer, options=options, group="g", licence="CC0-1.0",
        provenance=Provenance("test"),
    )  # fmt: skip


CLASS = sample(TaskKind.CLASSIFICATION, Choice(1), CELLS)
FIND = sample(TaskKind.DETECTION, Boxes(BOXES))
NOTHING = sample(TaskKind.DETECTION, Boxes(()))
OUTLINE = sample(TaskKind.SEGMENTATION, MaskRef("m", BOXES))
OPEN = sample(TaskKind.VQA, Text("invasive ductal carcinoma"))
CLOSED = sample(TaskKind.VQA, Text("No"))
CAPTION = sample(TaskKind.CAPTION, Text("Sheets of koilocytes with sharp halos and enlarged nuclei"))
TALK = sample(TaskKind.CONVERSATION, Text("Koilocytes have halos."))
NAMED = sample(TaskKind.CLASSIFICATION, Text("adenocarcinoma"))
EVERY = (CLASS, FIND, NOTHING, OUTLINE, OPEN, CLOSED, CAPTION, TALK, NAMED)


def load_mask(key):
    assert key == "m"
    return filled(BOXES, (200, 100))


READING = Reading(load_mask=load_mask)


@pytest.mark.parametrize(
    ("asked", "answer", "score"),
    [
        (CLASS, "(B) Koilocyte", 1.0),
        (CLASS, "(A) Normal", 0.0),
        (FIND, "[[10,10,30,30],[50,50,90,90]]", 1.0),
        (FIND, "[[10,10,30,30]]", 0.5),
        (FIND, "[]", 0.0),
        (NOTHING, "[]", 1.0),
        (NOTHING, "[[1,1,5,5]]", 0.0),
        (OUTLINE, "[[10,10,30,30],[50,50,90,90]]", 1.0),
        (OUTLINE, "[[10,10,30,30]]", 2 * 400 / 2400),
        (OUTLINE, "[]", 0.0),
        (OPEN, "Invasive ductal carcinoma", 1.0),
        (OPEN, "melanoma", 0.0),
        (CLOSED, "no", 1.0),
        (CLOSED, "yes", 0.0),
        (CAPTION, "sheets of koilocytes with sharp halos and enlarged nuclei", 1.0),
        (NAMED, "Adenocarcinoma.", 1.0),
        (NAMED, "carcinoma", 0.0),
    ],
)
def test_scores(asked, answer, score):
    verdict = grade(asked, FORM.format(answer), READING)
    assert verdict.status is Status.OK
    assert verdict.score == pytest.approx(score)
    assert verdict.parts["task"] == verdict.score
    assert verdict.parts["format"] == 1.0


@pytest.mark.parametrize(
    ("asked", "completion", "status"),
    [
        (CLASS, FORM.format("(A) or (B)"), Status.AMBIGUOUS),
        (CLASS, FORM.format("F"), Status.OUT_OF_RANGE),
        (CLASS, "", Status.NO_ANSWER),
        (CLASS, "<think>(B)", Status.NO_ANSWER),
        (CLOSED, FORM.format("The cell is normal"), Status.NO_ANSWER),
        (FIND, FORM.format("[[1, 2, 3]]"), Status.MALFORMED),
        (NOTHING, FORM.format("[[1, 2, 3]]"), Status.MALFORMED),
        (NOTHING, FORM.format("I see none here"), Status.NO_ANSWER),
        (OUTLINE, FORM.format("in the middle"), Status.NO_ANSWER),
        (OPEN, FORM.format(" "), Status.NO_ANSWER),
    ],
)
def test_invalid_answers_score_0_and_say_why(asked, completion, status):
    verdict = grade(asked, completion, READING)
    assert verdict.status is status
    assert verdict.score == 0.0
    assert set(verdict.parts) == set(grade(asked, FORM.format("[[1,2,3,4]]"), READING).parts)
    behaves = ("format", "repetition", "mixing")
    assert all(value == 0 for name, value in verdict.parts.items() if name not in behaves)


@pytest.mark.parametrize("asked", EVERY, ids=lambda s: f"{s.task}-{type(s.answer).__name__}")
def test_a_cut_reply_counts_only_with_a_closed_answer(asked):
    reading = Reading(truncated=True, load_mask=load_mask)
    for reply in ("<think>a long", "B", "[[10,10,30,30]", "<think>x</think><answer>B"):
        assert grade(asked, reply, reading).status is Status.TRUNCATED
        assert grade(asked, reply, reading).score == 0.0
    assert grade(asked, FORM.format("B [[1,2,3,4]]") + " and so", reading).status is not Status.TRUNCATED


@given(
    st.sampled_from(EVERY),
    st.text(max_size=200) | st.text(alphabet="<>/thinkaswer()[]0123456789,. AB\n", max_size=200),
    st.sampled_from(Mode),
)
def test_no_completion_makes_it_fail(asked, completion, mode):
    reading = Reading(
        load_mask=load_mask, mode=mode, length=Length(len(completion), 100, 20), pack=load_pack("tbs")
    )
    verdict = grade(asked, completion, reading)
    assert 0 <= verdict.score <= 1
    assert all(0 <= value <= 1 for value in verdict.parts.values())
    assert verdict.score == 0 or verdict.status is Status.OK
    assert from_json(to_json(verdict), type(verdict)).score == verdict.score


def test_the_model_s_frame_is_converted():
    view = View((200, 100), (100, 50))
    spoken = json.dumps([view.spoken(box, Frame.RESIZED) for box in BOXES])
    assert grade(FIND, spoken, Reading(view, Frame.RESIZED)).score == 1.0
    assert grade(FIND, spoken).score == 0.0, "in the wrong frame nothing fits"
    relative = json.dumps([view.spoken(box, Frame.RELATIVE1000) for box in BOXES])
    verdict = grade(FIND, relative, Reading(view, Frame.RELATIVE1000))
    assert verdict.score == 1.0
    assert verdict.parsed[0] == pytest.approx(BOXES[0].corners)


def test_truth_beyond_the_image_is_clipped_like_the_answer():
    beyond = sample(TaskKind.DETECTION, Boxes((Box(180, 80, 260, 140), Box(300, 300, 310, 310))))
    assert grade(beyond, "[[180, 80, 200, 100]]").score == 1.0


def test_the_segmenter_gets_solid_boxes_once_and_image_size():
    seen = []

    def segment(size, boxes):
        seen.append((size, boxes))
        return load_mask("m")

    reading = Reading(load_mask=load_mask, segment=segment)
    verdict = grade(OUTLINE, "[[0,0,9,9],[0,0,9,9],[5,5,5,5]]", reading)
    assert seen == [((200, 100), (Box(0, 0, 9, 9),))]
    assert verdict.score == 1.0
    assert verdict.parts["dice_filled"] == 0.0
    assert grade(OUTLINE, "[]", reading).score == 0.0
    assert len(seen) == 1, "no boxes, no segmenter"


def test_the_ceiling_is_what_the_right_boxes_reach():
    assert dice_ceiling(OUTLINE, READING) == 1.0
    half = Reading(load_mask=load_mask, segment=lambda size, boxes: filled(boxes[:1], size))
    assert dice_ceiling(OUTLINE, half) == grade(OUTLINE, "[[10,10,30,30]]", READING).score
    beyond = sample(TaskKind.SEGMENTATION, MaskRef("m", (*BOXES, Box(300, 0, 400, 50))))
    assert dice_ceiling(beyond, READING) == 1.0, "clipped like an answer"
    assert dice_ceiling(FIND, READING) is None
    with pytest.raises(ConfigError, match="load_mask"):
        dice_ceiling(OUTLINE, Reading())


@pytest.mark.parametrize("answer", ["[[10,10,30,30]]", "somewhere", ""])
def test_the_ceiling_belongs_to_the_sample_and_not_to_the_answer(answer):
    reading = Reading(load_mask=load_mask, ceiling=0.9)
    assert grade(OUTLINE, answer, reading).parts["dice_ceiling"] == 0.9
    assert "dice_ceiling" not in grade(OUTLINE, answer, READING).parts


def test_a_worded_answer_among_options_is_a_choice():
    asked = sample(TaskKind.VQA, Text("koilocyte"), CELLS)
    assert grade(asked, "B").score == 1.0
    assert grade(asked, "Koilocyte").score == 1.0
    assert grade(asked, "A").score == 0.0
    closed = sample(TaskKind.VQA, Text("yes"), ("yes", "no"))
    assert grade(closed, "Yes, there is no doubt").score == 1.0
    assert grade(closed, "A").status is Status.NO_ANSWER, "yes and no are asked without letters"


@pytest.mark.parametrize(
    ("asked", "answer", "robust", "paper"),
    [
        (CLASS, "(B) Koilocyte", 1.0, 1.0),
        (CLASS, "(B), (A) or (C)", 0.0, 1.0),
        (CLASS, "A cell with a halo, a koilocyte", 1.0, 0.0),
        (CLOSED, "No.", 1.0, 0.0),
        (OPEN, "Invasive ductal carcinoma", 1.0, 0.0),
        (FIND, "[[10,10,30,30],[50,50,90,90]]" + "[0,0,1,1]" * 8, 0.2, 1.0),
        (FIND, "[[10,10,30,30]]", 0.5, 0.5),
        (NOTHING, "[]", 1.0, 0.0),
        (OUTLINE, "[[10,10,30,30]]", 2 * 400 / 2400, 2 * 400 / 2400),
    ],
)
def test_the_two_modes(asked, answer, robust, paper):
    assert grade(asked, FORM.format(answer), READING).score == pytest.approx(robust)
    published = grade(asked, FORM.format(answer), Reading(load_mask=load_mask, mode=Mode.PAPER))
    assert published.score == published.parts["task"] == pytest.approx(paper)
    assert published.parts["format"] == 1.0


def test_a_cut_reply_is_read_as_it_stands_in_the_paper_s_mode():
    assert grade(CLASS, "B", Reading(truncated=True, mode=Mode.PAPER)).status is Status.OK


def test_faults_are_told_of_any_reply():
    reading = Reading(length=Length(tokens=95, limit=100, buffer=20))
    found = grade(CLASS, "halo " * 50, reading)
    assert found.status is Status.NO_ANSWER
    assert found.parts["overlong"] == 0.75
    assert found.parts["repetition"] > 0.9
    assert "overlong" not in grade(CLASS, "B").parts
    assert grade(CLASS, FORM.format("细胞 B")).parts["mixing"] == pytest.approx(2 / 3)
    with pytest.raises(ConfigError, match="overlong buffer"):
        grade(CLASS, "B", Reading(length=Length(5, 10, 20)))


def test_headlines_stand_first():
    headline = {(task.value, kind.__name__): grader.parts[0] for (task, kind), grader in GRADERS.items()}
    assert headline["detection", "Boxes"] == "ap_tie50"
    assert headline["segmentation", "MaskRef"] == "dice"
    assert headline["vqa", "Text"] == headline["caption", "Text"] == "bleu4"
    assert headline["classification", "Choice"] == "exact"


def test_what_cannot_be_graded_is_refused():
    with pytest.raises(ConfigError, match="load_mask"):
        grade(OUTLINE, "[]")
    with pytest.raises(DataError, match="asks for detection, but its answer is a Text"):
        grade(sample(TaskKind.DETECTION, Text("x")), "[]")
    with pytest.raises(DataError, match="no image"):
        grade(sample(TaskKind.DETECTION, Boxes(()), images=()), "[]")


@pytest.mark.parametrize("mode", Mode)
def test_surrogates_and_control_characters_are_read(mode):
    for text in ("\ud800", "\x00B\x00", "<answer>\udfff B</answer>", "\r\nB\r\n", "\u2028" * 50):
        for asked in EVERY:
            assert 0 <= grade(asked, text, Reading(load_mask=load_mask, mode=mode)).score <= 1
