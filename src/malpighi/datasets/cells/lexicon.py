"""A lexicon of structured descriptions, Chinese and English, in both directions.

`singpath_lexicon.yaml` ships with the package. A description maps keys (nuclear size, chromatin ...) to
values of one or more phrases, with commas or semicolons between; each phrase has one translation per key.
Full-width and half-width punctuation are read alike (Unicode form NFKC); Chinese is written with full width.
"""

import functools
import re
import unicodedata
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

import msgspec

from malpighi.datasets.adapter import read_bytes
from malpighi.errors import DataError
from malpighi.models.versioned import from_yaml

FORMAT_VERSION = 1
SHIPPED = "singpath_lexicon.yaml"
_BREAK = re.compile(r"\s*([,;\u3001])\s*")
_FULL_STOP = "\u3002"
_FULL_WIDTH = str.maketrans({",": "\uff0c", ";": "\uff1b", ":": "\uff1a"})


class Term(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One key of the descriptions, and the phrases of its values.

    Attributes:
        zh: the key in Chinese.
        en: the key in English.
        published: Chinese phrase to English, as read where the data set is published.
        expected: as `published`: usual terms that have not been seen in the data.
    """

    zh: str
    en: str
    published: dict[str, str]
    expected: dict[str, str] = {}

    @property
    def phrases(self) -> list[tuple[str, str]]:
        """All phrases, Chinese and English."""
        return [(plain(zh), en) for zh, en in (*self.published.items(), *self.expected.items())]


class Lexicon(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Keys and phrases, one to one.

    Attributes:
        format_version: of the file.
        terms: the keys, in the order of the descriptions.
    """

    format_version: int
    terms: list[Term]

    def english(self, description: Mapping[str, str]) -> dict[str, str]:
        """A Chinese description in English.

        Raises:
            DataError: a key or a phrase that the lexicon lacks; the message names it.

        Example:
            >>> shipped_lexicon().english({"核大小": "增大"})
            {'nuclear size': 'enlarged'}
        """
        known = {term.zh: (term.en, dict(term.phrases)) for term in self.terms}
        return {
            name: "".join(part + (" " if part in ",;" else "") for part in parts)
            for name, parts in _translated(description, known).items()
        }

    def chinese(self, description: Mapping[str, str]) -> dict[str, str]:
        """An English description in Chinese; raises as `english`.

        Example:
            >>> shipped_lexicon().chinese({"nuclear size": "enlarged"})
            {'核大小': '增大'}
        """
        known = {term.en: (term.zh, {en: zh for zh, en in term.phrases}) for term in self.terms}
        return {
            name: "".join(parts).translate(_FULL_WIDTH)
            for name, parts in _translated(description, known).items()
        }


@functools.cache
def shipped_lexicon() -> Lexicon:
    """The lexicon of Singpath-CytoText that ships with the package."""
    return _read((resources.files("malpighi.datasets.cells") / SHIPPED).read_bytes(), SHIPPED)


def load_lexicon(path: Path) -> Lexicon:
    """A lexicon of your own, of the form of `singpath_lexicon.yaml`.

    Raises:
        DataError: no such file, not of that form, or not one to one.
        FormatVersionError: a file of another format version.
    """
    return _read(read_bytes(path), str(path))


def plain(text: str) -> str:
    """Text with half-width punctuation, without outer space and closing full stop."""
    return unicodedata.normalize("NFKC", text).strip().removesuffix(_FULL_STOP).strip()


def _read(data: bytes, where: str) -> Lexicon:
    lexicon = from_yaml(data, Lexicon, FORMAT_VERSION, where)
    pairs = [[(term.zh, term.en) for term in lexicon.terms], *(term.phrases for term in lexicon.terms)]
    for side in (side for group in pairs for side in zip(*group, strict=True)):
        twice = sorted({text for text in side if side.count(text) > 1})
        if twice:
            raise DataError(f"{where}: {twice[0]!r} stands for two things; one phrase, one translation")
        for text in side:
            if not text or text != plain(text) or _BREAK.search(text):
                raise DataError(f"{where}: {text!r} is no phrase; no comma, semicolon or outer space in it")
    return lexicon


def _translated(
    description: Mapping[str, str], known: Mapping[str, tuple[str, Mapping[str, str]]]
) -> dict[str, list[str]]:
    """Key in the other language to its phrases and the breaks between them, in turn."""
    found = {}
    for key, value in description.items():
        if key not in known:
            raise DataError(f"the lexicon has no key {key!r}; it has {', '.join(known)}")
        name, phrases = known[key]
        parts = _BREAK.split(plain(value))
        unknown = [part for part in parts[::2] if part not in phrases]
        if unknown:
            raise DataError(f"the lexicon has no {unknown[0]!r} under {key}")
        found[name] = [
            part.replace("\u3001", ",") if place % 2 else phrases[part] for place, part in enumerate(parts)
        ]
    return found
