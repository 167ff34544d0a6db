import pytest
from hypothesis import given
from hypothesis import strategies as st

from malpighi.grading.tags import read_reply

TAGS = st.sampled_from(
    ["<think>", "</think>", "<answer>", "</answer>", "B", " ", "\n", "(A) ", "<", "</", "<thinks>"]
)


@pytest.mark.parametrize(
    "reply",
    [
        "<think>a</think><answer>b</answer>",
        "  <think>\na\n</think>\n\n<answer>\nb\n</answer>\n",
        "<think></think><answer>b</answer>",
    ],
)
def test_the_form_is_kept(reply):
    assert read_reply(reply).well_formed


@pytest.mark.parametrize(
    "reply",
    [
        "b",
        "<answer>b</answer>",
        "<think>a</think>b",
        "text <think>a</think><answer>b</answer>",
        "<think>a</think> so <answer>b</answer>",
        "<think>a</think><answer>b</answer> done",
        "<answer>b</answer><think>a</think>",
        "<think>a</think><answer>b</answer><answer>c</answer>",
        "<think>a</think><think>a</think><answer>b</answer>",
        "<think>a<answer>b</answer></think>",
        "<think>a</think><answer>b",
        "<think>a <think> b</think><answer>b</answer>",
        "<THINK>a</THINK><answer>b</answer>",
        "Use <think> </think> <answer> </answer>\n<think>a</think><answer>b</answer>",
        "",
    ],
)
def test_the_form_is_broken(reply):
    assert not read_reply(reply).well_formed


@pytest.mark.parametrize(
    ("reply", "answer", "closed"),
    [
        ("<think>a</think><answer>b</answer>", "b", True),
        ("<answer>a</answer><answer>b</answer>", "b", True),
        ("<answer><answer>b</answer></answer>", "b", True),
        ("<answer>a</answer> no: <answer>b", "a", True),
        ("<think>a <answer>b</answer>", "b", True),
        ("<think>x <answer>a</answer> y</think><answer>b</answer>", "b", True),
        ("<think>x <answer>a</answer> y</think> b", "b", False),
        ("<think>x <answer>b</answer></think>", "", False),
        ("x <answer>b</answer></think>", "", False),
        ("<think><answer>a</answer></think><answer></answer>", "", True),
        ("x</think>b", "b", False),
        ("<think>x</think><answer>b", "b", False),
        ("b", "b", False),
        ("b <think>never closed", "b", False),
        ("<think>never closed", "", False),
        ("<think>x</think>", "", False),
        ("<answer></answer>", "", True),
        ("</answer></think></think>b", "b", False),
    ],
)
def test_the_answer(reply, answer, closed):
    read = read_reply(reply)
    assert (read.answer, read.closed) == (answer, closed)


@given(st.lists(TAGS, max_size=30).map("".join))
def test_any_order_of_tags_is_read(reply):
    read = read_reply(reply)
    assert read.answer in reply or "<think>" in reply or "</" in reply
    assert read.answer == read.answer.strip()
    if read.well_formed:
        assert read.closed


@given(st.lists(TAGS, max_size=10).map("".join))
def test_a_last_closed_block_always_counts(before):
    assert read_reply(before + "</think><answer>b</answer>").answer == "b"
