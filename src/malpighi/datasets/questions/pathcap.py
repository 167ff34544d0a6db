"""PathCap and PathInstruct: captions and conversations (Sun et al. 2024).

SmartPath-R1 trains on both (Table 45). The layouts are assumed: they follow the descriptions of the releases
and were not seen.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from malpighi.datasets.adapter import Adapter, Asked, Entry, Picture, Survey
from malpighi.datasets.questions.question_files import (
    folder_named,
    image_below,
    needed,
    read_rows,
    word,
)
from malpighi.errors import DataError
from malpighi.records import Scale, Split, TaskKind, Text, Turn

_IMAGE_MARK = re.compile(r"\s*<image>\s*")
_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}


def survey_pathcap(folder: Path) -> Survey:
    """Survey of the JSON lists in the folder and of `images`.

    Raises:
        DataError: images or lists are missing.
    """
    entries: list[Entry] = []
    failures: list[tuple[str, str]] = []
    images = folder_named(folder, "images")
    for name, row in _rows(folder):
        try:
            image = needed(row, "image", "image_path", "file_name")
            caption = " ".join(needed(row, "caption", "text").split())
            path = image_below(images, image.removeprefix("images/"))
            entries.append(Entry(name, path, path.stem, split=Split.TRAIN, detail={"caption": caption}))
        except DataError as error:
            failures.append((name, str(error)))
    return Survey(entries, failures)


def ask_caption(entry: Entry, _: Picture) -> Iterator[Asked]:
    """The caption."""
    answer = Text(entry.detail["caption"])
    yield Asked("caption", TaskKind.CAPTION, "Describe this image.", answer)


def survey_pathinstruct(folder: Path) -> Survey:
    """Survey of the JSON lists of conversations in the folder and of `images`.

    Raises:
        DataError: images or lists are missing.
    """
    entries: list[Entry] = []
    failures: list[tuple[str, str]] = []
    images = folder_named(folder, "images")
    for name, row in _rows(folder):
        try:
            image = needed(row, "image").removeprefix("images/")
            path = image_below(images, image)
            turns = _turns(row.get("conversations"))
            entries.append(Entry(name, path, path.stem, split=Split.TRAIN, detail={"turns": turns}))
        except DataError as error:
            failures.append((name, str(error)))
    return Survey(entries, failures)


def ask_conversation(entry: Entry, _: Picture) -> Iterator[Asked]:
    """Every answer of a conversation in its turn, with what was said before."""
    turns = entry.detail["turns"]
    for place in range(0, len(turns), 2):
        yield Asked(
            what="conversation",
            task=TaskKind.CONVERSATION,
            text=turns[place].text,
            answer=Text(turns[place + 1].text),
            suffix=f":{place // 2}",
            before=turns[:place],
        )


def _rows(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    files = sorted(path for path in folder.glob("*.json") if not path.name.startswith("."))
    if not files:
        raise DataError(f"{folder}: no JSON list, e.g. {folder.name}.json")
    for path in files:
        for place, row in enumerate(read_rows(path)):
            yield word(row, "id") or f"{path.stem}#{place}", row


def _turns(said: Any) -> tuple[Turn, ...]:
    if not isinstance(said, list) or not said or not all(isinstance(one, dict) for one in said):
        raise DataError("no conversations")
    turns = tuple(
        Turn(
            _ROLES.get(word(one, "from", "role"), "?"),
            _IMAGE_MARK.sub("\n", word(one, "value", "content")).strip(),
        )
        for one in said
    )
    roles = [turn.role for turn in turns]
    if len(turns) % 2 or roles != ["user", "assistant"] * (len(turns) // 2):
        raise DataError(f"turns by {', '.join(roles)}; expected user and assistant by turns")
    if not all(turn.text for turn in turns):
        raise DataError("an empty turn")
    return turns


_ASSUMED = "The layout is assumed from the description of the release: check the first items by eye."

pathcap = Adapter(
    name="pathcap",
    title="PathCap: captions of figures in articles and of cytology",
    licence="CC BY-NC 2.0",
    use="research",
    source="https://huggingface.co/datasets/jamessyx/PathCap",
    layout="images/<image> and JSON lists of {image, caption}",
    scale=Scale.ROI,
    organ="",
    stain="",
    counts={"caption": 207000},
    split_rule="all of it is for training",
    traps=(
        _ASSUMED,
        "207,000 is rounded, as printed.",
        "The loader of the dataset's page gives images without captions.",
        "Its figures are from articles, as are ARCH's pubmed_set and PathMMU-PubMed: check for overlap.",
    ),
    survey=survey_pathcap,
    ask=ask_caption,
    access="gated: accept the terms on the dataset's page",
)

pathinstruct = Adapter(
    name="pathinstruct",
    title="PathInstruct: conversations about pathology images",
    licence="not verified",
    use="research",
    source="https://huggingface.co/datasets/jamessyx/PathInstruct",
    layout="images/<image> and JSON lists of {image, conversations}",
    scale=Scale.ROI,
    organ="",
    stain="",
    counts={"conversation": 180000},
    split_rule="all of it is for training",
    traps=(
        _ASSUMED,
        "Only the part from PubMed is public, so fewer than the printed 180,000 will be found.",
        "Its images are those of PathCap; put them, or a link to them, into images.",
    ),
    survey=survey_pathinstruct,
    ask=ask_conversation,
    repeats=True,
)
