"""Singpath-CytoText: cervical cells with structured descriptions, captions and categories, in Chinese.

`Singpath-CytoText.json` is a list of records `{"image_name", "structured description": {key: value},
"caption", "label"}` (the data set's card). Of each image three things are asked: its category, its caption in
Chinese as published, and its structured description in English, one `key: value` per line, by
`singpath_lexicon.yaml`.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from malpighi.datasets.adapter import Adapter, Asked, Entry, Picture, Survey
from malpighi.datasets.cells.lexicon import load_lexicon, shipped_lexicon
from malpighi.datasets.cells.singpath_records import CATEGORIES, label_of, survey_records
from malpighi.datasets.listing import root_of
from malpighi.datasets.split import rule_text
from malpighi.errors import DataError
from malpighi.records import Choice, Scale, TaskKind, Text

INDEX = "Singpath-CytoText.json"
LEXICON = "lexicon.yaml"
DESCRIPTION = "structured description"


def survey_cytotext(folder: Path) -> Survey:
    """Survey of the list and the images that it names, wherever below the folder they lie.

    Raises:
        DataError: no list, or a `lexicon.yaml` beside it that is none.
    """
    root = root_of(folder, "Singpath_CytoText", (INDEX,))
    own = root / LEXICON
    lexicon = load_lexicon(own) if own.is_file() else shipped_lexicon()

    def read(record: dict[str, Any]) -> dict[str, Any]:
        label = str(record.get("label", "")).strip()
        return {
            "record": record,
            "label": label if label in CATEGORIES else "",
            "lexicon": lexicon,
        }

    return survey_records(root, INDEX, read)


def ask_cytotext(entry: Entry, _: Picture) -> Iterator[Asked | tuple[str, str]]:
    """Category, caption and description; each that cannot be used is a failure of its own."""
    for part, ask in _PARTS.items():
        try:
            yield ask(entry.detail)
        except DataError as error:
            yield f":{part}", str(error)


def _class(detail: Mapping[str, Any]) -> Asked:
    return Asked(
        what="class",
        task=TaskKind.CLASSIFICATION,
        text="What is the Bethesda category of the cell in the box?",
        answer=Choice(CATEGORIES.index(label_of(detail["record"]))),
        options=CATEGORIES,
        suffix=":class",
    )


def _caption(detail: Mapping[str, Any]) -> Asked:
    caption = detail["record"].get("caption")
    if not isinstance(caption, str) or not caption.strip():
        raise DataError("the caption is empty or no text")
    question = "Describe the cell in the box, in Chinese."
    return Asked("caption", TaskKind.CAPTION, question, Text(caption.strip()), suffix=":caption")


def _description(detail: Mapping[str, Any]) -> Asked:
    found = detail["record"].get(DESCRIPTION)
    if (
        not isinstance(found, dict)
        or not found
        or not all(isinstance(value, str) for value in found.values())
    ):
        raise DataError(f"{DESCRIPTION!r}: expected an object of texts")
    lines = [f"{key}: {value}" for key, value in detail["lexicon"].english(found).items()]
    question = "Describe the cell in the box, one observation per line."
    return Asked("description", TaskKind.CAPTION, question, Text("\n".join(lines)), suffix=":description")


_PARTS = {"class": _class, "caption": _caption, "description": _description}

singpath_cytotext = Adapter(
    name="singpath_cytotext",
    title="Singpath-CytoText: cervical cells described in nine observations, in Chinese",
    licence="Apache-2.0",
    use="any",
    source="https://huggingface.co/datasets/zqiu96/Singpath_CytoText (Singpath-VL, arXiv:2602.09523)",
    layout=f"{INDEX} and the images it names, in any folder below",
    scale=Scale.CELL,
    organ="cervix",
    stain="Pap",
    counts={},
    split_rule=rule_text("slide (first part of the image's name)"),
    traps=(
        "Descriptions and captions were written by models (three annotators, a fusing model, an expert "
        "model), not by people; the label's origin is not stated.",
        "A box is drawn into each image around the cell that is meant; neighbours stay in sight.",
        "All text is Chinese. The lexicon knows the phrases of the data set's card and usual terms beside "
        "them; a description with another phrase is listed as a failure that names it. Add it to a "
        "lexicon.yaml beside the list.",
        "The nine keys are not the nine criteria of MorphoPercept-Bench: one key holds atypia, "
        "keratinisation and koilocytes together, and chromatin covers texture and darkness.",
        "That the first part of an image's name is the slide is read from the names, not stated.",
        "What is published is a part of the million records that the report speaks of.",
    ),
    survey=survey_cytotext,
    ask=ask_cytotext,
)
