"""Whole slides in miniature: tissue on glass in a tiled, pyramidal TIFF that states its scale.

Shape legend: H x W = rows x columns of level 0.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from malpighi.config import Settings
from malpighi.errors import ConfigError
from malpighi.geometry import Box
from malpighi.phantom.blemishes import Mask, add_bubbles, blur_part, draw_pen, fold_tissue
from malpighi.phantom.contours import Contour, Floats, coverage, ellipse, ripple, to_area, whole
from malpighi.phantom.glands import CARCINOMA, NORMAL
from malpighi.phantom.regions import fill_with_glands, scatter
from malpighi.phantom.sections import (
    EOSIN,
    FIBROBLAST,
    HAEMATOXYLIN,
    LYMPHOCYTE,
    add_stroma,
    new_section,
)
from malpighi.phantom.smears import draw_smear
from malpighi.phantom.stain import Pixels, Stain, develop, he_stain, ihc_stain, pap_stain

TILE = 256
_SMALLEST = 512
_QUALITY = 90
_LEAST, _MOST = 512, 8192
_MOST_PIECES = 8
_DARKEST = 120
_POSITIVE = 0.6  # of the glands
_STAINS: dict[str, Callable[[np.random.Generator], Stain]] = {
    "he": he_stain,
    "ihc": ihc_stain,
    "pap": pap_stain,
}


class SlideSettings(Settings, frozen=True):
    """What a phantom slide shows.

    Attributes:
        width: columns of level 0, 512 to 8192 px.
        height: rows of level 0, 512 to 8192 px.
        mpp: micrometres per pixel of level 0, 0.2 to 1.
        tumour: whether a part of the tissue is carcinoma; smears have none.
        pen: whether somebody drew on the glass.
        blur: whether a part is out of focus.
        folds: whether the section lies folded over itself along two bands; smears do not fold.
        bubbles: whether there are two bubbles of air under the coverslip.
        stain: `he`, `ihc` (diaminobenzidine over haematoxylin) or `pap` (a smear instead of a section).
        pieces: how many pieces of tissue lie side by side; 0 leaves the glass empty.
        glass: colour of empty glass (red, green, blue), 120 to 255; by default that of a laboratory.
    """

    width: int = 2048
    height: int = 1536
    mpp: float = 0.5
    tumour: bool = True
    pen: bool = False
    blur: bool = False
    folds: bool = False
    bubbles: bool = False
    stain: str = "he"
    pieces: int = 1
    glass: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class RenderedSlide:
    """Level 0 of a slide with what is exactly known about it.

    Attributes:
        rgb: the picture (H x W x 3).
        tissue: where tissue lies (H x W), also under ink and air; in a smear, the cells.
        tumour: where carcinoma glands lie (H x W).
        pen: where ink lies (H x W).
        blurred: where it is out of focus (H x W).
        folds: where tissue lies in several layers (H x W).
        bubbles: where air lies (H x W).
        mpp: micrometres per pixel.
    """

    rgb: Pixels
    tissue: Mask
    tumour: Mask
    pen: Mask
    blurred: Mask
    folds: Mask
    bubbles: Mask
    mpp: float


def render_slide(seed: int, settings: SlideSettings) -> RenderedSlide:
    """Draw a slide: pieces of mucosa, or a smear, on glass.

    Raises:
        ConfigError: a size, a scale, a stain or a number out of range.
    """
    _check(settings)
    shape = (settings.height, settings.width)
    rng = np.random.default_rng([seed, settings.width, settings.height])
    draw = _smear if settings.stain == "pap" else _mucosa
    field, tissue, tumour = draw(settings, rng)
    # Streams of their own: one blemish more changes neither the tissue nor the other blemishes.
    further = [np.random.default_rng([seed, settings.width, settings.height, k]) for k in range(2)]
    none = np.zeros(shape, dtype=bool)
    folded = settings.folds and settings.stain != "pap" and bool(tissue.any())
    folds = fold_tissue(field, tissue, settings.mpp, further[0]) if folded else none
    stain = _STAINS[settings.stain](rng)
    if settings.glass is not None:
        stain = replace(stain, white_3=np.array(settings.glass, dtype=np.float32))
    rgb = develop(field, stain, rng)
    blurred = blur_part(rgb, tissue, rng) if settings.blur and tissue.any() else none
    air = add_bubbles(rgb, settings.mpp, further[1]) if settings.bubbles else none
    pen = draw_pen(rgb, settings.mpp, rng) if settings.pen else none
    return RenderedSlide(rgb, tissue, tumour, pen, blurred, folds, air, settings.mpp)


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
    if settings.stain not in _STAINS:
        raise ConfigError(f"phantom slide: stain={settings.stain!r}; give one of {', '.join(_STAINS)}")
    if not 0 <= settings.pieces <= _MOST_PIECES:
        raise ConfigError(f"phantom slide: pieces={settings.pieces}; give 0 to {_MOST_PIECES}")
    if settings.glass is not None and not all(_DARKEST <= v <= 255 for v in settings.glass):
        raise ConfigError(f"phantom slide: glass={settings.glass}; give three numbers of {_DARKEST} to 255")


def _mucosa(settings: SlideSettings, rng: np.random.Generator) -> tuple[Floats, Mask, Mask]:
    """Dye concentrations of a section (H x W x 3), where its tissue lies, and where its carcinoma."""
    shape = (settings.height, settings.width)
    section = new_section(shape, settings.mpp, rng)
    depth = _depth(settings, rng)
    tissue = depth > 0
    add_stroma(section, float(rng.uniform(0, np.pi)), rng, density=0.36)
    glands = np.zeros(shape, dtype=np.uint16)
    split = settings.width * (0.5 if settings.tumour else 1.0)
    fill_with_glands(section, glands, NORMAL, rng, Box(0, 0, split, settings.height))
    normal = int(glands.max())
    if settings.tumour:
        fill_with_glands(section, glands, CARCINOMA, rng, Box(split, 0, settings.width, settings.height))
    scatter(section, (LYMPHOCYTE, LYMPHOCYTE, FIBROBLAST), 0.0014, glands, rng)
    section.field *= coverage(depth, 3.0)[..., None]
    if settings.stain == "ihc":
        _immunostain(section.field, glands, rng)
    return section.field, tissue, (glands > normal) & tissue


def _smear(settings: SlideSettings, rng: np.random.Generator) -> tuple[Floats, Mask, Mask]:
    """The same of a smear, in which nothing is carcinoma."""
    shape = (settings.height, settings.width)
    field, cells = draw_smear(_pieces(settings, rng), shape, settings.mpp, rng)
    return field, cells, np.zeros(shape, dtype=bool)


def _immunostain(field: Floats, glands: NDArray[np.uint16], rng: np.random.Generator) -> None:
    """Trade eosin for diaminobenzidine, in place: strong in some glands, hardly any elsewhere."""
    strength = np.where(rng.random(int(glands.max()) + 1) < _POSITIVE, rng.uniform(0.6, 1.3), 0.04)
    strength[0] = 0.04
    taken = strength.astype(np.float32)[glands]
    counterstain = 0.55 * field[..., HAEMATOXYLIN] + 0.25 * field[..., EOSIN]
    field[..., EOSIN] = taken * (field[..., EOSIN] + 0.25 * field[..., HAEMATOXYLIN])
    field[..., HAEMATOXYLIN] = counterstain


def _depth(settings: SlideSettings, rng: np.random.Generator) -> Floats:
    """How deep each pixel lies inside a piece of tissue, px (H x W); negative outside."""
    shape = (settings.height, settings.width)
    depth = np.full(shape, -1e3, dtype=np.float32)
    for piece in _pieces(settings, rng):
        np.maximum(depth, piece.depth(whole(shape)), out=depth)
    return depth


def _pieces(settings: SlideSettings, rng: np.random.Generator) -> list[Contour]:
    """Outlines of the pieces of tissue, side by side, each on its share of the glass."""
    share = settings.width / max(settings.pieces, 1)
    pieces = [_piece((settings.height, int(share)), rng) for _ in range(settings.pieces)]
    return [piece.moved(piece.x + k * share, piece.y) for k, piece in enumerate(pieces)]


def _piece(shape: tuple[int, int], rng: np.random.Generator) -> Contour:
    """The outline of the tissue: most of the glass's middle."""
    area = 0.42 * shape[0] * shape[1]
    oval = ellipse(area, float(np.clip(shape[1] / shape[0], 0.7, 1.6)), float(rng.normal(0, 0.1)))
    place = (shape[1] * float(rng.uniform(0.46, 0.54)), shape[0] * float(rng.uniform(0.46, 0.54)))
    return Contour(*place, to_area(oval * (1 + ripple(rng, range(3, 12), 0.04)), area))
