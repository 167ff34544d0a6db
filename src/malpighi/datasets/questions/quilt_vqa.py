"""Quilt-VQA: questions that narrators of histopathology videos ask (Seyfioglu et al. 2024), closed and open.

`quilt_vqa/closed` is the part of Patho-R1's yes-or-no exam (343 of its 3,705) that is not PathVQA.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from malpighi.datasets.adapter import Adapter, Asked, Entry, Picture, Survey
from malpighi.datasets.questions.options import YES_NO, yes_no
from malpighi.datasets.questions.parquet_rows import IMAGE, RowImages, rows
from malpighi.datasets.questions.question_files import (
    ASKED,
    ask_prepared,
    image_below,
    needed,
    one_reading,
    read_rows,
    word,
)
from malpighi.datasets.questions.quilt1m import source_of
from malpighi.errors import DataError
from malpighi.records import Scale, Split, TaskKind, Text

_INDEX = "quiltvqa_test_w_ans.json"
_FOLDERS = ("quilt_vqa/images", "quilt_vqa", "images")
_IMAGE_FIELDS = ("image", "image_name", "img")


def survey_quilt_vqa(folder: Path) -> Survey:
    """Survey of the questions in JSON; images from the unpacked archive, else out of the Parquet file.

    A Parquet row holds an image and one of its questions, so it tells which image name its bytes belong to.
    A group is a video, where the image's name tells it.

    Raises:
        DataError: the questions are missing, or neither images nor Parquet are there.
    """
    index = read_rows(folder / _INDEX)
    images = next((folder / name for name in _FOLDERS if (folder / name).is_dir()), None)
    stored = {} if images else _stored(folder, index)
    entries: list[Entry] = []
    failures: list[tuple[str, str]] = []
    loader = one_reading()
    for place, row in sorted(enumerate(index), key=lambda numbered: word(numbered[1], *_IMAGE_FIELDS)):
        try:
            image = needed(row, *_IMAGE_FIELDS)
            if not images and image not in stored:
                raise DataError(f"no image {image}: no Parquet row has a question about it")
            path = image_below(images, image) if images else stored[image].path
            load = loader(path) if images else stored[image].load
            detail = {ASKED: asked_of(row)}
            group = source_of(image)
            entries.append(Entry(str(place), path, group, split=Split.TEST, detail=detail, load=load))
        except DataError as error:
            failures.append((str(place), str(error)))
    return Survey(entries, failures)


class _Stored(NamedTuple):
    """An image in a Parquet file."""

    path: Path
    load: Callable[[], Picture]


def _stored(folder: Path, index: list[dict[str, Any]]) -> dict[str, _Stored]:
    """The images by the names that the questions give them."""
    files = sorted((folder / "data").glob("*.parquet"))
    if not files:
        raise DataError(f"{folder}: no folder {_FOLDERS[0]}, and no Parquet file in data")
    names = {_key(row): word(row, *_IMAGE_FIELDS) for row in index}
    reader, found = RowImages(), dict[str, _Stored]()
    for path in files:
        for place, row in rows(path, (IMAGE, "question", "answer")):
            name = names.get(_key(row)) if isinstance(row, dict) else None
            if name:
                found.setdefault(name, _Stored(path, reader.loader(place)))
    return found


def _key(row: Mapping[str, Any]) -> tuple[str, str]:
    question, answer = (" ".join(str(row.get(name, "")).split()) for name in ("question", "answer"))
    return (question, answer)


def asked_of(row: Mapping[str, Any]) -> Asked:
    """The question of a row; a closed one by its `yes_no_answer`, as its answer is a sentence.

    Raises:
        DataError: an unknown kind of answer, or a field missing.
    """
    kind, text, answer = needed(row, "answer_type"), needed(row, "question", "text"), needed(row, "answer")
    facts = {"sentence": answer}
    if kind.upper() == "CLOSED":
        return Asked("closed", TaskKind.VQA, text, yes_no(row.get("yes_no_answer")), YES_NO, facts=facts)
    if kind.upper() == "OPEN":
        return Asked("open", TaskKind.VQA, text, Text(answer))
    raise DataError(f"answer_type {kind!r}; expected OPEN or CLOSED")


quilt_vqa = Adapter(
    name="quilt_vqa",
    title="Quilt-VQA: yes-or-no and open questions from narrated videos",
    licence="CC BY-NC-ND 3.0",
    use="research",
    source="https://huggingface.co/datasets/wisdomik/Quilt_VQA",
    layout=f"{_INDEX}, and quilt_vqa/images (from quilt_vqa.zip) or data/train-*.parquet",
    scale=Scale.ROI,
    organ="",
    stain="",
    counts={"closed": 343, "open": 940},
    split_rule="official: all of it is for testing, although the Parquet part is called train",
    traps=(
        "The Parquet file has 985 of the 1,283 questions, one per image; closed ones need the JSON file.",
        "Closed answers are sentences (median 13 words): yes or no is read from yes_no_answer alone.",
        "The published script cuts answers to the length of an anchor and takes all that is not no for yes.",
        "Images are frames of videos: pointers, circles and captions may be in them.",
        "The field that names a question's image was not seen in the file itself (image is assumed).",
    ),
    survey=survey_quilt_vqa,
    ask=ask_prepared,
    access="gated: accept the terms on the dataset's page",
    repeats=True,
)
