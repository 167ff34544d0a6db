"""The shared nouns: what a sample, its answer, a grade and a prediction are.

All are immutable, compare by value and travel as JSON (msgspec). Nothing here reads a file or knows a model.
"""

from enum import StrEnum
from typing import Any, NamedTuple, TypeVar

import msgspec

from malpighi.errors import DataError
from malpighi.geometry import Box, Region, Size

T = TypeVar("T", bound=msgspec.Struct)


class TaskKind(StrEnum):
    """What is asked of the model; decides the grader."""

    CLASSIFICATION = "classification"
    DETECTION = "detection"
    SEGMENTATION = "segmentation"
    VQA = "vqa"
    CAPTION = "caption"
    CONVERSATION = "conversation"


class Scale(StrEnum):
    """How much of a slide the image shows; decides the token budget."""

    CELL = "cell"
    ROI = "roi"
    SLIDE = "slide"


class Split(StrEnum):
    """Which part of the data a sample belongs to; never straddled by a group."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


class Status(StrEnum):
    """How the reading of an answer went; anything but `ok` scores as wrong and is counted."""

    OK = "ok"
    NO_ANSWER = "no_answer"
    AMBIGUOUS = "ambiguous"
    OUT_OF_RANGE = "out_of_range"
    TRUNCATED = "truncated"
    MALFORMED = "malformed"


SLIDE_KEY = "slide:"
"""How the key of an image that is not stored begins."""


class ImageRef(msgspec.Struct, frozen=True, omit_defaults=True):
    """An image by content, or a slide that an image is still to be made of.

    Attributes:
        key: SHA-256 of the stored bytes, hexadecimal: the corpus key. `slide:` and a fingerprint of the file
            where nothing is stored, because a view of the slide is made when it is asked for.
        size: (width, height), px.
        mpp: micrometres per pixel; None where unknown.
        slide: path of the slide that the image was read from; "" for an image of its own.
        region: the part of that slide, level-0 px.
    """

    key: str
    size: Size
    mpp: float | None = None
    slide: str = ""
    region: Region | None = None

    @property
    def unmade(self) -> bool:
        """Whether this is a slide of which no image has been made yet."""
        return self.key.startswith(SLIDE_KEY)


class Turn(msgspec.Struct, frozen=True):
    """One message of a conversation; `role` is `user` or `assistant`."""

    role: str
    text: str


class Choice(msgspec.Struct, frozen=True, tag="choice"):
    """The right option, as an index into the sample's `options`."""

    index: int


class Boxes(msgspec.Struct, frozen=True, tag="boxes"):
    """The right boxes, in image px; empty where nothing is to be found."""

    boxes: tuple[Box, ...]


class MaskRef(msgspec.Struct, frozen=True, tag="mask"):
    """The right mask: corpus key of a PNG (0 = background), and the boxes of its pieces in image px."""

    key: str
    boxes: tuple[Box, ...]


class Text(msgspec.Struct, frozen=True, tag="text"):
    """A right answer in words."""

    value: str


Answer = Choice | Boxes | MaskRef | Text


class Provenance(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a record came from, so that lineage is a join and a re-run is idempotent.

    Attributes:
        operation: what made the record, e.g. `adapter:herlev`, `window`, `phantom:cell`.
        version: version of that operation.
        parents: ids of the records it was made from.
        config: hash of the operation's settings.
    """

    operation: str
    version: int = 1
    parents: tuple[str, ...] = ()
    config: str = ""


class Sample(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One question with its images and its right answer.

    Attributes:
        id: unique in a corpus, stable from run to run.
        dataset: name of the adapter or generator.
        exam: name of the task this sample belongs to, one row of a results table, e.g. `herlev/class`.
        task: what is asked; decides the grader.
        scale: how much of a slide is seen; decides the token budget.
        images: what is looked at, in order.
        turns: the conversation up to the question; the last turn is the user's.
        answer: the right answer, typed.
        options: the names to choose from, in the order asked; empty for open questions.
        reasoning: how one gets to the answer, where known: taught as `<think>`; "" where unknown.
        group: patient, slide or source figure: what may never straddle a split.
        split: "" until a split rule has been applied.
        facts: named true statements about the sample, e.g. what the phantom measured.
    """

    id: str
    dataset: str
    exam: str
    task: TaskKind
    scale: Scale
    images: tuple[ImageRef, ...]
    turns: tuple[Turn, ...]
    answer: Answer
    options: tuple[str, ...] = ()
    reasoning: str = ""
    group: str
    split: Split | None = None
    organ: str = ""
    stain: str = ""
    licence: str
    provenance: Provenance
    facts: dict[str, Any] = {}

    @property
    def question(self) -> str:
        """Text of the last user turn."""
        return self.turns[-1].text


class Blob(NamedTuple):
    """Bytes on their way into a corpus.

    Attributes:
        key: SHA-256 of `data`, hexadecimal.
        data: the encoded image as found (JPEG, PNG, TIFF...).
        suffix: file ending with the dot, e.g. `.jpg`.
    """

    key: str
    data: bytes
    suffix: str


class Item(NamedTuple):
    """A sample together with the bytes it refers to: what adapters and generators yield."""

    sample: Sample
    blobs: tuple[Blob, ...]


class Failure(msgspec.Struct, frozen=True):
    """An item that could not be used, kept by id so that it is counted and shown, never silent.

    Attributes:
        id: the item, e.g. `bccd/BloodImage_00100:RBC#3`.
        stage: where it failed, e.g. `data`, `evaluate`.
        reason: what was found against what was expected.
    """

    id: str
    stage: str
    reason: str


class Grade(msgspec.Struct, frozen=True, omit_defaults=True):
    """The verdict on one completion.

    Attributes:
        score: 0 to 1, the exam's score.
        status: how the reading of the answer went.
        parsed: what was read from the completion, JSON-able; None where nothing was.
        parts: named components, each 0 to 1, e.g. `format`, `task`, `ap50`, `bleu4`.
    """

    score: float
    status: Status
    parsed: Any = None
    parts: dict[str, float] = {}


class Look(msgspec.Struct, frozen=True, omit_defaults=True):
    """A model's request to see a part of a slide more closely.

    Attributes:
        asked: its words, cut after 200 characters.
        region: what it was shown, level-0 px; None where the request was refused.
        mpp: micrometres per pixel of what it was shown; None where unknown.
        refused: why nothing was shown; "" where something was.
    """

    asked: str
    region: Region | None = None
    mpp: float | None = None
    refused: str = ""


class Prediction(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One row of a predictions file: everything that tables, intervals and tests are computed from.

    Attributes:
        model: name of the model or stage, e.g. `supervised`, `cnn`.
        exam: the sample's exam.
        sample: the sample's id.
        group: the sample's group, for cluster bootstrap.
        task: the sample's task kind.
        text: the completion, raw.
        grade: its verdict.
        truth: the right answer, JSON-able, as the report shows it.
        tokens: length of the completion in tokens.
        prompt_hash: hash of the rendered prompt.
        image_hash: hash over the image keys; of a slide's view, over the pixels that were shown.
        adapter: LoRA adapter used; "" for none.
        seed: sampling seed; 0 for greedy decoding.
        looks: what the model asked to see more closely before it answered, in order.
        chances: probability of each option of the sample, in order, where the engine can tell; () where not.
    """

    model: str
    exam: str
    sample: str
    group: str
    task: TaskKind
    text: str
    grade: Grade
    truth: Any = None
    tokens: int = 0
    prompt_hash: str = ""
    image_hash: str = ""
    adapter: str = ""
    seed: int = 0
    looks: tuple[Look, ...] = ()
    chances: tuple[float, ...] = ()


def option_label(index: int) -> str:
    """The letter that stands for option `index`: A to Z, then AA, AB and so on.

    Raises:
        ValueError: a negative index.

    Example:
        >>> [option_label(i) for i in (0, 25, 26, 51, 52)]
        ['A', 'Z', 'AA', 'AZ', 'BA']
    """
    if index < 0:
        raise ValueError(f"an option's index is 0 or more; found {index}")
    letters = ""
    number = index + 1
    while number:
        number, digit = divmod(number - 1, 26)
        letters = chr(ord("A") + digit) + letters
    return letters


_ENCODER = msgspec.json.Encoder(order="deterministic")


def to_json(record: msgspec.Struct) -> bytes:
    """One record as canonical JSON: same record, same bytes.

    Example:
        >>> to_json(Turn("user", "Which class?"))
        b'{"role":"user","text":"Which class?"}'
    """
    return _ENCODER.encode(record)


def from_json(data: bytes | str, kind: type[T]) -> T:
    """A record back from its JSON.

    Raises:
        DataError: the JSON is not such a record; the message names the field.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise DataError(f"not a {kind.__name__} record: {error}") from error
