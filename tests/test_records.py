import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from malpighi.errors import DataError
from malpighi.geometry import Box, Frame, Region
from malpighi.records import (
    Boxes,
    Choice,
    Failure,
    Grade,
    ImageRef,
    MaskRef,
    Prediction,
    Provenance,
    Sample,
    Scale,
    Split,
    Status,
    TaskKind,
    Text,
    Turn,
    from_json,
    option_label,
    to_json,
)

FINITE = st.floats(allow_nan=False, allow_infinity=False)
WORDS = st.text(max_size=8)
COUNTS = st.integers(0, 2**31)
BOXES = st.lists(st.builds(Box, FINITE, FINITE, FINITE, FINITE, st.sampled_from(Frame)), max_size=3).map(
    tuple
)
REGIONS = st.builds(Region, FINITE, FINITE, FINITE, FINITE, st.none() | FINITE)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | FINITE | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=5,
)
IMAGES = st.builds(ImageRef, WORDS, st.tuples(COUNTS, COUNTS), st.none() | FINITE, WORDS, st.none() | REGIONS)
TURNS = st.builds(Turn, st.sampled_from(["user", "assistant"]), WORDS)
ANSWERS = st.one_of(
    st.builds(Choice, COUNTS),
    st.builds(Boxes, BOXES),
    st.builds(MaskRef, WORDS, BOXES),
    st.builds(Text, WORDS),
)
PROVENANCES = st.builds(Provenance, WORDS, COUNTS, st.lists(WORDS, max_size=2).map(tuple), WORDS)
SAMPLES = st.builds(
    Sample,
    id=WORDS,
    dataset=WORDS,
    exam=WORDS,
    task=st.sampled_from(TaskKind),
    scale=st.sampled_from(Scale),
    images=st.lists(IMAGES, max_size=2).map(tuple),
    turns=st.lists(TURNS, min_size=1, max_size=3).map(tuple),
    answer=ANSWERS,
    options=st.lists(WORDS, max_size=3).map(tuple),
    reasoning=WORDS,
    group=WORDS,
    split=st.none() | st.sampled_from(Split),
    organ=WORDS,
    stain=WORDS,
    licence=WORDS,
    provenance=PROVENANCES,
    facts=st.dictionaries(WORDS, JSON, max_size=3),
)
GRADES = st.builds(Grade, FINITE, st.sampled_from(Status), JSON, st.dictionaries(WORDS, FINITE, max_size=3))
PREDICTIONS = st.builds(
    Prediction,
    model=WORDS,
    exam=WORDS,
    sample=WORDS,
    group=WORDS,
    task=st.sampled_from(TaskKind),
    text=WORDS,
    grade=GRADES,
    truth=JSON,
    tokens=COUNTS,
    prompt_hash=WORDS,
    image_hash=WORDS,
    adapter=WORDS,
    seed=COUNTS,
)
NOUNS = st.one_of(
    SAMPLES,
    PREDICTIONS,
    GRADES,
    IMAGES,
    TURNS,
    ANSWERS,
    PROVENANCES,
    REGIONS,
    st.builds(Failure, WORDS, WORDS, WORDS),
)

SAMPLE = Sample(
    id="herlev/1",
    dataset="herlev",
    exam="herlev/class",
    task=TaskKind.CLASSIFICATION,
    scale=Scale.CELL,
    images=(ImageRef("ab" * 32, (70, 66)),),
    turns=(Turn("user", "Look."), Turn("assistant", "Yes."), Turn("user", "Which class?")),
    answer=Choice(1),
    options=("normal", "abnormal"),
    group="herlev/1",
    licence="research",
    provenance=Provenance("adapter:herlev"),
    facts={"b": 1, "a": [True, None, {"z": 1, "y": 2}]},
)


@given(NOUNS)
def test_every_noun_comes_back_from_its_json(record):
    data = to_json(record)
    again = from_json(data, type(record))
    assert again == record
    assert type(again) is type(record)
    assert to_json(again) == data
    assert from_json(data.decode(), type(record)) == record


@given(ANSWERS)
def test_an_answer_comes_back_as_its_own_kind(answer):
    back = from_json(to_json(msgspec.structs.replace(SAMPLE, answer=answer)), Sample).answer
    assert back == answer
    assert type(back) is type(answer)


def test_the_bytes_do_not_depend_on_the_order_of_facts():
    facts = {"a": [True, None, {"y": 2, "z": 1}], "b": 1}
    assert list(facts) != list(SAMPLE.facts)
    assert to_json(msgspec.structs.replace(SAMPLE, facts=facts)) == to_json(SAMPLE)


def test_the_stored_form_of_a_sample():
    assert json.loads(to_json(SAMPLE)) == {
        "id": "herlev/1",
        "dataset": "herlev",
        "exam": "herlev/class",
        "task": "classification",
        "scale": "cell",
        "images": [{"key": "ab" * 32, "size": [70, 66]}],
        "turns": [
            {"role": "user", "text": "Look."},
            {"role": "assistant", "text": "Yes."},
            {"role": "user", "text": "Which class?"},
        ],
        "answer": {"type": "choice", "index": 1},
        "options": ["normal", "abnormal"],
        "group": "herlev/1",
        "licence": "research",
        "provenance": {"operation": "adapter:herlev"},
        "facts": {"a": [True, None, {"y": 2, "z": 1}], "b": 1},
    }


@pytest.mark.parametrize(
    ("answer", "tag"),
    [(Choice(0), "choice"), (Boxes(()), "boxes"), (MaskRef("k", ()), "mask"), (Text("NILM"), "text")],
)
def test_the_tags_of_answers_are_part_of_the_format(answer, tag):
    assert json.loads(to_json(answer))["type"] == tag


def changed(**fields):
    return json.dumps(json.loads(to_json(SAMPLE)) | fields)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (changed(answer={"type": "polygon", "index": 1}), ["polygon", "$.answer.type"]),
        (changed(answer={"index": 1}), ["type", "$.answer"]),
        (changed(answer={"type": "choice", "index": "A"}), ["int", "$.answer.index"]),
        (changed(task="guessing"), ["guessing", "$.task"]),
        (changed(split="dev"), ["dev", "$.split"]),
        (changed(images=[{"key": "k"}]), ["size", "$.images[0]"]),
        (changed(images=[{"key": "k", "size": [1, 2, 3]}]), ["$.images[0].size"]),
        (changed(turns=[{"role": "user", "text": None}]), ["$.turns[0].text"]),
        (changed(group=7), ["$.group"]),
        ("{}", ["required field `id`"]),
        ("[]", ["object"]),
        ("{id: 1}", ["malformed"]),
        ('{"id": "herlev/1", ', ["truncated"]),
        ("", ["truncated"]),
        (b'{"id": "\xff"}', ["utf-8"]),
        ('{"id": "\ud800"}', ["utf-8"]),
    ],
)
def test_what_is_no_sample_is_told(data, words):
    with pytest.raises(DataError, match="not a Sample record") as caught:
        from_json(data, Sample)
    for word in words:
        assert word in str(caught.value)


def test_a_field_of_a_later_release_is_passed_over():
    assert from_json(changed(magnification=20), Sample) == SAMPLE


@pytest.mark.parametrize(
    ("record", "field"),
    [
        (SAMPLE, "answer"),
        (SAMPLE.images[0], "key"),
        (SAMPLE.turns[0], "text"),
        (SAMPLE.answer, "index"),
        (SAMPLE.provenance, "version"),
        (Grade(1.0, Status.OK), "score"),
        (Failure("a", "data", "empty"), "reason"),
    ],
)
def test_records_do_not_change(record, field):
    with pytest.raises(AttributeError):
        setattr(record, field, None)


def test_the_question_is_the_last_turn():
    assert SAMPLE.question == "Which class?"


def test_option_labels_are_all_different_and_in_order():
    labels = [option_label(index) for index in range(800)]
    assert len(set(labels)) == 800
    assert labels == sorted(labels, key=lambda label: (len(label), label))
    assert labels[:3] + labels[701:703] == ["A", "B", "C", "ZZ", "AAA"]


def test_a_negative_option_has_no_label():
    with pytest.raises(ValueError, match="-2"):
        option_label(-2)
