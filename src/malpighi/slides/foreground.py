"""What on a slide is not empty glass, before anything is cleaned up.

Shape legend: H x W = rows x columns of the working picture, 3 = red, green, blue.
"""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.filters.rank import entropy

from malpighi.slides.glass import Floats, Glass, Mask, colourfulness
from malpighi.slides.slide import Pixels

METHODS = ("otsu", "hsv", "entropy")

# Colourfulness of the palest tissue lies between these.
_LEAST, _MOST = 0.035, 0.07
_STAINED = 0.05
_SPREADS = 3.0  # of the glass, above which tissue begins
_FAINTEST, _FULL = 0.004, 0.5  # range over which Otsu's threshold is looked for
_LEAST_DENSITY = 0.03
_HSV_SATURATION, _HSV_DENSITY = 0.06, 0.1
_ENTROPY_ACROSS = 9  # px
_LEAST_ENTROPY, _MOST_ENTROPY = 2.5, 4.5  # bit


class Foreground(NamedTuple):
    """What is not glass.

    Attributes:
        mask: where it is (H x W).
        threshold: above which the measure of the method had to be.
        median: the measure's median over what was looked at.
    """

    mask: Mask
    threshold: float
    median: float


def find_foreground(
    rgb_HW3: Pixels, density_HW3: Floats, glass: Glass, judged_HW: Mask, method: str
) -> Foreground:
    """What is not glass.

    `otsu`: colourful above Otsu's threshold. Source: Otsu 1979, on HSV saturation.
    Departs: saturation is measured after the light of the glass is taken out, and on a logarithmic scale, on
    which glass and tissue are two hills of like width; pale parts then fall to the tissue however dark others
    are. The threshold is held between what glass reaches and what the palest tissue has.

    `hsv`: colourful and dense above fixed thresholds. `entropy`: grey values that vary (Otsu, local entropy).

    Args:
        rgb_HW3: the picture.
        density_HW3: its optical density against the glass.
        glass: the empty glass.
        judged_HW: where thresholds are learnt; the mask is made everywhere.
        method: one of `METHODS`.
    """
    if method == "entropy":
        measure_HW = _entropy(rgb_HW3)
        threshold = float(np.clip(_otsu(measure_HW[judged_HW]), _LEAST_ENTROPY, _MOST_ENTROPY))
    else:
        measure_HW = colourfulness(density_HW3)
        logarithms = np.log(np.clip(measure_HW[judged_HW], _FAINTEST, _FULL))
        floor = max(_LEAST, _SPREADS * glass.spread)
        learnt = float(np.exp(_otsu(logarithms)))
        threshold = _HSV_SATURATION if method == "hsv" else float(np.clip(learnt, floor, max(floor, _MOST)))
    # JPEG stores colour coarser than light: it tints the glass beside tissue and ink, but does not darken it.
    least = {"otsu": _LEAST_DENSITY, "hsv": _HSV_DENSITY, "entropy": -np.inf}[method]
    mask_HW = (measure_HW > threshold) & (density_HW3.mean(axis=2) > least)
    judged = measure_HW[judged_HW]
    return Foreground(np.asarray(mask_HW), threshold, float(np.median(judged)) if judged.size else 0.0)


def is_stained(density_HW3: Floats) -> Mask:
    """What is surely stained, without learning a threshold: colourful and dense above fixed values."""
    mask_HW = (colourfulness(density_HW3) > _STAINED) & (density_HW3.mean(axis=2) > _LEAST_DENSITY)
    return np.asarray(mask_HW)


def _entropy(rgb_HW3: Pixels) -> Floats:
    grey_HW = cv2.cvtColor(rgb_HW3, cv2.COLOR_RGB2GRAY)
    around = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (_ENTROPY_ACROSS, _ENTROPY_ACROSS))
    return np.asarray(entropy(grey_HW, around), dtype=np.float32)


def _otsu(values_N: NDArray[np.float32]) -> float:
    """Otsu's threshold in 256 steps; of equal or no values, their largest, or 0."""
    if not values_N.size:
        return 0.0
    low, high = float(values_N.min()), float(values_N.max())
    if high - low < 1e-6:
        return high
    steps = ((values_N - low) * (255 / (high - low))).astype(np.uint8)
    step, _ = cv2.threshold(steps.reshape(1, -1), 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    return low + (step + 1) * (high - low) / 255
