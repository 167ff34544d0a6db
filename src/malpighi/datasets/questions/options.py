"""Options as published: letters before them, lists in words, the right one named by letter or by text."""

import ast
import re
from collections.abc import Sequence
from typing import Any

from malpighi.errors import DataError
from malpighi.records import Choice, option_label

_LETTER = re.compile(r"\s*(?:\(([A-Z])\)|([A-Z])[).:])\s*(\S.*)", re.DOTALL)
YES_NO = ("yes", "no")


def read_options(value: Any) -> tuple[str, ...]:
    """Options in the order asked, without the letters that stand before them.

    Letters are taken off only where all options carry theirs: in `B. cereus` it is part of the name.

    Args:
        value: a list, a mapping of letters to options, or a list written as a string.

    Raises:
        DataError: no such thing, fewer than two options, an empty one, or two that are the same.

    Example:
        >>> read_options("['A) Acinar', 'B) Solid']")
        ('Acinar', 'Solid')
        >>> read_options(["B. cereus", "E. coli"])
        ('B. cereus', 'E. coli')
    """
    texts = without_letters(_as_list(value))
    if len(texts) < 2 or not all(texts):
        raise DataError(f"options {list(texts)}; expected two or more, none of them empty")
    folded = [text.casefold() for text in texts]
    if len(set(folded)) < len(folded):
        twice = next(text for text in texts if folded.count(text.casefold()) > 1)
        raise DataError(f"the option {twice!r} is there twice, so its letter is not decided")
    return texts


def without_letters(texts: Sequence[str]) -> tuple[str, ...]:
    """Texts without their letters, where they are A, B, C... in order; else as they are."""
    matches = [_LETTER.fullmatch(text) for text in texts]
    letters = [found.group(1) or found.group(2) for found in matches if found]
    if letters != [option_label(place) for place in range(len(texts))]:
        return tuple(text.strip() for text in texts)
    return tuple(found.group(3).strip() for found in matches if found)


def choice_of(answer: Any, options: Sequence[str]) -> Choice:
    """The right option, named by its letter, its text, or both.

    Raises:
        DataError: no option is named, or two are: by `A) Solid` where B is solid, by `A` where B reads A.

    Example:
        >>> choice_of("B) Solid", ("Acinar", "Solid")).index
        1
    """
    text = _folded(str(answer))
    folded = [_folded(option) for option in options]
    found = _LETTER.fullmatch(" ".join(str(answer).split()))
    spoken = _folded(found.group(3)) if found else ""
    named = {folded.index(name) for name in {text, spoken} if name in folded}
    letter = (found.group(1) or found.group(2)) if found else str(answer).strip("(). ")
    if letter in _labels(options) and (not found or spoken in folded):
        named.add(_labels(options)[letter])
    if len(named) != 1:
        which = " and ".join(options[place] for place in sorted(named)) or "none"
        raise DataError(f"the answer {answer!r} names {which} of the options {', '.join(options)}")
    return Choice(named.pop())


def choice_by_letter(letter: Any, options: Sequence[str]) -> Choice:
    """The right option by its letter alone.

    Raises:
        DataError: no option has that letter.
    """
    labels = _labels(options)
    if letter not in labels:
        raise DataError(f"the letter {letter!r}; expected one of {', '.join(labels)}")
    return Choice(labels[letter])


def yes_no(answer: Any) -> Choice:
    """The choice between yes and no.

    Raises:
        DataError: neither.
    """
    word = str(answer).strip().strip(".").lower()
    if word not in YES_NO:
        raise DataError(f"the answer {answer!r}; expected yes or no")
    return Choice(YES_NO.index(word))


def _labels(options: Sequence[str]) -> dict[str, int]:
    return {option_label(place): place for place in range(len(options))}


def _folded(text: str) -> str:
    return " ".join(text.split()).rstrip(" .").casefold()


def _as_list(value: Any) -> list[str]:
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
            raise DataError(f"options {value[:80]!r}; expected a list") from error
    if isinstance(value, dict):
        value = [value[letter] for letter in sorted(value)]
    if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
        value = [one.get("content") for one in sorted(value, key=lambda one: str(one.get("letter")))]
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise DataError(f"options {value!r}; expected a list of texts")
    return value
