"""WSSS4LUAD: tissue of lung adenocarcinoma.

SmartPath-R1: `WSSS4LUAD` (Tables 25 and 29). Patho-R1: `WSSS4LUAD`, zero-shot.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from malpighi.datasets.adapter import Adapter, Asked, Entry, Picture, Survey, image_files
from malpighi.datasets.objects.exams import MIN_AREA, by_classes
from malpighi.datasets.objects.folders import by_colour, grey_for, pairs, require, root_of
from malpighi.datasets.split import rule_text
from malpighi.records import Choice, Scale, Split, TaskKind

_CLASSES = {1: "tumor epithelial tissue", 2: "tumor-associated stroma tissue", 3: "normal tissue"}
_COLOURS = {(0, 64, 128): 1, (64, 128, 0): 2, (243, 152, 0): 3, (255, 255, 255): 0}
_PARTS = {"2.validation": Split.VALIDATION, "3.testing": Split.TEST}
_FLAGS = re.compile(r"(?P<slide>.+?)-.*\[(?P<flags>[01], ?[01], ?[01])\]$")


def survey_wsss4luad(folder: Path) -> Survey:
    """Survey of `{2.validation,3.testing}/{img,mask,background-mask}` and of the images of `1.training`.

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
    for path in image_files(root / "1.training").values():
        match = _FLAGS.match(path.stem)
        if match is None:
            survey.failures.append(
                (f"1.training/{path.stem}", "expected a name that ends with [a, b, c], each 0 or 1")
            )
            continue
        flags = match["flags"].replace(" ", "").split(",")
        if flags.count("1") == 1:
            label = str(flags.index("1") + 1)
            survey.entries.append(Entry(f"1.training/{path.stem}", path, match["slide"], label))
    return survey


def ask_wsss4luad(entry: Entry, picture: Picture) -> Iterator[Asked]:
    """Where each tissue is; of a training image, which one it shows.

    Raises:
        DataError: a mask is damaged, of another size, or of a colour that is not known.
    """
    if entry.label:
        yield Asked(
            what="class",
            task=TaskKind.CLASSIFICATION,
            text="Which tissue of the lung is this?",
            answer=Choice(list(_CLASSES).index(int(entry.label))),
            options=tuple(_CLASSES.values()),
            suffix=":class",
        )
        return
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
    layout="WSSS4LUAD/{2.validation,3.testing}/{img,mask,background-mask}/<name>.png, 1.training/<name>.png",
    scale=Scale.ROI,
    organ="lung",
    stain="H&E",
    counts={},
    split_rule=(
        "boxes and masks: the official folders, 2.validation and 3.testing; classes: "
        + rule_text("slide (first part of the file name)")
    ),
    traps=(
        "Only 40 validation and 80 test images have masks. The paper's 5,735 samples cannot come from the "
        "official files as they are.",
        "Masks are read by their colours: the indices of their palettes differ from copy to copy, and 0 is "
        "tumour in some and background in others.",
        "White background is no part of the truth; the challenge also forgives what is found there, and we "
        "do not.",
        f"Boxes frame connected regions of tissue; pieces under {MIN_AREA} px are left out.",
        "Training images that show several tissues have no single class and are not asked about.",
        "PathMMU's PathCLS holds images of this set.",
    ),
    survey=survey_wsss4luad,
    ask=ask_wsss4luad,
    access="registration",
)
