"""WSSS4LUAD: tissue of lung adenocarcinoma. SmartPath-R1: `WSSS4LUAD` (Tables 25 and 29)."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from malpighi.datasets.adapter import Adapter, Asked, Entry, Picture, Survey, image_files
from malpighi.datasets.objects.exams import MIN_AREA, by_classes
from malpighi.datasets.objects.folders import by_colour, grey_for, pairs, require, root_of
from malpighi.records import Scale, Split

_CLASSES = {1: "tumor epithelial tissue", 2: "tumor-associated stroma tissue", 3: "normal tissue"}
_COLOURS = {(0, 64, 128): 1, (64, 128, 0): 2, (243, 152, 0): 3, (255, 255, 255): 0}
_PARTS = {"2.validation": Split.VALIDATION, "3.testing": Split.TEST}


def survey_wsss4luad(folder: Path) -> Survey:
    """Survey of `{2.validation,3.testing}/{img,mask,background-mask}`; nothing else has masks.

    Raises:
        DataError: the folder of validation, or a part of it, is missing.
    """
    root = root_of(folder, "WSSS4LUAD")
    require(root, *(f"2.validation/{kind}" for kind in ("img", "mask", "background-mask")))
    survey = Survey([], [])
    for part, split in _PARTS.items():
        masks, white = root / part / "mask", root / part / "background-mask"
        found, lone = pairs(root / part / "img", masks)
        backgrounds = {path.stem: path for path in image_files(white).values()}
        for pair in found:
            detail = {"marks": pair.marks, "white": backgrounds.get(pair.name)}
            name = f"{part}/{pair.name}"
            survey.entries.append(Entry(name, pair.image, name, split=split, detail=detail))
        survey.failures.extend((f"{part}/{name}", reason) for name, reason in lone)
    return survey


def ask_wsss4luad(entry: Entry, picture: Picture) -> Iterator[Asked]:
    """Where each tissue is, or that it is not there.

    Raises:
        DataError: a mask is damaged, of another size, or of a colour that is not known.
    """
    codes_hw = by_colour(entry.detail["marks"], _COLOURS, picture)
    if entry.detail["white"] is not None:
        codes_hw = np.where(grey_for(entry.detail["white"], picture) > 0, 0, codes_hw)
    yield from by_classes(_CLASSES, "lung", codes_hw)


wsss4luad = Adapter(
    name="wsss4luad",
    title="WSSS4LUAD: tissue of lung adenocarcinoma",
    licence="non-commercial (not verified)",
    use="research",
    source="Han et al. 2022, https://wsss4luad.grand-challenge.org/",
    layout="WSSS4LUAD/{2.validation,3.testing}/{img,mask,background-mask}/<name>.png",
    scale=Scale.ROI,
    organ="lung",
    stain="H&E",
    counts={"images": 120},
    split_rule="the official folders: 2.validation, and 3.testing as test",
    traps=(
        "The download may hold the test images without their masks; they are then listed and left out, and "
        "the 40 validation images remain.",
        "LUAD-HistoSeg is another data set, with four classes and its own masks.",
        "Only 40 validation and 80 test images have masks. The paper's 5,735 samples cannot come from the "
        "official files as they are.",
        "Masks are read by their colours: the indices of their palettes differ from copy to copy, and 0 is "
        "tumour in some and background in others.",
        "White background is no part of the truth; the challenge also forgives what is found there, and we "
        "do not.",
        f"Boxes frame connected regions of tissue; pieces under {MIN_AREA} px are left out.",
        "PathMMU's PathCLS holds images of this set, and wsss4luad_patches asks for the tissue of training "
        "images.",
    ),
    survey=survey_wsss4luad,
    ask=ask_wsss4luad,
    access="registration",
)
