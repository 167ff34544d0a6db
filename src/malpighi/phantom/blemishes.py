"""What goes wrong on a slide: ink, loss of focus, folds, air under the coverslip; each with its exact mask.

Shape legend: H x W = rows x columns of level 0, h x w = those of a window of it.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter, shift

from malpighi.phantom.contours import Contour, Floats, Window, coverage, ellipse, ripple, to_area, whole
from malpighi.phantom.stain import Pixels

Mask = NDArray[np.bool_]

# Natural optical density of red, green and blue under felt pens.
INKS: dict[str, tuple[float, float, float]] = {
    "blue": (2.2, 1.1, 0.25),
    "green": (1.9, 0.5, 1.6),
    "black": (1.9, 1.9, 1.8),
    "red": (0.12, 2.1, 1.8),
}
_LEAST_PEN = 60.0  # µm; real strokes are ten times as wide, and real slides as large
_NARROW = 0.028  # of the picture's shorter side


def blur_part(rgb: Pixels, tissue: Mask, rng: np.random.Generator) -> Mask:
    """Put a round part of the tissue out of focus, in place.

    Returns:
        blurred_HW: where it is.
    """
    rows, columns = np.nonzero(tissue[::16, ::16])
    k = int(rng.integers(len(rows)))
    radius = 0.16 * min(rgb.shape[:2])
    disc = Contour(float(columns[k] * 16), float(rows[k] * 16), ellipse(np.pi * radius**2, 1.2, 0.0))
    window = disc.window((rgb.shape[0], rgb.shape[1]), 8)
    depth = disc.depth(window)
    _soften(rgb, window, coverage(depth, 12.0), 5.0)
    blurred = np.zeros(rgb.shape[:2], dtype=bool)
    blurred[window] = depth > 0
    return blurred


def draw_pen(rgb: Pixels, mpp: float, rng: np.random.Generator) -> Mask:
    """A felt-pen arc on the glass, in place.

    Returns:
        ink_HW: where it lies.
    """
    height, width = rgb.shape[:2]
    ink = INKS[list(INKS)[int(rng.integers(len(INKS)))]]
    radius = float(rng.uniform(0.30, 0.38)) * min(height, width)
    ring = Contour(width / 2, height / 2, ellipse(np.pi * radius**2, 1.25, float(rng.uniform(0, np.pi))))
    ring = Contour(ring.x, ring.y, ring.radii * (1 + ripple(rng, range(2, 5), 0.03)))
    half = max(_NARROW * min(height, width), _LEAST_PEN / mpp) / 2
    stroke = np.float32(half) - np.abs(ring.depth(whole((height, width))))
    cover: Floats = coverage(stroke, 4.0)
    for channel in range(3):
        shaded = rgb[..., channel] * np.exp(-np.float32(ink[channel]) * cover)
        rgb[..., channel] = (shaded + 0.5).astype(np.uint8)
    return np.asarray(stroke > 0)


def fold_tissue(field: Floats, tissue: Mask, mpp: float, rng: np.random.Generator) -> Mask:
    """Lay the tissue over itself along two curved bands, in place.

    Args:
        field: dye concentrations (H x W x 3).
        tissue: where tissue lies (H x W).
        mpp: micrometres per pixel.
        rng: source of places and shapes.

    Returns:
        folds_HW: where it lies in several layers.
    """
    folds = np.zeros(tissue.shape, dtype=bool)
    rows, columns = np.nonzero(tissue[::16, ::16])
    for _ in range(2):
        k = int(rng.integers(len(rows)))
        points = _curve(float(columns[k] * 16), float(rows[k] * 16), rng.uniform(300, 700) / mpp, rng)
        window, depth = _band(points, rng.uniform(24, 60) / mpp / 2, tissue.shape)
        if depth.size == 0:
            continue
        away = rng.uniform(-40, 40, 2) / mpp
        layer = np.stack(
            [shift(field[window][..., dye], away, order=0, mode="mirror") for dye in range(3)], -1
        )
        extra = layer * np.float32(rng.uniform(1.2, 2.0)) * coverage(depth, 3.0)[..., None]
        field[window] += extra * tissue[window][..., None]
        folds[window] |= (depth > 0) & tissue[window]
    return folds


def add_bubbles(rgb: Pixels, mpp: float, rng: np.random.Generator) -> Mask:
    """Two bubbles of air under the coverslip, in place: a dark rim, greyer and softer inside.

    Returns:
        air_HW: where they are, rims included.
    """
    shape = (rgb.shape[0], rgb.shape[1])
    air = np.zeros(shape, dtype=bool)
    for _ in range(2):
        radius = min(float(rng.uniform(70, 190)) / mpp, 0.2 * min(shape))
        place = (float(rng.uniform(0.1, 0.9)) * shape[1], float(rng.uniform(0.1, 0.9)) * shape[0])
        oval = ellipse(np.pi * radius**2, float(rng.uniform(1, 1.25)), float(rng.uniform(0, np.pi)))
        bubble = Contour(*place, to_area(oval * (1 + ripple(rng, range(2, 5), 0.015)), np.pi * radius**2))
        window = bubble.window(shape, 8 / mpp)
        depth = bubble.depth(window)
        _soften(rgb, window, coverage(depth, 2.0), 2.5 / mpp)
        rim = np.exp(-(((depth - 5 / mpp) * mpp / rng.uniform(2.5, 4.5)) ** 2))
        density = np.float32(rng.uniform(1.2, 1.8)) * rim + np.float32(rng.uniform(0.04, 0.1)) * (depth > 0)
        rgb[window] = (rgb[window] * np.exp(-density)[..., None] + 0.5).astype(np.uint8)
        air[window] |= depth > 0
    return air


def _soften(rgb: Pixels, window: Window, share_hw: Floats, blur: float) -> None:
    """Blur a share of a window, in place; `blur` is the standard deviation, px."""
    share = share_hw[..., None]
    soft = np.stack(
        [gaussian_filter(rgb[window][..., c].astype(np.float32), blur) for c in range(3)], axis=-1
    )
    rgb[window] = (rgb[window] * (1 - share) + soft * share + 0.5).astype(np.uint8)


def _curve(x: float, y: float, length: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Points (n x 2) (x, y) on a bent line through a place, a pixel apart."""
    angle, bend = rng.uniform(0, 2 * np.pi), rng.normal(0, 0.9)
    turns = angle + bend * np.linspace(-0.5, 0.5, int(length))
    points = np.stack([np.cos(turns), np.sin(turns)], axis=1).cumsum(axis=0)
    return np.asarray(points - points[len(points) // 2] + (x, y))


def _band(points: NDArray[np.float64], half: float, shape: tuple[int, ...]) -> tuple[Window, Floats]:
    """The window around a line, and how deep (px, h x w) its pixels lie in a band about it."""
    low, high = points.min(axis=0) - half - 3, points.max(axis=0) + half + 3
    window = (
        slice(max(int(low[1]), 0), max(min(int(high[1]) + 1, shape[0]), 0)),
        slice(max(int(low[0]), 0), max(min(int(high[0]) + 1, shape[1]), 0)),
    )
    away = np.ones((window[0].stop - window[0].start, window[1].stop - window[1].start), dtype=bool)
    local = (points - (window[1].start, window[0].start)).astype(int)
    seen = ((local >= 0) & (local < away.shape[::-1])).all(axis=1)
    away[local[seen, 1], local[seen, 0]] = False
    if not seen.any():
        return window, np.full(away.shape, -1, dtype=np.float32)
    return window, np.asarray(half - distance_transform_edt(away), dtype=np.float32)
