"""A slide in several pictures of one budget: an overview, and its most informative regions at a finer scale.

Shape legend: N = candidates, 4 = (x, y, width, height) in level-0 px.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from malpighi.config import Settings
from malpighi.errors import ConfigError
from malpighi.geometry import Box, Frame, Region, box_of, shrinkage
from malpighi.slides.packing import Layout
from malpighi.slides.pieces import TissueMap
from malpighi.slides.selectors import Context, Selector, best_apart, by_density, region_at
from malpighi.slides.slide import Slide
from malpighi.slides.view import SlideView, Tissue, ViewSettings, finished, scale_words, tissue_of, view
from malpighi.slides.view_map import Piece

Floats = NDArray[np.float64]

FRAME_COLOUR = (0, 170, 0)
FRAME_WIDTH = 2
_LETTERS = 13
_LEAST_SIDE = 4
_FINER = 1.5
_MOST_CANDIDATES = 4096
_LEAST_TISSUE = 0.25


class PyramidSettings(Settings, frozen=True):
    """How a slide is shown as an overview with regions.

    Attributes:
        view: the budget of all pictures together, and how each is shown.
        regions: the most regions; 0 for an overview alone.
        overview_share: of the budget, for the overview.
        zoom: how many times finer regions are than the overview, as far as level 0 allows.
        region_mpp: scale of the regions, micrometres per px, instead of `zoom`.
    """

    view: ViewSettings = ViewSettings()
    regions: int = 6
    overview_share: float = 0.5
    zoom: float = 8.0
    region_mpp: float | None = None

    def __post_init__(self) -> None:
        """Refuse shares and scales that mean nothing."""
        if self.regions < 0 or not 0 < self.overview_share < 1 or self.zoom <= 1:
            raise ConfigError(
                f"pyramid view: regions={self.regions}, overview_share={self.overview_share}, "
                f"zoom={self.zoom}; give 0 or more regions, a share between 0 and 1 and a zoom above 1"
            )
        if self.region_mpp is not None and not self.region_mpp > 0:
            raise ConfigError(f"pyramid view: region_mpp={self.region_mpp}; give micrometres above 0")


@dataclass(frozen=True)
class PyramidView:
    """An overview and regions of it.

    Attributes:
        overview: the slide, each region framed and numbered.
        regions: the regions, most informative first: number 1 is the first.
        scores: what the selector gave them.
        prompt_line: what a prompt says about all pictures, in this order.
    """

    overview: SlideView
    regions: tuple[SlideView, ...]
    scores: tuple[float, ...]
    prompt_line: str

    @property
    def images(self) -> tuple[SlideView, ...]:
        """All pictures in the order of the prompt line."""
        return (self.overview, *self.regions)

    @property
    def tokens(self) -> int:
        """What all pictures cost together."""
        return sum(image.tokens for image in self.images)


def pyramid_view(
    slide: Slide,
    settings: PyramidSettings | None = None,
    *,
    tissue: Tissue | None = None,
    selector: Selector = by_density,
) -> PyramidView:
    """A slide as an overview and its most informative regions, within one budget.

    Where the overview is as fine as the regions would be, or the budget too small for both, the overview gets
    the whole budget and there are no regions. Deterministic where the selector is.

    Args:
        slide: open.
        settings: the defaults where None.
        tissue: where tissue lies; regions are looked for there, or everywhere where None.
        selector: scores the candidates.

    Raises:
        MissingScaleError: `region_mpp` is set and the slide states no scale.
    """
    settings = settings or PyramidSettings()
    known = tissue_of(slide, tissue)
    plan = _planned(slide, settings, known)
    if plan is None:
        alone = view(slide, settings.view, tissue=known)
        return PyramidView(alone, (), (), alone.prompt_line)
    overview, side, step, count = plan
    candidates_N4 = _candidates(overview, side * step, slide, known)
    context = Context(overview.map, (side, side))
    scores_N = selector(slide, candidates_N4, context)
    chosen = best_apart(candidates_N4, np.asarray(scores_N, dtype=np.float64), count)
    places = [region_at(candidates_N4[index], slide) for index in chosen]
    regions = tuple(_close_up(slide, place, side, step, settings.view) for place in places)
    marked = _marked(overview, places)
    scores = tuple(float(scores_N[index]) for index in chosen)
    return PyramidView(marked, regions, scores, _words(marked, regions, places))


def _planned(
    slide: Slide, settings: PyramidSettings, tissue: TissueMap | None
) -> tuple[SlideView, int, float, int] | None:
    """The overview; side in px, step and number of the regions. None where there is no use or no room."""
    share = math.floor(settings.view.tokens * settings.overview_share)
    if share < 1:
        return None
    fields = {name: getattr(settings.view, name) for name in settings.view.__struct_fields__}
    overview = view(slide, ViewSettings(**{**fields, "tokens": share}), tissue=tissue)
    wanted = settings.region_mpp
    finer = overview.map.step / settings.zoom if wanted is None else shrinkage(slide.mpp, wanted)
    step = max(1.0, finer)
    rest = settings.view.tokens - overview.tokens
    count = min(settings.regions, rest // _LEAST_SIDE**2)
    if count < 1 or step * _FINER > overview.map.step:
        return None
    return overview, math.isqrt(rest // count) * settings.view.pixels_per_token, step, count


def _candidates(overview: SlideView, side: float, slide: Slide, tissue: TissueMap | None) -> Floats:
    """Squares on a grid of half their side over what the overview shows of the slide, where tissue lies."""
    found = [_grid(piece, side, slide) for piece in overview.map.pieces]
    grid_N4 = np.unique(np.concatenate(found), axis=0)
    if tissue is None:
        return grid_N4
    share_N = _tissue_share(grid_N4, tissue)
    least = min(_LEAST_TISSUE, float(share_N.max()))
    return grid_N4[(share_N >= least) & (share_N > 0)] if least > 0 else grid_N4


def _grid(piece: Piece, side: float, slide: Slide) -> Floats:
    """Squares over the part of a piece that lies on the slide, shifted inside it where they fit."""
    shown, whole = box_of(piece.region), box_of(slide.whole)
    spans = [
        (max(shown.x0, whole.x0), min(shown.x1, whole.x1), whole.x1),
        (max(shown.y0, whole.y0), min(shown.y1, whole.y1), whole.y1),
    ]
    area = math.prod(max(high - low, 1.0) for low, high, _ in spans)
    stride = max(side / 2, math.sqrt(area / _MOST_CANDIDATES))
    axes = []
    for low, high, end in spans:
        first = np.arange(low, max(high - side, low) + stride, stride)
        axes.append(np.unique(np.maximum(np.minimum(first, end - side), 0.0)))
    x, y = np.meshgrid(*axes)
    return np.stack([x.ravel(), y.ravel(), np.full(x.size, side), np.full(x.size, side)], axis=1)


def _tissue_share(grid_N4: Floats, tissue: TissueMap) -> Floats:
    sums = cv2.integral(tissue.mask.astype(np.uint8)).astype(np.float64)
    rows, columns = tissue.mask.shape
    scale = np.array([columns / tissue.region.width, rows / tissue.region.height])
    origin = np.array([tissue.region.x, tissue.region.y])
    low = np.floor((grid_N4[:, :2] - origin) * scale).astype(int)
    high = np.ceil((grid_N4[:, :2] + grid_N4[:, 2:] - origin) * scale).astype(int)
    pixels_N = np.prod(np.maximum(high - low, 1), axis=1)
    (x0, y0), (x1, y1) = (np.clip(edge, 0, (columns, rows)).T for edge in (low, high))
    share_N: Floats = (sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0]) / pixels_N
    return share_N


def _close_up(slide: Slide, place: Region, side: int, step: float, settings: ViewSettings) -> SlideView:
    piece = Piece(Box(0, 0, side, side), place)
    rgb = slide.read(place, (side, side)).copy()
    return finished(slide, rgb, Layout((side, side), step, (piece,)), "A region of the slide", settings)


def _marked(overview: SlideView, places: list[Region]) -> SlideView:
    """The overview with thin frames around the regions, each with its number."""
    picture = Image.fromarray(overview.rgb)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=_LETTERS)
    for number, place in enumerate(places, start=1):
        box = overview.map.from_slide(box_of(place), Frame.IMAGE)
        if box is None:
            continue
        x0, y0, x1, y1 = (round(v) for v in box.corners)
        frame = (x0 - FRAME_WIDTH, y0 - FRAME_WIDTH, x1 + FRAME_WIDTH - 1, y1 + FRAME_WIDTH - 1)
        draw.rectangle(frame, outline=FRAME_COLOUR, width=FRAME_WIDTH)
        left, top, right, bottom = draw.textbbox((0, 0), str(number), font=font)
        width, height = right - left + 4, bottom - top + 4
        x = min(max(frame[0], 0), picture.width - int(width))
        y = frame[1] - height if frame[1] >= height else min(frame[3] + 1, picture.height - height)
        draw.rectangle((x, y, x + width - 1, y + height - 1), fill=FRAME_COLOUR)
        draw.text((x + 2 - left, y + 2 - top), str(number), fill="white", font=font)
    return SlideView(np.asarray(picture), overview.map, overview.prompt_line)


def _words(overview: SlideView, regions: tuple[SlideView, ...], places: list[Region]) -> str:
    if not regions:
        return overview.prompt_line
    listed = []
    for number, place in enumerate(places, start=1):
        spoken = overview.map.spoken(box_of(place))
        listed.append(f"{number} at {list(spoken)}" if spoken else f"{number}")
    last = len(regions) + 1
    which = "Image 2: region 1" if last == 2 else f"Images 2 to {last}: regions 1 to {len(regions)}"
    return (
        f"Image 1: {overview.prompt_line} {which}, framed and numbered in image 1, "
        f"{scale_words(regions[0].map.mpp)}: {', '.join(listed)}."
    )
