"""Whether the observations that a reply states entail the category that it answers, by a guideline.

The words are the pack's (`phrases`), so another guideline needs no code. A text is read clause by clause;
each comma begins a new one. What is not mentioned counts as absent, as in a report, which lists what is seen;
a cell class that is not mentioned is tried every way.

This judges whether the reasoning hangs together, not whether it is true: a reply that invents its
observations can be consistent. So it is a part to weigh beside the task, never the task.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from malpighi.grading.names import Mention, Names, denies_after, denies_before, plain_text
from malpighi.guidelines.pack import Pack

# A colon inside "N:C" divides nothing, nor does the point of a decimal.
_CLAUSE_END = re.compile(r"[,;!?\n]|[.:](?=\s|$|<)|\b(?:but|while|whereas)\b", re.IGNORECASE)
_FILLER = re.compile(
    r"\b(?:is|are|was|were|be|looks?|seems?|appears?|the|an?|its|very|clearly|much)\b", re.IGNORECASE
)
_TAG = re.compile(r"</?\w+>")
_JOINED = re.compile(r"\W*\b(?:or|nor)\b\W*")


class Stated(NamedTuple):
    """What a text says about a cell.

    Attributes:
        present: codes of the observations stated as there.
        absent: codes of those stated as not there; a code in both is a contradiction.
        cell_classes: ids of the cell classes that are named.
    """

    present: frozenset[str]
    absent: frozenset[str]
    cell_classes: frozenset[str]


class _Lexicon(NamedTuple):
    """Phrases to look for; each stands for (code, present) or for (cell class, None)."""

    names: Names
    meanings: tuple[tuple[str, bool | None], ...]


def inconsistency(text: str, category: str | None, pack: Pack) -> float:
    """How far a reply's observations fail to entail its category.

    Args:
        text: the whole reply, thoughts and answer.
        category: id of the category that it answers; None where it answers none.
        pack: the guideline.

    Returns:
        0 where the category is the only one that the observations allow; 1 where they rule it out, contradict
        each other, or none is stated; 1 - 1/n where it is one of n.

    Example:
        >>> from malpighi.guidelines.pack import load_pack
        >>> seen = "Immature squamous cell: coarse chromatin, N:C ratio raised, irregular membrane."
        >>> tbs = load_pack("tbs")
        >>> inconsistency(seen, "HSIL", tbs), inconsistency(seen, "NILM", tbs)
        (0.0, 1.0)
    """
    stated = observations_in(text, pack)
    if category is None or not (stated.present or stated.absent) or stated.present & stated.absent:
        return 1.0
    findings = {code: code in stated.present for code in pack.codes}
    possible = {pack.category(findings, name) for name in stated.cell_classes or pack.cell_classes}
    return 1.0 - 1.0 / len(possible) if category in possible else 1.0


def observations_in(text: str, pack: Pack) -> Stated:
    """The observations and cell classes that a text states, in the words of the pack.

    Example:
        >>> from malpighi.guidelines.pack import load_pack
        >>> found = observations_in("No halo; the nucleus is enlarged and dark.", load_pack("tbs"))
        >>> sorted(found.present), sorted(found.absent)
        (['NE', 'NH'], ['KO'])
    """
    lexicon = _lexicon(pack)
    text = _TAG.sub("\n", plain_text(text))
    said: dict[bool | None, set[str]] = {True: set(), False: set(), None: set()}
    for clause in _CLAUSE_END.split(text):
        for name, state in _statements(_FILLER.sub(" ", clause), lexicon):
            said[state].add(name)
    return Stated(frozenset(said[True]), frozenset(said[False]), frozenset(said[None]))


def categories_of(options: Sequence[str], pack: Pack) -> tuple[str, ...] | None:
    """The pack's categories that the options name, by id or name; None where an option is none of them."""
    named = {name.casefold(): c.id for c in pack.definition.categories for name in (c.id, c.name)}
    found = [named.get(option.strip().casefold()) for option in options]
    return tuple(str(category) for category in found) if found and None not in found else None


def _statements(clause: str, lexicon: _Lexicon) -> list[tuple[str, bool | None]]:
    found: list[tuple[str, bool | None]] = []
    last: Mention | None = None
    denied = False
    for mention in lexicon.names.find(clause):
        if last is None or mention.start >= last.end:
            between = clause[last.end if last else 0 : mention.start]
            inherited = denied and _JOINED.fullmatch(between) is not None
            denied = inherited or denies_before(between) or denies_after(clause, mention.end)
            last = mention
        name, present = lexicon.meanings[mention.option]
        if present is not None:
            found.append((name, present != denied))
        elif not denied:
            found.append((name, None))
    return found


@lru_cache(maxsize=8)
def _lexicon(pack: Pack) -> _Lexicon:
    entries: list[tuple[str, str, bool | None]] = []
    for observation in pack.definition.observations:
        said = observation.phrases
        entries += [(phrase, observation.code, True) for phrase in (observation.name, *said.present)]
        entries += [(phrase, observation.code, False) for phrase in said.absent]
    for value in pack.definition.cell_class.values:
        entries += [(phrase, value.id, None) for phrase in (value.name, *value.phrases)]
    names = Names([_FILLER.sub(" ", phrase) for phrase, _, _ in entries])
    return _Lexicon(names, tuple((name, state) for _, name, state in entries))
