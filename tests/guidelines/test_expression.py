from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from malpighi.errors import UserError
from malpighi.guidelines.expression import ExpressionError, parse

CODES = ["A", "B", "C"]
CLASSES = ["flat", "tall"]


def value(text, present=(), unknown=(), cell_class=0):
    bits = {code: 1 << position for position, code in enumerate(CODES)}
    return parse(text, CODES, CLASSES).test(
        sum(bits[code] for code in present), sum(bits[code] for code in unknown), cell_class
    )


@pytest.mark.parametrize(
    ("text", "present", "unknown", "expected"),
    [
        ("A", "A", "", True),
        ("A", "", "", False),
        ("A", "", "A", None),
        ("not A", "", "A", None),
        ("A and B", "", "A", False),
        ("A and B", "B", "A", None),
        ("A or B", "B", "A", True),
        ("A or B", "", "A", None),
        ("A or B and C", "A", "", True),
        ("(A or B) and C", "A", "", False),
        ("not A and B", "B", "", True),
        ("not (A and B)", "B", "", True),
        ("not not A", "A", "", True),
        ("not " * 20 + "A", "A", "", True),
        ("(" * 20 + "A" + ")" * 20, "A", "", True),
        ("count(A, B, C) >= 2", "AB", "", True),
        ("count(A, B, C) >= 2", "A", "B", None),
        ("count(A, B, C) >= 2", "AB", "C", True),
        ("count(A, B, C) >= 3", "A", "B", False),
        ("true", "", "ABC", True),
        ("not true", "", "", False),
    ],
)
def test_three_valued_truth(text, present, unknown, expected):
    assert value(text, present, unknown) is expected


def test_kleene_tables_are_complete():
    states = {True: ("{}", ""), False: ("", ""), None: ("", "{}")}
    order = {False: 0, None: 1, True: 2}
    back = {number: truth for truth, number in order.items()}
    for left, right in product(states, repeat=2):
        present = states[left][0].format("A") + states[right][0].format("B")
        unknown = states[left][1].format("A") + states[right][1].format("B")
        assert value("A and B", present, unknown) is back[min(order[left], order[right])]
        assert value("A or B", present, unknown) is back[max(order[left], order[right])]


@pytest.mark.parametrize(
    ("text", "cell_class", "expected"),
    [
        ("class in (flat)", 0, True),
        ("class in (flat)", 1, False),
        ("class in (flat)", None, None),
        ("class in (flat, tall)", None, True),
        ("class in (flat) and A", None, False),
    ],
)
def test_cell_class(text, cell_class, expected):
    assert value(text, cell_class=cell_class) is expected


def test_what_is_read_is_listed():
    assert parse("A and not count(A, C) >= 1", CODES, CLASSES).reads == {"A", "C"}
    assert parse("class in (flat) or B", CODES, CLASSES).reads == {"cell_class", "B"}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "column 1: found the end"),
        ("A B", "column 3: found `B`"),
        ("A and", "column 6: found the end"),
        ("A or or B", "column 6: found `or`"),
        ("(A", r"expected `\)`"),
        ("A)", "`and`, `or` or the end"),
        ("X", "one of the observation codes A, B, C"),
        ("a", "one of the observation codes"),
        ("count(A)", "expected `>=`"),
        ("count(A, A) >= 1", "each code once"),
        ("count(A, B) >= 3", "a number from 1 to 2"),
        ("count(A, B) >= 0", "a number from 1 to 2"),
        ("count(A, B) >= " + "9" * 900, "a number from 1 to 2"),
        ("count() >= 1", "observation codes"),
        ("class in (round)", "one of the cell classes flat, tall"),
        ("class in ()", "cell classes"),
        ("class == flat", "column 7: '='"),
        ("A & B", "column 3: '&'"),
        ("__import__('os').system('true')", r"column 12: \"'\""),
        ("__import__", "column 1: found `__import__`"),
        ("A.__class__", "column 2: '.'"),
        ("lambda", "observation codes"),
        ("(" * 400 + "A" + ")" * 400, "at most 20 levels"),
        ("not " * 21 + "A", "at most 20 levels"),
        ("(" * 21 + "A" + ")" * 21, "at most 20 levels"),
        ("A or " * 400 + "A", "at most 1000 are read"),
    ],
)
def test_refuses(text, complaint):
    with pytest.raises(ExpressionError, match=complaint) as caught:
        parse(text, CODES, CLASSES)
    assert isinstance(caught.value, UserError)


@given(st.text(alphabet="ABCXandortcluse in()>=,123'_.", max_size=60))
def test_any_text_is_parsed_or_refused_politely(text):
    try:
        expression = parse(text, CODES, CLASSES)
    except ExpressionError:
        return
    assert expression.test(0, 0, 0) in (True, False)
