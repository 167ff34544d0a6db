"""The nouns of this room: what an adapter is, and what it knows of a file before and after reading it."""

import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from msgspec import structs

from malpighi.corpus import blob_of, decode_image
from malpighi.datasets.split import Member, SplitPlan, assign
from malpighi.errors import DataError
from malpighi.records import (
    Answer,
    Blob,
    Failure,
    ImageRef,
    Item,
    Provenance,
    Sample,
    Scale,
    Split,
    TaskKind,
    Turn,
)

STAGE = "data"
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp"})


class Picture(NamedTuple):
    """An image that was read and found whole; no blob for a slide, of which nothing is stored."""

    ref: ImageRef
    blob: Blob | None


@dataclass(frozen=True)
class Entry:
    """An image of a data set, as known from file names and indexes alone.

    Attributes:
        name: id below the data set's name.
        path: the image file, or the file that holds the image.
        group: what may never straddle a split.
        label: what the split is balanced over.
        split: from official lists; None until a rule is applied.
        detail: what else the layout's reader needs.
        more: further image files that the same questions are about, in order.
        load: reads the image where it is not a file of its own but a slide, a row of an array or of a table;
            raises DataError.
    """

    name: str
    path: Path
    group: str
    label: str = ""
    split: Split | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)
    more: tuple[Path, ...] = ()
    load: Callable[[], Picture] | None = None


class Survey(NamedTuple):
    """What a folder holds, before any image is read; `failures` are (name, reason)."""

    entries: list[Entry]
    failures: list[tuple[str, str]]


@dataclass(frozen=True)
class Asked:
    """One question about an image, and its right answer.

    Attributes:
        what: second half of the exam's name.
        task: what is asked.
        text: the question alone; options and the form of the answer are added where the prompt is built.
        answer: the right answer.
        options: names to choose from.
        suffix: ends the sample's id where an image has several questions, e.g. `:WBC`.
        blobs: further bytes, e.g. a mask.
        organ: where it differs from the adapter's.
        stain: as `organ`.
        facts: named true statements about the sample, e.g. the question's source.
        before: what was said before the question, where it is one of a conversation.
    """

    what: str
    task: TaskKind
    text: str
    answer: Answer
    options: tuple[str, ...] = ()
    suffix: str = ""
    blobs: tuple[Blob, ...] = ()
    organ: str = ""
    stain: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    before: tuple[Turn, ...] = ()


@dataclass(frozen=True)
class Adapter:
    """A public data set: how it lies on disk, and what a user must know of it.

    Attributes:
        name: of the folder, the ids and the exams.
        title: in words.
        licence: as the source states it.
        use: `any`, or `research` where the licence allows no more or is not explicit.
        source: where it comes from.
        layout: files and folders that are expected, for messages.
        scale: how much of a slide an image shows.
        organ: "" where it varies.
        stain: as `organ`.
        counts: expected number of items per class, boxes per kind, exam or split; see `check.py`.
        split_rule: in words.
        traps: known faults and shortcuts, for the report.
        survey: lists a folder; raises DataError where index or folders are missing.
        ask: the questions about one image; raises DataError where the image cannot be used.
        version: raised when the records that this adapter makes change.
        access: how one gets it: `open`, or what must be asked for first.
        repeats: whether entries of the same bytes are kept, because each asks something else of its image;
            the group must then hold them together.
        window: side of the windows that large images are best cut into (`windows.py`), px; 0 for none.
    """

    name: str
    title: str
    licence: str
    use: str
    source: str
    layout: str
    scale: Scale
    organ: str
    stain: str
    counts: Mapping[str, int]
    split_rule: str
    traps: tuple[str, ...]
    survey: Callable[[Path], Survey]
    ask: Callable[[Entry, Picture], Iterator[Asked | tuple[str, str]]]
    version: int = 1
    access: str = "open"
    repeats: bool = False
    window: int = 0

    def read(
        self,
        folder: str | Path,
        plan: SplitPlan | None = None,
        *,
        drop_duplicates: bool = True,
        root: Path | None = None,
    ) -> Iterator[Item | Failure]:
        """Samples and failures, image by image; every image is decoded once to see that it is whole.

        Args:
            folder: the data set's own folder.
            plan: split fractions and seed; default 0.7, 0.1, 0.2 and 0.
            drop_duplicates: an image of the same bytes as an earlier one becomes a Failure, so that none can
                lie on both sides of a split.
            root: what the paths of slides in records are relative to; the folder where None.

        Raises:
            DataError: at the first step, where the folder or its index is missing, unreadable or empty.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise DataError(f"{self.name}: no folder {folder}; expected one that holds {self.layout}")
        entries, failures = self._listed(folder)
        if not entries:
            first = f"; first of {len(failures)} failures: {': '.join(failures[0])}" if failures else ""
            raise DataError(f"{self.name}: no usable image in {folder}; expected {self.layout}{first}")
        yield from (self._failure(name, reason) for name, reason in failures)
        names: set[str] = set()
        by_key: dict[str, str] | None = {} if drop_duplicates and not self.repeats else None
        for entry in self._split(entries, plan or SplitPlan()):
            if entry.name in names:
                yield self._failure(entry.name, f"another file has this id; {entry.path.name} is left out")
                continue
            names.add(entry.name)
            if entry.load and root is not None:
                entry = replace(entry, load=partial(_seen_from, root, folder, entry.load))
            yield from self._read_entry(entry, by_key)

    def _listed(self, folder: Path) -> Survey:
        try:
            return self.survey(folder)
        except DataError as error:
            raise DataError(f"{self.name}: {error}; the folder should hold {self.layout}") from error

    def _read_entry(self, entry: Entry, by_key: dict[str, str] | None) -> Iterator[Item | Failure]:
        try:
            picture = entry.load() if entry.load else read_picture(entry.path)
            more = [read_picture(path) for path in entry.more]
            twin = by_key.setdefault(picture.ref.key, entry.name) if by_key is not None else entry.name
            if twin != entry.name:
                raise DataError(f"same bytes as {self.name}/{twin}; left out")
            for asked in self.ask(entry, picture):
                if isinstance(asked, Asked):
                    yield self._item(entry, (picture, *more), asked)
                else:
                    yield self._failure(entry.name + asked[0], asked[1])
        except DataError as error:
            yield self._failure(entry.name, str(error))

    def _split(self, entries: Sequence[Entry], plan: SplitPlan) -> Iterator[Entry]:
        splits = assign((Member(entry.group, entry.label, entry.split) for entry in entries), plan)
        for entry in entries:
            yield replace(entry, split=splits[entry.group])

    def _item(self, entry: Entry, pictures: Sequence[Picture], asked: Asked) -> Item:
        sample = Sample(
            id=f"{self.name}/{entry.name}{asked.suffix}",
            dataset=self.name,
            exam=f"{self.name}/{asked.what}",
            task=asked.task,
            scale=self.scale,
            images=tuple(picture.ref for picture in pictures),
            turns=(*asked.before, Turn("user", asked.text)),
            answer=asked.answer,
            options=asked.options,
            group=entry.group,
            split=entry.split,
            organ=asked.organ or self.organ,
            stain=asked.stain or self.stain,
            licence=self.licence,
            provenance=Provenance(f"adapter:{self.name}", self.version),
            facts=dict(asked.facts),
        )
        blobs = (picture.blob for picture in pictures if picture.blob is not None)
        return Item(sample, (*blobs, *asked.blobs))

    def _failure(self, name: str, reason: str) -> Failure:
        return Failure(f"{self.name}/{name}", STAGE, reason)


def _seen_from(root: Path, folder: Path, load: Callable[[], Picture]) -> Picture:
    """A picture whose slide's path is made relative to `root` instead of `folder`."""
    picture = load()
    path = folder / picture.ref.slide
    if not picture.ref.slide:
        return picture
    slide = path.relative_to(root) if path.is_relative_to(root) else path
    return picture._replace(ref=structs.replace(picture.ref, slide=slide.as_posix()))


def read_bytes(path: Path) -> bytes:
    """Content of a file.

    Raises:
        DataError: missing or unreadable.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error


def read_text(path: Path) -> str:
    """Content of a text file, UTF-8 with or without byte order mark; raises as `read_bytes`."""
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error}") from error


def read_picture(path: Path) -> Picture:
    """An image file, decoded once to see that it is whole.

    Raises:
        DataError: unreadable, empty, cut short, not an image, or too large.
    """
    blob = blob_of(read_bytes(path), path.suffix)
    return Picture(ImageRef(blob.key, decode_image(blob.data).size), blob)


def image_files(folder: Path) -> dict[str, Path]:
    """All image files below a folder by relative path, sorted; hidden files are passed over.

    The relative path is in Unicode normal form C: file systems differ in how they write an accent.
    """
    found = {
        unicodedata.normalize("NFC", path.relative_to(folder).as_posix()): path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    }
    return dict(sorted(found.items()))
