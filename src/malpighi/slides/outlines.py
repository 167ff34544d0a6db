"""Masks to polygons."""

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from malpighi.geometry import points_on_slide
from malpighi.slides.glass import Mask

_HALF = 0.5  # contours run through the middles of pixels, outlines around them


def outlines(mask_HW: Mask, downsample: float, *, simplify: float = 0.5) -> list[shapely.Polygon]:
    """The pieces of a mask as polygons with holes, largest first.

    Args:
        mask_HW: rows x columns.
        downsample: level-0 px per px of the mask.
        simplify: how far an outline may depart from the mask's, px of the mask; 0 keeps all corners.

    Returns:
        Valid polygons in level-0 px.
    """
    found, hierarchy = cv2.findContours(mask_HW.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    if hierarchy is None:
        return []
    holes: dict[int, list[NDArray]] = {}
    for k, parent in enumerate(hierarchy[0, :, 3]):
        if parent >= 0 and len(found[k]) >= 3:
            holes.setdefault(int(parent), []).append(found[k][:, 0])
    pieces: list[shapely.Polygon] = []
    for k, parent in enumerate(hierarchy[0, :, 3]):
        if parent < 0:
            shape = _shape(found[k][:, 0], holes.get(k, [])).simplify(simplify)
            pieces += [part for part in _polygons(shape) if part.area > 0]
    whole = [shapely.transform(piece, lambda xy: points_on_slide(xy, downsample)) for piece in pieces]
    return sorted(whole, key=lambda piece: -piece.area)


def _shape(outer_N2: NDArray, holes: list[NDArray]) -> BaseGeometry:
    """The area of a contour's pixels, px; (0, 0) is the corner of the first pixel."""
    middle: BaseGeometry
    if len(outer_N2) == 1:
        middle = shapely.Point(outer_N2[0] + _HALF)
    elif len(outer_N2) == 2:
        middle = shapely.LineString(outer_N2 + _HALF)
    else:
        middle = shapely.make_valid(shapely.Polygon(outer_N2 + _HALF, [hole + _HALF for hole in holes]))
    return middle.buffer(_HALF, cap_style="square", join_style="mitre")


def _polygons(shape: BaseGeometry) -> list[shapely.Polygon]:
    parts = shapely.get_parts(shape) if hasattr(shape, "geoms") else [shape]
    return [part for part in parts if isinstance(part, shapely.Polygon)]
