"""Whole slides in miniature: tissue on glass in a tiled, pyramidal TIFF that states its scale.

Shape legend: H x W = rows x columns of level 0.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from malpighi.config import Settings
from malpighi.errors import ConfigError
from malpighi.geometry import Box
from malpighi.phantom.contours import Contour, Floats, coverage, ellipse, ripple, to_area, whole
from malpighi.phantom.glands import CARCINOMA, NORMAL
from malpighi.phantom.regions import fill_with_glands, scatter
from malpighi.phantom.sections import FIBROBLAST, LYMPHOCYTE, add_stroma, finish, new_section
from malpighi.phantom.stain import Pixels, he_stain

TILE = 256
_SMALLEST = 512
_QUALITY = 90
_LEAST, _MOST = 512, 8192


class SlideSettings(Settings, frozen=True):
    """What a phantom slide shows.

    Attributes:
        width: columns of level 0, 512 to 8192 px.
        height: rows of level 0, 512 to 8192 px.
        mpp: micrometres per pixel of level 0, 0.2 to 1.
        tumour: whether a part of the tissue is carcinoma.
        pen: whether somebody drew on the glass.
        blur: whether a part is out of focus.
    """

    width: int = 2048
    height: int = 1536
    mpp: float = 0.5
    tumour: bool = True
    pen: bool = False
    blur: bool = False


@dataclass(frozen=True)
class RenderedSlide:
    """Level 0 of a slide with what is exactly known about it.

    Attributes:
        rgb: the picture (H x W x 3).
        tissue: where tissue lies (H x W).
        tumour: where carcinoma glands lie (H x W).
        pen: where ink lies (H x W).
        blurred: where it is out of focus (H x W).
        mpp: micrometres per pixel.
    """

    rgb: Pixels
    tissue: NDArray[np.bool_]
    tumour: NDArray[np.bool_]
    pen: NDArray[np.bool_]
    blurred: NDArray[np.bool_]
    mpp: float


def render_slide(seed: int, settings: SlideSettings) -> RenderedSlide:
    """Draw a slide: a piece of mucosa on glass.

    Raises:
        ConfigError: a size or a scale out of range.
    """
    _check(settings)
    rng = np.random.default_rng([seed, settings.width, settings.height])
    shape = (settings.height, settings.width)
    section = new_section(shape, settings.mpp, rng)
    piece = _piece(shape, rng)
    tissue = piece.depth(whole(shape))
    add_stroma(section, float(rng.uniform(0, np.pi)), rng, density=0.36)
    glands = np.zeros(shape, dtype=np.uint16)
    split = settings.width * (0.5 if settings.tumour else 1.0)
    fill_with_glands(section, glands, NORMAL, rng, Box(0, 0, split, settings.height))
    normal = int(glands.max())
    if settings.tumour:
        fill_with_glands(section, glands, CARCINOMA, rng, Box(split, 0, settings.width, settings.height))
    scatter(section, (LYMPHOCYTE, LYMPHOCYTE, FIBROBLAST), 0.0014, glands, rng)
    section.field *= coverage(tissue, 3.0)[..., None]
    stain = he_stain(rng)
    rgb = finish(section, stain, rng)
    blurred = _blur(rgb, tissue > 0, rng) if settings.blur else np.zeros(shape, dtype=bool)
    pen = _draw_pen(rgb, rng) if settings.pen else np.zeros(shape, dtype=bool)
    return RenderedSlide(rgb, tissue > 0, (glands > normal) & (tissue > 0), pen, blurred, settings.mpp)


def write_slide(slide: RenderedSlide, path: Path) -> None:
    """Save a slide as a TIFF of JPEG tiles, with levels that halve down to at most 512 px."""
    per_centimetre = 1e4 / slide.mpp
    level, picture = 0, Image.fromarray(slide.rgb)
    with tifffile.TiffWriter(path) as writer:
        while True:
            writer.write(
                np.asarray(picture),
                photometric="rgb",
                tile=(TILE, TILE),
                compression="jpeg",
                compressionargs={"level": _QUALITY},
                resolution=(per_centimetre / 2**level, per_centimetre / 2**level),
                resolutionunit="CENTIMETER",
                subfiletype=1 if level else 0,
                software="malpighi phantom" if level == 0 else False,
                metadata=None,
            )
            if max(picture.size) <= _SMALLEST:
                return
            level, picture = level + 1, picture.reduce(2)


def _check(settings: SlideSettings) -> None:
    for name in ("width", "height"):
        if not _LEAST <= getattr(settings, name) <= _MOST:
            raise ConfigError(f"phantom slide: {name}={getattr(settings, name)} px; give {_LEAST} to {_MOST}")
    if not 0.2 <= settings.mpp <= 1:
        raise ConfigError(f"phantom slide: mpp={settings.mpp}; give 0.2 to 1 micrometres per pixel")


def _piece(shape: tuple[int, int], rng: np.random.Generator) -> Contour:
    """The outline of the tissue: most of the glass's middle."""
    area = 0.42 * shape[0] * shape[1]
    oval = ellipse(area, float(np.clip(shape[1] / shape[0], 0.7, 1.6)), float(rng.normal(0, 0.1)))
    place = (shape[1] * float(rng.uniform(0.46, 0.54)), shape[0] * float(rng.uniform(0.46, 0.54)))
    return Contour(*place, to_area(oval * (1 + ripple(rng, range(3, 12), 0.04)), area))


def _blur(rgb: Pixels, tissue: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Put a round part of the tissue out of focus, in place."""
    rows, columns = np.nonzero(tissue[::16, ::16])
    k = int(rng.integers(len(rows)))
    radius = 0.16 * min(rgb.shape[:2])
    disc = Contour(float(columns[k] * 16), float(rows[k] * 16), ellipse(np.pi * radius**2, 1.2, 0.0))
    window = disc.window((rgb.shape[0], rgb.shape[1]), 8)
    depth = disc.depth(window)
    share = coverage(depth, 12.0)[..., None]
    soft = np.stack([gaussian_filter(rgb[window][..., c].astype(np.float32), 5.0) for c in range(3)], axis=-1)
    rgb[window] = (rgb[window] * (1 - share) + soft * share + 0.5).astype(np.uint8)
    blurred = np.zeros(rgb.shape[:2], dtype=bool)
    blurred[window] = depth > 0
    return blurred


def _draw_pen(rgb: Pixels, rng: np.random.Generator) -> NDArray[np.bool_]:
    """A felt-pen arc on the glass, in place."""
    height, width = rgb.shape[:2]
    ink = np.array(
        [(2.2, 1.1, 0.25), (1.9, 0.5, 1.6), (1.9, 1.9, 1.8)][int(rng.integers(3))], dtype=np.float32
    )
    radius = float(rng.uniform(0.30, 0.38)) * min(height, width)
    ring = Contour(width / 2, height / 2, ellipse(np.pi * radius**2, 1.25, float(rng.uniform(0, np.pi))))
    ring = Contour(ring.x, ring.y, ring.radii * (1 + ripple(rng, range(2, 5), 0.03)))
    stroke = 0.014 * min(height, width) - np.abs(ring.depth(whole((height, width))))
    cover: Floats = coverage(stroke, 4.0)
    for channel in range(3):
        shaded = rgb[..., channel] * np.exp(-ink[channel] * cover)
        rgb[..., channel] = (shaded + 0.5).astype(np.uint8)
    return np.asarray(stroke > 0)
