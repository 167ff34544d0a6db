"""The pieces of tissue on a slide, as regions to look at."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from malpighi.errors import DataError
from malpighi.geometry import Region, on_slide

_BRIDGE = 0.02
_CROWD = 40
_FINEST = 1024
_MOST_CUTS = 12


class TissueMap(NamedTuple):
    """Where tissue lies.

    Attributes:
        mask: bool, rows x columns (H x W).
        region: the part of the slide that the mask covers, level-0 px.
    """

    mask: NDArray[np.bool_]
    region: Region


def over_slide(mask_HW: NDArray[np.bool_], downsample: float, mpp: float | None) -> TissueMap:
    """A mask whose upper left corner is that of the slide, as a tissue map.

    Args:
        mask_HW: rows x columns.
        downsample: level-0 px per px of the mask.
        mpp: micrometres per level-0 px; None where unknown.

    Example:
        >>> over_slide(np.ones((2, 3), dtype=bool), 16.0, None).region.width
        48.0
    """
    rows, columns = mask_HW.shape
    return TissueMap(mask_HW, on_slide((0, 0, columns, rows), downsample, mpp))


def tissue_box(tissue: TissueMap) -> Region | None:
    """The smallest region that holds all tissue; None where there is none.

    Raises:
        DataError: a mask that is not rows x columns with at least one pixel, or a region without extent.
    """
    _check(tissue)
    rows, columns = np.flatnonzero(tissue.mask.any(axis=1)), np.flatnonzero(tissue.mask.any(axis=0))
    if not len(rows):
        return None
    return _on_slide(tissue, (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1))


def tissue_pieces(tissue: TissueMap, most: int, least_share: float) -> list[Region]:
    """Pieces of tissue that lie apart, as regions that do not overlap, from top left.

    Crumbs close to each other make one piece. More than `most` are merged, those first that add least glass.

    Args:
        tissue: where tissue lies.
        most: the most pieces, at least 1.
        least_share: of all tissue; smaller pieces are left out.

    Returns:
        One region, the box of all tissue, where the tissue lies scattered over the glass as in a smear; none
        where there is no tissue.

    Raises:
        DataError: as `tissue_box`.
    """
    whole = tissue_box(tissue)
    if whole is None:
        return []
    coarse = _coarse(tissue)
    boxes = _components(coarse.mask, least_share)
    if not 0 < len(boxes) <= _CROWD:
        return [whole]
    boxes = _merged(boxes, most)
    return [_on_slide(coarse, box) for box in sorted(boxes, key=lambda box: (box[1], box[0]))]


def cut_long(region: Region, most: float) -> list[Region]:
    """A long region in equal parts along its length, each at most `most` times as long as it is wide.

    Example:
        >>> [part.x for part in cut_long(Region(0, 0, 90, 10), 4)]
        [0.0, 30.0, 60.0]
    """
    long, wide = max(region.width, region.height), min(region.width, region.height)
    count = min(max(1, math.ceil(long / (most * wide))), _MOST_CUTS)
    x, y = (region.width / count, 0.0) if region.width == long else (0.0, region.height / count)
    size = (region.width / count, region.height) if x else (region.width, region.height / count)
    return [Region(region.x + k * x, region.y + k * y, *size, region.mpp) for k in range(count)]


def grown(region: Region, margin: float, within: Region) -> Region:
    """A region with a margin, a share of its longer side, as far as the slide reaches."""
    extra = margin * max(region.width, region.height)
    x0, y0 = max(region.x - extra, within.x), max(region.y - extra, within.y)
    x1 = min(region.x + region.width + extra, within.x + within.width)
    y1 = min(region.y + region.height + extra, within.y + within.height)
    return Region(x0, y0, x1 - x0, y1 - y0, within.mpp)


def _coarse(tissue: TissueMap) -> TissueMap:
    """The map with at most `_FINEST` px along a side; a coarse pixel is tissue where any of its own is."""
    factor = -(-max(tissue.mask.shape) // _FINEST)
    if factor == 1:
        return tissue
    rows, columns = (-(-side // factor) * factor for side in tissue.mask.shape)
    padded = np.zeros((rows, columns), dtype=bool)
    padded[: tissue.mask.shape[0], : tissue.mask.shape[1]] = tissue.mask
    blocks = padded.reshape(rows // factor, factor, columns // factor, factor)
    mask = np.asarray(blocks.any(axis=(1, 3)), dtype=np.bool_)
    height, width = tissue.mask.shape
    region = Region(
        tissue.region.x,
        tissue.region.y,
        tissue.region.width * columns / width,
        tissue.region.height * rows / height,
        tissue.region.mpp,
    )
    return TissueMap(mask, region)


_Corners = tuple[int, int, int, int]


def _components(tissue: NDArray[np.bool_], least_share: float) -> list[_Corners]:
    reach = max(1, round(_BRIDGE * max(tissue.shape) / 2)) * 2 + 1
    mask = tissue.astype(np.uint8)
    joined = cv2.dilate(mask, np.ones((reach, reach), np.uint8))
    count, labels = cv2.connectedComponents(joined, connectivity=8)
    labels = labels * mask
    amounts = np.bincount(labels.ravel(), minlength=count)
    least = least_share * amounts[1:].sum()
    boxes = []
    for amount, window in zip(amounts[1:], ndimage.find_objects(labels, count - 1), strict=True):
        if window is not None and amount >= max(least, 1):
            rows, columns = window
            boxes.append((int(columns.start), int(rows.start), int(columns.stop), int(rows.stop)))
    return boxes


def _merged(boxes: Sequence[_Corners], most: int) -> list[_Corners]:
    """Boxes joined until none overlap and at most `most` are left."""
    left = list(boxes)
    while len(left) > 1:
        pairs = [(i, j) for i in range(len(left)) for j in range(i)]
        touching = [(i, j) for i, j in pairs if _overlap(left[i], left[j])]
        if not touching and len(left) <= most:
            break
        i, j = min(touching or pairs, key=lambda pair: _added(left[pair[0]], left[pair[1]]))
        joined = _hull(left[i], left[j])
        left = [box for k, box in enumerate(left) if k not in (i, j)] + [joined]
    return left


def _hull(a: _Corners, b: _Corners) -> _Corners:
    return (min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3]))


def _added(a: _Corners, b: _Corners) -> int:
    """The area that joining two boxes adds."""
    return _area(_hull(a, b)) - _area(a) - _area(b)


def _area(box: _Corners) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


def _overlap(a: _Corners, b: _Corners) -> bool:
    return min(a[2], b[2]) > max(a[0], b[0]) and min(a[3], b[3]) > max(a[1], b[1])


def _on_slide(tissue: TissueMap, box: _Corners) -> Region:
    rows, columns = tissue.mask.shape
    x, y = tissue.region.width / columns, tissue.region.height / rows
    return Region(
        tissue.region.x + box[0] * x,
        tissue.region.y + box[1] * y,
        (box[2] - box[0]) * x,
        (box[3] - box[1]) * y,
        tissue.region.mpp,
    )


def _check(tissue: TissueMap) -> None:
    shape = tissue.mask.shape
    if len(shape) != 2 or 0 in shape or not (tissue.region.width > 0 and tissue.region.height > 0):
        raise DataError(
            f"a tissue map needs a mask of rows x columns over a region with extent; "
            f"found shape {shape} over {tissue.region}"
        )
