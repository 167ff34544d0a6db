"""Nuclei in one field of a bright-field slide, by stain, threshold and watershed; no weights.

A nucleus absorbs red and green light alike. Eosin spares the red, the cyan of a Papanicolaou stain spares
much of the green: the lesser of the two densities is high in nuclei only, in either stain. What is left of
cytoplasm is wider than a nucleus and goes with the background, or is less than half as dense.

Shape legend: H x W = rows x columns of the field at its own scale.
"""

import math
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.segmentation import watershed

from malpighi.geometry import to_microns, to_pixels
from malpighi.slides.stain_density import Floats, Pixels, optical_density

Labels = NDArray[np.int32]

HALO = 24.0
"""How far, micrometres, what lies around a nucleus bears on it."""

_WIDEST = 12.0
"""Radius, micrometres, of the widest nucleus; what is wider is background."""
_COARSE = 2.0
_SMOOTH = 0.5
_FAINT = 0.04
_OTSU_SHARE = 0.6
_LIMITS = (0.08, 0.30)
_GAP = 0.7
"""Radius, micrometres, of holes and bridges that do not count."""
_HOLE = 30.0
"""Area, square micrometres, of the largest pale spot in a nucleus."""
_DARKNESS = 4.0
"""How much a unit of contrast counts beside a micrometre from the edge, when nuclei that touch are split."""
_BLUR = 1.5
_HALF = 0.5
_WAIST = 0.2
"""Depth, micrometres or its worth in contrast, of the pass between two nuclei that touch."""

# The numbers above were chosen on every third picture of DSB 2018 and on phantom cells.


class Nucleus(NamedTuple):
    """One nucleus of a field.

    Attributes:
        x: of its centre of mass, px of the field.
        y: the same down the field.
        box: (x0, y0, x1, y1), px of the field, half-open.
        area_um2: its area, square micrometres.
        density: its mean optical density, the lesser of red and green.
        irregularity: 0 for a convex outline; the share of its convex hull that it leaves empty.
    """

    x: float
    y: float
    box: tuple[int, int, int, int]
    area_um2: float
    density: float
    irregularity: float


def nuclear_density(rgb_HW3: Pixels, white: tuple[float, float, float]) -> Floats:
    """The lesser optical density of red and green (H x W)."""
    density = optical_density(rgb_HW3, white)
    lesser: Floats = np.minimum(density[..., 0], density[..., 1])
    return lesser


def contrast(density_HW: Floats, mpp: float) -> Floats:
    """How much denser a pixel is than what surrounds it at the width of a nucleus; at least 0.

    Args:
        density_HW: from `nuclear_density`.
        mpp: micrometres per px.
    """
    smooth = _blurred(density_HW, _SMOOTH, mpp)
    height, width = smooth.shape
    share = min(1.0, to_pixels(_COARSE, mpp) ** -1)
    size = (max(1, round(width * share)), max(1, round(height * share)))
    small = cv2.resize(smooth, size, interpolation=cv2.INTER_AREA)
    radius = max(1, round(to_pixels(_WIDEST, mpp) * share))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    opened = cv2.morphologyEx(small, cv2.MORPH_OPEN, disc, borderType=cv2.BORDER_REFLECT)
    background = cv2.resize(opened, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(np.maximum(smooth - background, 0), dtype=np.float32)


def threshold_of(contrasts: Floats) -> float:
    """The contrast above which a pixel is nuclear, from those of typical fields.

    Source: Otsu 1979, over what stands out at all.
    Departs: a share of it, since it parts dark nuclei from pale ones; held between limits, since fields
    without nuclei have a threshold too.
    """
    standing = contrasts[contrasts > _FAINT]
    if standing.size < 2 or float(np.ptp(standing)) < 1e-3:
        return _LIMITS[1]
    return float(np.clip(_OTSU_SHARE * threshold_otsu(standing), *_LIMITS))


def label_nuclei(contrast_HW: Floats, threshold: float, mpp: float) -> Labels:
    """Nuclei as an instance mask (H x W), 0 = none; touching ones are split where they are thin or pale.

    The outline lies at half the contrast of the nucleus itself, so that dense cytoplasm falls away.
    """
    disc = _disc(_GAP, mpp)
    mask = _without_small_holes((contrast_HW > threshold).astype(np.uint8), mpp)
    mask = _without_small_holes(_closed(mask, disc), mpp)
    mask = np.asarray(cv2.morphologyEx(mask, cv2.MORPH_OPEN, disc), dtype=np.uint8)
    depth = _blurred(cv2.distanceTransform(mask, cv2.DIST_L2, 5) * np.float32(mpp), _SMOOTH, mpp)
    dark = _blurred(contrast_HW, _BLUR, mpp)
    height = np.asarray((depth + _DARKNESS * dark) * mask, dtype=np.float32)
    labels = np.asarray(watershed(-height, _peaks(height, mpp), mask=mask.astype(bool)), dtype=np.int32)
    darkest = np.concatenate([[np.inf], ndimage.maximum(dark, labels, np.arange(1, labels.max() + 1))])
    inner = (contrast_HW > _HALF * darkest[labels]).astype(np.uint8)
    inner = np.asarray(cv2.morphologyEx(_closed(inner, disc), cv2.MORPH_OPEN, disc), dtype=np.uint8)
    return np.asarray(labels * _without_small_holes(inner, mpp), dtype=np.int32)


def measure_nuclei(labels_HW: Labels, density_HW: Floats, mpp: float) -> list[Nucleus]:
    """What is known of each nucleus, in order of its label."""
    found = []
    for label, window in enumerate(ndimage.find_objects(labels_HW), start=1):
        if window is not None:
            found.append(_measured(labels_HW[window] == label, density_HW[window], window, mpp))
    return found


def find_nuclei(
    rgb_HW3: Pixels, white: tuple[float, float, float], threshold: float, mpp: float
) -> list[Nucleus]:
    """The nuclei of a field.

    Args:
        rgb_HW3: the field.
        white: red, green and blue of empty glass.
        threshold: from `threshold_of`.
        mpp: micrometres per px; 0.25 to 1 works.
    """
    density = nuclear_density(rgb_HW3, white)
    return measure_nuclei(label_nuclei(contrast(density, mpp), threshold, mpp), density, mpp)


def _blurred(values: Floats, sigma: float, mpp: float) -> Floats:
    """Gaussian blur; `sigma` in micrometres."""
    return np.asarray(cv2.GaussianBlur(values, (0, 0), max(to_pixels(sigma, mpp), 0.5)), dtype=np.float32)


def _disc(radius: float, mpp: float) -> NDArray[np.uint8]:
    """A disc of at least one px; `radius` in micrometres."""
    side = 2 * max(1, round(to_pixels(radius, mpp))) + 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)), dtype=np.uint8)


def _closed(mask: NDArray[np.uint8], disc: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(cv2.morphologyEx(mask, cv2.MORPH_CLOSE, disc), dtype=np.uint8)


def _peaks(height: Floats, mpp: float) -> Labels:
    """Markers of hills that rise by a waist above the pass to a higher one."""
    reach = math.ceil(to_pixels(2 * _WIDEST, mpp))
    lowered = _reconstructed(height - np.float32(_WAIST), height, reach)
    tops = (height - lowered > 0.5 * _WAIST) & (height > 0)
    return np.asarray(ndimage.label(tops, np.ones((3, 3)))[0], dtype=np.int32)


def _reconstructed(seed: Floats, ceiling: Floats, reach: int) -> Floats:
    """Greyscale reconstruction by dilation of `seed` under `ceiling`, as far as `reach` px."""
    kernel = np.ones((3, 3), np.uint8)
    for step in range(reach):
        grown = np.minimum(cv2.dilate(seed, kernel), ceiling)
        if step % 8 == 7 and np.array_equal(grown, seed):
            break
        seed = np.asarray(grown, dtype=np.float32)
    return seed


def _without_small_holes(mask: NDArray[np.uint8], mpp: float) -> NDArray[np.uint8]:
    """The mask with pale spots of nuclei filled; lumens with nuclei all around stay open."""
    _, labels, facts, _ = cv2.connectedComponentsWithStats(1 - mask, connectivity=4)
    small = facts[:, cv2.CC_STAT_AREA] < to_pixels(1.0, mpp) ** 2 * _HOLE
    return np.asarray(mask | small[labels], dtype=np.uint8)


def _measured(mask: NDArray[np.bool_], density: Floats, window: tuple[slice, slice], mpp: float) -> Nucleus:
    rows, columns = np.nonzero(mask)
    top, left = window[0].start, window[1].start
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    corners = np.concatenate([outline[:, 0] for outline in outlines])
    hull = cv2.contourArea(cv2.convexHull(corners))
    solid = sum(cv2.contourArea(outline) for outline in outlines)
    return Nucleus(
        x=left + float(columns.mean()) + 0.5,
        y=top + float(rows.mean()) + 0.5,
        box=(left, top, window[1].stop, window[0].stop),
        area_um2=to_microns(math.sqrt(len(rows)), mpp) ** 2,
        density=float(density[mask].mean()),
        irregularity=float(1 - solid / hull) if hull > 0 else 0.0,
    )
