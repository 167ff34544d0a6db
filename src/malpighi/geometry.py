"""Frames, boxes and microns: the only file that converts between frames, levels and microns per pixel.

Conventions everywhere: a size is (width, height), a point is (x, y), an array is (row, column). A box is the
half-open rectangle x0 <= x < x1, y0 <= y < y1 in the continuous plane of its frame, so a one-pixel box has
area 1.

Four frames hang together: `slide` (level-0 pixels), `image` (pixels of the image as stored), `resized`
(pixels of the image as the model's processor resized it; Qwen2.5-VL speaks this) and `relative1000` (0 to
1000 of the image's width and height; Qwen3-VL speaks this).
"""

import math
from collections.abc import Iterable
from enum import StrEnum

import msgspec

from malpighi.errors import DataError, MissingScaleError

Size = tuple[int, int]


class Frame(StrEnum):
    """The coordinate system that a box's numbers belong to."""

    SLIDE = "slide"
    IMAGE = "image"
    RESIZED = "resized"
    RELATIVE1000 = "relative1000"


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
        if frame is Frame.RELATIVE1000:
            return (1000.0, 1000.0)
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

    def spoken(self, box: Box, frame: Frame) -> tuple[int, int, int, int]:
        """The four integers that a model of this frame writes for `box`: converted, clipped, rounded.

        A box with area keeps area: an edge that rounds onto its opposite moves out by one, inside the image.
        """
        x0, y0, x1, y1 = (_round(v) for v in self.clip(self.convert(box, frame)).corners)
        width, height = self.extent(frame)
        left, top = self._origin(frame)
        if box.area > 0:
            x0, x1 = _widen(x0, x1, _round(left), _round(left + width))
            y0, y1 = _widen(y0, y1, _round(top), _round(top + height))
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
