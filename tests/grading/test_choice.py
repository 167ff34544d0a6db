import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from malpighi.grading.choice import read_choice
from malpighi.grading.names import negated, words_of
from malpighi.grading.tags import read_reply
from malpighi.records import Status, option_label

REPLIES = json.loads((Path(__file__).parent / "replies.json").read_text(encoding="utf-8"))
CELLS = ("Normal", "Koilocyte", "Dyskeratotic", "Parabasal cell", "Metaplastic")
MANY = tuple(f"tissue number {i}" for i in range(32))

WRAPPERS = (
    "{label}",
    "({label})",
    "[{label}]",
    "{label}.",
    "{label})",
    "**{label}**",
    "{label}: {name}",
    "({label}) {name}",
    "{label}. {name}",
    "{name}",
    "{name}.",
    "The answer is {label}.",
    "The answer is ({label}) {name}.",
    "Answer: {label}",
    "**Answer:** {name}",
    "ANSWER: {label}",
    '{{"answer": "{label}"}}',
    '{{"answer": "{name}"}}',
    '```json\n{{"answer": "{label}"}}\n```',
    "\\boxed{{{label}}}",
    "I choose {label}.",
    "Option {label}",
    "{label} - {name}",
    "Final answer: **({label}) {name}**",
    "My reading: this is {name}",
    "I think {label}",
    "{label}, because of the halo",
    "I am sure it must be ({label})",
    "「{label}」",
)
AROUND = (
    "{}",
    "<answer>{}</answer>",
    "<think>Perhaps (A), perhaps (C).</think><answer>{}</answer>",
    "<think>It is not B.</think>\n{}",
    "<THINK>x</THINK>\n<ANSWER>\n {} \n</ANSWER>",
    "\n\n  {}  \n",
    "<answer>(C)</answer> wait. <answer>{}</answer>",
    "it is opened by the template </think> <answer>{}</answer>",
)


@pytest.mark.parametrize("case", REPLIES["cases"], ids=lambda case: case["source"])
def test_replies_seen_in_the_wild(case):
    reading = read_choice(read_reply(case["reply"]).answer, REPLIES["option_sets"][case["options"]])
    assert (reading.option, reading.status.value) == (case.get("option"), case.get("status", "ok"))


@given(st.sampled_from(WRAPPERS), st.sampled_from(AROUND), st.integers(0, len(CELLS) - 1))
def test_a_right_answer_is_found_in_any_wrapper(wrapper, around, index):
    reply = around.format(wrapper.format(label=option_label(index), name=CELLS[index]))
    assert read_choice(read_reply(reply).answer, CELLS) == (index, Status.OK)


@given(st.sampled_from(WRAPPERS), st.integers(0, 31))
def test_thirty_two_options_have_letters(wrapper, index):
    reply = wrapper.format(label=option_label(index), name=MANY[index])
    assert read_choice(reply, MANY) == (index, Status.OK)


@given(
    st.integers(0, 4),
    st.integers(0, 4),
    st.sampled_from(["{} or {}", "({}) ({})", "{}, {}", "({}) and also ({})"]),
)
def test_two_letters_are_never_one_answer(first, second, form):
    reading = read_choice(form.format(option_label(first), option_label(second)), CELLS)
    assert reading == ((first, Status.OK) if first == second else (None, Status.AMBIGUOUS))


@given(st.integers(0, 4), st.integers(0, 4))
def test_a_letter_and_another_option_s_name_contradict(letter, name):
    reading = read_choice(f"({option_label(letter)}) {CELLS[name]}", CELLS)
    assert reading.option == (letter if letter == name else None)


@pytest.mark.parametrize(
    "form", ["({}) or {}", "{} or {}", "The answer is {} or {}", "{}. or perhaps {}", "{}/{}"]
)
@pytest.mark.parametrize("swapped", [False, True])
def test_a_letter_or_another_option_s_name_is_ambiguous(form, swapped):
    pair = ("Koilocyte", "A") if swapped else ("A", "Koilocyte")
    assert read_choice(form.format(*pair), CELLS) == (None, Status.AMBIGUOUS)


def test_what_else_is_seen_does_not_contradict():
    assert read_choice("(B) Koilocyte. There is a halo and normal cytoplasm.", CELLS).option == 1
    assert read_choice("Koilocyte and a halo", CELLS).option == 1


@given(st.integers(5, 25))
def test_letters_beyond_the_options_are_out_of_range(index):
    for form in ("{}", "({})", "{}.", "The answer is {}"):
        assert read_choice(form.format(option_label(index)), CELLS) == (None, Status.OUT_OF_RANGE)


@given(st.text(max_size=300), st.lists(st.text(max_size=20), max_size=6), st.booleans())
def test_no_string_and_no_options_make_it_fail(text, options, lettered):
    reading = read_choice(text, options, lettered=lettered)
    assert (reading.option is None) == (reading.status is not Status.OK)
    assert reading.option is None or 0 <= reading.option < len(options)


@pytest.mark.parametrize(
    "text",
    [
        "(" * 100_000,
        "[[{" * 30_000,
        "answer is " * 10_000,
        "A) " * 30_000,
        "\\boxed{" * 15_000,
        " " * 100_000,
        "A\n" * 50_000,
        "koilocyte " * 10_000,
        "not " * 25_000,
        "<think>" * 15_000,
        "(A" * 50_000,
        "**" * 50_000,
        "answer" + " " * 100_000 + "B",
        "or " * 33_000 + "B",
        "\n" * 100_000,
        "option " * 14_000,
        "A is " * 20_000,
    ],
    ids=lambda text: repr(text[:12]),
)
def test_long_replies_are_read(text):
    """A reading whose time grew with the square of the length would not come back from these."""
    assert isinstance(read_choice(read_reply(text).answer, CELLS)[1], Status)


def test_yes_and_no_without_letters():
    closed = ("yes", "no")
    assert read_choice("A", closed, lettered=False) == (None, Status.NO_ANSWER)
    assert read_choice("Yes.", closed, lettered=False).option == 0
    for text in ("normal", "not normal", "unknown", "nope", "nothing", "I know", "noted", "yesterday"):
        assert read_choice(text, closed, lettered=False) == (None, Status.NO_ANSWER)
    for text in ("not yes", "yes no", "Yes. No.", "no/yes", "it isn't a yes"):
        assert read_choice(text, closed, lettered=False) == (None, Status.AMBIGUOUS)


@pytest.mark.parametrize(
    "text",
    [
        "not A",
        "Not (B)",
        "neither A nor B",
        "It isn't C",
        "not option A",
        "this is not normal",
        "no koilocyte",
    ],
)
def test_a_denied_option_is_ambiguous(text):
    assert read_choice(text, CELLS) == (None, Status.AMBIGUOUS)


def test_longer_names_win_and_words_are_whole():
    options = ("cell", "cell wall", "cellulitis")
    assert read_choice("we see the cell wall", options).option == 1
    assert read_choice("we see cellulitis", options).option == 2
    assert read_choice("we see cellularity", options) == (None, Status.NO_ANSWER)


def test_labels_are_unique_and_in_order():
    labels = [option_label(i) for i in range(800)]
    assert len(set(labels)) == 800
    assert labels[26 * 27] == "AAA"


@pytest.mark.parametrize(
    ("text", "name", "denied"),
    [
        ("this is not a tumor", "tumor", True),
        ("no tumor", "tumor", True),
        ("rather than tumor", "tumor", True),
        ("tumor is unlikely", "tumor", True),
        ("tumor can be excluded", "tumor", True),
        ("isn't tumor", "tumor", True),
        ("tumor is present", "tumor", False),
        ("It is not clear. tumor", "tumor", False),
        ("a tumor", "tumor", False),
        ("tumor with notable atypia", "tumor", False),
    ],
)
def test_negation(text, name, denied):
    start = text.index(name)
    assert negated(text, start, start + len(name)) is denied


def test_signs_with_meaning_stay_and_plurals_go():
    assert words_of("p53-") != words_of("p53+")
    assert words_of("non-small cells") == words_of("Non small cell")
    assert words_of("diagnosis") == ("diagnosis",)
