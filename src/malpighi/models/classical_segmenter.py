"""A segmenter without weights: in each box, the colours of its middle against those around it.

Whether a pixel belongs to the object is told by its place, since a tight box mostly holds an ellipse, and by
its colour: how much commoner it is inside than outside. What the two find is the inside of the next round.
Where colours say nothing, the ellipse is left.

Source: colours are stain amounts by Ruifrok & Johnston 2001; foreground and background are learnt from the
box alone, as in GrabCut (Rother et al. 2004).
Departs: amounts below zero stay, so that the three say as much as red, green and blue do, whatever the stain;
an ellipse and a blur take the place of the graph cut. Otsu's threshold finds dark nuclei better and fails on
cells and glands; a watershed stays behind on real pictures (benchmarks/RESULTS.md).

Shape legend: H x W = rows x columns of the picture, h x w = those of a box with its surroundings,
K = colours.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache, reduce
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from scipy.ndimage import gaussian_filter, gaussian_filter1d
from skimage.color import hed_from_rgb

from malpighi.geometry import Box, Size, View
from malpighi.pixels import decode_image

Mask = NDArray[np.bool_]
Codes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Window = tuple[slice, slice]

VERSION = 1
"""Raise when the same boxes would give another mask: what was graded by it is then graded anew."""

KEPT_IMAGES = 64

# Chosen on other pictures than those of benchmarks/RESULTS.md.
_LEVELS = 6  # of each stain
_ROUNDS = 2
_CERTAINTY = 3.0  # log-odds of the object at the middle of its box; 0 on the ellipse, -3 in the corners
_REACH = 0.7  # of its radius, where the edge of the picture ends the box: the object goes on beyond
_SURROUNDINGS = 0.2  # of the box's sides
_RARE = 5e-4  # share that every colour has at least
_GRAIN = 0.02  # blur of the evidence, of the box's mean side

_OPTICAL_DENSITY = -np.log(np.maximum(np.arange(256), 1) / 255).astype(np.float32)
_STAINS: Floats = np.asarray(hed_from_rgb, dtype=np.float32)
# Neighbouring colours share what is seen of each.
_NEIGHBOURS: Floats = gaussian_filter1d(np.eye(_LEVELS, dtype=np.float32), 0.5, mode="constant")
_SPREAD_KK: Floats = reduce(np.kron, [_NEIGHBOURS] * 3)


class _Place(NamedTuple):
    """A box with its surroundings.

    Attributes:
        box_hw: the box.
        free_hw: what no box covers.
        distance_hw: squared distance from the middle, 1 on the ellipse that fills the box.
    """

    box_hw: Mask
    free_hw: Mask
    distance_hw: Floats


class ClassicalSegmenter:
    """Segments by colour and place; deterministic.

    The colours of a picture are coded once for all its boxes, and again only after `KEPT_IMAGES` others;
    pictures are told apart by their bytes.
    """

    def __init__(self) -> None:
        self._coded = lru_cache(maxsize=KEPT_IMAGES)(_coded)

    def segment(self, data: bytes, boxes: Sequence[Box]) -> Mask:
        """The union of the masks of some boxes.

        Args:
            data: the image file.
            boxes: in image px; they are clipped to the image, and those without area give nothing.

        Returns:
            mask_HW: bool; inside the boxes.

        Raises:
            DataError: the image cannot be decoded.
        """
        codes_HW = self._coded(data)
        size = (codes_HW.shape[1], codes_HW.shape[0])
        inside = [box for box in map(View(size).clip, boxes) if box.area > 0]
        free_HW = ~_filled(inside, size)
        mask_HW = np.zeros(codes_HW.shape, dtype=np.bool_)
        for box in inside:
            around = _window(_grown(box), size)
            place = _Place(_filled([box], size)[around], free_HW[around], _distance(box, around, size))
            mask_HW[around] |= _object(codes_HW[around], place, max(_GRAIN * box.area**0.5, 0.5))
        return mask_HW


def colour_codes(image: Image.Image) -> Codes:
    """The colour of each pixel as one number: three stain amounts, each in levels of the picture's own range.

    Returns:
        codes_HW: 0 to K - 1.
    """
    soft_HW3 = np.asarray(image.filter(ImageFilter.GaussianBlur(1)))
    amounts_HW3 = _OPTICAL_DENSITY[soft_HW3] @ _STAINS
    codes_HW = np.zeros(soft_HW3.shape[:2], dtype=np.uint8)
    for amounts_HW in np.moveaxis(amounts_HW3, -1, 0):
        low, high = np.percentile(amounts_HW[::4, ::4], (1, 99))
        levels_HW = (amounts_HW - low) * (_LEVELS / max(high - low, 1e-3))
        codes_HW = codes_HW * np.uint8(_LEVELS) + np.clip(levels_HW, 0, _LEVELS - 1).astype(np.uint8)
    return codes_HW


def _coded(data: bytes) -> Codes:
    return colour_codes(decode_image(data))


def _object(codes_hw: Codes, place: _Place, grain: float) -> Mask:
    """The object of one box; `grain` is the blur of the evidence, px."""
    prior_hw = _CERTAINTY * (1 - place.distance_hw)
    object_hw = place.box_hw & (prior_hw > 0)
    for _ in range(_ROUNDS):
        rest_hw = place.free_hw | (place.box_hw & ~object_hw)
        evidence_K = np.log(_shares(codes_hw[object_hw]) / _shares(codes_hw[rest_hw]))
        found_hw = place.box_hw & (gaussian_filter(evidence_K[codes_hw], grain) + prior_hw > 0)
        if not found_hw.any():
            break
        object_hw = found_hw
    return object_hw


def _shares(codes: Codes) -> Floats:
    """How common each of the K colours is."""
    shares_K = np.bincount(codes, minlength=len(_SPREAD_KK)) / max(len(codes), 1)
    return (_SPREAD_KK @ shares_K + _RARE).astype(np.float32)


def _distance(box: Box, window: Window, size: Size) -> Floats:
    """The `distance_hw` of a `_Place`."""
    rows = _along(window[0], box.y0, box.y1, size[1])
    columns = _along(window[1], box.x0, box.x1, size[0])
    return rows[:, None] + columns[None, :]


def _along(pixels: slice, low: float, high: float, extent: int) -> Floats:
    """The same along one axis; a box at the edge of the picture is taken to hold a part of an ellipse."""
    centres = np.arange(pixels.start, pixels.stop, dtype=np.float32) + np.float32(0.5)
    away = (centres - np.float32((low + high) / 2)) / np.float32(max((high - low) / 2, 0.5))
    if low < 0.5:
        away[away < 0] *= _REACH
    if high > extent - 0.5:
        away[away > 0] *= _REACH
    return away**2


def _grown(box: Box) -> Box:
    """A box with its surroundings."""
    x, y = (2 + _SURROUNDINGS * side for side in (box.x1 - box.x0, box.y1 - box.y0))
    return Box(box.x0 - x, box.y0 - y, box.x1 + x, box.y1 + y)


def _filled(boxes: Iterable[Box], size: Size) -> Mask:
    mask_HW = np.zeros(size[::-1], dtype=np.bool_)
    for box in boxes:
        mask_HW[_window(box, size)] = True
    return mask_HW


def _window(box: Box, size: Size) -> Window:
    """The pixels whose centres lie in a box."""
    width, height = size
    return (
        slice(_first_centre(box.y0, height), _first_centre(box.y1, height)),
        slice(_first_centre(box.x0, width), _first_centre(box.x1, width)),
    )


def _first_centre(edge: float, extent: int) -> int:
    return int(np.ceil(min(max(edge, 0.0), extent) - 0.5))
