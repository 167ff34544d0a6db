"""MedXpertQA MM: expert questions with five options and one or more images (Zuo et al. 2025).

Patho-R1 examines a subset of pathology that it does not publish; here every question is asked, and its facts
say task, body system and kind, so that a subset can be chosen and stated.
"""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from malpighi.datasets.adapter import Adapter, Asked, Entry, Survey
from malpighi.datasets.questions.groups import Groups
from malpighi.datasets.questions.options import choice_by_letter, read_options
from malpighi.datasets.questions.question_files import (
    ASKED,
    ask_prepared,
    folder_named,
    image_below,
    json_lines,
    needed,
    word,
)
from malpighi.errors import DataError
from malpighi.records import Scale, Split, TaskKind

_PARTS = {"test": Split.TEST, "dev": Split.VALIDATION}
_CHOICES = re.compile(r"\s*Answer Choices:\s*\(A\).*", re.DOTALL)
_FACTS = ("medical_task", "body_system", "question_type")


def survey_medxpertqa(folder: Path) -> Survey:
    """Survey of `MM/{test,dev}.jsonl`; questions that share an image are one group.

    Raises:
        DataError: the questions of the test part or the folder of images are missing.
    """
    tables = folder / "MM" if (folder / "MM").is_dir() else folder
    if not (tables / "test.jsonl").is_file():
        raise DataError(f"{folder}: no file MM/test.jsonl")
    images = folder_named(folder if (folder / "images").is_dir() else tables, "images")
    entries: list[Entry] = []
    failures: list[tuple[str, str]] = []
    groups = Groups()
    for part, split in _PARTS.items():
        path = tables / f"{part}.jsonl"
        for number, row in json_lines(path) if path.is_file() else ():
            name = f"{part}.jsonl#{number}"
            try:
                if isinstance(row, str):
                    raise DataError(row)
                name = word(row, "id") or name
                entries.append(_entry(name, row, images, split, groups))
            except DataError as error:
                failures.append((name, str(error)))
    return Survey([replace(entry, group=groups.root(entry.group)) for entry in entries], failures)


def _entry(name: str, row: dict[str, Any], images: Path, split: Split, groups: Groups) -> Entry:
    named = row.get("images")
    if not isinstance(named, list) or not named:
        raise DataError(f"images {named!r}; expected one or more")
    paths = [image_below(images, str(image).removeprefix("images/")) for image in named]
    asked = _asked(row)
    group = groups.join(f"question:{name}", *(f"image:{path.name}" for path in paths))
    return Entry(name, paths[0], group, split=split, detail={ASKED: asked}, more=tuple(paths[1:]))


def _asked(row: dict[str, Any]) -> Asked:
    options = read_options(row.get("options"))
    label = row.get("label")
    return Asked(
        what="question",
        task=TaskKind.VQA,
        text=_CHOICES.sub("", needed(row, "question")),
        answer=choice_by_letter(label[0] if isinstance(label, list) and len(label) == 1 else label, options),
        options=options,
        facts={name: text for name in _FACTS if (text := word(row, name))},
    )


medxpertqa_mm = Adapter(
    name="medxpertqa_mm",
    title="MedXpertQA MM: expert medical questions with images",
    licence="MIT (assumed for the images; not verified)",
    use="research",
    source="https://huggingface.co/datasets/TsinghuaC3I/MedXpertQA",
    layout="MM/test.jsonl, MM/dev.jsonl and images/<image> (from images.zip)",
    scale=Scale.ROI,
    organ="",
    stain="",
    counts={"question": 2005},
    split_rule="official: test is for testing, the five questions of dev for validation",
    traps=(
        "Questions of all of medicine, few of them pathology; Patho-R1 does not say which it takes.",
        "A question may have several images, shown in the order given.",
        "The question's text repeats the options under 'Answer Choices'; that part is taken off.",
        "Five options: a reader of answers that knows only A to D loses the E.",
    ),
    survey=survey_medxpertqa,
    ask=ask_prepared,
    repeats=True,
)
