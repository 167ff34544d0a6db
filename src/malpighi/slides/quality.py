"""How usable one tile is, from its own pixels.

Shape legend: H x W = rows x columns of the tile, h x w = those of the tile at low power.
"""

import math

import cv2
import msgspec
import numpy as np

from malpighi.errors import DataError
from malpighi.geometry import shrinkage
from malpighi.slides import focus
from malpighi.slides.artefacts import INKS, STEP, find_folds, pen_marks
from malpighi.slides.bubbles import find_rims
from malpighi.slides.foreground import is_stained
from malpighi.slides.glass import USUAL, Colour, density
from malpighi.slides.slide import Pixels

_BLOCK = 64  # px over which sharpness is measured, so that a sharp part does not speak for a blurred one
_UNSCALED = 64  # px of the longer side at low power, for a tile of unknown scale


class Quality(msgspec.Struct, frozen=True):
    """Scores of a tile, each 0 to 1.

    Attributes:
        focus: mean sharpness of the tissue; 0.5 parts sharp tiles from blurred ones.
            0 where there is nothing to be sharp.
        pen: share that is ink.
        fold: share that lies in folds, as far as the tile itself shows what is usual.
        empty: share that is glass.
        bubble: length of rims of bubbles over the side of the tile, at most 1; the inside of a large bubble
            shows no rim, and is found on the slide only.
    """

    focus: float
    pen: float
    fold: float
    empty: float
    bubble: float

    @property
    def overall(self) -> float:
        """The product of sharpness and of what is left by all else; 1 is a sharp tile full of tissue."""
        left = (1 - self.pen) * (1 - self.fold) * (1 - self.empty) * (1 - self.bubble)
        return self.focus * left


def tile_quality(rgb_HW3: Pixels, mpp: float | None = None, *, glass: Colour = USUAL) -> Quality:
    """The quality of one tile.

    Args:
        rgb_HW3: the tile.
        mpp: its micrometres per pixel. Without, sharpness is judged as it is stored and the tile is taken to
            be some 64 px wide at low power; scores of tiles of one size then compare, but no others.
        glass: colour of the slide's empty glass, e.g. that of its `Tissue`.

    Raises:
        DataError: not H x W x 3 of uint8 with extent.
    """
    if rgb_HW3.ndim != 3 or rgb_HW3.shape[2] != 3 or rgb_HW3.dtype != np.uint8 or not rgb_HW3.size:
        raise DataError(f"a tile is H x W x 3 of uint8; found {rgb_HW3.shape} of {rgb_HW3.dtype}")
    fine_HW3 = _shrunk(rgb_HW3, 1.0 if mpp is None else shrinkage(mpp, focus.STEP))
    unscaled = max(rgb_HW3.shape) / _UNSCALED
    low_hw3 = _shrunk(rgb_HW3, unscaled if mpp is None else shrinkage(mpp, STEP))
    density_hw3 = density(low_hw3, glass)
    inks = pen_marks(density_hw3)
    ink_hw = np.logical_or.reduce([inks[ink] for ink in INKS])
    tissue_hw = is_stained(density_hw3) & ~ink_hw
    rim_hw = find_rims(density_hw3) & ~ink_hw
    return Quality(
        focus=_sharpness(fine_HW3, tissue_hw),
        pen=float(ink_hw.mean()),
        fold=float(find_folds(density_hw3, tissue_hw).mean()),
        empty=float(1 - (tissue_hw | ink_hw).mean()),
        bubble=min(float(rim_hw.sum()) / max(min(rim_hw.shape), 1), 1.0),
    )


def _sharpness(fine_HW3: Pixels, tissue_hw: np.ndarray) -> float:
    if not tissue_hw.any():
        return 0.0
    size = (fine_HW3.shape[1], fine_HW3.shape[0])
    tissue_HW = cv2.resize(tissue_hw.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    block = min(_BLOCK, *size)
    rows, columns = size[1] // block * block, size[0] // block * block
    sharp_hw, share_hw = focus.block_sharpness(fine_HW3[:rows, :columns], tissue_HW[:rows, :columns], block)
    return float((sharp_hw * share_hw).sum() / max(float(share_hw.sum()), 1e-6))


def _shrunk(rgb_HW3: Pixels, factor: float) -> Pixels:
    """The tile with sides shorter by a factor, by area; as it is for factors up to 1."""
    if factor <= 1:
        return rgb_HW3
    height, width = (max(math.floor(side / factor + 0.5), 1) for side in rgb_HW3.shape[:2])
    return np.asarray(cv2.resize(rgb_HW3, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)
