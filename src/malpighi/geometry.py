"""Frames, boxes and microns: the only file that converts between frames, levels and microns per pixel.

Conventions everywhere: a size is (width, height), a point is (x, y), an array is (row, column). A box is the
half-open rectangle x0 <= x < x1, y0 <= y < y1 in the continuous plane of its frame, so a one-pixel box has
area 1.

Six frames hang together: `slide` (level-0 pixels), `image` (pixels of the image as stored), `resized`
(pixels of the image as the model's processor resized it; Qwen2.5-VL speaks this), and three relative to the
image's width and height: `relative1000` (0 to 1000; Qwen2-VL, Qwen3-VL and InternVL speak this), `relative1`
(0 to 1; LLaVA) and `bins1024` (1,024 bins, the last of them 1023; PaliGemma's location tokens).
"""

import math
from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

import msgspec
from numpy.typing import NDArray

from malpighi.errors import DataError, MissingScaleError

Size = tuple[int, int]


class Frame(StrEnum):
    """The coordinate system that a box's numbers belong to."""

    SLIDE = "slide"
    IMAGE = "image"
    RESIZED = "resized"
    RELATIVE1000 = "relative1000"
    RELATIVE1 = "relative1"
    BINS1024 = "bins1024"


_RELATIVE: dict[Frame, float] = {Frame.RELATIVE1000: 1000.0, Frame.RELATIVE1: 1.0, Frame.BINS1024: 1024.0}


class Box(msgspec.Struct, frozen=True):
    """An axis-parallel rectangle that knows its frame.

    Attributes:
        x0: left edge, inclusive, in the unit of `frame`.
        y0: top edge, inclusive.
        x1: right edge, exclusive.
        y1: bottom edge, exclusive.
        frame: the coordinate system of the four numbers.
    """

    x0: float
    y0: float
    x1: float
    y1: float
    frame: Frame = Frame.IMAGE

    @property
    def area(self) -> float:
        """Area in squared units of the frame; 0 for a degenerate box."""
        return max(self.x1 - self.x0, 0.0) * max(self.y1 - self.y0, 0.0)

    @property
    def corners(self) -> tuple[float, float, float, float]:
        """The four numbers (x0, y0, x1, y1) without the frame."""
        return (self.x0, self.y0, self.x1, self.y1)


class Region(msgspec.Struct, frozen=True):
    """A rectangle of a slide in level-0 pixels, and the slide's scale there.

    Attributes:
        x: left edge, level-0 px.
        y: top edge, level-0 px.
        width: extent along x, level-0 px.
        height: extent along y, level-0 px.
        mpp: micrometres per level-0 pixel; None where the slide states none.
    """

    x: float
    y: float
    width: float
    height: float
    mpp: float | None = None


class Affine(NamedTuple):
    """A scale and a shift along each axis: x becomes `x * scale_x + shift_x`, and y alike.

    Attributes:
        scale_x: units of the new frame per unit of the old.
        scale_y: the same along y.
        shift_x: where the old origin lies in the new frame.
        shift_y: the same along y.
    """

    scale_x: float
    scale_y: float
    shift_x: float
    shift_y: float

    @property
    def inverse(self) -> "Affine":
        """The way back."""
        return Affine(
            1 / self.scale_x, 1 / self.scale_y, -self.shift_x / self.scale_x, -self.shift_y / self.scale_y
        )


class View(msgspec.Struct, frozen=True):
    """How the frames of one image hang together.

    Attributes:
        image_size: (width, height) of the stored image, px.
        resized_size: (width, height) after the model's resizing, px; None where no model is involved.
        region: the part of a slide that the image shows; None for an image of its own.
    """

    image_size: Size
    resized_size: Size | None = None
    region: Region | None = None

    def extent(self, frame: Frame) -> tuple[float, float]:
        """Width and height of the whole image in the unit of `frame`.

        Raises:
            DataError: the frame needs a resized size or a slide region that this view does not have.
        """
        if frame is Frame.IMAGE:
            return (float(self.image_size[0]), float(self.image_size[1]))
        if frame in _RELATIVE:
            return (_RELATIVE[frame], _RELATIVE[frame])
        if frame is Frame.RESIZED and self.resized_size is not None:
            return (float(self.resized_size[0]), float(self.resized_size[1]))
        if frame is Frame.SLIDE and self.region is not None:
            return (self.region.width, self.region.height)
        missing = "resized_size" if frame is Frame.RESIZED else "region"
        raise DataError(
            f"a view of a {self.image_size} image without {missing} has no frame '{frame}'; pass it"
        )

    def convert(self, box: Box, to: Frame) -> Box:
        """The same rectangle in another frame, exact (no rounding, no clipping).

        Example:
            >>> View((200, 100), (112, 56)).convert(Box(50, 25, 100, 75), Frame.RELATIVE1000).corners
            (250.0, 250.0, 500.0, 750.0)
        """
        from_w, from_h = self.extent(box.frame)
        to_w, to_h = self.extent(to)
        from_x, from_y = self._origin(box.frame)
        to_x, to_y = self._origin(to)
        scale_x, scale_y = to_w / from_w, to_h / from_h
        return Box(
            (box.x0 - from_x) * scale_x + to_x,
            (box.y0 - from_y) * scale_y + to_y,
            (box.x1 - from_x) * scale_x + to_x,
            (box.y1 - from_y) * scale_y + to_y,
            to,
        )

    def affine(self, of: Frame, to: Frame) -> Affine:
        """What `convert` does, as numbers, for many points at once.

        Example:
            >>> View((100, 50), region=Region(1000, 0, 400, 200)).affine(Frame.SLIDE, Frame.IMAGE)
            Affine(scale_x=0.25, scale_y=0.25, shift_x=-250.0, shift_y=0.0)
        """
        origin = self.convert(Box(0, 0, 1, 1, of), to)
        return Affine(origin.x1 - origin.x0, origin.y1 - origin.y0, origin.x0, origin.y0)

    def clip(self, box: Box) -> Box:
        """The part of `box` inside the image, same frame; may be degenerate (area 0)."""
        width, height = self.extent(box.frame)
        left, top = self._origin(box.frame)
        return Box(
            min(max(box.x0, left), left + width),
            min(max(box.y0, top), top + height),
            min(max(box.x1, left), left + width),
            min(max(box.y1, top), top + height),
            box.frame,
        )

    def spoken(self, box: Box, frame: Frame) -> tuple[float, float, float, float]:
        """The four numbers that a model of this frame writes for `box`: converted, clipped, rounded.

        They are integers, in `relative1` thousandths; there is no bin 1024, so the far edge of an image is
        bin 1023. A box with area keeps area: an edge that rounds onto its opposite moves out by one, inside
        the image.

        Example:
            >>> View((200, 100)).spoken(Box(50, 25, 200, 75), Frame.RELATIVE1)
            (0.25, 0.25, 1.0, 0.75)
            >>> View((200, 100)).spoken(Box(50, 25, 200, 75), Frame.BINS1024)
            (256, 256, 1023, 768)
        """
        if frame is Frame.RELATIVE1:
            x0, y0, x1, y1 = self.spoken(box, Frame.RELATIVE1000)
            return (x0 / 1000, y0 / 1000, x1 / 1000, y1 / 1000)
        last = 1023 if frame is Frame.BINS1024 else None
        x0, y0, x1, y1 = (_round(v) for v in self.clip(self.convert(box, frame)).corners)
        if last is not None:
            x0, y0, x1, y1 = (min(v, last) for v in (x0, y0, x1, y1))
        width, height = self.extent(frame)
        left, top = self._origin(frame)
        if box.area > 0:
            x0, x1 = _widen(x0, x1, _round(left), last or _round(left + width))
            y0, y1 = _widen(y0, y1, _round(top), last or _round(top + height))
        return (x0, y0, x1, y1)

    def _origin(self, frame: Frame) -> tuple[float, float]:
        if frame is Frame.SLIDE and self.region is not None:
            return (self.region.x, self.region.y)
        return (0.0, 0.0)


def to_pixels(microns: float, mpp: float | None) -> float:
    """Length in pixels of `microns` micrometres at `mpp` micrometres per pixel.

    Raises:
        MissingScaleError: `mpp` is None; a scale is never assumed.

    Example:
        >>> to_pixels(64.0, 0.5)
        128.0
    """
    return microns / _scale(mpp)


def to_microns(pixels: float, mpp: float | None) -> float:
    """Length in micrometres of `pixels` pixels.

    Raises:
        MissingScaleError: `mpp` is None.
    """
    return pixels * _scale(mpp)


def to_square_microns(square_pixels: float, mpp: float | None) -> float:
    """Area in square micrometres of an area in squared pixels.

    Raises:
        MissingScaleError: `mpp` is None.

    Example:
        >>> to_square_microns(100.0, 0.5)
        25.0
    """
    return square_pixels * _scale(mpp) ** 2


def coarser(mpp: float | None, downsample: float) -> float | None:
    """Micrometres per pixel after shrinking by `downsample`; None stays None.

    Example:
        >>> coarser(0.25, 4)
        1.0
    """
    return None if mpp is None else mpp * downsample


def shrinkage(mpp: float | None, target: float) -> float:
    """By how much an image of `mpp` micrometres per pixel shrinks to have `target`; below 1 it grows.

    Raises:
        MissingScaleError: `mpp` is None; a scale is never assumed.

    Example:
        >>> shrinkage(0.25, 1.0)
        4.0
    """
    return target / _scale(mpp)


def mpp_of_extent(microns: float, pixels: float) -> float:
    """Micrometres per pixel where `pixels` pixels span `microns` micrometres.

    Example:
        >>> mpp_of_extent(10_000, 40_000)
        0.25
    """
    return microns / pixels


def downsample_of(full: Size, level: Size) -> float:
    """How many level-0 px make one px of a level: the mean of the ratios of both sides, as OpenSlide counts.

    Example:
        >>> downsample_of((10, 9), (5, 4))
        2.125
    """
    return (full[0] / level[0] + full[1] / level[1]) / 2


def on_level(region: Region, downsample: float) -> tuple[float, float, float, float]:
    """Corners (x0, y0, x1, y1) of a region in the pixels of a level that is `downsample` times coarser.

    Example:
        >>> on_level(Region(8, 0, 16, 6), 4.0)
        (2.0, 0.0, 6.0, 1.5)
    """
    x1, y1 = region.x + region.width, region.y + region.height
    return (region.x / downsample, region.y / downsample, x1 / downsample, y1 / downsample)


def on_slide(corners: tuple[float, float, float, float], downsample: float, mpp: float | None) -> Region:
    """The region, level-0 px, of corners (x0, y0, x1, y1) on a level; the opposite of `on_level`."""
    x0, y0, x1, y1 = (corner * downsample for corner in corners)
    return Region(x0, y0, x1 - x0, y1 - y0, mpp)


def apart(step: float, downsample: float) -> float:
    """By what part a level is off from `step` level-0 px per px.

    Example:
        >>> apart(2.0, 1.5)
        0.25
    """
    return abs(downsample / step - 1.0)


def level_steps(starts: Iterable[int], downsample: float) -> list[int]:
    """Positions along one side of a level as whole level-0 px, the nearest ones.

    Example:
        >>> level_steps([0, 256, 512], 4.002)
        [0, 1025, 2049]
    """
    return [_round(start * downsample) for start in starts]


def level_corner(corner: tuple[int, int], downsample: float) -> tuple[int, int]:
    """The (x, y) on a level that `level_steps` put at `corner`, level-0 px; exact where `downsample` >= 1.

    Example:
        >>> level_corner((1025, 2049), 4.002)
        (256, 512)
    """
    return (_round(corner[0] / downsample), _round(corner[1] / downsample))


def px_of_level(pixels: float, downsample: float) -> int:
    """A length in level-0 px as whole px of a level, the nearest number from 1 on.

    Example:
        >>> px_of_level(487, 2.0)
        244
    """
    return max(1, _round(pixels / downsample))


def magnification(mpp: float | None) -> float:
    """The nominal magnification that goes by a scale: the usual one (10 um / mpp) nearest on a log scale.

    A label for formats that ask for one; never the way from a magnification to a scale.

    Raises:
        MissingScaleError: `mpp` is None.

    Example:
        >>> magnification(0.2527), magnification(0.499)
        (40.0, 20.0)
    """
    usual = (100.0, 80.0, 60.0, 40.0, 20.0, 10.0, 5.0, 2.5, 1.25)
    exact = 10.0 / _scale(mpp)
    return min(usual, key=lambda label: abs(math.log(label / exact)))


def points_on_slide(points_N2: NDArray, downsample: float) -> NDArray:
    """Points (x, y) of a picture that is `downsample` times coarser than level 0, in level-0 px.

    Example:
        >>> import numpy as np
        >>> points_on_slide(np.array([[1.5, 2.0]]), 4.0).tolist()
        [[6.0, 8.0]]
    """
    return points_N2 * downsample


def boxes_on_level(boxes_N4: NDArray, downsample: float) -> NDArray:
    """Boxes (x0, y0, x1, y1), level-0 px, in the pixels of a level that is `downsample` times coarser.

    Example:
        >>> import numpy as np
        >>> boxes_on_level(np.array([[8, 0, 24, 6]]), 4.0).tolist()
        [[2.0, 0.0, 6.0, 1.5]]
    """
    return boxes_N4 / downsample


def box_of(region: Region) -> Box:
    """A region of a slide as a box in level-0 px."""
    return Box(region.x, region.y, region.x + region.width, region.y + region.height, Frame.SLIDE)


def region_of(box: Box, mpp: float | None) -> Region:
    """A box in level-0 px as a region of a slide that states `mpp`; the opposite of `box_of`.

    Raises:
        DataError: the box is in another frame.
    """
    if box.frame is not Frame.SLIDE:
        raise DataError(f"a region needs a box in level-0 px; found one in frame '{box.frame}'")
    return Region(box.x0, box.y0, box.x1 - box.x0, box.y1 - box.y0, mpp)


def _scale(mpp: float | None) -> float:
    if mpp is None or not math.isfinite(mpp) or mpp <= 0:
        raise MissingScaleError(
            f"the image states no usable scale (mpp={mpp}); "
            "give micrometres per pixel (a 20x objective is often near 0.5)"
        )
    return mpp


def _round(value: float) -> int:
    return math.floor(value + 0.5)


def _widen(low: int, high: int, first: int, last: int) -> tuple[int, int]:
    if high > low or last <= first:
        return low, high
    return (low, low + 1) if low < last else (last - 1, last)
