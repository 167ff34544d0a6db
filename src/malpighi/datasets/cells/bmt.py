"""BMT (Brown Multicellular ThinPrep): fields of cervical cytology. Patho-R1's zero- and few-shot exam BMT."""

from pathlib import Path, PurePosixPath

from malpighi.datasets.adapter import Adapter, Survey
from malpighi.datasets.class_folders import ask_class
from malpighi.datasets.listing import Place, one_of, survey_places
from malpighi.datasets.split import rule_text
from malpighi.records import Scale

TOP = "Brown Multicellular ThinPrep Database - images"
CLASSES = {"NILM": "NILM", "LSIL": "LSIL", "HSIL": "HSIL"}
_STARTS = {"HSIL": "HSIL", "LSIL": "LSIL", "NILM": "NILM", "NIL": "NILM"}


def survey_bmt(folder: Path) -> Survey:
    """Survey of one flat folder, or of a folder per class.

    The first letters of the file's name, or of its folder's, are the class. Copies with drawn annotations
    lie in folders whose name says so, and are passed over.
    """
    return survey_places(folder, _place)


def _place(path: PurePosixPath) -> Place | str | None:
    if any("annot" in part.lower() for part in path.parts[:-1]):
        return None
    own = _class_of(path.name)
    above = _class_of(path.parent.name)
    if own and above and own != above:
        return f"lies in a folder of {above}, but is named {own}"
    return Place(own or above) if own or above else f"named {one_of(path.name, _STARTS)} first"


def _class_of(name: str) -> str:
    """The class that a file or folder is named for; "" for none."""
    return next((label for start, label in _STARTS.items() if name.upper().startswith(start)), "")


bmt = Adapter(
    name="bmt",
    title="BMT: Brown Multicellular ThinPrep, fields of liquid-based cervical cytology",
    licence="CC BY 4.0 (as reported, not verified on Synapse)",
    use="research",
    source="https://doi.org/10.7303/syn55259257 (PMC11682344)",
    layout=f"{TOP}/{{HSIL*.JPG,LSIL*.JPG,NIL*.JPG}}, or a folder per class",
    scale=Scale.ROI,
    organ="cervix",
    stain="Pap",
    counts=dict.fromkeys(CLASSES.values(), 200),
    split_rule=rule_text("file (patients are not known)"),
    traps=(
        "600 images come from 180 patients, about three each, and no patient stands in the file names: any "
        "split puts patients on both sides, and intervals are too narrow.",
        "Negative images are named NIL or NILM; endings are upper case (.JPG); a manifest lies among the "
        "images.",
        "One copy has a folder per class with annotated images below it; those are never read.",
        "Patho-R1 draws its shots by image, so patients of its training shots are in its test.",
    ),
    survey=survey_bmt,
    ask=ask_class(CLASSES, "What is the cytological diagnosis of this field?"),
    access="account and token at Synapse",
)
