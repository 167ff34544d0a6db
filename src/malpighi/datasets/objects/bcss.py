"""BCSS: regions of breast cancer. SmartPath-R1: `BCSS` (Tables 14 and 29)."""

import re
from collections.abc import Iterator
from pathlib import Path

from malpighi.datasets.adapter import Adapter, Asked, Entry, Picture, Survey
from malpighi.datasets.objects.exams import MIN_AREA, by_classes
from malpighi.datasets.objects.folders import labels_for, pairs, require, root_of
from malpighi.errors import DataError
from malpighi.records import Scale, Split

_CODES = 22
_CLASSES = {
    1: "tumor",
    2: "stroma",
    3: "lymphocytic infiltrate",
    4: "necrosis or debris",
    5: "glandular secretions",
    6: "blood",
    8: "metaplasia NOS",
    9: "fat",
    10: "plasma cells",
    11: "other immune infiltrate",
    12: "mucoid material",
    13: "normal acinus or duct",
    14: "lymphatics",
    18: "blood vessel",
    19: "angioinvasion",
    20: "DCIS",
}
_NAME = re.compile(r"(?P<patient>TCGA-(?P<institute>\w\w)-\w{4})")
_TEST = {"OL", "LL", "E2", "EW", "GM", "S3"}
_VALIDATION = {"BH", "C8", "A8", "A1", "E9"}


def survey_bcss(folder: Path) -> Survey:
    """Survey of `rgbs_colorNormalized` (or `images`) and `masks`, split by the institute in the name.

    Raises:
        DataError: one of the folders is missing.
    """
    root = root_of(folder, "0_Public-data-Amgad2019_0.25MPP")
    images = "images" if (root / "images").is_dir() else "rgbs_colorNormalized"
    require(root, images, "masks")
    found, failures = pairs(root / images, root / "masks")
    entries = []
    for pair in found:
        match = _NAME.match(pair.name)
        if match is None:
            failures.append((pair.name, "expected a name that begins with the patient, TCGA-XX-XXXX"))
            continue
        split = _split(match["institute"])
        entries.append(
            Entry(pair.name, pair.image, match["patient"], split=split, detail={"marks": pair.marks})
        )
    return Survey(entries, failures)


def ask_bcss(entry: Entry, picture: Picture) -> Iterator[Asked]:
    """Where each of 16 tissues is, or that it is not there.

    Raises:
        DataError: the mask is damaged, of another size, or has a code that is not known.
    """
    codes_hw = labels_for(entry.detail["marks"], picture)
    if codes_hw.max(initial=0) >= _CODES:
        raise DataError(f"the mask has the code {codes_hw.max()}; expected 0 to {_CODES - 1}")
    yield from by_classes(_CLASSES, "breast", codes_hw)


def _split(institute: str) -> Split:
    if institute in _TEST:
        return Split.TEST
    return Split.VALIDATION if institute in _VALIDATION else Split.TRAIN


bcss = Adapter(
    name="bcss",
    title="BCSS: tissue regions of triple-negative breast cancer",
    licence="CC0 1.0",
    use="any",
    source="Amgad et al. 2019, https://github.com/PathologyDataScience/BCSS",
    layout="0_Public-data-Amgad2019_0.25MPP/{rgbs_colorNormalized or images,masks}/<name>.png",
    scale=Scale.ROI,
    organ="breast",
    stain="H&E",
    counts={"images": 151},
    split_rule=(
        "by institute: OL, LL, E2, EW, GM, S3 are the challenge's test; BH, C8, A8, A1, E9 validation; the "
        "others train"
    ),
    traps=(
        "Codes 0 (outside) and 7 (exclude) mean that nobody looked, not background: they are never asked "
        "for, but what a model finds there still counts against it.",
        "Undetermined, nerve, skin adnexa and other are never asked for, as in the paper.",
        "A popular grouping into five classes counts DCIS and angioinvasion as tumor; here each is its own.",
        "Boxes frame connected regions of tissue, which are not single things; pieces under "
        f"{MIN_AREA} px are left out of boxes and masks.",
        "The paper's 7,322 and 1,870 samples come from tiles of 1,024 px that are not published.",
    ),
    survey=survey_bcss,
    ask=ask_bcss,
    window=1024,
)
