"""Where on the slide the pixels of a view lie: the way there and back, piece by piece."""

import msgspec

from malpighi.errors import DataError
from malpighi.geometry import Box, Frame, Region, Size, View, box_of, region_of

_ROUNDING = 1.0
"""Px beyond its piece to which a thin box at the edge may be rounded."""


class Piece(msgspec.Struct, frozen=True):
    """A part of the slide and its place in the picture.

    Attributes:
        place: whole px of the picture.
        region: the part of the slide shown there, level-0 px; it may reach over the slide's edge.
    """

    place: Box
    region: Region

    @property
    def affine(self) -> tuple[float, float, float, float, float, float]:
        """(a, b, c, d, e, f) with x_slide = a x + b y + c and y_slide = d x + e y + f; x, y in picture px."""
        a, e = self.region.width / self._size[0], self.region.height / self._size[1]
        return (a, 0.0, self.region.x - a * self.place.x0, 0.0, e, self.region.y - e * self.place.y0)

    @property
    def _size(self) -> Size:
        return (round(self.place.x1 - self.place.x0), round(self.place.y1 - self.place.y0))

    def to_slide(self, box: Box) -> Box:
        """A box of the picture, px, in level-0 px; what lies beyond the piece is cut off."""
        view = View(self._size, region=self.region)
        return view.convert(view.clip(_moved(box, -self.place.x0, -self.place.y0)), Frame.SLIDE)

    def from_slide(self, box: Box) -> Box:
        """A box in level-0 px as a box of the picture, px; what lies beyond the piece is cut off."""
        view = View(self._size, region=self.region)
        return _moved(view.clip(view.convert(box, Frame.IMAGE)), self.place.x0, self.place.y0)


class ViewMap(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a view beside its pixels.

    Attributes:
        size: (width, height) of the picture, px: multiples of `pixels_per_token`.
        frame: the frame in which the model writes boxes: `resized` or `relative1000`.
        pixels_per_token: side of the square that costs one token, px.
        tokens: what the picture costs.
        step: level-0 px per px of the picture, along both sides.
        mpp: micrometres per px of the picture; None where the slide states no scale.
        pieces: the parts of the slide that are shown.
        slide: path of the slide.
    """

    size: Size
    frame: Frame
    pixels_per_token: int
    tokens: int
    step: float
    mpp: float | None
    pieces: tuple[Piece, ...]
    slide: str = ""

    def to_slide(self, box: Box) -> Box | None:
        """Where a box of the picture lies on the slide.

        A box over several pieces belongs to the one that holds most of it, and is cut off at its edge: apart
        on the slide, pieces are neighbours in the picture only.

        Args:
            box: in any frame of the picture: the model's, or px (`Frame.IMAGE`).

        Returns:
            The box in level-0 px; None where the picture shows no part of the slide.

        Raises:
            DataError: a box that is already in level-0 px.
        """
        if box.frame is Frame.SLIDE:
            raise DataError("to_slide takes a box of the picture; this one is in level-0 px already")
        flat = self._view.convert(box, Frame.IMAGE)
        best = max(self.pieces, key=lambda piece: _held(piece.place, flat))
        area, away = _held(best.place, flat)
        return best.to_slide(flat) if area > 0 or -away <= _ROUNDING else None

    def to_region(self, box: Box) -> Region | None:
        """As `to_slide`, as a region to read."""
        there = self.to_slide(box)
        return None if there is None else region_of(there, self.pieces[0].region.mpp)

    def from_slide(self, box: Box, frame: Frame | None = None) -> Box | None:
        """Where the picture shows a box of the slide.

        Args:
            box: level-0 px.
            frame: the frame wanted; the model's where None.

        Returns:
            The box as the piece shows it that holds most of it; None where it is not shown.

        Raises:
            DataError: a box in another frame.
        """
        if box.frame is not Frame.SLIDE:
            raise DataError(f"from_slide takes a box in level-0 px; found frame '{box.frame}'")
        best = max(self.pieces, key=lambda piece: _held(box_of(piece.region), box))
        if _held(box_of(best.region), box) < (0.0, 0.0):
            return None
        return self._view.convert(best.from_slide(box), frame or self.frame)

    def spoken(self, box: Box) -> tuple[float, float, float, float] | None:
        """The four numbers that the model writes for a box in level-0 px; None where it is not shown."""
        here = self.from_slide(box, Frame.IMAGE)
        return None if here is None else self._view.spoken(here, self.frame)

    @property
    def _view(self) -> View:
        return View(self.size, self.size)


def _moved(box: Box, x: float, y: float) -> Box:
    return Box(box.x0 + x, box.y0 + y, box.x1 + x, box.y1 + y, box.frame)


def _held(place: Box, box: Box) -> tuple[float, float]:
    """How much of a box lies in a place: the shared area, then minus how far its middle lies outside."""
    width = min(place.x1, box.x1) - max(place.x0, box.x0)
    height = min(place.y1, box.y1) - max(place.y0, box.y0)
    x, y = (box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2
    away = max(place.x0 - x, x - place.x1, place.y0 - y, y - place.y1, 0.0)
    return (max(width, 0.0) * max(height, 0.0), -away)
