"""No robust score, and no reward from it, rises by an attack; the published ones do."""

import json
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from malpighi.geometry import Box, View
from malpighi.grading.attacks import attacks, honest, right_answer
from malpighi.grading.conduct import Length
from malpighi.grading.grade import Reading, grade
from malpighi.grading.masks import filled
from malpighi.grading.published import Mode
from malpighi.grading.reward import reward
from malpighi.grading.rows import read_sample
from malpighi.records import MaskRef, TaskKind

SIZE = (400, 300)
NAMES = ["Tumor", "Stroma", "Lymphocytes", "Mucus", "Smooth muscle", "Debris"]
WORDS = [
    "well",
    "poorly",
    "differentiated",
    "squamous",
    "cell",
    "carcinoma",
    "hyaline",
    "cartilage",
    "of",
    "the",
]
MANY = settings(deadline=None, max_examples=40)
YES_NO = st.sampled_from(["yes", "no"])


def asked(**row):
    return read_sample(json.dumps({"id": 1, **row})).sample


def corners(most):
    """Lists of boxes from 8 to 60 px wide, clear of the bottom row, where junk is put."""
    one = st.tuples(st.integers(0, 330), st.integers(0, 230), st.integers(8, 60), st.integers(8, 60))
    return st.lists(one.map(lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]]), max_size=most)


def reading_of(sample, mode=Mode.ROBUST):
    boxes = getattr(sample.answer, "boxes", ())
    return Reading(View(SIZE), load_mask=lambda _: filled(boxes, SIZE), mode=mode)


def rises(sample, answer, mode=Mode.ROBUST, part="task"):
    """The attacks after which the part is higher than the honest reply's."""
    reading = reading_of(sample, mode)
    before = grade(sample, honest(answer), reading).parts[part]
    found = {name: grade(sample, text, reading).parts[part] for name, text in attacks(sample, answer)}
    return {name for name, value in found.items() if value > before + 1e-12}


def earns_more(sample, answer):
    reading = reading_of(sample)
    before = reward(grade(sample, honest(answer), reading), sample.task)
    return {
        name
        for name, text in attacks(sample, answer)
        if reward(grade(sample, text, reading), sample.task) > before + 1e-12
    }


@MANY
@given(st.integers(2, 6), st.data())
def test_a_choice(count, data):
    truth, said = (data.draw(st.integers(0, count - 1)) for _ in range(2))
    form = data.draw(st.sampled_from(["({label}) {name}", "{label}", "{name}", "The answer is {label}."]))
    sample = asked(task="classification", options=NAMES[:count], answer=NAMES[truth])
    answer = form.format(label="ABCDEF"[said], name=NAMES[said])
    assert rises(sample, answer) == earns_more(sample, answer) == set()


@MANY
@given(YES_NO, YES_NO, st.booleans())
def test_yes_or_no(truth, said, listed):
    sample = asked(task="vqa", answer=truth, **({"options": ["yes", "no"]} if listed else {}))
    assert rises(sample, said) == earns_more(sample, said) == set()


@MANY
@given(st.permutations(WORDS), st.integers(1, 8), st.integers(0, 8), st.integers(1, 8))
def test_open_questions_and_reports(truth, length, start, said):
    sample = asked(task="caption", answer=" ".join(truth[:length]))
    answer = " ".join(truth[start : start + said])
    assert rises(sample, answer) == earns_more(sample, answer) == set()
    assert rises(sample, answer, part="token_f1") == rises(sample, answer, part="exact") == set()


@MANY
@given(corners(6), corners(6), st.integers(0, 6))
def test_boxes(truth, wrong, kept):
    sample = asked(task="detection", image_size=SIZE, answer=truth)
    answer = json.dumps([*truth[:kept], *wrong])
    assert rises(sample, answer) == earns_more(sample, answer) == set()


def outlined(boxes):
    found = asked(task="detection", image_size=SIZE, answer=boxes)
    mask = MaskRef("m", tuple(Box(*box) for box in boxes))
    return msgspec.structs.replace(found, task=TaskKind.SEGMENTATION, answer=mask)


@MANY
@given(corners(6).filter(bool), corners(6), st.integers(0, 6))
def test_masks(truth, wrong, kept):
    """Against Dice the whole image is no lie, only a poor answer; `dice_gain` gives nothing for it."""
    sample, answer = outlined(truth), json.dumps([*truth[:kept], *wrong])
    assert rises(sample, answer) <= {"the whole image beside", "only the whole image"}
    assert rises(sample, answer, part="dice_gain") == set()


def test_the_whole_image_as_a_mask():
    sample = outlined([[0, 0, 160, 300]])
    found = grade(sample, honest("[[0, 0, 400, 300]]"), reading_of(sample))
    assert found.parts["dice"] == pytest.approx(2 * 0.4 / 1.4)
    assert found.parts["dice_gain"] == 0.0


def test_the_published_mode_can_be_gamed():
    choice = asked(task="classification", options=NAMES[:4], answer="C")
    assert {
        "every letter, the right one first",
        "right answer in tags in the thoughts",
        "either or",
    } <= rises(choice, "(A) Tumor", Mode.PAPER)
    boxes = [[10, 10, 60, 60], [100, 100, 150, 150], [200, 50, 260, 110]]
    found = asked(task="detection", image_size=SIZE, answer=boxes)
    reading = reading_of(found, Mode.PAPER)
    free = {"50 junk boxes after", "each box five times", "the whole image beside"}
    scores = {name: grade(found, text, reading).score for name, text in attacks(found, json.dumps(boxes))}
    assert {name for name in free if scores[name] == 1.0} == free
    assert scores["50 junk boxes before"] == pytest.approx(3 / 53)


def test_faults_charge_what_the_score_lets_pass():
    sample = asked(task="classification", options=NAMES[:4], answer="C")
    endless = dict(attacks(sample, "(C) Lymphocytes"))["endless thoughts"]
    reading = replace(reading_of(sample), length=Length(tokens=3_000, limit=2_048, buffer=512))
    found = grade(sample, endless, reading)
    assert (found.score, found.parts["format"]) == (1.0, 1.0)
    assert found.parts["repetition"] > 0.9
    assert found.parts["overlong"] == 1.0
    weights = {TaskKind.CLASSIFICATION: {"task": 1.0, "format": 1.0, "repetition": -1.0, "overlong": -1.0}}
    assert reward(found, TaskKind.CLASSIFICATION, weights) < 0.1


def test_the_right_answer_is_right():
    samples = [
        asked(task="classification", options=NAMES, answer="D"),
        asked(task="vqa", answer="hyaline cartilage"),
        asked(task="detection", image_size=SIZE, answer=[[1, 2, 30, 40]]),
        outlined([[1, 2, 30, 40]]),
    ]
    for sample in samples:
        assert grade(sample, honest(right_answer(sample)), reading_of(sample)).score == 1.0
        names = [name for name, _ in attacks(sample, right_answer(sample))]
        assert len(set(names)) == len(names) >= 15
