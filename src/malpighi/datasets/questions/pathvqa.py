"""PathVQA: questions on figures of pathology textbooks (He et al. 2020), yes-or-no and open.

The exams `pathvqa/closed` and `pathvqa/open` are the papers' PathVQA (SmartPath-R1, Table 32; Patho-R1,
Table 4).
"""

import hashlib
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from malpighi.datasets.adapter import (
    Adapter,
    Asked,
    Entry,
    Picture,
    Survey,
    read_bytes,
)
from malpighi.datasets.questions.options import YES_NO, yes_no
from malpighi.datasets.questions.parquet_rows import IMAGE, RowImages, bytes_of, rows
from malpighi.datasets.questions.question_files import (
    ASKED,
    ask_prepared,
    folder_named,
    image_below,
    needed,
    one_reading,
)
from malpighi.errors import DataError
from malpighi.records import Scale, Split, TaskKind, Text

_PARQUET = {"train": Split.TRAIN, "validation": Split.VALIDATION, "test": Split.TEST}
_PICKLES = {"train": Split.TRAIN, "val": Split.VALIDATION, "test": Split.TEST}


def survey_pathvqa(folder: Path) -> Survey:
    """Survey of the Parquet release, or where there is none of the first release in `pvqa`.

    A question's group is its image by content, whatever its file or row.

    Raises:
        DataError: neither is there, or a file cannot be read.
    """
    files = sorted(path for path in folder.rglob("*.parquet") if not path.name.startswith("."))
    if files:
        found = _Found()
        images = RowImages()
        for path in files:
            _survey_parquet(path, found, images)
    else:
        if not (folder / "pvqa").is_dir() and not (folder / "qas").is_dir():
            raise DataError(f"{folder}: no folder pvqa and no Parquet file; expected one of the two releases")
        found = _survey_pickles(folder / "pvqa" if (folder / "pvqa").is_dir() else folder)
    # Questions about one image follow one another, so that it is read once.
    first = {entry.group: place for place, entry in reversed(list(enumerate(found.entries)))}
    return Survey(sorted(found.entries, key=lambda entry: first[entry.group]), found.failures)


class _Found:
    """What was found so far."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.failures: list[tuple[str, str]] = []
        self.images: dict[str, Callable[[], Picture]] = {}

    def add(self, entry: Entry, load: Callable[[], Picture]) -> None:
        """A question; its image is read from where it was met first."""
        load = self.images.setdefault(entry.group, load)
        self.entries.append(
            Entry(entry.name, entry.path, entry.group, split=entry.split, detail=entry.detail, load=load)
        )


def _survey_parquet(path: Path, found: _Found, images: RowImages) -> None:
    part = path.name.partition("-")[0].removesuffix(".parquet")
    if part not in _PARQUET:
        found.failures.append((path.name, f"of no known part; expected names from {', '.join(_PARQUET)}"))
        return
    for place, row in rows(path, (IMAGE, "question", "answer")):
        name = f"{path.stem}/{place.group}-{place.row}"
        try:
            if isinstance(row, str):
                raise DataError(row)
            group = _content(bytes_of(row[IMAGE]))
            entry = Entry(name, path, group, split=_PARQUET[part], detail={ASKED: asked_of(row)})
            found.add(entry, images.loader(place))
        except DataError as error:
            found.failures.append((name, str(error)))


def _survey_pickles(root: Path) -> _Found:
    found = _Found()
    for part in _PICKLES:
        path = folder_named(root, "qas") / part / f"{part}_qa.pkl"
        folder = folder_named(root, "images")
        folder_named(folder, part)
        loader, known = one_reading(), dict[str, str]()
        for place, row in enumerate(_unpickled(path)):
            name = f"{part}/{place}"
            try:
                image = f"{part}/{needed(row, 'image')}"
                file = image_below(folder, image if Path(image).suffix == ".jpg" else f"{image}.jpg")
                group = known.get(image) or known.setdefault(image, _content(read_bytes(file)))
                entry = Entry(name, file, group, split=_PICKLES[part], detail={ASKED: asked_of(row)})
                found.add(entry, loader(file))
            except DataError as error:
                found.failures.append((name, str(error)))
    return found


def asked_of(row: dict[str, Any]) -> Asked:
    """The question of a row, closed where the answer is yes or no.

    Raises:
        DataError: no question or no answer.
    """
    text, answer = needed(row, "question"), needed(row, "answer")
    if answer.lower() in YES_NO:
        return Asked("closed", TaskKind.VQA, text, yes_no(answer), YES_NO)
    return Asked("open", TaskKind.VQA, text, Text(answer))


def _content(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


class _PlainUnpickler(pickle.Unpickler):
    """Reads lists, dicts, texts and numbers; a pickle that names any class or function is refused unread."""

    def find_class(self, module: str, name: str, /) -> Any:
        """Refuse.

        Raises:
            DataError: always.
        """
        raise DataError(f"it asks for {module}.{name}, which could run a program; expected only plain values")


def _unpickled(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        raise DataError(f"no file {path}")
    try:
        with path.open("rb") as file:
            tree = _PlainUnpickler(file).load()
    except DataError as error:
        raise DataError(f"{path} is not opened: {error}") from error
    except Exception as error:  # on damaged bytes the unpickler may raise nearly anything
        raise DataError(f"{path} is no readable pickle: {error}") from error
    if not isinstance(tree, list) or not all(isinstance(row, dict) for row in tree):
        raise DataError(f"{path}: expected a list of questions")
    yield from tree


pathvqa = Adapter(
    name="pathvqa",
    title="PathVQA: yes-or-no and open questions on textbook figures",
    licence="MIT on the dataset's page; not verified, the figures are from textbooks",
    use="research",
    source="https://huggingface.co/datasets/flaviagiammarino/path-vqa (first release: "
    "https://github.com/UCSD-AI4H/PathVQA)",
    layout="data/{train,validation,test}-*.parquet; or pvqa/images/<part>/*.jpg and "
    "pvqa/qas/<part>/<part>_qa.pkl",
    scale=Scale.ROI,
    organ="",
    stain="",
    counts={"train": 19654, "validation": 6259, "test": 6719},
    split_rule="the official parts; an image of several goes with all its questions to the last of them",
    traps=(
        "Two releases: the counts are those of the de-duplicated one (Parquet), which SmartPath-R1's numbers "
        "follow; the first one has 19,755, 6,279 and 6,761 questions.",
        "The closed questions of the test part are 3,362.",
        "Median open answers have one or two words, so BLEU-4 without effective order is 0 for a right one.",
        "Many figures are gross photographs, drawings or several panels; some are CMYK and are shown as RGB.",
        "Questions were made from captions by rule: some cannot be answered from the image.",
    ),
    survey=survey_pathvqa,
    ask=ask_prepared,
    repeats=True,
)
