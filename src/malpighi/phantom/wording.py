"""The words of questions, reasons and descriptions of phantom cells: few, plain and always true."""

import numpy as np

from malpighi.guidelines.pack import Pack

_PRESENT = {
    "NE": "nucleus enlarged",
    "NA": "nuclear shape atypical",
    "NH": "nucleus too dark",
    "KO": "clear halo with a dense rim",
    "CT": "chromatin coarse",
    "NU": "nucleolus visible",
    "NC": "more than one nucleus",
    "NCR": "N:C ratio raised",
    "NM": "membrane irregular",
}
_ABSENT = {
    "NE": "nucleus of normal size",
    "NA": "nuclear shape round or oval",
    "NH": "nucleus normally stained",
    "KO": "no halo",
    "CT": "chromatin fine and even",
    "NU": "no nucleolus",
    "NC": "one nucleus",
    "NCR": "N:C ratio normal",
    "NM": "membrane smooth",
}
_EVIDENCE = {
    "NE": (
        "The nucleus is several times as large as that of an intermediate cell.",
        "The nucleus is about as large as that of an intermediate cell.",
    ),
    "NA": ("The nucleus as a whole is drawn out.", "The nucleus as a whole is round to oval."),
    "NH": ("The nucleus is much darker than usual.", "The nucleus is as dark as usual."),
    "KO": (
        "An empty zone with a sharp border surrounds the nucleus.",
        "The cytoplasm reaches the nucleus without an empty zone.",
    ),
    "CT": ("The chromatin forms coarse clumps with gaps.", "The chromatin is finely and evenly spread."),
    "NU": ("A compact dark spot lies inside the nucleus.", "No compact dark spot lies inside the nucleus."),
    "NC": ("Several nuclei lie in one cytoplasm.", "A single nucleus lies in the cytoplasm."),
    "NCR": ("Only a narrow rim of cytoplasm is left.", "The cytoplasm is much larger than the nucleus."),
    "NM": ("The outline of the nucleus is notched.", "The outline of the nucleus is even."),
}
_BLAND = ("NE", "CT", "NM", "NCR")
_COUNTS = {1: "one", 2: "two", 3: "three"}

CATEGORY_QUESTION = "Which Bethesda category fits this cell?"
DESCRIBE_QUESTION = "Describe this cervical cell in one sentence."
CELL_QUESTION = "Segment the cell in the middle."
NUCLEUS_QUESTION = "Detect the nuclei of the cell in the middle."


def category_reasoning(pack: Pack, findings: dict[str, bool], cell_class: str) -> str:
    """What is seen, and the category that it entails.

    Example:
        >>> from malpighi.guidelines.pack import load_pack
        >>> tbs = load_pack("tbs")
        >>> seen = {code: code in ("NCR", "NM", "CT") for code in tbs.codes}
        >>> category_reasoning(tbs, seen, "squamous_immature")
        'Immature squamous cell: chromatin coarse, N:C ratio raised, membrane irregular. This entails HSIL.'
    """
    seen = [_PRESENT[code] for code in pack.codes if findings[code]] or [_ABSENT[code] for code in _BLAND]
    name = class_name(pack, cell_class)
    return f"{_capital(name)}: {', '.join(seen)}. This entails {pack.category(findings, cell_class)}."


def finding_reasoning(code: str, *, present: bool) -> str:
    """What is seen of one observation, from which its yes or no follows.

    Example:
        >>> finding_reasoning("CT", present=False)
        'The chromatin is finely and evenly spread.'
    """
    return _EVIDENCE[code][0 if present else 1]


def description(pack: Pack, findings: dict[str, bool], cell_class: str, nuclei: int) -> str:
    """All nine observations in one sentence, always in the same order and words.

    What is left to guess in such a sentence is what can be seen. Free order and turns of phrase would add
    more to the loss of a language model than the observations do, and a small one would learn those alone.
    """
    name = class_name(pack, cell_class)
    count = f"{_COUNTS.get(nuclei, str(nuclei))} nuclei" if findings["NC"] else "one nucleus"
    parts = (
        "enlarged" if findings["NE"] else "normal-sized",
        "dark" if findings["NH"] else "normally stained",
        "elongated" if findings["NA"] else "round to oval",
        f"{'coarse' if findings['CT'] else 'fine'} chromatin",
        f"{'irregular' if findings['NM'] else 'smooth'} membrane",
        f"{'visible' if findings['NU'] else 'no'} nucleolus",
        f"{'raised' if findings['NCR'] else 'normal'} N:C ratio",
        "koilocytic halo" if findings["KO"] else "no halo",
    )
    return f"{_capital(name)} with {count}: {', '.join(parts)}."


def open_question(
    pack: Pack, findings: dict[str, bool], cell_class: str, nuclei: int, rng: np.random.Generator
) -> tuple[str, str]:
    """An open question and its short answer."""
    kinds = (
        (pack.definition.cell_class.question, class_name(pack, cell_class)),
        ("How many nuclei does this cell have?", _COUNTS.get(nuclei, str(nuclei))),
        ("What is the chromatin like?", "coarse" if findings["CT"] else "fine and even"),
        ("What is the nuclear membrane like?", "irregular" if findings["NM"] else "smooth"),
    )
    return kinds[int(rng.integers(len(kinds)))]


def class_name(pack: Pack, cell_class: str) -> str:
    """The pack's name of a cell class, e.g. `mature squamous cell`."""
    return next(value.name for value in pack.definition.cell_class.values if value.id == cell_class)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
