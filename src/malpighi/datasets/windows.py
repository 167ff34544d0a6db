"""Large images into smaller ones: boxes and masks cut along, every piece a sample of its own.

Exams named `detection`, `segmentation` and `segmentation-of-boxes` ask only for what an image shows. A window
that shows none of it is a question of its own exam, `absent`, with no boxes as the right answer; it is made
from detection samples where `Window.keep_empty` is set, so that these exams never change.
"""

import io
from collections.abc import Iterator
from functools import lru_cache

import msgspec
import numpy as np
from PIL import Image
from scipy import ndimage

from malpighi.corpus import blob_of, decode_image, key_of
from malpighi.datasets.masks import boxes_of, label_areas, pieces_of
from malpighi.errors import ConfigError, DataError
from malpighi.geometry import Box, Frame, Region, Size, View
from malpighi.pixels import decode_labels
from malpighi.records import Blob, Boxes, Item, MaskRef, Provenance, Sample, to_json

MIN_VISIBLE = 0.5
MIN_PIECE = 64

DETECTION = "detection"
SEGMENTATION = "segmentation"
FILLED_BOXES = "segmentation-of-boxes"
ABSENT = "absent"
PARTLY_MARKED = "partly marked"
"""A fact of samples whose source marks only some of what is asked for: what is unmarked may be there."""

_OF_WHAT_IS_SHOWN = {DETECTION, SEGMENTATION, FILLED_BOXES}
_PLAIN = 255


class Window(msgspec.Struct, frozen=True):
    """How images are cut.

    Attributes:
        width: of a window, image px.
        height: as `width`.
        stride: step from window to window along both axes, image px; the last row and column are moved
            inwards so that the image is covered to its edge.
        keep_empty: whether windows in which nothing is to be found are kept.
    """

    width: int
    height: int
    stride: int
    keep_empty: bool = True

    def __post_init__(self) -> None:
        """Refuse windows without extent and strides that leave gaps."""
        if min(self.width, self.height, self.stride) < 1 or self.stride > min(self.width, self.height):
            raise ConfigError(
                f"windows of {self.width} x {self.height} px, stride {self.stride}: expected all from 1 on, "
                "and a stride not longer than a side, or parts of the image are lost"
            )


def cut(item: Item, window: Window) -> Iterator[Item]:
    """The windows of a sample whose answer is boxes or a mask, row by row.

    Boxes are clipped, and left out where less than half of their area is visible; masks are cut as they are.
    Where the pieces are numbered (a label map as mask, or brought along as a further blob by a detection
    sample), a window's pieces are found anew: a gland that the window parts becomes two, and one that is cut
    counts from half of it on or from 64 px on. So a stretch of tissue that fills the window is there, though
    the window shows a small part of it.
    Along a side that is shorter than the window, the whole side is taken.

    Raises:
        DataError: the sample has another kind of answer, not exactly one image, or lacks its bytes.
    """
    sample = item.sample
    answer = sample.answer
    if not isinstance(answer, Boxes | MaskRef) or len(sample.images) != 1:
        raise DataError(f"{sample.id}: only a sample with one image and with boxes or a mask can be cut")
    data = _bytes(item, sample.images[0].key)
    labels = _Labels(labels_hw) if (labels_hw := _label_map(item)) is not None else None
    for area in _areas(sample.images[0].size, window):
        mask_hw, boxes = labels.seen(area, answer.boxes) if labels else (None, visible(answer.boxes, area))
        empty = not boxes if isinstance(answer, Boxes) or mask_hw is None else not mask_hw.any()
        if empty and not (window.keep_empty and _may_be_empty(sample, labels, area)):
            continue
        blob = _crop(data, area)
        if isinstance(answer, Boxes) or mask_hw is None:
            yield Item(_sample(sample, blob, area, Boxes(boxes), window), (blob,))
        else:
            mask = _png(Image.fromarray(np.where(mask_hw, _PLAIN, 0).astype(np.uint8)))
            yield Item(_sample(sample, blob, area, MaskRef(mask.key, boxes), window), (blob, mask))


class _Labels:
    """The mask or label map of a sample."""

    def __init__(self, labels_hw: np.ndarray) -> None:
        self._labels_hw = labels_hw
        largest = int(labels_hw.max(initial=0))
        self._areas = label_areas(labels_hw, largest)
        self._numbered = bool(self._areas[1:].any() and set(np.flatnonzero(self._areas)) - {0, _PLAIN})

    def seen(
        self, area: tuple[int, int, int, int], boxes: tuple[Box, ...]
    ) -> tuple[np.ndarray, tuple[Box, ...]]:
        """The mask and the boxes of a window; `boxes` are those of the whole image."""
        part_hw = self.part(area)
        if not self._numbered:
            return part_hw > 0, visible(boxes, area)
        kept_hw = self._pieces(part_hw)
        return kept_hw > 0, boxes_of(kept_hw)

    def part(self, area: tuple[int, int, int, int]) -> np.ndarray:
        """The labels in a window."""
        x0, y0, x1, y1 = area
        return self._labels_hw[y0:y1, x0:x1]

    def _pieces(self, part_hw: np.ndarray) -> np.ndarray:
        kept_hw = np.zeros(part_hw.shape, np.int32)
        count = 0
        for label, place in enumerate(ndimage.find_objects(part_hw), 1):
            if place is None:
                continue
            enough = int(np.ceil(min(MIN_PIECE, MIN_VISIBLE * self._areas[label])))
            pieces_hw = pieces_of(part_hw[place] == label, enough)
            kept_hw[place] = np.where(pieces_hw > 0, pieces_hw + count, kept_hw[place])
            count = max(count, int(kept_hw[place].max()))
        return kept_hw


def _may_be_empty(sample: Sample, labels: _Labels | None, area: tuple[int, int, int, int]) -> bool:
    """Whether a window without an answer is a fair question; one that shows a sliver of a thing is not."""
    what = sample.exam.partition("/")[2]
    if what not in _OF_WHAT_IS_SHOWN:
        return True
    if what != DETECTION or sample.facts.get(PARTLY_MARKED):
        return False
    if labels is not None:
        return not labels.part(area).any()
    x0, y0, x1, y1 = area
    boxes = sample.answer.boxes if isinstance(sample.answer, Boxes) else ()
    return not any(b.x0 < x1 and b.x1 > x0 and b.y0 < y1 and b.y1 > y0 for b in boxes)


def visible(boxes: tuple[Box, ...], area: tuple[int, int, int, int]) -> tuple[Box, ...]:
    """Boxes as seen in a window: moved to its corner, clipped, without those seen by less than half.

    Args:
        boxes: image px of the whole image.
        area: x0, y0, x1, y1 of the window, image px.

    Example:
        >>> [box.corners for box in visible((Box(0, 0, 10, 10), Box(0, 0, 90, 10)), (4, 0, 40, 40))]
        [(0.0, 0, 6, 10)]
    """
    left, top, right, bottom = area
    window = View((right - left, bottom - top))
    moved = [(box, Box(box.x0 - left, box.y0 - top, box.x1 - left, box.y1 - top)) for box in boxes]
    clipped = [(box, window.clip(shifted)) for box, shifted in moved]
    return tuple(seen for box, seen in clipped if seen.area > 0 and seen.area >= MIN_VISIBLE * box.area)


def _areas(size: Size, window: Window) -> Iterator[tuple[int, int, int, int]]:
    width, height = min(size[0], window.width), min(size[1], window.height)
    for y in _starts(size[1], height, window.stride):
        for x in _starts(size[0], width, window.stride):
            yield (x, y, x + width, y + height)


def _starts(length: int, side: int, stride: int) -> list[int]:
    starts = list(range(0, length - side + 1, stride))
    return starts if starts[-1] + side == length else [*starts, length - side]


def _sample(
    parent: Sample, blob: Blob, area: tuple[int, int, int, int], answer: Boxes | MaskRef, window: Window
) -> Sample:
    x0, y0, x1, y1 = area
    seen = parent.images[0]
    region = seen.region
    if region is not None:
        part = View(seen.size, region=region).convert(Box(x0, y0, x1, y1), Frame.SLIDE)
        region = Region(part.x0, part.y0, part.x1 - part.x0, part.y1 - part.y0, region.mpp)
    image = msgspec.structs.replace(seen, key=blob.key, size=(x1 - x0, y1 - y0), region=region)
    name, exam = parent.id, parent.exam
    if not answer.boxes and exam == f"{parent.dataset}/{DETECTION}":
        name, exam = name.replace(f":{DETECTION}:", f":{ABSENT}:"), f"{parent.dataset}/{ABSENT}"
    return msgspec.structs.replace(
        parent,
        id=f"{name}@{x0},{y0}",
        exam=exam,
        images=(image,),
        answer=answer,
        provenance=Provenance("window", parents=(parent.id,), config=key_of(to_json(window))),
    )


def _bytes(item: Item, key: str) -> bytes:
    found = next((blob.data for blob in item.blobs if blob.key == key), None)
    if found is None:
        raise DataError(f"{item.sample.id}: the bytes of {key} are not with the sample")
    return found


def _label_map(item: Item) -> np.ndarray | None:
    """The mask of the answer, or the label map that a detection sample brings beside its image."""
    sample = item.sample
    if isinstance(sample.answer, MaskRef):
        return _labels(_bytes(item, sample.answer.key))
    images = {ref.key for ref in sample.images}
    further = next((blob.data for blob in item.blobs if blob.key not in images), None)
    return None if further is None else _labels(further)


# The samples of one image follow each other, each with the same bytes: decode and cut them once.
@lru_cache(maxsize=1)
def _pixels(data: bytes) -> Image.Image:
    return decode_image(data)


@lru_cache(maxsize=1)
def _labels(data: bytes) -> np.ndarray:
    return decode_labels(data)


@lru_cache(maxsize=96)
def _crop(data: bytes, area: tuple[int, int, int, int]) -> Blob:
    return _png(_pixels(data).crop(area))


def _png(image: Image.Image) -> Blob:
    file = io.BytesIO()
    image.save(file, "png")
    return blob_of(file.getvalue(), ".png")
