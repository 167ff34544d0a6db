"""Nuclei: outlines of a wanted size, elongation and smoothness, and the chromatin inside them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull

from malpighi.phantom.contours import (
    ANGLES_K,
    STEPS,
    Contour,
    Floats,
    Window,
    coverage,
    ellipse,
    ripple,
    to_area,
)
from malpighi.phantom.stain import texture

_NOTCH_RADIANS = 0.34


@dataclass(frozen=True)
class Chromatin:
    """How the inside of a nucleus is stained.

    Attributes:
        density: mean optical density wanted over the nucleus.
        grain: size of the chromatin's grain, px.
        clumping: 0 = fine and even, 1 = dark clumps between empty gaps.
        rim: extra density of the membrane, as a share of `density`.
        nucleoli: number of nucleoli.
    """

    density: float
    grain: float
    clumping: float
    rim: float
    nucleoli: int = 0


def eccentric_aspect(eccentricity: float) -> float:
    """Long over short axis of an ellipse of this eccentricity."""
    return float(1 / np.sqrt(1 - eccentricity**2))


def solidity(contour: Contour) -> float:
    """Area over area of the convex hull."""
    return contour.area / float(ConvexHull(contour.outline).volume)


def smooth_radii(rng: np.random.Generator, area: float, aspect: float) -> Floats:
    """Radii (K) of a round or oval nucleus of an area (px²) with a smooth membrane."""
    radii = ellipse(area, aspect, rng.uniform(0, np.pi))
    return to_area(radii * (1 + ripple(rng, range(3, 5), 0.008)), area)


def notched_radii(rng: np.random.Generator, area: float, aspect: float, wanted: float) -> Floats:
    """Radii (K) of a nucleus with notches and bulges, their depth tuned to a wanted solidity."""
    oval = ellipse(area, aspect, rng.uniform(0, np.pi))
    relief = ripple(rng, range(3, 6), 0.3) - _notches(rng)
    low, high = 0.0, 1.0
    for _ in range(7):
        middle = (low + high) / 2
        radii = oval * np.maximum(1 + middle * relief, np.float32(0.35))
        low, high = (middle, high) if solidity(Contour(0, 0, radii)) > wanted else (low, middle)
    return to_area(radii, area)


def paint_nucleus(
    concentrations_HWS: Floats, contour: Contour, chromatin: Chromatin, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Draw a nucleus over what is there; dye 0 is haematoxylin and the last dye stains nucleoli.

    Returns:
        Its mask (H x W).
    """
    shape = concentrations_HWS.shape[:2]
    mask = np.zeros(shape, dtype=bool)
    window = contour.window((shape[0], shape[1]))
    depth = contour.depth(window)
    if depth.size == 0 or not (depth > 0).any():
        return mask
    inside = depth > 0
    mask[window] = inside
    cover = coverage(depth, 1.4)
    patch = concentrations_HWS[window]
    patch *= (1 - 0.8 * cover)[..., None]
    pattern = _pattern(depth, inside, chromatin, rng)
    level = max(chromatin.density - float(patch[inside].sum(axis=1).mean()), 0.1 * chromatin.density)
    patch[..., 0] += cover * pattern * np.float32(level)
    if chromatin.nucleoli:
        median = float(np.median(patch[inside].sum(axis=1)))
        for _ in range(chromatin.nucleoli):
            spot = cover * _spot(contour, window, rng)
            patch[..., 0] += spot * np.float32(0.55 * median)
            patch[..., -1] += spot * np.float32(0.95 * median)
    return mask


def _notches(rng: np.random.Generator) -> Floats:
    relief = np.zeros_like(ANGLES_K)
    for _ in range(int(rng.integers(1, 4))):
        away = np.abs((ANGLES_K - rng.uniform(0, 2 * np.pi) + np.pi) % (2 * np.pi) - np.pi)
        relief += np.exp(-((away / (_NOTCH_RADIANS * rng.uniform(0.6, 1.2))) ** 2)).astype(np.float32)
    return np.asarray(1.3 * relief, dtype=np.float32)


def _pattern(
    depth: Floats, inside: NDArray[np.bool_], chromatin: Chromatin, rng: np.random.Generator
) -> Floats:
    """Chromatin relative to its mean over the nucleus; never so far above its median as a nucleolus is."""
    shape = (depth.shape[0], depth.shape[1])
    grain = 0.85 * texture(rng, shape, chromatin.grain) + 0.5 * texture(rng, shape, 0.5 * chromatin.grain)
    fine = 1 + 0.07 * np.clip(grain, -2, 2)
    clumps = 0.12 + 1.0 / (1 + np.exp(-4 * (grain + 0.45)))
    pattern = (1 - chromatin.clumping) * fine + chromatin.clumping * clumps
    pattern += chromatin.rim * np.exp(-(((depth - 0.9) / 0.9) ** 2))
    return np.asarray(pattern / pattern[inside].mean(), dtype=np.float32)


def _spot(contour: Contour, window: Window, rng: np.random.Generator) -> Floats:
    radius = float(np.sqrt(contour.area / np.pi))
    size = max(rng.uniform(0.20, 0.26) * radius, 2.1)
    angle, away = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.35)
    step = int(angle / (2 * np.pi) * STEPS) % STEPS
    away *= float(contour.radii[step])
    centre = (contour.x + away * np.cos(angle), contour.y + away * np.sin(angle))
    disc = Contour(*centre, ellipse(np.pi * size**2, rng.uniform(1, 1.2), angle))
    return coverage(disc.depth(window), 1.2)
