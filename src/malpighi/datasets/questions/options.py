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
        DataError: no option is named, or letter and text name different ones.

    Example:
        >>> choice_of("B) Solid", ("Acinar", "Solid")).index
        1
    """
    text = " ".join(str(answer).split())
    folded = [" ".join(option.split()).casefold() for option in options]
    if text.casefold() in folded:
        return Choice(folded.index(text.casefold()))
    found = _LETTER.fullmatch(text)
    letter = (found.group(1) or found.group(2)) if found else text.strip("(). ")
    letters = {option_label(place): place for place in range(len(options))}
    if letter not in letters:
        raise DataError(f"the answer {text!r} is none of {', '.join(options)}")
    place = letters[letter]
    if found and found.group(3).strip().casefold() != folded[place]:
        raise DataError(f"the answer {text!r} has the letter of {options[place]!r}")
    return Choice(place)


def yes_no(answer: Any) -> Choice:
    """The choice between yes and no.

    Raises:
        DataError: neither.
    """
    word = str(answer).strip().strip(".").lower()
    if word not in YES_NO:
        raise DataError(f"the answer {answer!r}; expected yes or no")
    return Choice(YES_NO.index(word))


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
