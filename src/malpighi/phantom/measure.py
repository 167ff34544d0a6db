"""What a rendered cell shows, measured from its masks and its pixels by the guideline's own definitions.

Geometry comes from the masks, darkness and texture from the noisy picture; nothing comes from the request.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, binary_erosion, binary_fill_holes, gaussian_filter
from scipy.ndimage import label as components
from scipy.spatial import ConvexHull
from skimage.measure import find_contours, regionprops

from malpighi.guidelines.pack import Pack
from malpighi.phantom.cells import RenderedCell
from malpighi.phantom.contours import Floats
from malpighi.phantom.stain import optical_density

Mask = NDArray[np.bool_]

SPOT = "spot_contrast"
_NUCLEOLUS = 1.5
"""Optical density of a nucleolus over the median of its nucleus, from the pack's definition of NU."""
_DOUBTFUL = (1.4, 1.65)
"""Spots between these contrasts would be called nucleoli by some and not by others."""


def measure_cell(cell: RenderedCell) -> dict[str, float]:
    """One number per observation code, in the unit and by the definition of the pack's thresholds.

    `SPOT` is added, how dark the darkest compact spot is, since a count of nucleoli has no grey band.
    """
    density = optical_density(cell.rgb, cell.smear.stain).mean(axis=2)
    nuclei = [cell.nuclei == number for number in range(1, int(cell.nuclei.max()) + 1)]
    nucleus = cell.nuclei > 0
    area = [float(mask.sum()) for mask in nuclei]
    nucleoli = [_nucleoli(mask, density, _NUCLEOLUS) for mask in nuclei]
    chromatin = _inner(nucleus) & ~np.any(nucleoli, axis=0)
    reference_area = cell.smear.nucleus_area / cell.smear.mpp**2
    return {
        "NE": max(area) / reference_area,
        "NA": max(_eccentricity(mask) for mask in nuclei),
        "NH": float(density[nucleus].mean()) / cell.smear.nucleus_density,
        "KO": _halo_width(cell.cell, nucleus, density) / float(np.sqrt(max(area) / np.pi)),
        "CT": float(density[chromatin].std() / density[chromatin].mean()),
        "NU": float(sum(components(spots)[1] for spots in nucleoli)),
        "NC": float(len(nuclei)),
        "NCR": sum(area) / _polygon_area(cell.outline),
        "NM": min(_solidity(mask) for mask in nuclei),
        SPOT: _spot_contrast(nuclei, density),
    }


def findings_of(measured: dict[str, float], pack: Pack) -> dict[str, bool]:
    """The observations that the pack's thresholds make of measurements."""
    return {code: pack.threshold(code).is_present(measured[code]) for code in pack.codes}


def is_clear(measured: dict[str, float], pack: Pack) -> bool:
    """Whether no measurement lies in the grey band of its threshold, and no spot is nearly a nucleolus."""
    if measured[SPOT] == _DOUBTFUL[0]:
        return False
    bands = ((measured[code], pack.threshold(code).grey) for code in pack.codes)
    return all(band is None or not band[0] < value < band[1] for value, band in bands)


def _inner(mask: Mask) -> Mask:
    """The mask without its outermost pixels, which the focus mixes with the cytoplasm."""
    eroded: Mask = binary_erosion(mask, iterations=2)
    return eroded if eroded.any() else mask


def _eccentricity(mask: Mask) -> float:
    return float(regionprops(mask.astype(np.uint8))[0].eccentricity)


def _solidity(mask: Mask) -> float:
    """Area over area of the convex hull, both of the half-way contour, so coarse pixels matter little."""
    smooth = gaussian_filter(np.pad(mask, 2).astype(np.float32), 0.7)
    outline = max(find_contours(smooth, 0.5), key=len)
    return _polygon_area(outline) / float(ConvexHull(outline).volume)


def _polygon_area(points: Floats) -> float:
    x, y = points[:, 0].astype(np.float64), points[:, 1].astype(np.float64)
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def _spot_contrast(nuclei: list[Mask], density: Floats) -> float:
    """Contrast of the darkest spot of the nuclei, as far as it decides whether there is a nucleolus.

    Returns:
        The higher of `_DOUBTFUL` where there is a nucleolus of that contrast; the lower one where there is at
        most a smaller, paler or less compact spot; 1 where there is none.
    """
    low, high = _DOUBTFUL
    if any(_nucleoli(mask, density, high).any() for mask in nuclei):
        return high
    return low if any(_nucleoli(mask, density, low, strict=False).any() for mask in nuclei) else 1.0


def _nucleoli(mask: Mask, density: Floats, contrast: float, *, strict: bool = True) -> Mask:
    """Compact spots, `contrast` times as dense as the median, at least an eighth of the nucleus wide.

    Not `strict`: spots of half that area and of any shape as well.
    """
    inner = _inner(mask)
    smooth = gaussian_filter(density, 0.6)
    labels, _ = components(inner & (smooth >= contrast * np.median(density[inner])))
    least = np.pi / 4 * (np.sqrt(4 * mask.sum() / np.pi) / 8) ** 2
    spots = np.zeros_like(mask)
    for region in regionprops(labels):
        disc = np.pi / 4 * region.axis_major_length**2
        compact = region.area >= least and region.area > 0.35 * disc
        if compact or (not strict and region.area >= least / 2):
            spots[labels == region.label] = True
    return spots


def _halo_width(cell: Mask, nucleus: Mask, density: Floats) -> float:
    """Mean width, px, of the ring around the nuclei that is less than half as dense as the cytoplasm outside.

    Departs: the cytoplasm's median stands for its mean, which cells lying over the border would raise.
    """
    smooth = gaussian_filter(density, 1.0)
    near = binary_dilation(nucleus, iterations=3)
    body = cell & ~near
    if not body.any():
        return 0.0
    outside = body
    clear = np.zeros_like(cell)
    for _ in range(3):
        clear = body & (smooth < 0.5 * np.median(smooth[outside]))
        outside = body & ~clear
    labels, _ = components(clear | near)
    touching = np.unique(labels[nucleus])
    zone = binary_fill_holes(np.isin(labels, touching[touching > 0]))
    if not (zone & clear).any():
        return 0.0
    return float(np.sqrt(zone.sum() / np.pi) - np.sqrt(nucleus.sum() / np.pi))
