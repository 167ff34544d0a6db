"""Samples and completions as JSON lines that anyone can write by hand.

A sample: `{"id": "1", "task": "classification", "options": ["Tumor", "Stroma"], "answer": "B"}`. Tasks are
those of `TaskKind`; `answer` is

- an option's letter or its name, where `options` are given;
- a text for open questions, captions and reports; `yes` or `no` for closed ones;
- boxes `[[x0, y0, x1, y1], ...]` in image px for detection, with `image_size` (width, height), px;
- the path of a PNG mask (0 = background) for segmentation, relative to the file of samples.

`frame` is what the model speaks its boxes in: `image`, `resized` (then `resized_size` is needed) or
`relative1000`. `question`, where given, tells `mixing` which scripts belong there.

A completion: `{"id": "1", "text": "<think>...</think><answer>(B) Stroma</answer>"}`, with `"truncated": true`
where it was cut off at the length limit. Further fields of a completion are left alone; those of a sample are
refused, as one that is misspelt would change its grade.
"""

from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from malpighi.errors import DataError
from malpighi.geometry import Box, Frame, Size, View
from malpighi.grading.masks import Mask
from malpighi.pixels import decode_labels, image_size
from malpighi.records import (
    Answer,
    Boxes,
    Choice,
    ImageRef,
    MaskRef,
    Provenance,
    Sample,
    Scale,
    TaskKind,
    Text,
    Turn,
    option_label,
)

_BOX_TASKS = (TaskKind.DETECTION, TaskKind.SEGMENTATION)
_MASKS_KEPT = 64
R = TypeVar("R", bound=msgspec.Struct)


class SampleRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One line of a file of samples; see the head of this file."""

    id: str | int
    task: TaskKind
    answer: str | list[tuple[float, float, float, float]]
    options: list[str] = []
    question: str = ""
    image_size: Size | None = None
    frame: Frame = Frame.IMAGE
    resized_size: Size | None = None


class CompletionRow(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a file of completions."""

    id: str | int
    text: str
    truncated: bool = False


class RowSample(NamedTuple):
    """A sample ready to be graded, and what `Reading` needs to know about it.

    Attributes:
        sample: the question with its right answer.
        view: how the frames of its image hang together; None where it has no boxes.
        frame: the frame that the model's boxes are spoken in.
    """

    sample: Sample
    view: View | None
    frame: Frame


def read_sample(row: str | bytes, folder: Path = Path()) -> RowSample:
    """One line of a file of samples.

    Args:
        row: JSON.
        folder: what paths of masks are relative to.

    Raises:
        DataError: the line is no such JSON, or holds what cannot be graded; the message names the field.

    Example:
        >>> row = '{"id": 1, "task": "classification", "options": ["Tumor", "Stroma"], "answer": "B"}'
        >>> read_sample(row).sample.answer
        Choice(index=1)
    """
    found = _decode(row, SampleRow)
    size = _mask_size(found, folder) if found.task is TaskKind.SEGMENTATION else found.image_size
    view = _view(found, size) if found.task in _BOX_TASKS else None
    sample = Sample(
        id=str(found.id),
        dataset="rows",
        exam=f"rows/{found.task}",
        task=found.task,
        scale=Scale.ROI,
        images=(ImageRef("", view.image_size),) if view else (),
        turns=(Turn("user", found.question),),
        answer=_answer(found, view, folder),
        options=tuple(found.options),
        group=str(found.id),
        licence="unstated",
        provenance=Provenance("row"),
    )
    return RowSample(sample, view, found.frame)


def read_completion(row: str | bytes) -> CompletionRow:
    """One line of a file of completions.

    Raises:
        DataError: the line is no JSON object with `id` and `text`.
    """
    return _decode(row, CompletionRow)


@lru_cache(maxsize=_MASKS_KEPT)
def mask_at(path: str) -> Mask:
    """The mask in an image file: bool (height, width), true where it is not 0.

    Raises:
        DataError: no such file, or not a one-channel image.
    """
    mask: Mask = decode_labels(_bytes(path)) > 0
    return mask


def _decode(row: str | bytes, kind: type[R]) -> R:
    try:
        return msgspec.json.decode(row, type=kind)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise DataError(f"not a {'sample' if kind is SampleRow else 'completion'}: {error}") from None


def _view(row: SampleRow, size: Size | None) -> View:
    if size is None:
        raise DataError('a detection needs the size of its image; add "image_size": [width, height], px')
    view = View(size, row.resized_size)
    for name, sides in (("image_size", size), ("resized_size", row.resized_size)):
        if sides is not None and min(sides) < 1:
            raise DataError(f"{name} is {list(sides)}; expected [width, height] of at least 1 px")
    view.extent(row.frame)
    return view


def _answer(row: SampleRow, view: View | None, folder: Path) -> Answer:
    if row.task is TaskKind.SEGMENTATION:
        return MaskRef(str(folder / str(row.answer)), ())
    if row.task is TaskKind.DETECTION:
        assert view is not None
        return Boxes(tuple(map(partial(_true_box, view), _corners(row))))
    if not isinstance(row.answer, str):
        raise DataError(f"answer is a list of boxes; the answer to a {row.task} is a text or an option")
    if not row.answer.strip():
        raise DataError("answer is empty; every completion would be wrong")
    if not row.options:
        return Text(row.answer)
    return Choice(_option(row.answer, row.options))


def _corners(row: SampleRow) -> Sequence[tuple[float, float, float, float]]:
    if isinstance(row.answer, str):
        raise DataError("answer is a text; the answer to a detection is [[x0, y0, x1, y1], ...] in image px")
    return row.answer


def _true_box(view: View, corners: tuple[float, float, float, float]) -> Box:
    box = Box(*corners)
    if not view.clip(box).area > 0:
        width, height = view.image_size
        raise DataError(
            f"the box {list(corners)} covers nothing of the {width} x {height} image; "
            "expected [x0, y0, x1, y1] in image px, left and top edge first"
        )
    return box


def _option(answer: str, options: Sequence[str]) -> int:
    wanted = answer.strip().casefold()
    named = [i for i, option in enumerate(options) if option.strip().casefold() == wanted]
    labelled = [i for i in range(len(options)) if option_label(i).casefold() == wanted.strip("().")]
    found = set(named or labelled)
    if len(found | set(labelled)) == 1:
        return found.pop()
    what = "none of the options" if not found else "more than one of the options"
    last = option_label(len(options) - 1)
    raise DataError(f"answer '{answer}' is {what} {list(options)}; give a letter, A to {last}, or a name")


def _mask_size(row: SampleRow, folder: Path) -> Size:
    if not isinstance(row.answer, str):
        raise DataError("answer is a list of boxes; the answer to a segmentation is the path of a mask")
    size = image_size(_bytes(str(folder / row.answer)))
    if row.image_size is not None and row.image_size != size:
        raise DataError(
            f"image_size is {list(row.image_size)}, but the mask {row.answer} has {list(size)} px"
        )
    return size


def _bytes(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"cannot read the mask {path}: {error.strerror or error}") from None
