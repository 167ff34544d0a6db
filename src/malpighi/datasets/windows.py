"""Large images into smaller ones: boxes and masks cut along, every piece a sample of its own."""

import io
from collections.abc import Iterator

import msgspec
import numpy as np
from PIL import Image

from malpighi.corpus import blob_of, decode_image, key_of
from malpighi.errors import ConfigError, DataError
from malpighi.geometry import Box, Frame, Region, Size, View
from malpighi.pixels import decode_labels
from malpighi.records import Blob, Boxes, Item, MaskRef, Provenance, Sample, to_json

MIN_VISIBLE = 0.5


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
    Along a side that is shorter than the window, the whole side is taken.

    Raises:
        DataError: the sample has another kind of answer, not exactly one image, or lacks its bytes.
    """
    sample = item.sample
    answer = sample.answer
    if not isinstance(answer, Boxes | MaskRef) or len(sample.images) != 1:
        raise DataError(f"{sample.id}: only a sample with one image and with boxes or a mask can be cut")
    image = decode_image(_bytes(item, sample.images[0].key))
    mask_hw = decode_labels(_bytes(item, answer.key)) if isinstance(answer, MaskRef) else None
    for area in _areas(sample.images[0].size, window):
        blob = _png(image.crop(area))
        boxes = visible(answer.boxes, area)
        if mask_hw is None:
            if boxes or window.keep_empty:
                yield Item(_sample(sample, blob, area, Boxes(boxes), window), (blob,))
            continue
        x0, y0, x1, y1 = area
        piece_hw = mask_hw[y0:y1, x0:x1] > 0
        if piece_hw.any() or window.keep_empty:
            mask = _png(Image.fromarray(np.where(piece_hw, 255, 0).astype(np.uint8)))
            yield Item(_sample(sample, blob, area, MaskRef(mask.key, boxes), window), (blob, mask))


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
    return msgspec.structs.replace(
        parent,
        id=f"{parent.id}@{x0},{y0}",
        images=(image,),
        answer=answer,
        provenance=Provenance("window", parents=(parent.id,), config=key_of(to_json(window))),
    )


def _bytes(item: Item, key: str) -> bytes:
    found = next((blob.data for blob in item.blobs if blob.key == key), None)
    if found is None:
        raise DataError(f"{item.sample.id}: the bytes of {key} are not with the sample")
    return found


def _png(image: Image.Image) -> Blob:
    file = io.BytesIO()
    image.save(file, "png")
    return blob_of(file.getvalue(), ".png")
