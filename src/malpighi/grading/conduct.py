"""How a completion behaves, whatever it answers: too long, repeating itself, slipping into another language.

Each figure is a fault from 0 (none) to 1 (as bad as can be), so that a reward weighs it negatively.
"""

import re
import unicodedata
from collections import Counter
from functools import lru_cache
from typing import NamedTuple

from malpighi.errors import ConfigError

_NGRAM = 3
# Signs of scripts written without spaces; words, long ones in pieces, so that a run without spaces repeats
# too; and long runs of one mark.
_TOKEN = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]"
    r"|[^\W\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]{1,24}"
    r"|([^\w\s])(?:\s?\1){7}"
)
# What is left of that in plain text without such runs, which is nearly all text, and read much faster.
_ASCII_WORD = re.compile(r"\w{1,24}", re.ASCII)
_MARKS = re.compile(r"([^\w\s])(?:\s?\1){7}")
_UNSPOKEN = re.compile(r"</?\w+>|\"[\w ]{1,30}\"\s{0,3}:")
_EAST_ASIAN = {"CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "BOPOMOFO", "HANGUL"}


class Length(NamedTuple):
    """How long a completion is and may be, all in tokens.

    Attributes:
        tokens: length of the completion.
        limit: longest length; L_max in DAPO.
        buffer: the last so many tokens before the limit, over which the fault grows; L_cache in DAPO.
    """

    tokens: int
    limit: int
    buffer: int


def overlong(length: Length) -> float:
    """How far a completion reaches into the buffer before the limit: 0 before it, 1 from the limit on.

    Source: DAPO eq. 13, soft overlong punishment, with the sign turned: its reward is minus this.

    Raises:
        ConfigError: the buffer is negative or larger than the limit.

    Example:
        >>> overlong(Length(tokens=1920, limit=2048, buffer=512))
        0.75
    """
    tokens, limit, buffer = length
    if not 0 <= buffer <= limit:
        raise ConfigError(f"an overlong buffer of {buffer} tokens for a limit of {limit}; give 0 to {limit}")
    over = tokens - (limit - buffer)
    if over <= 0:
        return 0.0
    return min(1.0, over / buffer) if buffer else 1.0


def repetition(text: str) -> float:
    """The share of runs of three words that have stood before.

    Source: the n-gram repetition penalty of Yeo et al. 2025 (arXiv 2502.03373, appendix C.2) with n = 3.
    Departs: counted over words rather than tokens, so that it does not depend on the tokenizer.

    Example:
        >>> repetition("The nucleus is large and its outline is notched.")
        0.0
        >>> repetition("a halo " * 100) > 0.95
        True
    """
    words = _words(text)
    runs = len(words) - _NGRAM + 1
    if runs < 1:
        return 0.0
    return 1.0 - len(set(zip(*(words[i:] for i in range(_NGRAM)), strict=False))) / runs


def _words(text: str) -> list[str]:
    if text.isascii() and not _MARKS.search(text):
        return _ASCII_WORD.findall(text.lower())
    return [match.group().casefold() for match in _TOKEN.finditer(text)]


def mixing(text: str, asked: str) -> float:
    """The share of words in a script that the question does not use.

    Abbreviations in capitals (HSIL, CD34), Greek letters, tags and keys of JSON belong to no language. Where
    the question has no words, the script that the text uses most is taken for the right one.

    Args:
        text: the completion.
        asked: the words of the question: its turns, options and right answer.

    Example:
        >>> mixing("The 核 is large", "Is the nucleus enlarged?")
        0.25
    """
    if text.isascii() and asked.isascii():
        return 0.0  # one script at most, and the question uses no other
    found = _scripts(text)
    expected = set(_scripts(asked)) or {script for script, _ in found.most_common(1)}
    foreign = sum(count for script, count in found.items() if script not in expected)
    return foreign / found.total() if foreign else 0.0


def _scripts(text: str) -> Counter[str]:
    """How many words of each script a text has; a word belongs to the script of its first letter."""
    spoken = _UNSPOKEN.sub(" ", unicodedata.normalize("NFKC", text))
    found: Counter[str] = Counter()
    for word, count in Counter(match.group() for match in _TOKEN.finditer(spoken)).items():
        if word[0].isalpha() and not _abbreviation(word):
            found[_script(word[0])] += count
    del found["GREEK"]
    return found


def _abbreviation(word: str) -> bool:
    return word.isascii() and (len(word) == 1 or word.upper() == word)


@lru_cache(maxsize=4096)
def _script(letter: str) -> str:
    if letter.isascii():
        return "LATIN"
    name = unicodedata.name(letter, "UNKNOWN").split()[0]
    return "EAST ASIAN" if name in _EAST_ASIAN else name
