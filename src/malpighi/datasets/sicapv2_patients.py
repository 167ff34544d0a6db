"""Whose tissue a patch of SICAPv2 shows: what its two adapters group by."""

import re
from collections.abc import Callable
from pathlib import Path

from malpighi.datasets.whole_slides.sheet import read_sheet

TABLE = "wsi_labels.xlsx"
_SLIDE, _PATIENT = "slide_id", "patient_id"
_NUMBER = re.compile(r"\d+B\d+")


def slide_of(name: str) -> str:
    """The slide in the name of a patch, without the letter of its block; "" where there is none.

    Example:
        >>> slide_of("18B0005478J_Block_Region_1_0_0_xini_6803_yini_59786"), slide_of("nameless")
        ('18B0005478', '')
    """
    found = _NUMBER.match(name)
    return found[0] if found else ""


def patients(root: Path) -> Callable[[str], str]:
    """From a patch's name to its patient; to its slide where the table is absent or does not tell.

    Departs: that `wsi_labels.xlsx` has the columns slide_id and patient_id is assumed, so a table without
    them is passed over.

    Raises:
        DataError: the table is there and no readable workbook.
    """
    rows = read_sheet(root / TABLE) if (root / TABLE).is_file() else []
    known = {
        slide_of(row[_SLIDE]): f"patient {row[_PATIENT]}"
        for row in rows
        if row.get(_PATIENT) and slide_of(row.get(_SLIDE, ""))
    }
    return lambda name: known.get(slide_of(name), slide_of(name))
