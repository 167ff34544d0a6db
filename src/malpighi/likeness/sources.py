"""Where a sample comes from, as keys that two data sets share when they share a patient, slide or article.

Data sets that are cut from the same slides or figures do not repeat pixels, and yet a model that has seen a
patient knows the patient. So what names a source is looked for in the sample's id, group, slides and facts.
"""

import hashlib
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import PurePath
from typing import Any, NamedTuple

from malpighi.records import Sample

KINDS = ("patient", "slide", "figure", "article", "group")
_HIDDEN = "#"

# A figure must name its article, a slide its patient: else two data sets would share "figure 2".
_PATTERNS = (
    (
        "slide",
        re.compile(
            r"(?<![A-Z0-9])TCGA-[A-Z0-9]{2}-[A-Z0-9]{4}-\d{2}[A-Z]-\d{2}-[A-Z]{2,3}[A-Z0-9]{1,2}", re.I
        ),
    ),
    ("patient", re.compile(r"(?<![A-Z0-9])TCGA-[A-Z0-9]{2}-[A-Z0-9]{4}(?![A-Z0-9])", re.I)),
    ("patient", re.compile(r"(?<![A-Z0-9])C3[LN]-\d{5}(?!\d)", re.I)),
    ("patient", re.compile(r"(?<![A-Z0-9])GTEX-[A-Z0-9]{4,6}(?![A-Z0-9])", re.I)),
    ("figure", re.compile(r"(?<![A-Z0-9])PMC\d{5,9}[\W_]{1,3}(?:fig(?:ure)?|f|g)[\W_]{0,2}\d{1,3}", re.I)),
    ("article", re.compile(r"(?<![A-Z0-9])PMC\d{5,9}(?!\d)", re.I)),
    ("article", re.compile(r"(?<![\d.])10\.\d{4,9}/[^\s\"'<>]+", re.I)),
)
_FACTS = {
    "patient": "patient",
    "patient_id": "patient",
    "case": "patient",
    "case_id": "patient",
    "slide": "slide",
    "slide_id": "slide",
    "pmcid": "article",
    "pmc": "article",
    "doi": "article",
    "figure": "figure",
    "figure_id": "figure",
}


class Source(NamedTuple):
    """A source of a sample: one of `KINDS`, and its normalised name."""

    kind: str
    name: str


def sources_of(sample: Sample) -> tuple[Source, ...]:
    """What a sample was made from, as far as its id, group, slides and facts tell.

    Names that only a data set gives (its own patient numbers) carry the data set's name; those that the field
    shares (TCGA, CPTAC, GTEx, PMC, DOI) do not, so that they are found across data sets.
    """
    found: dict[Source, None] = {}
    if sample.group:
        found[Source("group", _plain(f"{sample.dataset}/{sample.group}"))] = None
    for kind, value in _told(sample):
        known = list(_known(value))
        own = [Source(kind, _plain(f"{sample.dataset}/{value}"))] if kind and not known else []
        found.update(dict.fromkeys([*known, *own]))
    return tuple(sorted(found))


@lru_cache(maxsize=2**18)
def group_across(dataset: str, group: str) -> str:
    """A group's name where several data sets are taken together: two of them may both have a "12".

    Where it holds the name of a patient, figure or article that the field shares, it is that; else the data
    set's own.

    Example:
        >>> group_across("bcss", "TCGA-A1-A0SK"), group_across("nucls", "tcga-a1-a0sk-01z-00-dx1")
        ('TCGA-A1-A0SK', 'TCGA-A1-A0SK')
        >>> group_across("glas", "12")
        'glas/12'
    """
    known = {source.kind: source.name for source in _known(group)}
    return next((known[kind] for kind in KINDS if kind in known), f"{dataset}/{group}")


def hidden(source: Source) -> Source:
    """The source with its name hashed: still comparable, not to be read; to hide twice is to hide once.

    Patient numbers can be guessed one by one; this keeps them from sight, not from an attacker.
    """
    if source.name.startswith(_HIDDEN):
        return source
    digest = hashlib.sha256(f"{source.kind}:{source.name}".encode()).hexdigest()
    return Source(source.kind, f"{_HIDDEN}{digest[:24]}")


def _told(sample: Sample) -> Iterator[tuple[str, str]]:
    """(kind or "", text) of everything that may name a source."""
    yield from (("", text) for text in (sample.id, sample.group, *sample.provenance.parents))
    yield from (("slide", PurePath(image.slide).stem) for image in sample.images if image.slide)
    for name, value in sample.facts.items():
        if isinstance(value, str | int) and not isinstance(value, bool) and str(value).strip():
            yield _FACTS.get(name.casefold(), ""), _article(name, value)


def _article(name: str, value: Any) -> str:
    """PMC ids are often stored without their letters."""
    return f"PMC{value}" if name.casefold() in ("pmc", "pmcid") and str(value).isdecimal() else str(value)


def _known(text: str) -> Iterator[Source]:
    for kind, pattern in _PATTERNS:
        for match in pattern.finditer(text):
            yield Source(kind, _normal(kind, match.group()))


def _normal(kind: str, name: str) -> str:
    if name.startswith("10."):
        return name.casefold().rstrip(".,;)]")
    if kind == "figure":
        article, number = re.findall(r"PMC\d+|\d+$", name, re.IGNORECASE)
        return f"{article.upper()} figure {int(number)}"
    return name.upper()


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
