"""Seven kinds of breast lesion on whole slides; SmartPath-R1, Table 36: BRACS."""

from pathlib import Path

from malpighi.datasets.adapter import Adapter, Survey
from malpighi.datasets.class_folders import ask_class
from malpighi.datasets.split import rule_text
from malpighi.datasets.whole_slides.sheet import read_sheet
from malpighi.datasets.whole_slides.slide_folder import SlideFolder, slides_below
from malpighi.errors import DataError
from malpighi.records import Scale, Split

CLASSES = {
    "N": "Normal",
    "PB": "Pathological benign",
    "UDH": "Usual ductal hyperplasia",
    "FEA": "Flat epithelial atypia",
    "ADH": "Atypical ductal hyperplasia",
    "DCIS": "Ductal carcinoma in situ",
    "IC": "Invasive carcinoma",
}
SPLITS = {"train": Split.TRAIN, "val": Split.VALIDATION, "test": Split.TEST}
INDEX, SHEET, SLIDES = "BRACS.xlsx", "WSI_Information", "BRACS_WSI"


def _survey(folder: Path) -> Survey:
    patients = _patients(folder / INDEX)
    root = folder / SLIDES
    missing = [name for name in SPLITS if not (root / name).is_dir()]
    if missing:
        raise DataError(f"{root} lacks the folder {missing[0]}; expected {', '.join(SPLITS)} below {SLIDES}")
    slides = SlideFolder(folder)
    entries, failures = [], []
    for path in slides_below(root):
        part, kind = path.relative_to(root).parts[0], path.parent.name.removeprefix("Type_")
        if part not in SPLITS or kind not in CLASSES:
            place = path.parent.relative_to(root)
            failures.append((path.stem, f"lies in {place}; expected <split>/Group_<group>/Type_<code>"))
        elif path.stem not in patients:
            failures.append((path.stem, f"{INDEX} does not name it, so its patient is unknown"))
        else:
            group = f"patient-{patients[path.stem]}"
            entries.append(slides.entry(path.stem, path, group, kind, SPLITS[part]))
    return Survey(entries, failures)


def _patients(index: Path) -> dict[str, str]:
    """Patient by slide."""
    rows = read_sheet(index, SHEET)
    wanted = ("WSI Filename", "Patient Id")
    names = {name.casefold().replace(" ", ""): name for name in (rows[0] if rows else {})}
    try:
        slide, patient = (names[name.casefold().replace(" ", "")] for name in wanted)
    except KeyError as error:
        found = ", ".join(names.values()) or "no row"
        raise DataError(
            f"{index}, sheet {SHEET}: expected the columns {', '.join(wanted)}; found {found}"
        ) from error
    return {row[slide].removesuffix(".svs"): row[patient] for row in rows if row[slide] and row[patient]}


bracs = Adapter(
    name="bracs",
    title="BRACS: benign, atypical and malignant lesions of the breast, whole slides",
    licence="CC BY-NC 4.0",
    use="research",
    source="Brancati et al. 2022, https://www.bracs.icar.cnr.it/download/",
    layout="BRACS.xlsx and BRACS_WSI/{train,val,test}/Group_{BT,AT,MT}/Type_<code>/BRACS_<n>.svs",
    scale=Scale.SLIDE,
    organ="breast",
    stain="H&E",
    counts=dict(zip(CLASSES.values(), (44, 147, 74, 41, 48, 61, 132), strict=True)),
    split_rule=rule_text("patient", official=True),
    traps=(
        "Patient 67 has slides in two of the official splits; here the patient goes, whole, to the later "
        "one.",
        "189 patients at most for 547 slides: intervals must draw patients, not slides.",
        "SmartPath-R1 uses all splits as an external test, 545 of 547 slides; which two it left out is not "
        "published.",
    ),
    survey=_survey,
    ask=ask_class(CLASSES, "What is the most severe kind of lesion on this slide of breast tissue?"),
    access="registration (FTP)",
)
