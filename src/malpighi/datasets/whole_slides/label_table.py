"""Slides named by a table of labels: `labels.csv` with the columns dir, case_id, slide_id and label."""

from collections.abc import Callable, Mapping
from pathlib import Path

from malpighi.datasets.adapter import Entry, Survey
from malpighi.datasets.class_folders import read_index
from malpighi.datasets.whole_slides.slide_folder import SlideFolder
from malpighi.errors import DataError

TABLE = "labels.csv"
COLUMNS = ("dir", "case_id", "slide_id", "label")


def survey_labels(classes: Mapping[str, str]) -> Callable[[Path], Survey]:
    """Survey of slides by `labels.csv`.

    `slide_id` is the file's name without its ending, or a TCGA barcode; `dir` a folder on its path, looked at
    only where several files have the name; `label` a code or a readable name, capitals do not count;
    `case_id` is the group.

    Args:
        classes: code to readable name.
    """
    codes = {text.casefold(): code for code, name in classes.items() for text in (code, name)}

    def survey(folder: Path) -> Survey:
        rows = read_index(folder / TABLE, COLUMNS)
        slides = SlideFolder(folder)
        entries, failures = [], []
        for row in rows:
            try:
                entries.append(_entry(slides, row, codes))
            except DataError as error:
                failures.append((row["slide_id"] or "a row without slide_id", str(error)))
        return Survey(entries, failures)

    return survey


def _entry(slides: SlideFolder, row: dict[str, str], codes: Mapping[str, str]) -> Entry:
    code = codes.get(row["label"].casefold())
    if code is None:
        raise DataError(f"label {row['label']!r}; expected one of {', '.join(dict.fromkeys(codes.values()))}")
    if not row["case_id"] or not row["slide_id"]:
        raise DataError("no case_id or slide_id; without them no split is safe")
    path = slides.find(row["slide_id"], row["dir"])
    return slides.entry(row["slide_id"], path, row["case_id"], code)
