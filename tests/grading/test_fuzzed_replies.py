"""Ten thousand replies with known truth, and any text at all: nothing raises, and no wrong option is read."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from malpighi.grading.choice import ChoiceReading, read_choice
from malpighi.grading.grade import grade
from malpighi.grading.tags import read_reply
from malpighi.grading.trial_replies import OPTION_SETS, trial_replies
from malpighi.records import Choice, ImageRef, Provenance, Sample, Scale, Status, TaskKind, Turn, option_label

CELLS = OPTION_SETS[0]


def read(text, options):
    answer = read_reply(text).answer
    return read_choice(answer, options) if answer else ChoiceReading(None, Status.NO_ANSWER)


def test_ten_thousand_replies_without_a_wrong_letter():
    counts, wrong = Counter(), []
    for reply in trial_replies(12_000, seed=2026):
        found = read(reply.text, reply.options)
        assert (found.option is None) == (found.status is not Status.OK)
        right = found.option == reply.truth
        counts[reply.truth is not None, right] += 1
        if not right and found.option is not None:
            wrong.append((reply.style, reply.text[-300:], reply.options, reply.truth, found.option))
    assert wrong == []
    assert sum(counts.values()) == 12_000
    assert counts[True, True] > 0.9 * (counts[True, True] + counts[True, False])
    assert counts[False, True] > 2_000


def test_plain_styles_are_nearly_all_read():
    plain = [
        reply
        for reply in trial_replies(6_000, seed=7)
        if reply.truth is not None and not {"reason", "contrast"} & set(reply.style.split("/"))
    ]
    unread = [reply for reply in plain if read(reply.text, reply.options).option is None]
    assert len(plain) > 3_000
    assert len(unread) <= 0.005 * len(plain), [(reply.text[-120:], reply.options) for reply in unread[:5]]


def test_the_same_seed_gives_the_same_replies_and_another_others():
    assert list(trial_replies(50, 3)) == list(trial_replies(50, 3))
    assert list(trial_replies(50, 3)) != list(trial_replies(50, 4))


@given(st.text(max_size=400), st.sampled_from(OPTION_SETS))
@settings(max_examples=300, deadline=None)
def test_any_text_is_read_without_an_exception(text, options):
    found = read(text, options)
    assert found.option is None or 0 <= found.option < len(options)


PIECES = (
    *("<think>", "</think>", "<answer>", "</answer>", "(", ")", "[", "\\boxed{", "}", "{", '"answer":', "\n"),
    *(
        "A",
        "B",
        "(C)",
        "not",
        "or",
        "the answer is",
        "Koilocyte",
        "Option",
        "答案是",
        "**",
        "`",
        "「",
        "\u200b",
        "\x00",
    ),
)


@given(st.lists(st.sampled_from(PIECES), max_size=40), st.sampled_from(("", " ")))
@settings(max_examples=400, deadline=None)
def test_pieces_of_replies_in_any_order_are_graded(pieces, between):
    sample = Sample(
        id="x",
        dataset="x",
        exam="x",
        task=TaskKind.CLASSIFICATION,
        scale=Scale.CELL,
        images=(ImageRef("0" * 64, (8, 8)),),
        turns=(Turn("user", "Which?"),),
        answer=Choice(1),
        options=CELLS,
        group="x",
        licence="",
        provenance=Provenance("test"),
    )
    found = grade(sample, between.join(pieces))
    assert found.score == float(found.status is Status.OK and found.parsed == 1)


@pytest.mark.parametrize(
    "piece",
    [
        "(A) ",
        "<think>",
        "</think> ",
        "<answer>A</answer>",
        "not ",
        "answer is ",
        "\\boxed{",
        "A or ",
        "` ",
        "Koilocyte ",
        " ",
        "- ",
        "\u200b",
    ],
)
def test_a_runaway_reply_ends(piece):
    """Twenty times as long must not take four hundred times as long; such a reader never ends here."""
    read(piece * (400_000 // len(piece)), CELLS)


@pytest.mark.parametrize(
    ("text", "option"),
    [
        ("<think>(A)</th\u200bink>B", 1),
        ("<think>It is A</think>The answer is C. Let me check.</think>\nB", 1),
        ("<think>x</think><answer>B</answer></think>", 1),
        ("<think>x</think>B</think>", 1),
        ("\\boxed{B} The nuclei are large.", 1),
        ("$\\boxed{\\text{B}}$ (A) lacks a halo.", None),
        ("B<|im_end|>", 1),
        ("<answer>B</s>", 1),
        ("My answer is: `B` (A) lacks a halo.", None),
        ("A The nuclei are large.", 0),
        ("A benign Koilocyte", 1),
        ("答案是B。 Option C would show small nuclei.", None),
        ("### Final Answer\n「B」\n\nParabasal cell would be small.", 1),
        ("B、Koilocyte", 1),
    ],
)
def test_what_fuzzing_found(text, option):
    assert read(text, CELLS).option == option


def test_a_sign_that_ends_a_name_is_kept_before_a_quote():
    assert read('"p53-" The nuclei are large.', ("p53+", "p53-")).option == 1
    assert read("p53-positive", ("p53+", "p53-")).option is None


def test_every_label_of_many_options_is_read():
    options = tuple(f"tissue number {number}" for number in range(60))
    for number in range(60):
        assert read(f"The answer is ({option_label(number)}).", options).option == number
