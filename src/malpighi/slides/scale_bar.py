"""The bar that tells how long something is."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from malpighi.geometry import to_pixels

Pixels = NDArray[np.uint8]

_LONGEST = 0.25
"""Of the picture's width."""
_SHORTEST = 20
_MARGIN = 4
_LETTERS = 11
_INK, _PAPER = (0, 0, 0), (255, 255, 255)


class ScaleBar(NamedTuple):
    """A bar of a round length.

    Attributes:
        microns: its length on the specimen, micrometres: 1, 2 or 5 times a power of ten.
        pixels: its length in the picture.
    """

    microns: float
    pixels: float

    @property
    def words(self) -> str:
        """The length as a prompt says it.

        Example:
            >>> ScaleBar(2000.0, 100.0).words, ScaleBar(50.0, 100.0).words
            ('2 mm', '50 micrometres')
        """
        return self.label.replace("um", "micrometres")

    @property
    def label(self) -> str:
        """The length as the picture says it; PIL's own font has no Greek letters."""
        return f"{self.microns / 1000:g} mm" if self.microns >= 1000 else f"{self.microns:g} um"


def bar_for(mpp: float | None, width: int) -> ScaleBar | None:
    """The longest round bar of at most a quarter of the picture's width.

    Args:
        mpp: micrometres per px of the picture.
        width: of the picture, px.

    Returns:
        None where the scale is unknown or the picture has no room.

    Example:
        >>> bar_for(8.0, 1024)
        ScaleBar(microns=2000.0, pixels=250.0)
    """
    room = width * _LONGEST
    if mpp is None or room < _SHORTEST:
        return None
    one = to_pixels(1.0, mpp)
    power = 10.0 ** math.floor(math.log10(room / one))
    microns = max(m * power for m in (1.0, 2.0, 5.0) if m * power * one <= room * (1 + 1e-9))
    return ScaleBar(microns, microns * one)


def draw_bar(rgb_HW3: Pixels, bar: ScaleBar) -> bool:
    """Draw a bar with its label on paper of its own, in place, in the emptiest corner.

    Returns:
        Whether there was room.
    """
    stamp = _stamp(bar)
    height, width = stamp.shape[:2]
    if rgb_HW3.shape[0] < 3 * height or rgb_HW3.shape[1] < width + 2 * _MARGIN:
        return False
    bottom, right = rgb_HW3.shape[0] - height - _MARGIN, rgb_HW3.shape[1] - width - _MARGIN
    corners = ((bottom, right), (bottom, _MARGIN), (_MARGIN, right), (_MARGIN, _MARGIN))
    y, x = max(corners, key=lambda c: float(rgb_HW3[c[0] : c[0] + height, c[1] : c[1] + width].mean()))
    rgb_HW3[y : y + height, x : x + width] = stamp
    return True


def _stamp(bar: ScaleBar) -> Pixels:
    font = ImageFont.load_default(size=_LETTERS)
    left, top, right, bottom = (math.ceil(v) for v in font.getbbox(bar.label))
    length = round(bar.pixels)
    width, height = max(length, right - left) + 8, (bottom - top) + 13
    stamp = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(stamp)
    draw.text(((width - (right - left)) / 2 - left, 3 - top), bar.label, fill=_INK, font=font)
    draw.rectangle(((width - length) // 2, height - 6, (width - length) // 2 + length - 1, height - 4), _INK)
    return np.asarray(stamp)
