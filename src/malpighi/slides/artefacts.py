"""Ink and folds: where a slide is denser than its stains alone could make it.

Both are large, so both are found on the optical density of a picture at low power, made for `STEP`
micrometres per pixel.

Shape legend: H x W = rows x columns of that picture, 3 = red, green, blue.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from malpighi.slides.glass import Floats, Mask

STEP = 8.0
"""Micrometres per pixel at which the constants below were chosen."""

INKS = ("red", "green", "blue", "black")

# Least density of a stroke's middle, and of its fringe; no stain is as cold as green and blue inks.
_SOLID = {"red": 1.0, "green": 0.8, "blue": 0.8, "black": 1.0}
_FAINT = 0.5
_CERTAIN = 1.6  # density that no stain reaches; tissue below may then tint the ink more
_BLACK, _BLACK_CERTAIN = 0.62, 0.52  # least of the three densities over the largest
_FRINGE = 5  # px about the middle of a black stroke that its fringe may reach
_STROKE = 5  # px that a stroke is wide, at least
_LEAST_STROKE = 40  # px of area

# Of both stains, in units of what is usual on the slide: the middle of a fold, and its fringe.
_FOLDED, _FOLD_FRINGE = 1.8, 1.35
_FOLD_BLUR = 1.5
_LEAST_FOLD = 30  # px of area
_BROADEST_FOLD = 13  # px; what is broader is dark tissue
_LEAST_DENSITY = 0.05


def pen_marks(density_HW3: Floats) -> dict[str, Mask]:
    """Felt-pen ink by colour, as far as no stain has such a colour at such a density.

    Returns:
        Mask (H x W) of each of `INKS`.
    """
    low_HW3 = np.maximum(cv2.GaussianBlur(density_HW3, (3, 3), 0), 0)
    return {ink: _strokes(low_HW3, ink) for ink in INKS}


def _strokes(density_HW3: Floats, ink: str) -> Mask:
    """Where ink is solid over the width of a stroke, with the fringe around."""
    alike_HW = _alike(density_HW3, ink)
    dense_HW = density_HW3.min(axis=2) if ink == "black" else density_HW3.max(axis=2)
    solid_HW = (alike_HW & (dense_HW > _SOLID[ink])).astype(np.uint8)
    if np.count_nonzero(solid_HW) < _LEAST_STROKE / 2:
        return np.zeros(alike_HW.shape, dtype=np.bool_)
    solid_HW = cv2.morphologyEx(solid_HW, cv2.MORPH_CLOSE, disc(3))
    solid_HW = large(cv2.morphologyEx(solid_HW, cv2.MORPH_OPEN, disc(_STROKE)) > 0, _LEAST_STROKE)
    fringe_HW = solid_HW | (alike_HW & (dense_HW > _FAINT))
    if ink == "black":
        fringe_HW &= cv2.dilate(solid_HW.astype(np.uint8), disc(2 * _FRINGE + 1)) > 0
    return _reached(fringe_HW, solid_HW)


def _alike(density_HW3: Floats, ink: str) -> Mask:
    """Where the colour is one that this ink has, alone or over tissue, and that stains have not.

    Eosin takes twice as much green as blue, red cells and Papanicolaou's eosin a third more, red ink hardly
    more; haematoxylin takes red and green alike, blue and green inks take much more red; what takes all
    three alike is black.
    """
    red, green, blue = (density_HW3[..., c] for c in range(3))
    certain_HW = np.maximum(green, red) > _CERTAIN
    if ink == "black":
        least_HW, most_HW = density_HW3.min(axis=2), density_HW3.max(axis=2)
        return np.asarray(least_HW > np.where(most_HW > _CERTAIN, _BLACK_CERTAIN, _BLACK) * most_HW)
    if ink == "red":
        return np.asarray((red < 0.35 * green) & (blue > np.where(certain_HW, 0.66, 0.78) * green))
    cold_HW = red > np.where(certain_HW, 1.12, 1.25) * green
    bluish_HW = blue < 0.7 * green
    return np.asarray(cold_HW & (bluish_HW if ink == "blue" else ~bluish_HW))


def find_folds(density_HW3: Floats, tissue_HW: Mask) -> Mask:
    """Bands of tissue that lies over itself: there is more of both stains than is usual, which no cell has.

    Source: the two stains are found as in Macenko et al. 2009: the extreme directions of the plane in
    which the densities lie.
    Departs: percentiles 2 and 98 in the place of 1 and 99; a picture at low power has fewer pure pixels.

    Returns:
        folds_HW: bool, within the tissue.
    """
    density_HW3 = np.maximum(density_HW3, 0)
    nothing_HW = np.zeros(tissue_HW.shape, dtype=np.bool_)
    stains_23 = _stains(density_HW3[tissue_HW])
    if stains_23 is None:
        return nothing_HW
    weight_HW = tissue_HW.astype(np.float32)
    near_HW = np.maximum(cv2.GaussianBlur(weight_HW, (0, 0), _FOLD_BLUR), 0.05)
    amounts_HW2 = density_HW3 @ np.linalg.pinv(stains_23).astype(np.float32) * weight_HW[..., None]
    least_HW = np.full(tissue_HW.shape, np.inf, dtype=np.float32)
    for amount_HW in np.moveaxis(cv2.GaussianBlur(amounts_HW2, (0, 0), _FOLD_BLUR), -1, 0):
        amount = amount_HW / near_HW
        np.minimum(least_HW, amount / max(float(np.median(amount[tissue_HW])), 0.02), out=least_HW)
    fringe_HW = tissue_HW & (least_HW > _FOLD_FRINGE)
    broad_HW = cv2.morphologyEx(fringe_HW.astype(np.uint8), cv2.MORPH_OPEN, disc(_BROADEST_FOLD))
    fringe_HW &= cv2.dilate(broad_HW, disc(5)) == 0
    return large(_reached(fringe_HW, least_HW > _FOLDED), _LEAST_FOLD)


def _stains(density_N3: Floats) -> Floats | None:
    """Two directions of density (2 x 3), or None where there is too little to see any."""
    dense_N3 = density_N3[density_N3.mean(axis=1) > _LEAST_DENSITY]
    if len(dense_N3) < _LEAST_FOLD:
        return None
    _, directions_33 = np.linalg.eigh(dense_N3.T @ dense_N3 / len(dense_N3))
    plane_32 = directions_33[:, [2, 1]] * np.where(directions_33[:, [2, 1]].sum(axis=0) < 0, -1, 1)
    along_N2 = dense_N3 @ plane_32
    angles = np.percentile(np.arctan2(along_N2[:, 1], along_N2[:, 0]), (2, 98))
    if angles[1] - angles[0] < 1e-3:
        return None
    return np.asarray([plane_32 @ (np.cos(a), np.sin(a)) for a in angles], dtype=np.float32)


def _reached(fringe_HW: Mask, seed_HW: Mask) -> Mask:
    """The pieces of a mask that hold a seed."""
    count, labels_HW = cv2.connectedComponents(fringe_HW.astype(np.uint8))
    hold_N = np.zeros(count, dtype=np.bool_)
    hold_N[labels_HW[seed_HW & fringe_HW]] = True
    hold_N[0] = False
    return np.asarray(hold_N[labels_HW])


def large(mask_HW: Mask, least: float, *, diagonal: bool = True) -> Mask:
    """The pieces of a mask of at least `least` px; `diagonal`: whether a shared corner joins two px."""
    _, labels_HW, figures_N5, _ = cv2.connectedComponentsWithStats(
        mask_HW.astype(np.uint8), connectivity=8 if diagonal else 4
    )
    keep_N = figures_N5[:, cv2.CC_STAT_AREA] >= least
    keep_N[0] = False
    return np.asarray(keep_N[labels_HW])


def disc(across: int) -> NDArray[np.uint8]:
    """A round neighbourhood, `across` px wide."""
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (across, across)), dtype=np.uint8)
