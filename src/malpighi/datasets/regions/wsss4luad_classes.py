"""WSSS4LUAD as patches of one tissue each. Patho-R1's zero-shot exam WSSS4LUAD (Table 2)."""

import re
from pathlib import Path, PurePosixPath

from malpighi.datasets.adapter import Adapter, Survey
from malpighi.datasets.class_folders import ask_class
from malpighi.datasets.listing import Place, root_of, survey_places
from malpighi.datasets.split import rule_text
from malpighi.records import Scale

TOP = "WSSS4LUAD"
PATCHES = "1.training"
CLASSES = {
    "tumor": "Tumor epithelial tissue",
    "stroma": "Tumor associated stroma tissue",
    "normal": "Normal tissue",
}
_NAME = re.compile(r"(?P<patch>(?P<slide>.+?)-\d+-\d+)-\[(?P<marks>[01], ?[01], ?[01])\]")


def survey_patches(folder: Path) -> Survey:
    """Survey of `1.training/<slide>-<x>-<y>-[tumor, stroma, normal].png`.

    Patches of several tissues are passed over.

    Raises:
        DataError: no folder 1.training.
    """
    return survey_places(root_of(folder, TOP, (PATCHES,)) / PATCHES, _place)


def _place(path: PurePosixPath) -> Place | str | None:
    name = _NAME.fullmatch(path.stem)
    if name is None:
        return "not named like <slide>-<x>-<y>-[1, 0, 0]"
    marked = [
        label for label, mark in zip(CLASSES, re.findall(r"\d", name["marks"]), strict=True) if mark == "1"
    ]
    if not marked:
        return "the name marks no tissue"
    return Place(marked[0], name["slide"], name=name["patch"]) if len(marked) == 1 else None


wsss4luad_patches = Adapter(
    name="wsss4luad_patches",
    title="WSSS4LUAD: patches of lung adenocarcinoma with one tissue each",
    licence="non-commercial (assumed, not verified)",
    use="research",
    source="https://wsss4luad.grand-challenge.org/",
    layout=f"{TOP}/{PATCHES}/<slide>-<x>-<y>-[a, b, c].png",
    scale=Scale.ROI,
    organ="lung",
    stain="H&E",
    counts={},
    split_rule=rule_text("slide (first part of the file name)"),
    traps=(
        "Of the 10,091 patches those marked with several tissues are passed over, as in the published "
        "classification exams; the pixel-wise images of validation and test are another exam.",
        "The published split is by patch (80 to 20), which puts one slide on both sides; it is not used.",
        "The label stands in the file name, with brackets, commas and spaces: it is left out of the ids.",
        "Patches are 150 to 300 px wide and vary in shape.",
        "PathMMU's PathCLS was made from this set among others.",
    ),
    survey=survey_patches,
    ask=ask_class(CLASSES, "What type of tissue is this?"),
    access="registration",
)
