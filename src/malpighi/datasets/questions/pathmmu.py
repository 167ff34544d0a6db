"""PathMMU: pathology questions with options from five sources (Sun et al. 2024).

Every source and part is an exam, e.g. `pathmmu/Atlas-test_tiny`. SmartPath-R1 (Table 32) examines `val` and
`test_tiny` of all but SocialPath and trains on their `test`; Patho-R1 (Table 3) examines all parts of all.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from malpighi.datasets.adapter import Adapter, Asked, Entry, Survey
from malpighi.datasets.questions.options import choice_of, read_options
from malpighi.datasets.questions.question_files import (
    ASKED,
    ask_prepared,
    folder_named,
    image_below,
    needed,
    one_reading,
    read_json,
    word,
)
from malpighi.errors import DataError
from malpighi.records import Scale, Split, TaskKind

_PARTS = {"val": Split.TEST, "test_tiny": Split.TEST, "test": Split.TEST, "train": Split.TRAIN}
_ELSEWHERE = {
    "Atlas": "Atlas is not in images.zip: put ARCH's books_set here, or the data set arch beside it",
    "PathCLS": "PathCLS is not in images.zip: construct_pathcls.py makes it from its source data sets",
    "SocialPath": "SocialPath is not in images.zip: socialpath_mapping.json names the posts; some are gone",
}


def survey_pathmmu(folder: Path) -> Survey:
    """Survey of `data.json` and `images`; questions about one image follow one another.

    Raises:
        DataError: one of the two is missing or unreadable.
    """
    folder_named(folder, "images")
    entries: list[Entry] = []
    failures: list[tuple[str, str]] = []
    loader = one_reading()
    for exam, name, row in _rows(read_json(folder / "data.json"), folder / "data.json"):
        try:
            if isinstance(row, str):
                raise DataError(row)
            path = _image(folder, row, exam.partition("-")[0])
            entries.append(
                Entry(
                    f"{exam}/{name}",
                    path,
                    group=word(row, "source_img", "img"),
                    label=exam,
                    split=_PARTS[exam.partition("-")[2]],
                    detail={ASKED: _asked(exam, row)},
                    load=loader(path),
                )
            )
        except DataError as error:
            failures.append((f"{exam}/{name}" if name else exam, str(error)))
    return Survey(sorted(entries, key=lambda entry: str(entry.path)), failures)


def _rows(tree: Any, path: Path) -> Iterator[tuple[str, str, dict[str, Any] | str]]:
    if not isinstance(tree, dict) or not tree:
        raise DataError(f"{path}: expected an object of sources, each with {', '.join(_PARTS)}")
    for source, parts in tree.items():
        for part, rows in parts.items() if isinstance(parts, dict) else ():
            exam = f"{source}-{part}"
            if part not in _PARTS or not isinstance(rows, list):
                yield exam, "", f"an unknown part; expected lists under {', '.join(_PARTS)}"
                continue
            for place, row in enumerate(rows, 1):
                usable = isinstance(row, dict)
                yield exam, (word(row, "No") if usable else "") or str(place), row if usable else "no object"


def _image(folder: Path, row: dict[str, Any], source: str) -> Path:
    """The image of a question: in `images`, or for Atlas where `source_img` leads to in ARCH's books_set."""
    name, origin = needed(row, "img"), word(row, "source_img")
    try:
        return image_below(folder / "images", name)
    except DataError as error:
        for root in (folder, folder / "arch", folder.parent / "arch"):
            with suppress(DataError):
                return image_below(root, origin)
        raise DataError("; ".join(filter(None, (str(error), _ELSEWHERE.get(source))))) from error


def _asked(exam: str, row: dict[str, Any]) -> Asked:
    options = read_options(row.get("options"))
    return Asked(
        what=exam,
        task=TaskKind.VQA,
        text=needed(row, "question"),
        answer=choice_of(needed(row, "answer"), options),
        options=options,
        facts={name: text for name in ("explanation", "source_img") if (text := word(row, name))},
    )


pathmmu = Adapter(
    name="pathmmu",
    title="PathMMU: questions with options about pathology images",
    licence="CC BY-ND 4.0; images of Atlas from ARCH, CC BY-NC-SA 4.0",
    use="research",
    source="https://huggingface.co/datasets/jamessyx/PathMMU",
    layout="data.json, images/<image>, and for Atlas ARCH's books_set/images/<image>",
    scale=Scale.ROI,
    organ="",
    stain="",
    counts={
        f"{source}-{part}": number
        for source, numbers in {
            "Atlas": (80, 208, 799),
            "EduContent": (146, 255, 1683),
            "PathCLS": (96, 177, 1632),
            "PubMed": (233, 281, 2787),
            "SocialPath": (155, 235, 1620),
        }.items()
        for part, number in zip(("val", "test_tiny", "test"), numbers, strict=True)
    },
    split_rule="official: val, test_tiny and test are exams of their own, all for testing",
    traps=(
        "SmartPath-R1 trains on the part test and examines val and test_tiny: its numbers cannot be set "
        "beside those of Patho-R1, which examines test.",
        "Questions of test_tiny and test may be about one image (1.34 questions per image): who trains on "
        "test must leave out the groups of test_tiny and val.",
        "images.zip holds EduContent and PubMed only; Atlas is ARCH's books_set, PathCLS is made from "
        "other data sets, SocialPath must be fetched post by post and is never complete: Patho-R1 had 150, "
        "218 and 1,553 of its 155, 235 and 1,620 questions.",
        "PathCLS is cut from SICAPv2, LC25000, WSSS4LUAD, BACH and others: it overlaps with exams of those.",
        "Questions have two to six options, so chance is not the same for all.",
        "The published evaluator draws a random option where it can read no answer; here it is wrong.",
    ),
    survey=survey_pathmmu,
    ask=ask_prepared,
    access="gated: accept the terms on the dataset's page",
    repeats=True,
)
