"""CRAG: glands of colorectal adenocarcinoma. SmartPath-R1: `CRAG` (Tables 15 and 29)."""

from collections.abc import Iterator
from pathlib import Path

from malpighi.datasets.adapter import Adapter, Asked, Entry, Picture, Survey
from malpighi.datasets.objects.exams import Theme
from malpighi.datasets.objects.folders import labels_for, pairs, require, root_of
from malpighi.datasets.split import rule_text
from malpighi.records import Scale, Split

_PARTS = {"train": Split.TRAIN, "valid": Split.TEST}
_GLANDS = Theme("glands", "colon")


def survey_crag(folder: Path) -> Survey:
    """Survey of `{train,valid}/{Images,Annotation}`; images of `valid` are named `test_<n>`.

    Raises:
        DataError: one of the folders is missing.
    """
    root = root_of(folder, "CRAG")
    require(root, *(f"{part}/{kind}" for part in _PARTS for kind in ("Images", "Annotation")))
    survey = Survey([], [])
    for part, split in _PARTS.items():
        found, lone = pairs(root / part / "Images", root / part / "Annotation")
        survey.failures.extend(lone)
        survey.entries.extend(
            Entry(pair.name, pair.image, pair.name, split=split, detail={"marks": pair.marks})
            for pair in found
        )
    return survey


def ask_crag(entry: Entry, picture: Picture) -> Iterator[Asked]:
    """Where the glands are; a value of the annotation is the number of a gland.

    Raises:
        DataError: the annotation is damaged or of another size.
    """
    yield from _GLANDS.by_labels(labels_for(entry.detail["marks"], picture))


crag = Adapter(
    name="crag",
    title="CRAG: glands of colorectal adenocarcinoma",
    licence="CC BY-NC-SA (not verified)",
    use="research",
    source="Graham et al. 2019 (MILD-Net), https://warwick.ac.uk/fac/cross_fac/tia/data/mildnet/",
    layout="CRAG/{train,valid}/{Images,Annotation}/<name>.png",
    scale=Scale.ROI,
    organ="colon",
    stain="H&E",
    counts={"images": 213},
    split_rule=rule_text("image (patients are not known)", official=True) + "; valid is the test split",
    traps=(
        "Images of the folder valid are named test_<n>; they are the test split.",
        "Sides of about 1,512 px are no multiple of 1,024: the last windows overlap the others. The paper's "
        "1,429 and 321 tiles come from a tiling that is not published.",
        "A gland that a window parts counts as two.",
        "The same hospital's tissue is in GlaS and CoNIC: not an external test for models trained there.",
    ),
    survey=survey_crag,
    ask=ask_crag,
    access="request form",
    window=1024,
)
