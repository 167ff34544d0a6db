"""OmniMedVQA: questions with options from 73 medical data sets (Hu et al. 2024); its microscopy is our exam.

Patho-R1 does not state its filter; `modality_type` equal to `Microscopy Images` is the natural one and makes
the exam `omnimedvqa/microscopy`. Other modalities are not read.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from malpighi.datasets.adapter import Adapter, Asked, Entry, Survey
from malpighi.datasets.questions.options import read_options
from malpighi.datasets.questions.question_files import (
    ASKED,
    ask_prepared,
    folder_named,
    image_below,
    needed,
    one_reading,
    read_rows,
    word,
)
from malpighi.errors import DataError
from malpighi.records import Choice, Scale, Split, TaskKind

MODALITY = "Microscopy Images"
_LETTERS = ("A", "B", "C", "D")


def survey_omnimedvqa(folder: Path) -> Survey:
    """Survey of `QA_information/*/*.json`; only rows of microscopy.

    Raises:
        DataError: the folder of questions or of images is missing.
    """
    root = folder / "OmniMedVQA" if (folder / "OmniMedVQA").is_dir() else folder
    tables, images = folder_named(root, "QA_information"), folder_named(root, "Images")
    entries: list[Entry] = []
    failures: list[tuple[str, str]] = []
    loader = one_reading()
    for name, row in _rows(tables):
        try:
            if isinstance(row, str):
                raise DataError(row)
            image = needed(row, "image_path").removeprefix("Images/")
            path = image_below(images, image)
            detail = {ASKED: _asked(row)}
            entries.append(Entry(name, path, image, split=Split.TEST, detail=detail, load=loader(path)))
        except DataError as error:
            failures.append((name, str(error)))
    return Survey(sorted(entries, key=lambda entry: entry.group), failures)


def _rows(tables: Path) -> Iterator[tuple[str, dict[str, Any] | str]]:
    for path in sorted(tables.rglob("*.json")):
        if path.name.startswith("."):
            continue
        try:
            found = read_rows(path)
        except DataError as error:
            yield path.stem, str(error)
            continue
        for place, row in enumerate(found):
            if word(row, "modality_type", "modality").casefold() == MODALITY.casefold():
                yield word(row, "question_id") or f"{path.stem}#{place}", row


def _asked(row: dict[str, Any]) -> Asked:
    texts = [word(row, f"option_{letter}") for letter in _LETTERS]
    options = read_options([text for text in texts if text])
    answer = needed(row, "gt_answer").casefold()
    folded = [option.casefold() for option in options]
    if answer not in folded:
        raise DataError(f"gt_answer {answer!r} is none of the options {', '.join(options)}")
    return Asked(
        what="microscopy",
        task=TaskKind.VQA,
        text=needed(row, "question"),
        answer=Choice(folded.index(answer)),
        options=options,
        facts={name: text for name in ("dataset", "question_type") if (text := word(row, name))},
    )


omnimedvqa = Adapter(
    name="omnimedvqa",
    title="OmniMedVQA, microscopy: questions with options from many data sets",
    licence="that of each source; not verified",
    use="research",
    source="https://huggingface.co/datasets/foreverbeliever/OmniMedVQA",
    layout="OmniMedVQA/Images and OmniMedVQA/QA_information/{Open-access,Restricted-access}/*.json",
    scale=Scale.ROI,
    organ="",
    stain="",
    counts={},
    split_rule="official: all of it is for testing",
    traps=(
        "Only microscopy is read; how many questions that are is not published, so nothing is expected.",
        "The right answer is given as text, not as a letter; rows have two to four options.",
        "One file calls the modality `modality` and not `modality_type`.",
        "Microscopy includes blood films and cell cultures; Patho-R1 does not say which questions it takes.",
        "Images come from public data sets that models may have been trained on.",
    ),
    survey=survey_omnimedvqa,
    ask=ask_prepared,
    access="open and restricted parts",
    repeats=True,
)
