"""Empty glass: its colour, and how much light every pixel takes away from it.

Shape legend: H x W = rows x columns, 3 = red, green, blue. Optical density is natural: -ln(I / glass).
"""

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from malpighi.slides.slide import Pixels

Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]
Colour = tuple[float, float, float]

USUAL: Colour = (243.0, 243.0, 243.0)

_BLACK = 12  # no camera sees so little light through ink or tissue of a picture this coarse
_PADDING = 254  # white that scanners and readers put where nothing was scanned
_BRIGHT = 0.72  # of the brightest, at least, is glass
_SMOOTH = 5  # most difference to any neighbour, grey levels
_LEAST_SHARE = 0.003  # of the scanned pixels, to be believed
_PINK = 0.08  # green this much fainter than red and blue is stain, not glass
_COLOURFUL = 0.3  # most saturation of glass
_BINS = 64


class Glass(msgspec.Struct, frozen=True):
    """What the camera sees where nothing lies.

    Attributes:
        colour: (red, green, blue), 0 to 255.
        spread: how far the colourfulness of glass departs from 0, robust standard deviation.
        seen: whether any was found; else the colour is `USUAL`.
    """

    colour: Colour
    spread: float
    seen: bool


def find_glass(rgb_HW3: Pixels, scanned_HW: Mask | None = None) -> Glass:
    """The colour of empty glass in a picture at low power: what is bright, even and common.

    Args:
        rgb_HW3: the picture.
        scanned_HW: what the scanner saw; what it left out has a colour of its own. All, by default.
    """
    even_HW = _even(rgb_HW3)
    if scanned_HW is not None:
        even_HW &= scanned_HW
    light_HW = rgb_HW3.max(axis=2)
    most = np.percentile(light_HW, 99.5) if light_HW.size else 255
    even_HW &= light_HW >= _BRIGHT * most
    even_HW &= light_HW.astype(np.int16) - rgb_HW3.min(axis=2) <= _COLOURFUL * light_HW
    padded_HW = rgb_HW3.min(axis=2) >= _PADDING
    enough = max(_LEAST_SHARE * even_HW.size, 4)
    if np.count_nonzero(even_HW & ~padded_HW) >= enough:
        even_HW &= ~padded_HW
    colours_N3 = rgb_HW3[even_HW].astype(np.float32)
    if len(colours_N3) < enough:
        return Glass(USUAL, 0.0, seen=False)
    common_N3 = colours_N3[_commonest(colours_N3)]
    red, green, blue = (float(v) for v in np.median(common_N3, axis=0))
    if green < (1 - _PINK) * min(red, blue):
        return Glass(USUAL, 0.0, seen=False)
    glass = (max(red, 1.0), max(green, 1.0), max(blue, 1.0))
    colourful_N = colourfulness(density(common_N3.astype(np.uint8)[None], glass))[0]
    return Glass(glass, float(np.median(colourful_N)) * 1.5, seen=True)


def scanned(rgb_HW3: Pixels) -> Mask:
    """What the scanner saw: all but black padding that reaches the border of the picture.

    Returns:
        scanned_HW: bool.
    """
    dark_HW = (rgb_HW3.max(axis=2) <= _BLACK).astype(np.uint8)
    framed_HW = cv2.copyMakeBorder(dark_HW, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=1)
    _, labels_HW = cv2.connectedComponents(framed_HW, connectivity=4)
    return np.asarray(labels_HW[1:-1, 1:-1] != labels_HW[0, 0])


def density(rgb_HW3: Pixels, glass: Colour) -> Floats:
    """Optical density against the glass; below 0 where it is brighter.

    Returns:
        density_HW3: float32.
    """
    steps = np.maximum(np.arange(256, dtype=np.float32), 1)
    return np.stack([(-np.log(steps / np.float32(glass[c])))[rgb_HW3[..., c]] for c in range(3)], axis=-1)


def colourfulness(density_HW3: Floats) -> Floats:
    """Saturation (HSV) after the light of the glass is taken out, 0 to 1; shade alone does not change it.

    Returns:
        colourful_HW: float32.
    """
    red, green, blue = (density_HW3[..., c] for c in range(3))
    most = np.maximum(np.maximum(red, green), blue)
    least = np.minimum(np.minimum(red, green), blue)
    return np.asarray(1 - np.exp(least - most), dtype=np.float32)


def _even(rgb_HW3: Pixels) -> Mask:
    kernel = np.ones((3, 3), np.uint8)
    difference_HW3 = cv2.dilate(rgb_HW3, kernel) - cv2.erode(rgb_HW3, kernel)
    return np.asarray(difference_HW3.max(axis=2) <= _SMOOTH)


def _commonest(colours_N3: Floats) -> Mask:
    """Which colours have the commonest ratios of red and blue to green; shade does not tell them apart."""
    ratios_N2 = np.log(np.maximum(colours_N3[:, [0, 2]], 1) / np.maximum(colours_N3[:, 1:2], 1))
    steps_N2 = np.clip((ratios_N2 + 0.5) * _BINS, 0, _BINS - 1).astype(np.int64)
    counts = np.bincount(steps_N2[:, 0] * _BINS + steps_N2[:, 1], minlength=_BINS**2).reshape(_BINS, _BINS)
    top = np.unravel_index(np.argmax(cv2.blur(counts.astype(np.float32), (3, 3))), counts.shape)
    return np.asarray((np.abs(steps_N2 - np.array(top)) <= 1).all(axis=1))
