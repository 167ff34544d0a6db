"""Tissue and artefacts of a slide drawn over it, and the files that the command `tissue` leaves behind.

Shape legend: H x W = rows x columns of the drawing.
"""

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw

from malpighi.durable import replacing
from malpighi.geometry import on_slide
from malpighi.slides.glass import Mask
from malpighi.slides.slide import Pixels, Slide
from malpighi.slides.tissue import Tissue, TissueSettings, find_tissue

COLOURS = {
    "tissue": (0, 170, 0),
    "pen": (255, 120, 0),
    "blur": (0, 110, 255),
    "folds": (255, 0, 200),
    "bubbles": (0, 190, 190),
}

_LONGEST = 1600  # px
_QUALITY = 88
_PAINT = 0.45
_LINE = 14  # px of the legend


def draw_overlay(slide: Slide, tissue: Tissue, longest: int = _LONGEST) -> Pixels:
    """The slide with its tissue outlined and its artefacts painted over, and a legend below.

    Args:
        slide: open for reading.
        tissue: what was found on it.
        longest: px of the longer side, at most.

    Returns:
        rgb_HW3.
    """
    height, width = tissue.mask.shape
    share = longest / max(tissue.mask.shape)
    size = (max(round(width * share), 1), max(round(height * share), 1))
    everything = on_slide((0, 0, width, height), tissue.downsample, slide.mpp)
    rgb_HW3 = slide.read(everything, size).copy()
    for name in ("blur", "folds", "bubbles", "pen"):
        _paint(rgb_HW3, tissue.maps[name], COLOURS[name])
    enlarged = cv2.resize(tissue.mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    outlines, _ = cv2.findContours(enlarged, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(rgb_HW3, outlines, -1, COLOURS["tissue"], 2)
    return np.concatenate([rgb_HW3, _legend(tissue, size[0])])


def tissue_slide(slide: Slide, out: Path, settings: TissueSettings | None = None) -> dict[str, object]:
    """Find the tissue of a slide and leave `tissue.png` (the mask) and `overlay.jpg` in a folder.

    Returns:
        A row of figures: `tissue_fraction`, `pen_fraction` and `bubble_fraction` of what was scanned;
        `blur_fraction` and `fold_fraction` of the tissue; `pieces`, `found`, `mpp`, `notes`.

    Raises:
        ConfigError: a setting out of range.
    """
    tissue = find_tissue(slide, settings)
    out.mkdir(parents=True, exist_ok=True)
    _save(Image.fromarray(tissue.mask), out / "tissue.png", format="PNG", optimize=True)
    _save(Image.fromarray(draw_overlay(slide, tissue)), out / "overlay.jpg", format="JPEG", quality=_QUALITY)
    shares = tissue.shares()
    return {
        "found": tissue.found,
        "tissue_fraction": shares["tissue"],
        "pieces": len(tissue.polygons),
        "pen_fraction": shares["pen"],
        "blur_fraction": shares["blur"],
        "fold_fraction": shares["folds"],
        "bubble_fraction": shares["bubbles"],
        "mpp": slide.mpp,
        "downsample": tissue.downsample,
        "notes": "; ".join(tissue.notes),
    }


def _paint(rgb_HW3: Pixels, mask: Mask, colour: tuple[int, int, int]) -> None:
    size = (rgb_HW3.shape[1], rgb_HW3.shape[0])
    where_HW = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    mixed_N3 = rgb_HW3[where_HW] * (1 - _PAINT) + np.array(colour) * _PAINT
    rgb_HW3[where_HW] = mixed_N3.astype(np.uint8)


def _legend(tissue: Tissue, width: int) -> Pixels:
    """Colours with their shares, then the notes."""
    shares = tissue.shares()
    entries = [(f"{name} {shares[name]:.1%}", colour) for name, colour in COLOURS.items()]
    texts = [*entries, *((note, (0, 0, 0)) for note in tissue.notes)]
    picture = Image.new("RGB", (width, _LINE * (len(texts) + 1)), "white")
    draw = ImageDraw.Draw(picture)
    for row, (text, colour) in enumerate(texts):
        draw.text((4, 4 + row * _LINE), text, fill=colour)
    return np.asarray(picture)


def _save(picture: Image.Image, path: Path, **how: Any) -> None:
    data = io.BytesIO()
    picture.save(data, **how)
    with replacing(path) as file:
        file.write(data.getvalue())
