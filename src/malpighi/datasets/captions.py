"""Data sets of captions: the pathology atlas."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from malpighi.datasets.adapter import Adapter, Asked, Entry, Picture, Survey, read_text
from malpighi.datasets.split import rule_text
from malpighi.errors import DataError
from malpighi.records import Choice, Scale, TaskKind, Text

MIN_PER_ORGAN = 8

_STAINS = {
    "betacatenine": "beta-catenin",
    "cerbb2": "HER2",
    "chr": "chromogranin",
    "congored": "Congo red",
    "crystalviolet": "crystal violet",
    "eber": "EBER",
    "ema": "EMA",
    "gfap": "GFAP",
    "giemsa": "Giemsa",
    "gms": "GMS",
    "he": "H&E",
    "ki67": "Ki-67",
    "mcea": "monoclonal CEA",
    "mgg": "May-Grünwald-Giemsa",
    "nfp": "neurofilament",
    "oskarck": "cytokeratin",
    "p40": "p40",
    "p63": "p63",
    "panck": "pan-cytokeratin",
    "pap": "Pap",
    "pas": "PAS",
    "pasab": "PAS-Alcian blue",
    "pasd": "PAS-diastase",
    "pr": "progesterone receptor",
    "syn": "synaptophysin",
    "trypsin": "trypsin",
    "warthinstarry": "Warthin-Starry",
}
_ORGANS = {"adrenal": "adrenal gland", "over": "ovary"}
_PLACEHOLDER = re.compile(r"[\w]+(-[\w]+)*-\d+")


def survey_atlas(folder: Path) -> Survey:
    """Survey of `captions.jsonl`: one record per screenshot, grouped by case (the first part of its address).

    Raises:
        DataError: the file is missing or unreadable.
    """
    entries: list[Entry] = []
    failures: list[tuple[str, str]] = []
    for number, line in enumerate(read_text(folder / "captions.jsonl").splitlines(), 1):
        if not line.strip():
            continue
        try:
            entries.append(_entry(folder, json.loads(line)))
        except (ValueError, DataError) as error:
            failures.append((f"captions.jsonl#{number}", f"not a usable record: {error}"))
    organs = Counter(entry.detail["organ"] for entry in entries if entry.detail["organ"])
    common = tuple(sorted(organ for organ, count in organs.items() if count >= MIN_PER_ORGAN))
    options = common if len(common) > 1 else ()
    return Survey([_with_options(entry, options) for entry in entries], failures)


def ask_atlas(entry: Entry, _: Picture) -> Iterator[Asked | tuple[str, str]]:
    """A caption where there is one, and the organ where enough images show it."""
    organ, stain, title = (entry.detail[name] for name in ("organ", "stain", "title"))
    options = entry.detail["options"]
    if not title:
        yield (":caption", "the caption is empty")
    elif _PLACEHOLDER.fullmatch(title):
        yield (":caption", f"the caption {title!r} is a file name")
    else:
        yield Asked(
            what="caption",
            task=TaskKind.CAPTION,
            text="Describe this image.",
            answer=Text(caption(title, organ, stain)),
            suffix=":caption",
            organ=organ,
            stain=stain,
        )
    if organ in options:
        yield Asked(
            what="organ",
            task=TaskKind.CLASSIFICATION,
            text="Which organ is this tissue from?",
            answer=Choice(options.index(organ)),
            options=options,
            suffix=":organ",
            organ=organ,
            stain=stain,
        )


def caption(title: str, organ: str, stain: str) -> str:
    """A title with what it does not say itself of organ and stain.

    Example:
        >>> caption("Melanosis coli", "colon", "PAS")
        'Melanosis coli, colon, PAS'
        >>> caption("Congo red in colon", "colon", "Congo red")
        'Congo red in colon'
    """
    more = [word for word in (organ, stain) if word and word.lower() not in title.lower()]
    return ", ".join([title, *more])


def _entry(folder: Path, record: Any) -> Entry:
    if not isinstance(record, dict):
        raise DataError("expected an object")
    name, image = (_word(record, key) for key in ("id", "image"))
    if not name or not image or ".." in PurePosixPath(image).parts or PurePosixPath(image).is_absolute():
        raise DataError(f"id {name!r}, image {image!r}; expected both, and a path below the folder")
    organ = _word(record, "organEN").lower()
    case = PurePosixPath(urlsplit(_word(record, "url")).path).parts
    detail = {
        "organ": _ORGANS.get(organ, organ),
        "stain": _STAINS.get(_word(record, "stain").rstrip("0123456789").lower())
        or _STAINS.get(_word(record, "stain").lower(), ""),
        "title": _word(record, "titleEN"),
    }
    return Entry(name, folder / image, case[1] if len(case) > 1 else name, detail=detail)


def _word(record: dict[str, Any], key: str) -> str:
    value = record.get(key)
    return value.strip() if isinstance(value, str) else ""


def _with_options(entry: Entry, options: tuple[str, ...]) -> Entry:
    organ = entry.detail["organ"]
    label = organ if organ in options else ""
    return replace(entry, label=label, detail={**entry.detail, "options": options})


pathology_atlas = Adapter(
    name="pathology_atlas",
    title="Patoloji Atlasi: whole-slide views with titles",
    licence="CC BY 4.0",
    use="any",
    source="https://github.com/patolojiatlasi/patolojiatlasi.github.io",
    layout="captions.jsonl and the images it names",
    scale=Scale.SLIDE,
    organ="",
    stain="",
    counts={
        "caption": 145,
        "organ: colon": 21,
        "organ: meninges": 8,
        "organ: pancreas": 9,
        "organ: stomach": 9,
    },
    split_rule=rule_text("case (first part of the address)"),
    traps=(
        "Captions are titles of slides: they name the disease, and do not describe what is seen.",
        "Screenshots show buttons of the viewer, and some a navigator inset in the upper right corner.",
        "Screenshots without a record are not read; error pages of the viewer are among them.",
        "Some captions say what this magnification cannot show.",
    ),
    survey=survey_atlas,
    ask=ask_atlas,
)
