"""Bubbles of air under the coverslip, by their rims: thin, dark, without colour, and round.

Shape legend: H x W = rows x columns of a picture of some 8 micrometres per pixel, h x w = a window of it.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from malpighi.slides.artefacts import disc, large
from malpighi.slides.glass import Floats, Mask

_RIM = 0.32  # density of a rim above what is beside it
_NEUTRAL = 0.6  # least of the rim's three densities over the largest
_RIM_WIDTH = 5  # px, at most
_LEAST_RIM = 12  # px
_LEAST_AREA, _MOST_AREA = 150, 0.4  # px; share of the picture
_LONGEST = 2.0  # long over short axis
_ENCLOSED = 0.52  # of a bubble's outline is rim, where rims can be seen
_ON_OVAL, _BAND = 0.65, 5  # of a line lies on the ellipse that fits it, px wide
_TURN = 0.25  # depth of an outline over its length, at least
_SEEN = 0.4  # of a bubble's outline, at least, must be where rims can be seen
_ROUND = 0.88  # of its convex hull is bubble


def find_bubbles(density_HW3: Floats, ink_HW: Mask) -> Mask:
    """Air: what a rim runs around, or cuts off at the border of the picture.

    A rim is taken for an ellipse where one lies on it; where rims of several bubbles run together, the round
    parts that they enclose are taken.

    Args:
        density_HW3: optical density against the glass.
        ink_HW: where no rim can be seen.

    Returns:
        air_HW: bool, rims included.
    """
    rim_HW = find_rims(density_HW3) & ~ink_HW
    air_HW = np.zeros(rim_HW.shape, dtype=np.uint8)
    near_HW = _near(rim_HW)
    count, labels_HW, figures_N5, _ = cv2.connectedComponentsWithStats(near_HW)
    for k in range(1, count):
        x, y, width, height, _ = (int(v) for v in figures_N5[k])
        window = (slice(y, y + height), slice(x, x + width))
        oval_HW = _oval((labels_HW[window] == k) & rim_HW[window], (x, y), rim_HW.shape)
        if oval_HW is not None and _is_rimmed(oval_HW, near_HW, ink_HW):
            air_HW |= oval_HW
    return _enclosed(rim_HW, ink_HW) | (air_HW > 0)


def find_rims(density_HW3: Floats) -> Mask:
    """Thin lines that take all colours alike."""
    kernel = np.ones((_RIM_WIDTH, _RIM_WIDTH), np.uint8)
    dense_HW3 = np.maximum(density_HW3, 0)
    above_HW3 = dense_HW3 - cv2.morphologyEx(dense_HW3, cv2.MORPH_OPEN, kernel)
    least_HW = above_HW3.min(axis=2)
    rim_HW = (least_HW > _RIM) & (least_HW > _NEUTRAL * above_HW3.max(axis=2))
    closed_HW = cv2.morphologyEx(rim_HW.astype(np.uint8), cv2.MORPH_CLOSE, disc(3))
    return large(closed_HW > 0, _LEAST_RIM)


def _oval(line_hw: Mask, corner: tuple[int, int], shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
    """The ellipse that fits a line, filled, in a picture of `shape`; None where none does."""
    points_N2 = np.argwhere(line_hw)[:, ::-1].astype(np.float32)
    if len(points_N2) < _LEAST_RIM:
        return None
    centre, axes, angle = cv2.fitEllipseDirect(points_N2)
    short, long = sorted(axes)
    if not np.isfinite([*centre, short, long]).all() or long > _LONGEST * short:
        return None
    area = np.pi / 4 * short * long
    if not _LEAST_AREA <= area <= _MOST_AREA * shape[0] * shape[1]:
        return None
    oval_HW = np.zeros(shape, dtype=np.uint8)
    middle = (centre[0] + corner[0], centre[1] + corner[1])
    cv2.ellipse(oval_HW, (middle, axes, angle), 1, _BAND)
    columns_N, rows_N = (points_N2.astype(np.int64) + corner).T
    if oval_HW[rows_N, columns_N].mean() < _ON_OVAL:
        return None
    oval_HW[:] = 0
    cv2.ellipse(oval_HW, (middle, axes, angle), 1, -1)
    return oval_HW


def _enclosed(rim_HW: Mask, ink_HW: Mask) -> Mask:
    """Round regions that lie inside rims."""
    air_HW = np.zeros(rim_HW.shape, dtype=np.bool_)
    free = (~rim_HW).astype(np.uint8)
    count, labels_HW, figures_N5, _ = cv2.connectedComponentsWithStats(free, connectivity=4)
    for k in range(1, count):
        x, y, width, height, area = (int(v) for v in figures_N5[k])
        if not _LEAST_AREA <= area <= _MOST_AREA * rim_HW.size:
            continue
        window = (slice(max(y - 3, 0), y + height + 3), slice(max(x - 3, 0), x + width + 3))
        region_hw = _filled((labels_HW[window] == k).astype(np.uint8))
        near_hw = _near(rim_HW[window])
        if _is_round(region_hw) and _is_rimmed(region_hw, near_hw, ink_HW[window]):
            air_HW[window] |= cv2.dilate(region_hw, disc(3)) > 0
    return air_HW


def _near(mask_HW: Mask) -> NDArray[np.uint8]:
    return np.asarray(cv2.dilate(mask_HW.astype(np.uint8), disc(3)), dtype=np.uint8)


def _is_rimmed(region_hw: NDArray[np.uint8], near_hw: NDArray[np.uint8], ink_hw: Mask) -> bool:
    """Whether rims run around a region, as far as they can be seen and the picture reaches.

    A line that hardly turns is the edge of a coverslip.
    """
    outline_hw = (cv2.dilate(region_hw, disc(3)) > 0) & (region_hw == 0)
    seen_hw = outline_hw & ~ink_hw
    if seen_hw.sum() < max(_SEEN * float(outline_hw.sum()), 1.0) or near_hw[seen_hw].mean() < _ENCLOSED:
        return False
    _, sides, _ = cv2.minAreaRect(np.argwhere(seen_hw).astype(np.float32))
    return bool(min(sides) >= _TURN * max(sides))


def _filled(region_hw: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A region with its holes."""
    outlines, _ = cv2.findContours(region_hw, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return np.asarray(cv2.drawContours(np.zeros_like(region_hw), outlines, -1, 1, -1))


def _is_round(region_hw: NDArray[np.uint8]) -> bool:
    outlines, _ = cv2.findContours(region_hw, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = max(outlines, key=cv2.contourArea)
    return bool(cv2.contourArea(outline) >= _ROUND * max(cv2.contourArea(cv2.convexHull(outline)), 1.0))
