"""The small language of a rule's `when`: parsed by hand, never evaluated as Python.

    expression := both ("or" both)*
    both       := one ("and" one)*
    one        := "not" one | "(" expression ")" | "true" | CODE
                | "count" "(" CODE ("," CODE)* ")" ">=" NUMBER
                | "class" "in" "(" NAME ("," NAME)* ")"

A cell's state is two bit masks over the observation codes, `present` and `unknown` (a bit in neither is
absent), and the index of its cell class or None. The value is True, False or None for "cannot be known yet":
Kleene's strong three-valued logic.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from malpighi.errors import DataError

Truth = bool | None
Test = Callable[[int, int, int | None], Truth]

CELL_CLASS = "cell_class"
"""Stands beside the observation codes where the cell class is meant."""

_TOKEN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9]+|>=|[(),]")
_MAX_LENGTH = 1000
_MAX_DEPTH = 20


class ExpressionError(DataError):
    """An expression that does not follow the grammar or names something the pack does not define."""


@dataclass(frozen=True)
class Expression:
    """A parsed `when`.

    Attributes:
        text: The expression as written.
        reads: Every observation code it reads, and "cell_class" if it reads the class.
        test: The compiled form: `(present, unknown, cell class index) -> True | False | None`.
    """

    text: str
    reads: frozenset[str]
    test: Test


def parse(text: str, codes: Sequence[str], classes: Sequence[str]) -> Expression:
    """Parse one expression.

    Args:
        text: The expression.
        codes: The pack's observation codes; a code's position is its bit in a state.
        classes: The pack's cell classes; a class's position is its index in a state.

    Raises:
        ExpressionError: What was found, at which column, and what was expected.

    >>> rule = parse("A and not count(B, C) >= 2", ["A", "B", "C"], [])
    >>> rule.test(0b001, 0b000, None), rule.test(0b111, 0b000, None), rule.test(0b011, 0b100, None)
    (True, False, None)
    """
    if len(text) > _MAX_LENGTH:
        raise ExpressionError(f"the expression has {len(text)} characters; at most {_MAX_LENGTH} are read")
    parser = _Parser(_tokens(text), codes, classes)
    test = parser.either(0)
    parser.expect_end()
    return Expression(text, frozenset(parser.reads), test)


def _tokens(text: str) -> list[tuple[str, int]]:
    tokens, position = [], 0
    while position < len(text):
        if text[position].isspace():
            position += 1
            continue
        match = _TOKEN.match(text, position)
        if match is None:
            raise ExpressionError(
                f"column {position + 1}: {text[position]!r} is not part of the rule language"
            )
        tokens.append((match.group(), position + 1))
        position = match.end()
    return [*tokens, ("", len(text) + 1)]


class _Parser:
    def __init__(self, tokens: list[tuple[str, int]], codes: Sequence[str], classes: Sequence[str]) -> None:
        self._tokens = tokens
        self._next = 0
        self._bits = {code: 1 << position for position, code in enumerate(codes)}
        self._classes = {name: position for position, name in enumerate(classes)}
        self.reads: set[str] = set()

    def either(self, depth: int) -> Test:
        if depth > _MAX_DEPTH:
            raise self._error(f"at most {_MAX_DEPTH} levels of parentheses and `not`")
        tests = [self._both(depth)]
        while self._take("or"):
            tests.append(self._both(depth))
        return tests[0] if len(tests) == 1 else _any_of(tests)

    def expect_end(self) -> None:
        if self._word():
            raise self._error("`and`, `or` or the end")

    def _both(self, depth: int) -> Test:
        tests = [self._one(depth)]
        while self._take("and"):
            tests.append(self._one(depth))
        return tests[0] if len(tests) == 1 else _all_of(tests)

    def _one(self, depth: int) -> Test:
        if depth > _MAX_DEPTH:
            raise self._error(f"at most {_MAX_DEPTH} levels of parentheses and `not`")
        if self._take("not"):
            return _negation(self._one(depth + 1))
        if self._take("("):
            test = self.either(depth + 1)
            self._require(")")
            return test
        if self._take("true"):
            return _always
        if self._take("count"):
            return self._count()
        if self._take("class"):
            return self._class()
        return _is_present(self._code())

    def _count(self) -> Test:
        bits = self._list(self._code)
        if len(set(bits)) < len(bits):
            raise self._error("each code once inside count(...)")
        self._require(">=")
        word = self._word()
        if not word.isdecimal() or not 1 <= int(word[:4]) <= len(bits):
            raise self._error(f"a number from 1 to {len(bits)}, the size of the list")
        self._next += 1
        return _at_least(sum(bits), int(word))

    def _class(self) -> Test:
        self._require("in")
        self.reads.add(CELL_CLASS)
        return _class_in(frozenset(self._list(self._class_name)), len(self._classes))

    def _list(self, item: Callable[[], int]) -> list[int]:
        self._require("(")
        found = [item()]
        while self._take(","):
            found.append(item())
        self._require(")")
        return found

    def _code(self) -> int:
        word = self._word()
        if word not in self._bits:
            raise self._error(f"one of the observation codes {', '.join(self._bits)}")
        self._next += 1
        self.reads.add(word)
        return self._bits[word]

    def _class_name(self) -> int:
        word = self._word()
        if word not in self._classes:
            raise self._error(f"one of the cell classes {', '.join(self._classes)}")
        self._next += 1
        return self._classes[word]

    def _word(self) -> str:
        return self._tokens[self._next][0]

    def _take(self, word: str) -> bool:
        taken = self._word() == word
        self._next += taken
        return taken

    def _require(self, word: str) -> None:
        if not self._take(word):
            raise self._error(f"`{word}`")

    def _error(self, expected: str) -> ExpressionError:
        word, column = self._tokens[self._next]
        found = f"`{word}`" if word else "the end"
        return ExpressionError(f"column {column}: found {found}, expected {expected}")


def _always(_present: int, _unknown: int, _class: int | None) -> Truth:
    return True


def _is_present(bit: int) -> Test:
    def test(present: int, unknown: int, _class: int | None) -> Truth:
        return None if unknown & bit else bool(present & bit)

    return test


def _at_least(mask: int, needed: int) -> Test:
    def test(present: int, unknown: int, _class: int | None) -> Truth:
        sure = (present & mask).bit_count()
        if sure >= needed:
            return True
        return None if sure + (unknown & mask).bit_count() >= needed else False

    return test


def _class_in(members: frozenset[int], classes: int) -> Test:
    def test(_present: int, _unknown: int, cell_class: int | None) -> Truth:
        if cell_class is None:
            return True if len(members) == classes else None
        return cell_class in members

    return test


def _negation(inner: Test) -> Test:
    def test(present: int, unknown: int, cell_class: int | None) -> Truth:
        value = inner(present, unknown, cell_class)
        return None if value is None else not value

    return test


def _all_of(inner: list[Test]) -> Test:
    def test(present: int, unknown: int, cell_class: int | None) -> Truth:
        result: Truth = True
        for part in inner:
            value = part(present, unknown, cell_class)
            if value is False:
                return False
            result = None if value is None else result
        return result

    return test


def _any_of(inner: list[Test]) -> Test:
    def test(present: int, unknown: int, cell_class: int | None) -> Truth:
        result: Truth = False
        for part in inner:
            value = part(present, unknown, cell_class)
            if value is True:
                return True
            result = None if value is None else result
        return result

    return test
