"""Multiple-choice questions about whole slides, SlideBench-VQA (SlideChat); SmartPath-R1, Tables 40 to 42.

Its 13 tasks TCGA-VQA-<narrow class> are the exams `slidebench/<narrow class>`, in small letters and with
hyphens, e.g. `slidebench/biomarker-analysis`. The questions about BCNB are `slidebench/bcnb-<task>`;
SmartPath-R1 asks its own about BCNB, see `bcnb.py`.
"""

import csv
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from malpighi.config import digest
from malpighi.datasets.adapter import Adapter, Asked, Entry, Picture, Survey, read_text
from malpighi.datasets.whole_slides.slide_folder import SlideFolder, tcga_case
from malpighi.errors import DataError
from malpighi.records import Choice, Scale, Split, TaskKind

TCGA, BCNB = "SlideBench-VQA-TCGA.csv", "SlideBench-VQA-BCNB.csv"
LETTERS = "ABCD"
NARROW_CLASSES = (
    "Cytomorphological Characteristics",
    "Histopathological Changes",
    "Tissue Architecture and Arrangement",
    "Tumor Characteristics",
    "Differential Diagnosis",
    "Disease Classification",
    "Disease Detection",
    "Grading",
    "Staging",
    "Biomarker Analysis",
    "Prognostic Assessment",
    "Risk Factors",
    "Treatment Guidance",
)
# Where the class stands, by file: the first of these columns that is there.
_CLASS_COLUMNS = {TCGA: ("Narrow Category", "Narrow Class", "Task"), BCNB: ("Task",)}
_ORGANS = {
    "BLCA": "bladder",
    "BRCA": "breast",
    "COAD": "colon",
    "GBM": "brain",
    "HNSC": "head and neck",
    "LGG": "brain",
    "LUAD": "lung",
    "LUSC": "lung",
    "READ": "rectum",
    "SKCM": "skin",
}
_NAMES = {name.casefold(): name for name in NARROW_CLASSES} | {
    # SlideChat's own paper shortens one of the names.
    "tissue architecture": "Tissue Architecture and Arrangement",
    "risk factor": "Risk Factors",
}


def exam_of(narrow_class: str) -> str:
    """Second half of an exam's name.

    Example:
        >>> exam_of("Tissue Architecture and Arrangement")
        'tissue-architecture-and-arrangement'
    """
    return re.sub(r"[^a-z0-9]+", "-", narrow_class.casefold()).strip("-")


def _survey(folder: Path) -> Survey:
    """Either table may be missing, but not both; a slide is one entry, however much is asked about it."""
    tables = [name for name in (TCGA, BCNB) if (folder / name).is_file()]
    if not tables:
        raise DataError(f"{folder} holds neither {TCGA} nor {BCNB}")
    slides = SlideFolder(folder)
    entries, failures = [], []
    for table in tables:
        for slide, rows in _by_slide(folder / table).items():
            name = slide if table == TCGA else f"bcnb-{slide}"
            try:
                path = slides.find(slide)
                group = tcga_case(slide) if table == TCGA else f"patient-{slide}"
            except DataError as error:
                failures.append((name, f"{error} ({len(rows)} questions about it)"))
                continue
            detail = {"table": table, "rows": rows}
            entries.append(slides.entry(name, path, group, "", Split.TEST, detail))
    return Survey(entries, failures)


def _by_slide(path: Path) -> dict[str, list[dict[str, str]]]:
    reader = csv.DictReader(read_text(path).splitlines(keepends=True))
    columns = set(reader.fieldnames or ())
    missing = [name for name in ("Slide", "Question", "A", "B", "Answer") if name not in columns]
    if missing or not columns & set(_CLASS_COLUMNS[path.name]):
        wanted = missing or [_CLASS_COLUMNS[path.name][0]]
        raise DataError(f"{path}: no column {', '.join(wanted)}; found {reader.fieldnames}")
    found: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in reader:
        cells = {key: (value or "").strip() for key, value in row.items() if isinstance(key, str)}
        found[re.sub(r"\.(svs|csv|jpg)$", "", cells["Slide"])].append(cells)
    return found


def _ask(entry: Entry, _: Picture) -> Iterator[Asked | tuple[str, str]]:
    asked: set[str] = set()
    for row in entry.detail["rows"]:
        options = {letter: row.get(letter, "") for letter in LETTERS if row.get(letter, "")}
        suffix = f":{digest(row['Question'], list(options.values()))[:8]}"
        fault = _fault(row, options, entry.detail["table"])
        if suffix in asked:
            fault = "asks the same as an earlier row"
        asked.add(suffix)
        if fault:
            yield f"{suffix}:{row.get('ID', '') or 'row'}", fault
            continue
        yield Asked(
            what=_what(row, entry.detail["table"]),
            task=TaskKind.VQA,
            text=row["Question"],
            answer=Choice(list(options).index(row["Answer"].upper()[0])),
            options=tuple(options.values()),
            suffix=suffix,
            organ="breast" if entry.detail["table"] == BCNB else _ORGANS.get(row.get("Tumor", ""), ""),
        )


def _what(row: dict[str, str], table: str) -> str:
    name = next(row[column] for column in _CLASS_COLUMNS[table] if column in row)
    return f"bcnb-{exam_of(name)}" if table == BCNB else exam_of(_NAMES.get(name.casefold(), name))


def _fault(row: dict[str, str], options: dict[str, str], table: str) -> str:
    if not row["Question"] or len(options) < 2:
        return "no question, or fewer than two options"
    if len(set(options.values())) < len(options):
        return f"two options are the same: {', '.join(options.values())}"
    if row["Answer"][:1].upper() not in options:
        return f"answer {row['Answer']!r} is none of the options {', '.join(options)}"
    if table == TCGA and _what(row, table) not in map(exam_of, NARROW_CLASSES):
        return f"class {_what(row, table)!r}; expected one of {', '.join(NARROW_CLASSES)}"
    return ""


slidebench = Adapter(
    name="slidebench",
    title="SlideBench-VQA: questions about slides of TCGA and BCNB",
    licence="not stated (annotations); slides: NIH GDC open access, BCNB non-commercial",
    use="research",
    source="Chen et al. 2024 (SlideChat), https://huggingface.co/datasets/General-Medical-AI/SlideChat",
    layout=f"{TCGA}, {BCNB} or both, and the slides anywhere below, e.g. "
    "slides/TCGA-XX-XXXX-01Z-00-DX1.<uuid>.svs "
    "and bcnb/<patient>.jpg",
    scale=Scale.SLIDE,
    organ="",
    stain="H&E",
    counts={},
    split_rule="all test, as published; groups are cases (TCGA) and patients (BCNB)",
    traps=(
        "Questions and answers were written by a language model from reports; what a report says need not be "
        "seen on the slide.",
        "Published are 7,827 questions about TCGA and 7,274 about BCNB; the intervals of SmartPath-R1 "
        "imply 1,494 "
        "about TCGA, which ones is not published.",
        "Binary questions leave options C and D empty; empty options are not offered.",
        "Some classes hold a dozen questions of SmartPath-R1's: take Wilson's interval.",
        "SlideInstruct_train_stage1_caption.json and stage2_vqa.json, the training part (179,897 items for "
        "SmartPath-R1), are not read.",
        "The published features are no pixels; the slides come from GDC and BCNB.",
    ),
    survey=_survey,
    ask=_ask,
    access="open tables; slides from GDC and, on request, BCNB",
)
