"""Pictures made smaller: every new pixel is the mean over the area it covers, fractions of pixels included.

So a picture may be made in parts, and the parts fit without a seam.
"""

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from malpighi.geometry import Size

Box = tuple[float, float, float, float]

_WHOLE = 1e-3


def mean_over_areas(rgb: NDArray[np.uint8], size: Size, box: Box) -> NDArray[np.uint8]:
    """A part of a picture, reduced.

    Args:
        rgb: H x W x 3.
        size: (width, height) of the result, px; not larger than the part.
        box: (x0, y0, x1, y1) of the part, px; may be fractional, must lie within the picture.

    Returns:
        rgb_HW3 of `size`, a new array.

    Example:
        >>> mean_over_areas(np.uint8([[[0] * 3, [90] * 3, [200] * 3]]), (1, 1), (0.5, 0, 2.0, 1)).tolist()
        [[[60, 60, 60]]]
    """
    height, width = rgb.shape[:2]
    if max(abs(a - b) for a, b in zip(box, (0, 0, width, height), strict=True)) < _WHOLE:
        if size == (width, height):
            return rgb.copy()
        return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    rows = _weights(box[1], box[3], size[1], height) @ rgb.reshape(height, width * 3).astype(np.float32)
    turned = cv2.transpose(rows.reshape(size[1], width, 3)).reshape(width, size[1] * 3)
    both = (_weights(box[0], box[2], size[0], width) @ turned).reshape(size[0], size[1], 3)
    means: NDArray[np.uint8] = np.rint(cv2.transpose(both)).astype(np.uint8)
    return means


def _weights(start: float, end: float, count: int, length: int) -> sparse.csr_array:
    """How much each of `length` pixels counts for each of `count` equal parts of a stretch."""
    edges = np.linspace(start, end, count + 1)
    first = np.floor(edges[:-1] + 1e-9).astype(np.int64)
    taps = int(np.max(np.ceil(edges[1:] - 1e-9) - first, initial=1))
    pixels = first[:, None] + np.arange(taps)
    shares = np.minimum(pixels + 1, edges[1:, None]) - np.maximum(pixels, edges[:-1, None])
    shares = np.where(pixels < length, shares, 0).clip(0)
    shares /= shares.sum(axis=1, keepdims=True)
    rows = np.arange(0, count * taps + 1, taps)
    parts = (shares.astype(np.float32).ravel(), np.minimum(pixels, length - 1).ravel(), rows)
    return sparse.csr_array(parts, shape=(count, length))
