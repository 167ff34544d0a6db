"""How much stain lies in a pixel.

Source: Ruifrok & Johnston 2001: optical densities of stains add up, so amounts are a linear function of them.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from skimage.color import hed_from_rgb

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]

_HAEMATOXYLIN = np.asarray(hed_from_rgb, dtype=np.float32)[:, 0]
_BRIGHT = 98


def optical_density(rgb_HW3: Pixels, white: Sequence[float] = (255, 255, 255)) -> Floats:
    """Natural optical density of each channel, 0 where it is as bright as empty glass.

    Args:
        rgb_HW3: a picture.
        white: red, green and blue of empty glass.

    Returns:
        density_HW3.

    Example:
        >>> optical_density(np.full((1, 1, 3), 94, np.uint8)).round(1).tolist()
        [[[1.0, 1.0, 1.0]]]
    """
    out = np.empty(rgb_HW3.shape, dtype=np.float32)
    levels = np.maximum(np.arange(256), 1)
    for channel, bright in enumerate(white):
        table = np.maximum(-np.log(levels / bright), 0).astype(np.float32)
        out[..., channel] = table[rgb_HW3[..., channel]]
    return out


def haematoxylin(density_HW3: Floats) -> Floats:
    """Amount of haematoxylin (H x W) in optical densities, at least 0, apart from eosin and brown."""
    amount_HW: Floats = np.maximum(density_HW3 @ _HAEMATOXYLIN, 0)
    return amount_HW


def brightest(rgb_HW3: Pixels) -> tuple[float, float, float]:
    """Red, green and blue of empty glass: what only two pixels in a hundred are brighter than."""
    red, green, blue = (float(max(v, 1.0)) for v in np.percentile(rgb_HW3[::2, ::2], _BRIGHT, axis=(0, 1)))
    return (red, green, blue)
