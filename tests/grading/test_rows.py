import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from malpighi.errors import DataError
from malpighi.geometry import Box, Frame, View
from malpighi.grading.rows import mask_at, read_completion, read_sample
from malpighi.records import Boxes, Choice, MaskRef, TaskKind, Text

OPTIONS = ["Tumor", "Stroma", "Grade B"]


def row(**fields):
    return json.dumps({"id": "1", "task": "classification", **fields})


def choice(answer, options=OPTIONS):
    return read_sample(row(options=options, answer=answer)).sample.answer


@pytest.mark.parametrize("answer", ["B", "b", "(B)", "B.", "Stroma", " stroma "])
def test_an_option_is_named_by_letter_or_name(answer):
    assert choice(answer) == Choice(1)


def test_a_name_that_is_a_letter():
    assert choice("B", ["A", "B", "AB"]) == Choice(1)
    with pytest.raises(DataError, match="more than one"):
        choice("A", ["B", "A"])
    with pytest.raises(DataError, match="more than one"):
        choice("Benign", ["Benign", "Benign"])


def test_texts_and_closed_questions():
    assert read_sample(row(task="vqa", answer="hyaline cartilage")).sample.answer == Text("hyaline cartilage")
    assert read_sample(row(task="vqa", answer="yes")).sample.options == ()
    assert read_sample(row(task="vqa", answer="no", options=["yes", "no"])).sample.answer == Choice(1)
    assert read_sample(row(task="caption", answer="Sheets.", id=7)).sample.id == "7"


def test_boxes_are_in_image_pixels_and_the_frame_is_the_model_s():
    read = read_sample(
        row(
            task="detection",
            image_size=[200, 100],
            resized_size=[112, 56],
            frame="resized",
            answer=[[1, 2, 3.5, 4]],
        )
    )
    assert read.sample.task is TaskKind.DETECTION
    assert read.sample.answer == Boxes((Box(1, 2, 3.5, 4),))
    assert (read.view, read.frame) == (View((200, 100), (112, 56)), Frame.RESIZED)
    nothing = read_sample(row(task="detection", image_size=[200, 100], answer=[]))
    assert (nothing.sample.answer, nothing.frame) == (Boxes(()), Frame.IMAGE)


def test_a_mask_is_a_file_beside_the_rows(tmp_path):
    Image.fromarray(np.uint8([[0, 9], [0, 0]])).save(tmp_path / "m.png")
    read = read_sample(row(task="segmentation", answer="m.png"), tmp_path)
    assert read.view == View((2, 2))
    assert isinstance(read.sample.answer, MaskRef)
    assert mask_at(read.sample.answer.key).tolist() == [[False, True], [False, False]]
    with pytest.raises(DataError, match=r"image_size is \[3, 2\], but the mask m.png has \[2, 2\]"):
        read_sample(row(task="segmentation", answer="m.png", image_size=[3, 2]), tmp_path)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"answer": "D", "options": OPTIONS}, r"'D' is none of the options .* A to C"),
        ({"answer": " "}, "answer is empty"),
        ({}, "missing required field `answer`"),
        ({"answer": "A", "option": OPTIONS}, "unknown field `option`"),
        ({"answer": "A", "task": "grading"}, "Invalid enum value 'grading'"),
        ({"answer": [[1, 2, 3, 4]]}, "answer is a list of boxes"),
        ({"answer": None}, "answer"),
        ({"answer": "x", "task": "detection", "image_size": [9, 9]}, "answer is a text"),
        ({"answer": [[1, 2, 3, 4]], "task": "detection"}, 'add "image_size"'),
        ({"answer": [[1, 2, 3]], "task": "detection", "image_size": [9, 9]}, r"length 4"),
        ({"answer": [[3, 2, 1, 4]], "task": "detection", "image_size": [9, 9]}, "covers nothing"),
        ({"answer": [[10, 2, 12, 4]], "task": "detection", "image_size": [9, 9]}, "covers nothing"),
        ({"answer": [], "task": "detection", "image_size": [0, 9]}, "at least 1 px"),
        ({"answer": [], "task": "detection", "image_size": [9, 9], "frame": "resized"}, "resized_size"),
        ({"answer": [], "task": "detection", "image_size": [9, 9], "frame": "slide"}, "region"),
        ({"answer": [], "task": "detection", "image_size": [9, 9], "frame": "pixels"}, "Invalid enum"),
        ({"answer": "none.png", "task": "segmentation"}, "cannot read the mask .*none.png"),
        ({"answer": [[1, 2, 3, 4]], "task": "segmentation"}, "path of a mask"),
    ],
)
def test_a_wrong_sample_is_explained(fields, words, tmp_path):
    with pytest.raises(DataError, match=words):
        read_sample(row(**fields), tmp_path)


@pytest.mark.parametrize("line", ["", "nonsense", "[]", "3", '{"id": 1', '{"id": 1}', b"\xff\xfe", "null"])
def test_what_is_no_row_is_refused(line):
    with pytest.raises(DataError, match="not a sample"):
        read_sample(line)
    with pytest.raises(DataError, match="not a completion"):
        read_completion(line)


def test_a_completion_may_carry_more():
    assert read_completion('{"id": 3, "text": "B", "model": "x"}').text == "B"
    assert read_completion('{"id": 3, "text": "B", "truncated": true}').truncated
    with pytest.raises(DataError, match="text"):
        read_completion('{"id": 3, "text": null}')


LEAVES = st.none() | st.booleans() | st.floats() | st.text(max_size=9)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
)


@given(st.text(max_size=80) | TREES)
def test_any_line_is_read_or_refused(content):
    line = content if isinstance(content, str) else json.dumps(content)
    with pytest.raises(DataError):
        read_sample(line)
