"""Codes for what is annotated and measured, as DICOM wants it said.

Codes are from SNOMED CT and DICOM's own dictionary as pydicom ships them (a test holds that). A label that is
not listed here is said in this project's private scheme, with the label as its meaning: no code is guessed.
"""

import re
from typing import NamedTuple

from highdicom.sr.coding import CodedConcept
from pydicom.sr.coding import Code

from malpighi.config import digest

SCHEME = "99MALPIGHI"
MEANING_LENGTH = 64
"""Characters of a DICOM LO value."""

ANATOMICAL = Code("91723000", "SCT", "Anatomical Structure")
ABNORMAL = Code("49755003", "SCT", "Morphologically Abnormal Structure")
TISSUE = Code("85756007", "SCT", "Tissue")
RELATIONAL = Code("309825002", "SCT", "Spatial and Relational Concept")
PROBABILITY = Code("122157", "DCM", "Probability")
AREA = Code("42798000", "SCT", "Area")
NO_UNITS = Code("1", "UCUM", "no units")
SQUARE_MICROMETRE = Code("um2", "UCUM", "square micrometer")
MICROMETRE = Code("um", "UCUM", "micrometer")
PIXELS = Code("{pixels}", "UCUM", "pixels")

_UNITS = (
    (re.compile(r"[µμu]m(\^2|²)\W*$"), SQUARE_MICROMETRE),
    (re.compile(r"[µμu]m\W*$"), MICROMETRE),
)
_NOT_IN_TEXT = re.compile(r"[\\\x00-\x1f\x7f-\x9f\s]+")


class Property(NamedTuple):
    """What kind of thing something is, and what it is."""

    category: Code
    type: Code


PROPERTIES: dict[str, Property] = {
    "cell": Property(ANATOMICAL, Code("4421005", "SCT", "Cell")),
    "nucleus": Property(ANATOMICAL, Code("84640000", "SCT", "Nucleus")),
    "tissue": Property(TISSUE, Code("85756007", "SCT", "Tissue")),
    "adipose tissue": Property(TISSUE, Code("55603005", "SCT", "Adipose tissue")),
    "connective tissue": Property(TISSUE, Code("21793004", "SCT", "Connective tissue")),
    "necrosis": Property(ABNORMAL, Code("6574001", "SCT", "Necrosis")),
    "inflammation": Property(ABNORMAL, Code("23583003", "SCT", "Inflammation")),
    "neoplasm": Property(ABNORMAL, Code("108369006", "SCT", "Neoplasm")),
    "tumor": Property(ABNORMAL, Code("108369006", "SCT", "Neoplasm")),
    "tumour": Property(ABNORMAL, Code("108369006", "SCT", "Neoplasm")),
    "carcinoma": Property(ABNORMAL, Code("1187425009", "SCT", "Carcinoma")),
    "squamous cell carcinoma": Property(ABNORMAL, Code("1162767002", "SCT", "Squamous cell carcinoma")),
}


def property_of(label: str) -> Property:
    """The codes for a label, whatever its case; a private one where none is known.

    Example:
        >>> property_of("Tumor").type.meaning
        'Neoplasm'
        >>> property_of("koilocyte").type.scheme_designator
        '99MALPIGHI'
    """
    return PROPERTIES.get(label.strip().casefold()) or Property(RELATIONAL, private(label))


def private(meaning: str) -> Code:
    """A code of this project's own scheme."""
    return Code(digest(meaning), SCHEME, plain(meaning))


def measured(name: str) -> tuple[CodedConcept, CodedConcept]:
    """Name and unit of a measurement; the unit is what the name ends in, as QuPath writes it.

    Example:
        >>> [concept.meaning for concept in measured("Nucleus: Area µm^2")]
        ['Nucleus: Area µm^2', 'square micrometer']
    """
    unit = next((code for pattern, code in _UNITS if pattern.search(name)), NO_UNITS)
    return CodedConcept.from_code(private(name)), CodedConcept.from_code(unit)


def plain(text: str) -> str:
    """The text as DICOM's short texts can hold it: no backslash, no line break, at most 64 characters."""
    return _NOT_IN_TEXT.sub(" ", text).strip()[:MEANING_LENGTH].strip() or "-"
