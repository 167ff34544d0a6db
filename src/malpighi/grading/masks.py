"""Comparing masks, and the mask that boxes alone make.

Masks are boolean arrays (row, column) of the image's size.
"""

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from malpighi.errors import DataError
from malpighi.geometry import Box, Size

Mask = NDArray[np.bool_]


def dice(mask: Mask, truth: Mask) -> float:
    """Dice overlap, 0 to 1; two empty masks agree: 1.

    Raises:
        DataError: the masks differ in shape.
    """
    shared, total = _counts(mask, truth)
    return 2 * shared / total if total else 1.0


def dice_gain(mask: Mask, truth: Mask) -> float:
    """How far the Dice overlap rises above that of the whole image, as a share of what is left above it.

    The whole image overlaps a truth that covers the share f of it with a Dice of 2 f / (1 + f), without
    anybody having looked; here it earns 0.

    Returns:
        0 to 1; the Dice overlap itself where the truth is the whole image.

    Raises:
        DataError: the masks differ in shape.
    """
    floor = dice(np.ones_like(truth), truth)
    reached = dice(mask, truth)
    return reached if floor == 1 else max(0.0, (reached - floor) / (1 - floor))


def mask_iou(mask: Mask, truth: Mask) -> float:
    """Intersection over union, 0 to 1; two empty masks agree: 1.

    Raises:
        DataError: the masks differ in shape.
    """
    shared, total = _counts(mask, truth)
    return shared / (total - shared) if total else 1.0


def filled(boxes: Iterable[Box], size: Size) -> Mask:
    """The union of boxes in image px as a mask: a pixel belongs where its centre lies in a box.

    Against an outline this has a ceiling: a disc in its own box reaches a Dice of 0.88, not 1.

    Args:
        boxes: in image px; degenerate ones fill nothing.
        size: (width, height) of the image, px.

    Returns:
        mask: bool (height, width).
    """
    width, height = size
    mask = np.zeros((height, width), dtype=np.bool_)
    for box in boxes:
        rows = slice(_first_centre(box.y0, height), _first_centre(box.y1, height))
        columns = slice(_first_centre(box.x0, width), _first_centre(box.x1, width))
        mask[rows, columns] = True
    return mask


def _first_centre(edge: float, extent: int) -> int:
    """The first pixel whose centre is not before the edge, inside 0..extent."""
    return math.ceil(min(max(edge, 0.0), extent) - 0.5)


def _counts(mask: Mask, truth: Mask) -> tuple[int, int]:
    if mask.shape != truth.shape:
        raise DataError(
            f"a mask of shape {mask.shape} is compared with one of {truth.shape} (height, width); "
            "both must have the size of the image"
        )
    return int(np.count_nonzero(mask & truth)), int(np.count_nonzero(mask)) + int(np.count_nonzero(truth))
