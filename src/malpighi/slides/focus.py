"""Sharpness: how fine the detail of a picture is, whatever its contrast.

Shape legend: H x W = rows x columns of a picture of some 1 micrometre per pixel, h x w = blocks of it.
"""

import cv2
import numpy as np

from malpighi.slides.glass import Floats, Mask
from malpighi.slides.slide import Pixels

STEP = 1.0
"""Micrometres per pixel at which sharpness is measured where the slide is that fine."""

_BLUR = 1.0  # px; takes off the camera's noise
# What noise of 1.4 grey levels leaves of curvature and slope after that blur.
_NOISE_CURVATURE, _NOISE_SLOPE = 1.28, 0.32
_LEAST_SLOPE = 0.05
_BLURRED, _SHARP = 0.05, 0.39


def curvature_and_slope(rgb_HW3: Pixels) -> Floats:
    """Squares of the Laplacian and of the gradient of a picture's grey values.

    Returns:
        energies_HW2: float32.
    """
    grey_HW = cv2.GaussianBlur(cv2.cvtColor(rgb_HW3, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), _BLUR)
    bend_HW = cv2.Laplacian(grey_HW, cv2.CV_32F, ksize=1)
    right_HW = cv2.Sobel(grey_HW, cv2.CV_32F, 1, 0, ksize=1, scale=0.5)
    down_HW = cv2.Sobel(grey_HW, cv2.CV_32F, 0, 1, ksize=1, scale=0.5)
    return np.asarray(cv2.merge([bend_HW * bend_HW, right_HW * right_HW + down_HW * down_HW]))


def sharpness(energies: Floats) -> Floats:
    """Mean energies of curvature and slope (... x 2) to a score of 0 (blurred) to 1 (sharp); 0.5 parts them.

    A picture blurred by s px has curvature of 1 / (1 + s^2) of its slope, if its spectrum falls as those
    of natural pictures do; noise is taken off both. Where there is no slope at all, nothing is sharp.
    """
    curvature = np.maximum(energies[..., 0] - _NOISE_CURVATURE, 0)
    slope = np.maximum(energies[..., 1] - _NOISE_SLOPE, _LEAST_SLOPE)
    return np.asarray(np.clip((curvature / slope - _BLURRED) / (_SHARP - _BLURRED), 0, 1), dtype=np.float32)


def block_sharpness(rgb_HW3: Pixels, subject_HW: Mask, block: int) -> tuple[Floats, Floats]:
    """Sharpness of the subject in each block of a picture.

    Args:
        rgb_HW3: sides are multiples of `block`.
        subject_HW: what counts; elsewhere there is nothing to be sharp.
        block: side of a block, px.

    Returns:
        sharpness_hw, and share_hw of each block that is subject.
    """
    size = (rgb_HW3.shape[1] // block, rgb_HW3.shape[0] // block)
    weight_HW = subject_HW.astype(np.float32)
    share_hw = cv2.resize(weight_HW, size, interpolation=cv2.INTER_AREA)
    energies_HW2 = curvature_and_slope(rgb_HW3) * weight_HW[..., None]
    energies_hw2 = cv2.resize(energies_HW2, size, interpolation=cv2.INTER_AREA).reshape(*size[::-1], 2)
    mean_hw2 = energies_hw2 / np.maximum(share_hw, 1e-3)[..., None]
    return sharpness(mean_hw2.astype(np.float32)), np.asarray(share_hw)
