"""ARCH: images of textbooks and of articles with their captions (Gamper and Rajpoot 2021).

`arch/books_set` and `arch/pubmed_set` are Patho-R1's retrieval set ARCH (Table 1), which does not say whether
it takes one or both. Images that share a caption have equal answers, so retrieval counts each of them as a
hit for it; they are also of one group.
"""

from pathlib import Path
from typing import Any

from malpighi.datasets.adapter import Adapter, Asked, Entry, Survey, image_files
from malpighi.datasets.questions.groups import Groups
from malpighi.datasets.questions.question_files import (
    ASKED,
    ask_prepared,
    folder_named,
    read_json,
    word,
)
from malpighi.errors import DataError
from malpighi.records import Scale, Split, TaskKind, Text

_SETS = ("books_set", "pubmed_set")


def survey_arch(folder: Path) -> Survey:
    """Survey of `books_set` and `pubmed_set`, or of the one that is there.

    Raises:
        DataError: neither is there, or a set lacks its captions or images.
    """
    root = folder / "ARCH" if (folder / "ARCH").is_dir() else folder
    present = [name for name in _SETS if (root / name).is_dir()]
    if not present:
        raise DataError(f"{folder}: no folder {' and no folder '.join(_SETS)}")
    entries: list[Entry] = []
    failures: list[tuple[str, str]] = []
    for name in present:
        found = _survey_set(root / name)
        entries.extend(found.entries)
        failures.extend(found.failures)
    failures.extend((name, f"no folder {name}") for name in _SETS if name not in present)
    return Survey(entries, failures)


def _survey_set(folder: Path) -> Survey:
    rows = read_json(folder / "captions.json")
    if not isinstance(rows, dict):
        raise DataError(f"{folder}/captions.json: expected an object of captions by number")
    images = {path.stem: path for path in image_files(folder_named(folder, "images")).values()}
    entries: list[Entry] = []
    failures: list[tuple[str, str]] = []
    groups = Groups()
    for key, row in rows.items():
        row = row if isinstance(row, dict) else {}
        uuid, caption = word(row, "uuid"), " ".join(word(row, "caption").split())
        name = f"{folder.name}/{uuid or key}"
        if not uuid or not caption:
            failures.append((name, "no uuid or an empty caption"))
        elif uuid not in images:
            failures.append((name, f"no image images/{uuid}"))
        else:
            figure = word(row, "figure_id")
            mine = f"{folder.name}/figure:{figure}" if figure else name
            group = groups.join(mine, f"{folder.name}/caption:{caption.casefold()}")
            entries.append(Entry(name, images[uuid], group, split=Split.TEST, detail=_detail(row, caption)))
    return Survey([_grouped(entry, groups) for entry in entries], failures)


def _detail(row: dict[str, Any], caption: str) -> dict[str, Any]:
    facts = {name: text for name in ("figure_id", "letter") if (text := word(row, name))}
    return {"facts": facts, "caption": caption}


def _grouped(entry: Entry, groups: Groups) -> Entry:
    asked = Asked(
        what=entry.name.partition("/")[0],
        task=TaskKind.CAPTION,
        text="Describe this image.",
        answer=Text(entry.detail["caption"]),
        facts=entry.detail["facts"],
    )
    group = groups.root(entry.group)
    return Entry(entry.name, entry.path, group, split=entry.split, detail={ASKED: asked})


arch = Adapter(
    name="arch",
    title="ARCH: images of pathology books and articles with captions",
    licence="CC BY-NC-SA 4.0",
    use="research",
    source="https://warwick.ac.uk/fac/cross_fac/tia/data/arch",
    layout="{books_set,pubmed_set}/captions.json and {books_set,pubmed_set}/images/<uuid>",
    scale=Scale.ROI,
    organ="",
    stain="",
    counts={"books_set": 4270, "pubmed_set": 3309},
    split_rule="none is published; all of it is for testing, as Patho-R1 uses it",
    traps=(
        "35 captions of books_set have no image.",
        "601 of the 3,321 figures of books_set have several images, many under one caption: every image of a "
        "caption is a right find for it.",
        "books_set is the image source of PathMMU-Atlas: a model trained on that has seen it.",
        "Patho-R1 does not say whether its pool is books_set, pubmed_set or both.",
        "Panel letters in captions point at other images of the figure.",
    ),
    survey=survey_arch,
    ask=ask_prepared,
)
