"""Finding option names in running text: whole words, the longest name wins, negation is seen."""

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

_TOKEN = re.compile(r"[^\W_]+|[+%<>=≤≥±]|(?<=[^\W_])-(?![^\W_])")
_SENTENCE_END = re.compile(r"[.;!?\n]")
_BEFORE = re.compile(
    r"\b(?:not|no|never|neither|nor|cannot|unlike|without|lack(?:s|ing)?|absence of|excludes?|excluding|"
    r"rul(?:e|es|ed|ing) out|rather than|instead of)\b|n['’]t\b",
    re.IGNORECASE,
)
_AFTER = re.compile(
    r"\W{0,3}(?:(?:(?:is|are|was|were|can|could|should|be|been|seems?|looks?)\W{1,3}){0,3}"
    r"(?:not|unlikely|excluded|ruled\s+out|incorrect|wrong|absent)\b|(?:is|are|was|does)n['’]t\b)",
    re.IGNORECASE,
)
# Words that stand in any sentence without being an answer: they count only where they stand alone.
_SMALL = {"yes", "no", "none", "maybe", "true", "false", "other", "both", "neither", "a", "i", "not"}
_STOP_MARKS = ".,;:!?)]}\"'\n"


# Marks that steer the direction or the joining of letters and show nothing themselves.
_INVISIBLE = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")


class Mention(NamedTuple):
    """A name found in a text: the option's index, and character offsets into that text."""

    option: int
    start: int
    end: int


class Names:
    """The names of one question's options, ready to be looked for.

    Names and text are compared word by word, without case, punctuation, hyphens and plural s; signs that
    carry meaning (`p53+`, `p53-`, `<5%`) are kept.
    """

    def __init__(self, options: Sequence[str]) -> None:
        self.words = tuple(words_of(option) for option in options)
        self._by_first: dict[str, list[int]] = {}
        for index, words in enumerate(self.words):
            if words:
                self._by_first.setdefault(words[0], []).append(index)
        for indices in self._by_first.values():
            indices.sort(key=lambda i: -len(self.words[i]))

    def find(self, text: str) -> list[Mention]:
        """All mentions from left to right; where one name holds another, the longer one; equal names all."""
        tokens = [(_stem(m.group()), m.start(), m.end()) for m in _TOKEN.finditer(text)]
        words = [word for word, _, _ in tokens]
        mentions: list[Mention] = []
        at = 0
        while at < len(words):
            indices = self._at(words, at)
            length = len(self.words[indices[0]]) if indices else 1
            start, end = tokens[at][1], tokens[at + length - 1][2]
            mentions += [Mention(i, start, end) for i in indices if self._stands(text, i, at, end)]
            at += length
        return mentions

    def is_small(self, index: int) -> bool:
        """Whether the option is a word like `yes` or `no`, which only counts where it stands alone."""
        return len(self.words[index]) == 1 and self.words[index][0] in _SMALL

    def _at(self, words: list[str], at: int) -> list[int]:
        matches = [
            i
            for i in self._by_first.get(words[at], ())
            if tuple(words[at : at + len(self.words[i])]) == self.words[i]
        ]
        return [i for i in matches if self.words[i] == self.words[matches[0]]]

    def _stands(self, text: str, index: int, at: int, end: int) -> bool:
        if at == 0 or not self.is_small(index):
            return True
        following = text[end : end + 8].lstrip(" *_`")
        return not following or following[0] in _STOP_MARKS


def plain_text(text: str) -> str:
    """The text in the characters that a reader sees: compatibility forms (NFKC), without invisible marks.

    Example:
        >>> plain_text("\uff22\u200b")
        'B'
    """
    return without_invisible(unicodedata.normalize("NFKC", text))


def without_invisible(text: str) -> str:
    """The text without marks that show nothing, such as a zero-width space in the middle of a tag."""
    return _INVISIBLE.sub("", text)


def words_of(text: str) -> tuple[str, ...]:
    """The words that names are compared by.

    Example:
        >>> words_of("B-cell Lymphomas (p53+)")
        ('b', 'cell', 'lymphoma', 'p53', '+')
    """
    return tuple(_stem(token) for token in _TOKEN.findall(plain_text(text)))


def negated(text: str, start: int, end: int) -> bool:
    """Whether the sentence denies what stands at text[start:end]: `not X`, `rather than X`, `X is unlikely`.

    Example:
        >>> negated("not a koilocyte", 6, 15)
        True
    """
    before = _SENTENCE_END.split(text[max(0, start - 60) : start])[-1]
    return denies_before(" ".join(before.split()[-3:])) or denies_after(text, end)


def denies_before(words: str) -> bool:
    """Whether words that lead up to a name deny it: `no`, `without`, `rather than`."""
    return _BEFORE.search(words) is not None


def denies_after(text: str, end: int) -> bool:
    """Whether what follows a name that ends at `end` denies it: `is unlikely`, `not seen`."""
    return _AFTER.match(text, end) is not None


def _stem(token: str) -> str:
    word = token.casefold()
    plural = len(word) > 3 and word[-1] == "s" and word[-2] not in "siu"
    return word[:-1] if plural else word
