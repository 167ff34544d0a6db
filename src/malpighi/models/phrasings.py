"""Requests in many wordings, drawn by seed from a grammar in YAML: what a router's classifier learns from.

`phrasings.yaml` ships with the package; a file of your own has the same form (`load_grammar`).
"""

import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from malpighi.errors import DataError
from malpighi.models.versioned import from_yaml
from malpighi.records import option_label

FORMAT_VERSION = 1
OTHER = "other"
"""The group of requests that no task group serves."""

_SLOT = re.compile(r"\{(?:(options|long):)?(\w+)\}")
_OPTION_COUNTS = (2, 7)
_LONG = 6000
"""Characters that a `{long:...}` slot fills at least."""


class Phrase(NamedTuple):
    """A request and who should answer it.

    Attributes:
        text: as a user would write it.
        group: a task group or kind of task, or `OTHER`.
        family: the construction it came from; a held-out test leaves out whole families.
    """

    text: str
    group: str
    family: str


class Family(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Wordings of one construction.

    Attributes:
        id: unique in its grammar.
        group: the task group or kind of task that should answer, or `OTHER`.
        patterns: wordings with slots: `{slot}` is one of its values, `{options:slot}` a lettered list of
            some, `{long:slot}` very many.
        kind: what a benchmark counts it under; "" outside benchmarks.
    """

    id: str
    group: str
    patterns: list[str]
    kind: str = ""


class Grammar(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Families of wordings and what fills their slots.

    Attributes:
        format_version: of the file.
        names: slot -> what a request may be about; there is always one more.
        words: slot -> what requests are made of.
        families: the constructions.
    """

    format_version: int
    names: dict[str, list[str]]
    families: list[Family]
    words: dict[str, list[str]] = {}

    @property
    def slots(self) -> dict[str, list[str]]:
        """Names and words together."""
        return self.names | self.words


def shipped_grammar() -> Grammar:
    """The grammar that ships with the package."""
    return _read((resources.files("malpighi.models") / "phrasings.yaml").read_bytes(), "phrasings.yaml")


def load_grammar(path: str | Path) -> Grammar:
    """A grammar of your own.

    Raises:
        DataError: no such file, no such form, or a pattern with a slot that is not there.
        FormatVersionError: a file of another format version.
    """
    try:
        return _read(Path(path).read_bytes(), str(path))
    except OSError as error:
        raise DataError(f"cannot read the grammar {path}: {error.strerror}") from error


def halves(grammar: Grammar, seed: int) -> tuple[Grammar, Grammar]:
    """The grammar twice, with the same families and words and no name in common, dealt out by seed.

    What was learned from one half meets unknown names in the other, as it will in use.
    """
    rng = np.random.default_rng(seed)
    dealt: tuple[dict[str, list[str]], dict[str, list[str]]] = ({}, {})
    for slot, values in grammar.names.items():
        order = [values[i] for i in rng.permutation(len(values))]
        for half, names in enumerate(dealt):
            names[slot] = order[half::2] or order
    first, second = (msgspec.structs.replace(grammar, names=names) for names in dealt)
    return first, second


def draw(grammar: Grammar, count: int, seed: int) -> list[Phrase]:
    """About `count` different requests, each family as often as any other.

    A family that cannot say that many different things is drawn less often. Same arguments, same requests.

    Args:
        grammar: what to draw from.
        count: how many to draw at most.
        seed: of the draw.
    """
    rng = np.random.default_rng(seed)
    share, more = divmod(count, len(grammar.families))
    drawn: list[Phrase] = []
    seen: set[str] = set()
    for index, family in enumerate(grammar.families):
        wanted, tries = share + (index < more), 0
        while wanted and tries < 20 * (share + 1):
            pattern = family.patterns[int(rng.integers(len(family.patterns)))]
            text = fill(pattern, grammar.slots, rng)
            tries += 1
            if text not in seen:
                seen.add(text)
                drawn.append(Phrase(text, family.group, family.id))
                wanted -= 1
    return [drawn[i] for i in rng.permutation(len(drawn))]


def fill(pattern: str, slots: dict[str, list[str]], rng: np.random.Generator) -> str:
    """A pattern with its slots filled.

    Example:
        >>> fill("Segment {what}.", {"what": ["glands"]}, np.random.default_rng(0))
        'Segment glands.'
    """

    def one(match: re.Match[str]) -> str:
        how, names = match[1], slots[match[2]]
        if how == "options":
            return _options(names, rng)
        if how == "long":
            return _long(names, rng)
        return names[int(rng.integers(len(names)))]

    return _SLOT.sub(one, pattern)


def _options(names: Sequence[str], rng: np.random.Generator) -> str:
    count = int(rng.integers(_OPTION_COUNTS[0], min(_OPTION_COUNTS[1], len(names)) + 1))
    chosen = [names[i] for i in rng.permutation(len(names))[:count]]
    forms = (("({}) {}", ", "), ("{}. {}", "\n"), ("{}) {}", " "), ("({}) {}", "; "))
    form, separator = forms[int(rng.integers(len(forms)))]
    return separator.join(form.format(option_label(i), name) for i, name in enumerate(chosen))


def _long(names: Sequence[str], rng: np.random.Generator) -> str:
    words: list[str] = []
    while sum(map(len, words)) < _LONG:
        words.append(names[int(rng.integers(len(names)))])
    return ". ".join(words)


def _read(data: bytes, where: str) -> Grammar:
    grammar = from_yaml(data, Grammar, FORMAT_VERSION, where)
    _check(grammar, where)
    return grammar


def _check(grammar: Grammar, where: str) -> None:
    if not grammar.families:
        raise DataError(f"{where} holds no families, so there is nothing to draw")
    ids: set[str] = set()
    for family in grammar.families:
        if family.id in ids or not family.patterns:
            raise DataError(f"{where}: family '{family.id}' occurs twice or has no patterns")
        ids.add(family.id)
        for pattern in family.patterns:
            unknown = [name for _, name in _SLOT.findall(pattern) if not grammar.slots.get(name)]
            if unknown:
                raise DataError(
                    f"{where}: family '{family.id}' uses the slot '{unknown[0]}', which is neither among "
                    "its names nor among its words"
                )
