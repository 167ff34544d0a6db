"""Four questions about core needle biopsies of the breast; SmartPath-R1, Table 43.

Its tasks BCNB-Grading, BCNB-HER2 Expression, BCNB-HER2 Type and BCNB-Tumor Type are the exams
`bcnb/grading`, `bcnb/her2-expression` (the column of that name, the score of immunohistochemistry),
`bcnb/her2-type` (the column HER2, the status) and `bcnb/tumor-type`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from malpighi.datasets.adapter import Adapter, Asked, Entry, Picture, Survey, read_text
from malpighi.datasets.split import rule_text
from malpighi.datasets.whole_slides.sheet import read_sheet
from malpighi.datasets.whole_slides.slide_folder import SlideFolder
from malpighi.errors import DataError
from malpighi.records import Choice, Scale, Split, TaskKind

INDEX, SLIDES, LISTS = "patient-clinical-data.xlsx", "WSIs", "dataset-splitting"
PATIENT = "Patient ID"
SPLITS = {"train_id.txt": Split.TRAIN, "val_id.txt": Split.VALIDATION, "test_id.txt": Split.TEST}


class _Exam(NamedTuple):
    """One column of the clinical table: exam, column, question, and cell to option."""

    what: str
    column: str
    text: str
    options: dict[str, str]


EXAMS = (
    _Exam(
        "grading",
        "Histological grading",
        "What is the histological grade of this breast carcinoma?",
        {"1": "Grade 1", "2": "Grade 2", "3": "Grade 3"},
    ),
    _Exam(
        "her2-expression",
        "HER2 Expression",
        "Which immunohistochemical HER2 score is most likely for this breast carcinoma?",
        {"0": "0", "1+": "1+", "2+": "2+", "3+": "3+"},
    ),
    _Exam(
        "her2-type",
        "HER2",
        "Is this breast carcinoma likely HER2 negative or HER2 positive?",
        {"negative": "HER2 negative", "positive": "HER2 positive"},
    ),
    _Exam(
        "tumor-type",
        "Tumour Type",
        "What is the histological type of this breast carcinoma?",
        {
            "invasive ductal carcinoma": "Invasive ductal carcinoma",
            "invasive lobular carcinoma": "Invasive lobular carcinoma",
            "other type": "Other type",
        },
    ),
)


def _survey(folder: Path) -> Survey:
    rows = read_sheet(folder / INDEX)
    missing = [name for name in (PATIENT, *(exam.column for exam in EXAMS)) if rows and name not in rows[0]]
    if missing:
        raise DataError(f"{folder / INDEX}: no column {', '.join(missing)}; found {', '.join(rows[0])}")
    if not (folder / SLIDES).is_dir():
        raise DataError(f"{folder} lacks the folder {SLIDES}, which holds the slides")
    splits = _splits(folder / LISTS)
    slides = SlideFolder(folder, SLIDES)
    entries, failures = [], []
    for row in rows:
        patient = row[PATIENT]
        try:
            path = slides.find(patient)
        except DataError as error:
            failures.append((patient or "a row without patient", str(error)))
            continue
        label = row["Tumour Type"].lower()
        entries.append(slides.entry(patient, path, f"patient-{patient}", label, splits.get(patient), row))
    return Survey(entries, failures)


def _splits(folder: Path) -> dict[str, Split]:
    return {
        line.strip(): split
        for name, split in SPLITS.items()
        for line in read_text(folder / name).splitlines()
        if line.strip()
    }


def _ask(entry: Entry, _: Picture) -> Iterator[Asked | tuple[str, str]]:
    for exam in EXAMS:
        cell = entry.detail[exam.column].strip().lower()
        if cell in exam.options:
            yield Asked(
                what=exam.what,
                task=TaskKind.VQA,
                text=exam.text,
                answer=Choice(list(exam.options).index(cell)),
                options=tuple(exam.options.values()),
                suffix=f":{exam.what}",
            )
        elif cell not in ("", "nan", "na", "none") or exam.what != "grading":
            expected = ", ".join(exam.options)
            yield f":{exam.what}", f"{exam.column} is {cell or 'empty'!r}; expected one of {expected}"


bcnb = Adapter(
    name="bcnb",
    title="BCNB: core needle biopsies of early breast cancer",
    licence="non-commercial research (not verified)",
    use="research",
    source="Xu et al. 2021, https://bupt-ai-cz.github.io/BCNB/",
    layout="patient-clinical-data.xlsx, WSIs/<patient>.jpg and dataset-splitting/{train,val,test}_id.txt",
    scale=Scale.SLIDE,
    organ="breast",
    stain="H&E",
    counts={
        "grading": 926,
        "her2-expression: 0": 127,
        "her2-expression: 1+": 242,
        "her2-expression: 2+": 483,
        "her2-expression: 3+": 206,
        "her2-type: HER2 negative": 781,
        "her2-type: HER2 positive": 277,
        "tumor-type": 1058,
    },
    split_rule=rule_text("patient", official=True),
    traps=(
        "The grade is not stated for 132 of 1,058 patients; they are asked the other three questions only.",
        "SmartPath-R1 describes HER2 expression as positive or negative; the column of that name is the "
        "score "
        "0 to 3+, and the column HER2 is the status. The exams follow the columns.",
        "The slides are plain JPEG of up to 20,000 px a side without a stated scale: each is decoded "
        "whole, and no micrometres per pixel are known.",
        "How the table spells tumour types was not verified; another spelling is a failure that names it.",
        "HER2 is not seen on H&E with certainty: a ceiling below 1 is to be expected.",
    ),
    survey=_survey,
    ask=_ask,
    access="request form",
)
