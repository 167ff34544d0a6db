import pytest
from hypothesis import given
from hypothesis import strategies as st

from malpighi.datasets.questions.options import (
    choice_by_letter,
    choice_of,
    read_options,
    without_letters,
    yes_no,
)
from malpighi.errors import DataError
from malpighi.records import option_label

NAMES = st.lists(
    st.text("xyz -é", min_size=1).map(str.strip).filter(bool), min_size=2, max_size=8, unique_by=str.casefold
)


@given(NAMES, st.sampled_from(["{}) {}", "({}) {}", "{}. {}", "{}: {}"]), st.data())
def test_letters_come_off_and_the_right_option_is_found(names, form, data):
    lettered = [form.format(option_label(place), name) for place, name in enumerate(names)]
    place = data.draw(st.integers(0, len(names) - 1))
    assert read_options(lettered) == tuple(names)
    assert read_options(repr(lettered)) == tuple(names)
    for answer in (lettered[place], names[place], option_label(place)):
        assert choice_of(answer, names).index == place


@pytest.mark.parametrize(
    "texts",
    [
        ["A) one", "two"],
        ["B) one", "A) two"],
        ["A) one", "A) two"],
        ["A. fumigatus", "E. coli"],
    ],
)
def test_letters_stay_where_not_all_carry_their_own(texts):
    assert without_letters(texts) == tuple(texts)


def test_mappings_and_lists_of_objects_are_in_order_of_the_letters():
    assert read_options({"B": "two", "A": "one"}) == ("one", "two")
    given = [{"letter": "B", "content": "two"}, {"letter": "A", "content": "one"}]
    assert read_options(given) == ("one", "two")


@pytest.mark.parametrize("value", [None, "x + y", [], ["one"], ["one", ""], ["one", 2], {"A": None}, "['a'"])
def test_what_is_no_list_of_options_is_refused(value):
    with pytest.raises(DataError):
        read_options(value)


@pytest.mark.parametrize(
    ("answer", "options"),
    [("D", "xy"), ("A) y", "xy"), ("A) z", "xy"), ("", "xy"), ("C", "CTA"), (None, "xy")],
)
def test_an_answer_that_names_no_option_is_refused(answer, options):
    with pytest.raises(DataError):
        choice_of(answer, options)


def test_a_letter_that_is_another_options_text_still_counts_as_letter_where_only_letters_are_given():
    assert choice_by_letter("C", ("C", "T", "A")).index == 2
    with pytest.raises(DataError, match="expected one of A, B"):
        choice_by_letter("c", ("C", "T"))


def test_yes_and_no():
    assert [yes_no(word).index for word in ("Yes", "no", " NO. ")] == [0, 1, 1]
    with pytest.raises(DataError, match="expected yes or no"):
        yes_no("yes, it is")
