"""Beer-Lambert staining: concentrations of dyes become colours, and colours concentrations again.

Shape legend: H x W = rows x columns, S = dyes, 3 = red, green, blue. Optical density is natural: -ln(I / I0).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from malpighi.phantom.contours import Floats

Pixels = NDArray[np.uint8]

PAP_DYES = ("haematoxylin", "cyan", "eosin")
HE_DYES = ("haematoxylin", "eosin", "erythrocyte")
IHC_DYES = ("haematoxylin", "diaminobenzidine", "erythrocyte")

# Absorption of red, green and blue, relative to their mean; a patient lies anywhere between the two rows of a
# dye. Our choice, by eye against smears and sections from several laboratories.
_PAP = np.array(
    [
        [[1.20, 1.22, 0.58], [1.10, 1.10, 0.80]],
        [[1.72, 0.66, 0.62], [1.42, 1.06, 0.52]],
        [[0.34, 1.55, 1.11], [0.50, 1.62, 0.88]],
    ]
)
_HE = np.array(
    [
        [[1.08, 1.32, 0.60], [0.92, 1.44, 0.64]],
        [[0.28, 1.80, 0.92], [0.42, 1.78, 0.80]],
        [[0.18, 1.62, 1.20], [0.30, 1.60, 1.10]],
    ]
)
_IHC = np.array(
    [
        [[1.30, 1.18, 0.52], [1.12, 1.18, 0.70]],
        [[0.46, 1.02, 1.52], [0.62, 1.06, 1.32]],
        [[0.18, 1.62, 1.20], [0.30, 1.60, 1.10]],
    ]
)


@dataclass(frozen=True)
class Stain:
    """How one patient's slide is stained, lit and focused.

    Attributes:
        dyes: names of the rows of `matrix`.
        matrix: optical density (S x 3) of a unit concentration; each row has mean 1, so that concentrations
            of dyes add up to the mean optical density of the pixel.
        white_3: colour of empty glass, 0 to 255.
        tilt: change of the light over the picture along x and y, as a share of its mean.
        blur: standard deviation of the focus, px.
        noise: standard deviation of the camera, grey levels.
    """

    dyes: tuple[str, ...]
    matrix: Floats
    white_3: Floats
    tilt: tuple[float, float]
    blur: float
    noise: float


def pap_stain(rng: np.random.Generator) -> Stain:
    """A Papanicolaou stain of one laboratory and patient."""
    white = rng.uniform(205, 246) + np.array([rng.uniform(-8, 6), rng.uniform(-8, 2), rng.uniform(-6, 8)])
    return _stain(rng, PAP_DYES, _PAP, white)


def he_stain(rng: np.random.Generator) -> Stain:
    """A haematoxylin and eosin stain of one laboratory and patient."""
    white = rng.uniform(236, 250) + np.array([0, rng.uniform(-5, 0), rng.uniform(-3, 1)])
    return _stain(rng, HE_DYES, _HE, white)


def ihc_stain(rng: np.random.Generator) -> Stain:
    """An immunostain in brown (diaminobenzidine) over a blue counterstain, of one laboratory and patient."""
    white = rng.uniform(228, 248) + np.array([0, rng.uniform(-4, 1), rng.uniform(-6, 1)])
    return _stain(rng, IHC_DYES, _IHC, white)


def develop(concentrations_HWS: Floats, stain: Stain, rng: np.random.Generator) -> Pixels:
    """The picture (H x W x 3) that the camera takes of dye concentrations.

    Source: Beer-Lambert law: intensity = white * exp(-concentrations @ matrix).
    """
    height, width = concentrations_HWS.shape[:2]
    density = concentrations_HWS.reshape(-1, len(stain.dyes)) @ stain.matrix
    light = np.exp(-density).reshape(height, width, 3)
    if stain.blur > 0:
        for channel in range(3):
            gaussian_filter(light[..., channel], stain.blur, output=light[..., channel], truncate=3)
    light *= empty_glass((height, width), stain)
    light += rng.standard_normal(light.shape, dtype=np.float32) * np.float32(stain.noise)
    return np.asarray(np.clip(light + 0.5, 0, 255), dtype=np.uint8)


def empty_glass(shape: tuple[int, int], stain: Stain) -> Floats:
    """What the camera would see of empty glass, 0 to 255, for a picture of `shape` (rows, columns)."""
    rows = np.linspace(-0.5, 0.5, shape[0], dtype=np.float32)[:, None]
    columns = np.linspace(-0.5, 0.5, shape[1], dtype=np.float32)[None, :]
    shade = 1 + stain.tilt[0] * columns + stain.tilt[1] * rows
    return np.asarray(shade[..., None] * stain.white_3, dtype=np.float32)


def optical_density(rgb_HW3: Pixels, stain: Stain) -> Floats:
    """Optical density (H x W x 3) of a picture against the empty glass of its slide."""
    intensity = np.maximum(rgb_HW3.astype(np.float32), 1)
    density: Floats = -np.log(intensity / empty_glass(rgb_HW3.shape[:2], stain))
    return density


def unmix(rgb_HW3: Pixels, stain: Stain) -> Floats:
    """Dye concentrations (H x W x S) of a picture: the inverse of `develop`, apart from focus and noise.

    Only as good as the dyes are different: the blue ones of some Papanicolaou stains hardly are, and nothing
    that is measured on cells relies on telling them apart.

    Source: colour deconvolution, Ruifrok and Johnston 2001.
    """
    density = optical_density(rgb_HW3, stain)
    concentrations = density.reshape(-1, 3) @ np.linalg.inv(stain.matrix).astype(np.float32)
    return np.asarray(concentrations.reshape(*rgb_HW3.shape[:2], len(stain.dyes)), dtype=np.float32)


def texture(rng: np.random.Generator, shape: tuple[int, int], scale: float) -> Floats:
    """Smooth noise (H x W) of zero mean and unit deviation; `scale` is the deviation of its kernel, px."""
    step = max(int(scale / 2), 1)
    coarse = (shape[0] // step + 2, shape[1] // step + 2)
    noise = gaussian_filter(
        rng.standard_normal(coarse, dtype=np.float32), scale / step, mode="wrap", truncate=3
    )
    if step > 1:
        noise = _enlarge(noise, step)
    noise = noise[: shape[0], : shape[1]]
    return np.asarray((noise - noise.mean()) / max(float(noise.std()), 1e-6), dtype=np.float32)


def _stain(rng: np.random.Generator, dyes: tuple[str, ...], pairs_S23: NDArray, white_3: NDArray) -> Stain:
    share = rng.uniform(0, 1, (len(dyes), 1))
    matrix = pairs_S23[:, 0] * (1 - share) + pairs_S23[:, 1] * share
    matrix *= np.exp(rng.normal(0, 0.04, matrix.shape))
    return Stain(
        dyes=dyes,
        matrix=(matrix / matrix.mean(axis=1, keepdims=True)).astype(np.float32),
        white_3=np.clip(white_3, 180, 252).astype(np.float32),
        tilt=(float(rng.uniform(-0.07, 0.07)), float(rng.uniform(-0.07, 0.07))),
        blur=float(rng.uniform(0.35, 0.85)),
        noise=float(rng.uniform(0.8, 2.2)),
    )


def _enlarge(noise: Floats, step: int) -> Floats:
    """Linear interpolation by a whole factor along both axes; the last row and column are used up."""
    share = (np.arange(step, dtype=np.float32) / step)[:, None]
    for _ in range(2):
        between = noise[:-1, None] + (noise[1:] - noise[:-1])[:, None] * share
        noise = np.asarray(between.reshape(-1, noise.shape[1]).T, dtype=np.float32)
    return noise
