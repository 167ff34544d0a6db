"""A plain picture as a slide of one level, decoded once and held whole."""

from pathlib import Path
from typing import Any

import numpy as np

from malpighi.errors import DataError
from malpighi.geometry import Size
from malpighi.pixels import decode_image
from malpighi.slides.slide import WHITE, Level, Pixels, Slide, SlideFacts

MAX_PIXELS = 1 << 29
"""Larger pictures are refused: 1.6 GB as pixels. The JPEG slides of BCNB reach 20,000 px a side."""


class PictureSlide(Slide):
    """A JPEG, PNG or alike.

    Args:
        path: the file.
        mpp: micrometres per pixel where the user states one; pictures state none that can be trusted.
        source: where `mpp` comes from.
        notes: what a user should know.

    Raises:
        DataError: not a readable picture, or one of too many pixels to hold.
    """

    def __init__(
        self, path: Path, mpp: float | None = None, source: str = "given", notes: tuple[str, ...] = ()
    ) -> None:
        try:
            self._rgb: Pixels | None = np.asarray(decode_image(path.read_bytes(), max_pixels=MAX_PIXELS))
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}") from error
        height, width = self._rgb.shape[:2]
        levels = (Level((width, height), 1.0),)
        self._made_with = (mpp, source, notes)
        told = source if mpp is not None else ""
        facts = SlideFacts(reader="picture", levels=levels, mpp=mpp, mpp_source=told, notes=notes)
        super().__init__(path, facts)

    def _decode(self, level: int, corner: tuple[int, int], size: Size, shrink: int) -> Pixels:
        del level, shrink
        if self._rgb is None:
            raise DataError(f"{self.path} is closed; open the slide again")
        return cut(self._rgb, corner, size)

    def close(self) -> None:
        """Let go of the pixels."""
        self._rgb = None

    def __reduce__(self) -> tuple[Any, ...]:
        return (PictureSlide, (self.path, *self._made_with))


def cut(rgb: Pixels, corner: tuple[int, int], size: Size) -> Pixels:
    """A rectangle of a picture; white where it reaches over the edge.

    Args:
        rgb: H x W x 3.
        corner: (x, y) of the upper left corner, px; may be negative.
        size: (width, height), px.

    Example:
        >>> cut(np.zeros((2, 2, 3), np.uint8), (1, 1), (2, 1))[0, :, 0].tolist()
        [0, 255]
    """
    (x, y), (width, height) = corner, size
    out = np.full((height, width, 3), WHITE, dtype=np.uint8)
    x0, y0 = max(x, 0), max(y, 0)
    x1, y1 = min(x + width, rgb.shape[1]), min(y + height, rgb.shape[0])
    if x1 > x0 and y1 > y0:
        out[y0 - y : y1 - y, x0 - x : x1 - x] = rgb[y0:y1, x0:x1]
    return out
