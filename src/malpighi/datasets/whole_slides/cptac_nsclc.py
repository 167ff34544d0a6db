"""Adenocarcinoma or squamous cell carcinoma of the lung, CPTAC; SmartPath-R1, Table 38: CPTAC-NSCLC."""

from pathlib import Path

from malpighi.datasets.adapter import Adapter, Survey
from malpighi.datasets.class_folders import ask_class
from malpighi.datasets.split import rule_text
from malpighi.datasets.whole_slides.label_table import TABLE, survey_labels
from malpighi.datasets.whole_slides.slide_folder import SlideFolder, slides_below
from malpighi.errors import DataError
from malpighi.records import Scale

CLASSES = {"LUAD": "Lung adenocarcinoma", "LSCC": "Lung squamous cell carcinoma"}


def _survey(folder: Path) -> Survey:
    """By `labels.csv` where there is one, which need not name all slides; else by cohort folder."""
    if (folder / TABLE).is_file():
        return survey_labels(CLASSES)(folder)
    missing = [name for name in CLASSES if not (folder / name).is_dir()]
    if missing:
        raise DataError(f"{folder} lacks the folder {missing[0]}; expected {', '.join(CLASSES)} or {TABLE}")
    slides = SlideFolder(folder)
    entries, failures = [], []
    for cohort in CLASSES:
        for path in slides_below(folder / cohort):
            case = case_of(path.stem)
            if case:
                entries.append(slides.entry(path.stem, path, case, cohort))
            else:
                failures.append((path.stem, "no name of a CPTAC slide; expected e.g. C3L-03976-27"))
    return Survey(entries, failures)


def case_of(slide: str) -> str:
    """The case of a slide, the first two fields of its name; "" where it has no third.

    Example:
        >>> case_of("C3L-03976-27"), case_of("overview")
        ('C3L-03976', '')
    """
    fields = slide.split("-")
    return "-".join(fields[:2]) if len(fields) >= 3 else ""


cptac_nsclc = Adapter(
    name="cptac_nsclc",
    title="CPTAC-NSCLC: adenocarcinoma or squamous cell carcinoma of the lung",
    licence="CC BY 3.0 or 4.0 (The Cancer Imaging Archive; not verified)",
    use="research",
    source="CPTAC-LUAD and CPTAC-LSCC, https://www.cancerimagingarchive.net",
    layout="LUAD/<slide>.svs and LSCC/<slide>.svs, e.g. LUAD/C3L-03976-27.svs; labels.csv may narrow them",
    scale=Scale.SLIDE,
    organ="lung",
    stain="H&E",
    counts={"Lung adenocarcinoma": 1136, "Lung squamous cell carcinoma": 1077},
    split_rule=rule_text("case"),
    traps=(
        "The cohorts hold slides of normal tissue beside the tumour, under the cohort's label: name the "
        "tumour "
        "slides in labels.csv (dir, case_id, slide_id, label) to leave them out.",
        "SmartPath-R1 lists 1,213 slides in one table and 1,136 + 1,077 = 2,213 in the text; its "
        "intervals fit "
        "2,213.",
        "Several slides of one case: the case is the group.",
    ),
    survey=_survey,
    ask=ask_class(CLASSES, "What type of lung cancer is this?"),
)
