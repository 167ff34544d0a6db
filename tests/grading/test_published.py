import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from malpighi.grading.published import published_choice, published_reply
from malpighi.records import Status

CELLS = ("Normal", "Koilocyte", "Dyskeratotic")
TAGS = st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", "B", " ", "\n", "text"])


@pytest.mark.parametrize(
    ("completion", "answer", "formed"),
    [
        ("<think>a</think><answer>b</answer>", "b", True),
        ("<think>a</think>\n<answer>\nb\n</answer>", "b", True),
        ("<think>a</think><answer>b</answer><think>c</think><answer>d</answer>", "b", True),
        ("<think>a <answer>b</answer></think><answer>c</answer>", "b", True),
        ("<think>a</think> so <answer>b</answer>", "b", False),
        ("x <think>a</think><answer>b</answer>", "b", False),
        ("<think>a</think><answer>b</answer>\n", "b", False),
        ("<think>a</think><answer>b", "<think>a</think><answer>b", False),
        ("b", "b", False),
        ("", "", False),
        ("<think></answer>", "<think></answer>", False),
    ],
)
def test_replies(completion, answer, formed):
    reply = published_reply(completion)
    assert (reply.answer, reply.well_formed) == (answer, formed)


@given(st.lists(TAGS, max_size=14).map("".join))
def test_the_form_is_that_of_a_lazy_pattern(completion):
    """EasyR1, ms-swift and Visual-RFT match this pattern, which lets repeated blocks through."""
    pattern = re.compile(r"<think>.*?</think>\s*<answer>.*?</answer>", re.DOTALL)
    assert published_reply(completion).well_formed == bool(pattern.fullmatch(completion))
    block = re.search(r"<answer>(.*?)</answer>", completion, re.DOTALL)
    assert published_reply(completion).answer == (block[1] if block else completion).strip()


def test_long_replies_are_read():
    for text in ("<think>" + "</think><answer>" * 20_000, "<answer>" * 50_000, "</think>" + " " * 100_000):
        assert not published_reply(text).well_formed


@pytest.mark.parametrize(
    ("text", "option", "status"),
    [
        ("B", 1, Status.OK),
        ("(B) Koilocyte", 1, Status.OK),
        ("B) Koilocyte", 1, Status.OK),
        ("koilocyte", 1, Status.OK),
        ("(C), (A) and (B)", 2, Status.OK),
        ("A koilocyte", 0, Status.OK),
        ("not A", 0, Status.OK),
        ("H", None, Status.OUT_OF_RANGE),
        ("b", None, Status.NO_ANSWER),
        ("a halo is seen", None, Status.NO_ANSWER),
    ],
)
def test_choices(text, option, status):
    assert published_choice(text, CELLS) == (option, status)


def test_yes_and_no_must_be_the_whole_answer():
    for text, option in (("Yes", 0), (" no ", 1), ("No.", None), ("yes, surely", None), ("A", None)):
        assert published_choice(text, ("yes", "no"), lettered=False).option == option
