"""Closed outlines as radii around a centre: the geometry that nuclei, cells and glands are drawn from.

Shape legend: K = 256 equal steps of the angle, H x W = a window of the picture.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

Floats = NDArray[np.float32]
Window = tuple[slice, slice]

STEPS = 256
ANGLES_K = np.arange(STEPS, dtype=np.float32) * np.float32(2 * np.pi / STEPS)
_MOST_WAVES = 32
_COSINES = np.cos(np.outer(np.arange(_MOST_WAVES), ANGLES_K))
_SINES = np.sin(np.outer(np.arange(_MOST_WAVES), ANGLES_K))


@dataclass(frozen=True)
class Contour:
    """A star-shaped outline.

    Attributes:
        x: centre, px.
        y: centre, px.
        radii: distance (K) of the outline from the centre in direction `ANGLES_K`, px.
    """

    x: float
    y: float
    radii: Floats

    @property
    def reach(self) -> float:
        """Largest radius, px."""
        return float(self.radii.max())

    @property
    def outline(self) -> Floats:
        """The outline (K x 2) as (x, y) points, px."""
        points = [self.x + self.radii * np.cos(ANGLES_K), self.y + self.radii * np.sin(ANGLES_K)]
        return np.stack(points, axis=1).astype(np.float32)

    @property
    def area(self) -> float:
        """Area of the outline's polygon, px², whether or not the picture shows all of it."""
        following = np.roll(self.radii, -1)
        return float(0.5 * np.sin(2 * np.pi / STEPS) * np.dot(self.radii, following))

    def window(self, shape: tuple[int, int], margin: float = 2.0) -> Window:
        """Rows and columns that the outline can touch, clipped to a picture of `shape` (rows, columns)."""
        reach = self.reach + margin
        return (
            slice(max(int(self.y - reach), 0), max(min(int(self.y + reach) + 2, shape[0]), 0)),
            slice(max(int(self.x - reach), 0), max(min(int(self.x + reach) + 2, shape[1]), 0)),
        )

    def depth(self, window: Window) -> Floats:
        """Signed radial distance inside the outline at each pixel centre of a window, px (H x W)."""
        rows = np.arange(window[0].start, window[0].stop, dtype=np.float32)[:, None] + np.float32(
            0.5 - self.y
        )
        columns = np.arange(window[1].start, window[1].stop, dtype=np.float32) + np.float32(0.5 - self.x)
        step = np.arctan2(rows, columns) * np.float32(STEPS / (2 * np.pi))
        lower = np.floor(step)
        index = lower.astype(np.int32) % STEPS
        radius = self.radii[index] + (step - lower) * (self.radii[(index + 1) % STEPS] - self.radii[index])
        result: Floats = radius - np.hypot(rows, columns)
        return result

    def scaled(self, factor: float) -> "Contour":
        """The same outline about the same centre, `factor` times as large."""
        return Contour(self.x, self.y, self.radii * np.float32(factor))

    def grown(self, margin: float) -> "Contour":
        """The outline moved outwards by `margin` px along the radii."""
        return Contour(self.x, self.y, np.maximum(self.radii + np.float32(margin), np.float32(0.5)))

    def moved(self, x: float, y: float) -> "Contour":
        """The same outline about another centre."""
        return Contour(x, y, self.radii)


def coverage(depth: Floats, softness: float = 1.0) -> Floats:
    """Anti-aliased share of each pixel inside an outline, from its depth; the edge is `softness` px wide."""
    return np.asarray(np.clip(depth / np.float32(softness) + np.float32(0.5), 0, 1), dtype=np.float32)


def ellipse(area: float, aspect: float, angle: float) -> Floats:
    """Radii (K) of an ellipse of an area (px²), aspect (long over short axis) and angle of its long axis."""
    long = np.sqrt(area * aspect / np.pi)
    short = long / aspect
    across = ANGLES_K - angle
    radii = long * short / np.hypot(short * np.cos(across), long * np.sin(across))
    return np.asarray(radii, dtype=np.float32)


def ripple(rng: np.random.Generator, orders: range, strength: float) -> Floats:
    """Periodic wobble (K) made of harmonics `orders` (1 to 31), with root mean square `strength`."""
    amplitudes = rng.uniform(0.5, 1.0, len(orders))
    phases = rng.uniform(0, 2 * np.pi, len(orders))
    wobble = (amplitudes * np.cos(phases)) @ _COSINES[orders.start : orders.stop]
    wobble -= (amplitudes * np.sin(phases)) @ _SINES[orders.start : orders.stop]
    rms = np.sqrt(0.5 * np.sum(amplitudes**2))
    return np.asarray(wobble * (strength / float(rms)), dtype=np.float32)


def polygon(rng: np.random.Generator, area: float, corners: int, roundness: float) -> Floats:
    """Radii (K) of an irregular polygon with rounded corners.

    Args:
        rng: source of the corners.
        area: area of the result, px².
        corners: number of corners, at least 4.
        roundness: smoothing along the outline, radians.
    """
    angles = (np.arange(corners) + rng.uniform(-0.3, 0.3, corners)) * 2 * np.pi / corners
    angles = np.sort((angles + rng.uniform(0, 2 * np.pi)) % (2 * np.pi))
    corners_x, corners_y = (rng.uniform(0.8, 1.2, corners) * f(angles) for f in (np.cos, np.sin))
    nearest = (np.searchsorted(angles, ANGLES_K) - 1) % corners
    following = (nearest + 1) % corners
    edge_x, edge_y = corners_x[following] - corners_x[nearest], corners_y[following] - corners_y[nearest]
    cross = np.cos(ANGLES_K) * edge_y - np.sin(ANGLES_K) * edge_x
    radii = (corners_x[nearest] * edge_y - corners_y[nearest] * edge_x) / cross
    radii = gaussian_filter1d(radii, roundness * STEPS / (2 * np.pi), mode="wrap")
    return to_area(np.asarray(radii, dtype=np.float32), area)


def to_area(radii: Floats, area: float) -> Floats:
    """The radii scaled so that their outline has `area` (px²)."""
    return np.asarray(radii * np.sqrt(area / Contour(0, 0, radii).area), dtype=np.float32)


def whole(shape: tuple[int, int]) -> Window:
    """The window that is the whole picture of `shape` (rows, columns)."""
    return (slice(0, shape[0]), slice(0, shape[1]))
