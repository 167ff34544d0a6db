"""The slide as a model sees it: one picture within a token budget that knows its scale and its place.

Shape legend: H x W x 3 = rows x columns x RGB, uint8.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from malpighi.config import Settings
from malpighi.errors import ConfigError
from malpighi.geometry import Frame, Region, coarser
from malpighi.slides.packing import Budget, Layout, alone, packed
from malpighi.slides.pieces import TissueMap, cut_long, grown, tissue_box, tissue_pieces
from malpighi.slides.scale_bar import bar_for, draw_bar
from malpighi.slides.slide import WHITE, Slide
from malpighi.slides.view_map import ViewMap

Pixels = NDArray[np.uint8]
Tissue = TissueMap | Callable[[Slide], TissueMap]

_SLENDER = 4.0


class ViewSettings(Settings, frozen=True):
    """How a slide is shown.

    Attributes:
        tokens: M, what all pictures together may cost; 1024 for slides in SmartPath-R1.
        pixels_per_token: P, side of the square that costs one token, px: 28 for Qwen2.5-VL, 32 for Qwen3-VL.
        frame: the frame in which the model writes boxes: `resized` (Qwen2.5-VL) or `relative1000` (Qwen3-VL).
        margin: glass left around tissue, a share of the longer side.
        pack: whether pieces of tissue that lie apart may be shown side by side.
        pack_gain: how many times finer that must be to be done; the pieces' places on the glass are lost.
        most_pieces: the most pieces side by side.
        least_piece: smallest piece shown where pieces are packed, a share of all tissue.
        bar: whether a scale bar is drawn.
    """

    tokens: int = 1024
    pixels_per_token: int = 32
    frame: Literal[Frame.RESIZED, Frame.RELATIVE1000] = Frame.RELATIVE1000
    margin: float = 0.02
    pack: bool = True
    pack_gain: float = 1.25
    most_pieces: int = 12
    least_piece: float = 0.002
    bar: bool = True

    def __post_init__(self) -> None:
        """Refuse budgets and shares that mean nothing."""
        for name in ("tokens", "pixels_per_token", "most_pieces"):
            if getattr(self, name) < 1:
                raise ConfigError(f"view: {name}={getattr(self, name)}; give at least 1")
        if self.margin < 0 or self.pack_gain < 1 or not 0 <= self.least_piece < 1:
            raise ConfigError(
                f"view: margin={self.margin}, pack_gain={self.pack_gain}, least_piece={self.least_piece}; "
                "give a margin of at least 0, a gain of at least 1 and a share from 0 to below 1"
            )

    def budget(self, tokens: int | None = None) -> Budget:
        """The bound on one picture; all tokens where none are given."""
        return Budget(self.tokens if tokens is None else tokens, self.pixels_per_token, Frame(self.frame))


@dataclass(frozen=True)
class SlideView:
    """A picture of a slide, or of a part of it.

    Attributes:
        rgb: the picture (H x W x 3), of `map.size`.
        map: the way to the slide and back, the scale and what the picture costs.
        prompt_line: what a prompt says about the picture: what it shows, its scale, and its bar.
    """

    rgb: Pixels
    map: ViewMap
    prompt_line: str

    @property
    def tokens(self) -> int:
        """What the picture costs."""
        return self.map.tokens


def view(
    slide: Slide,
    settings: ViewSettings | None = None,
    *,
    tissue: Tissue | None = None,
    region: Region | None = None,
) -> SlideView:
    """A slide as one picture of at most `settings.tokens` tokens.

    Cropped to its tissue, read at the finest scale that the budget allows and never finer than level 0. The
    picture has one scale in all directions. A scale bar and the micrometres per pixel are stated where the
    slide states its scale, and that it is unknown where it does not.

    Args:
        slide: open.
        settings: the defaults where None.
        tissue: where tissue lies, or what finds it; the whole slide is shown where None, or where there is
            none.
        region: shown instead of the tissue, level-0 px.
    """
    settings = settings or ViewSettings()
    layout, subject = _planned(slide, settings, tissue, region)
    rgb = np.full((layout.size[1], layout.size[0], 3), WHITE, dtype=np.uint8)
    for piece in layout.pieces:
        x0, y0, x1, y1 = (round(v) for v in piece.place.corners)
        rgb[y0:y1, x0:x1] = slide.read(piece.region, (x1 - x0, y1 - y0))
    return finished(slide, rgb, layout, subject, settings)


def finished(slide: Slide, rgb: Pixels, layout: Layout, subject: str, settings: ViewSettings) -> SlideView:
    """The pixels of a layout as a view: its scale bar drawn, in place, and its words found.

    Args:
        slide: where the pixels come from.
        rgb: H x W x 3 of the layout's size.
        layout: what is shown where.
        subject: what the picture shows, in words.
        settings: how it is shown.
    """
    mpp = coarser(slide.mpp, layout.step)
    bar = bar_for(mpp, layout.size[0]) if settings.bar else None
    drawn = bar is not None and draw_bar(rgb, bar)
    words = f"{subject}, {scale_words(mpp)}"
    where = ViewMap(
        size=layout.size,
        frame=Frame(settings.frame),
        pixels_per_token=settings.pixels_per_token,
        tokens=layout.cost(settings.budget()),
        step=layout.step,
        mpp=mpp,
        pieces=layout.pieces,
        slide=str(slide.path),
    )
    return SlideView(rgb, where, words + (f"; the bar is {bar.words}." if drawn and bar else "."))


def scale_words(mpp: float | None) -> str:
    """A scale as a prompt states it.

    Example:
        >>> [scale_words(mpp).split()[0] for mpp in (8.123, 0.4990, 41.6)], scale_words(None)
        (['8.1', '0.50', '42'], 'scale unknown')
    """
    if mpp is None:
        return "scale unknown"
    number = f"{mpp:.0f}" if mpp >= 10 else f"{mpp:#.2g}"
    return f"{number} micrometres per pixel"


def tissue_of(slide: Slide, tissue: Tissue | None) -> TissueMap | None:
    """The tissue map, found now where it is still to be found."""
    return tissue(slide) if callable(tissue) else tissue


def _planned(
    slide: Slide, settings: ViewSettings, tissue: Tissue | None, region: Region | None
) -> tuple[Layout, str]:
    """What to show, and that in words."""
    if region is not None:
        return alone(region, settings.budget()), "A region of the slide"
    known = tissue_of(slide, tissue)
    found = tissue_box(known) if known else None
    if known is None or found is None:
        crop, subject = slide.whole, "Whole slide"
    else:
        crop, subject = grown(found, settings.margin, slide.whole), "The tissue of the slide"
    layout = alone(crop, settings.budget())
    if not settings.pack or layout.step == 1:
        return layout, subject
    pieces = tissue_pieces(known, settings.most_pieces, settings.least_piece) if known else [crop]
    return _finer(layout, pieces, slide, settings) or (layout, subject)


def _finer(
    layout: Layout, pieces: list[Region], slide: Slide, settings: ViewSettings
) -> tuple[Layout, str] | None:
    """Pieces side by side, where that is finer enough than the whole."""
    regions = [grown(piece, settings.margin, slide.whole) for piece in pieces]
    for parts in (regions, [part for region in regions for part in cut_long(region, _SLENDER)]):
        if 1 < len(parts) <= 4 * settings.most_pieces:
            tight = packed(parts, settings.budget(), max(2, settings.pixels_per_token // 4))
            if tight and tight.step * settings.pack_gain <= layout.step:
                return tight, f"{len(parts)} parts of the slide side by side"
    return None
