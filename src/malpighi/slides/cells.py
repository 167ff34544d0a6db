"""Cells of a slide worth a look: nuclei found by their stain, field by field, and ranked.

No weights and no training: proposals for a model or a person to judge, not a count. Memory is that of one
field, whatever the slide.
"""

import heapq
import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from malpighi.config import Settings
from malpighi.errors import ConfigError
from malpighi.geometry import Box, Region, box_of, coarser, on_slide, shrinkage, to_pixels
from malpighi.slides.nuclei import HALO, Nucleus, contrast, find_nuclei, nuclear_density, threshold_of
from malpighi.slides.pieces import TissueMap
from malpighi.slides.slide import Slide
from malpighi.slides.stain_density import Floats, Pixels, brightest
from malpighi.slides.view import Tissue, tissue_of

_GLANCE = 2048
_EMPTY = 0.02
_SAMPLE = 512
_SAMPLE_STEP = 2
_NOTHING: Floats = np.zeros(1, dtype=np.float32)
_ENLARGED, _DARK, _RAGGED = 3.0, 1.5, 0.1
"""Times the slide's typical area, times its typical density, and share of the hull: each scores 1."""
_MOST_POINTS, _LEAST_POINTS = 2.0, -1.0


class CellSettings(Settings, frozen=True):
    """How cells are looked for.

    Attributes:
        mpp: scale of the search, micrometres per px; level 0 where that is coarser.
        field: side of what is looked at in one go, px of the search.
        least_um2: smallest nucleus, square micrometres.
        most_um2: largest; what is larger is a clump, a fold or dirt.
        samples: fields in whose middle darkness and size of the slide's typical nucleus are
            learnt.
        size: weight of a large nucleus in the score.
        darkness: weight of a dark one.
        irregularity: weight of a ragged outline.
    """

    mpp: float = 0.5
    field: int = 1024
    least_um2: float = 12.0
    most_um2: float = 600.0
    samples: int = 16
    size: float = 1.0
    darkness: float = 1.0
    irregularity: float = 1.0

    def __post_init__(self) -> None:
        """Refuse scales and sizes at which no nucleus can be found."""
        if not 0.1 <= self.mpp <= 1.0:
            raise ConfigError(f"cells: mpp={self.mpp}; give 0.1 to 1 micrometres per px")
        if not 128 <= self.field <= 8192 or self.samples < 1:
            raise ConfigError(
                f"cells: field={self.field}, samples={self.samples}; give 128 to 8192 px and 1 or more"
            )
        if not 0 < self.least_um2 < self.most_um2:
            raise ConfigError(
                f"cells: least_um2={self.least_um2}, most_um2={self.most_um2}; give 0 < least < most"
            )


class Cell(msgspec.Struct, frozen=True):
    """A proposal: a nucleus and how much it stands out.

    Attributes:
        x: its centre, level-0 px.
        y: the same down the slide.
        box: around the nucleus, level-0 px.
        area_um2: its area, square micrometres.
        density: its mean optical density, the lesser of red and green.
        irregularity: the share of its convex hull that it leaves empty, 0 to 1.
        score: 0 for the slide's typical nucleus; each weight is earned in full by three times its area, one
            and a half times its density, or a tenth of the hull left empty.
    """

    x: float
    y: float
    box: Box
    area_um2: float
    density: float
    irregularity: float
    score: float


class Reference(NamedTuple):
    """What is typical of a slide.

    Attributes:
        threshold: contrast above which a pixel is nuclear.
        area_um2: median area of a nucleus.
        density: median density of a nucleus.
    """

    threshold: float
    area_um2: float
    density: float


class _Search(NamedTuple):
    """A slide, what is wanted of it, and the scale at which that is looked for: step in level-0 px."""

    slide: Slide
    settings: CellSettings
    step: float
    mpp: float


class _Field(NamedTuple):
    """A square of the slide, (x0, y0, x1, y1) in px of the search, and the same with its surroundings."""

    core: tuple[int, int, int, int]
    outer: tuple[int, int, int, int]


def find_cells(
    slide: Slide, settings: CellSettings | None = None, *, tissue: Tissue | None = None
) -> Iterator[Cell]:
    """The nuclei of a slide, field by field from top left.

    Each belongs to the field that holds its centre, and each field is seen with its surroundings, so that
    none is cut or found twice. Fields of empty glass are passed over.

    Args:
        slide: open.
        settings: the defaults where None.
        tissue: where to look; everywhere where None.

    Raises:
        MissingScaleError: the slide states no scale; open it with `mpp=`.
    """
    settings = settings or CellSettings()
    step = max(1.0, shrinkage(slide.mpp, settings.mpp))
    search = _Search(slide, settings, step, coarser(slide.mpp, step) or settings.mpp)
    glance, white = _glance(slide)
    known = tissue_of(slide, tissue)
    fields = [
        field
        for field in _fields(search)
        if _stained(field, glance, search) and _on_tissue(field, known, search)
    ]
    typical = _typical(search, fields, white)
    for field in fields:
        for nucleus in find_nuclei(_pixels(search, field), white, typical.threshold, search.mpp):
            if _belongs(nucleus, field, search):
                yield _cell(nucleus, field, typical, search)


def best_cells(cells: Iterable[Cell], count: int) -> list[Cell]:
    """The cells of highest score, best first; ties from top left. Holds no more than `count`."""
    return heapq.nlargest(count, cells, key=lambda cell: (cell.score, -cell.y, -cell.x))


def _fields(search: _Search) -> list[_Field]:
    side = search.settings.field
    width, height = (max(1, math.ceil(length / search.step - 1e-6)) for length in search.slide.size)
    halo = math.ceil(to_pixels(HALO, search.mpp))
    found = []
    for y0 in range(0, height, side):
        for x0 in range(0, width, side):
            x1, y1 = min(x0 + side, width), min(y0 + side, height)
            outer = (max(x0 - halo, 0), max(y0 - halo, 0), min(x1 + halo, width), min(y1 + halo, height))
            found.append(_Field((x0, y0, x1, y1), outer))
    return found


def _glance(slide: Slide) -> tuple[Floats, tuple[float, float, float]]:
    """Nuclear density of the whole slide at a coarse scale, and the colour of glass."""
    share = min(1.0, _GLANCE / max(slide.size))
    width, height = (max(1, round(side * share)) for side in slide.size)
    rgb = slide.read(slide.whole, (width, height))
    white = brightest(rgb)
    return nuclear_density(rgb, white), white


def _stained(field: _Field, glance: Floats, search: _Search) -> bool:
    """Whether a field holds anything but glass."""
    part = _window(glance, field, search, search.slide.whole)
    return bool(part.size) and float(part.max()) > _EMPTY


def _on_tissue(field: _Field, tissue: TissueMap | None, search: _Search) -> bool:
    return tissue is None or bool(_window(tissue.mask, field, search, tissue.region).any())


def _window(values_HW: NDArray, field: _Field, search: _Search, over: Region) -> NDArray:
    """The part of a coarse map of the region `over` that a field touches; may be empty."""
    shown = _region(field.core, search)
    x, y = values_HW.shape[1] / over.width, values_HW.shape[0] / over.height
    columns = slice(
        max(math.floor((shown.x - over.x) * x), 0), math.ceil((shown.x + shown.width - over.x) * x)
    )
    rows = slice(max(math.floor((shown.y - over.y) * y), 0), math.ceil((shown.y + shown.height - over.y) * y))
    return values_HW[rows.start : max(rows.stop, 0), columns.start : max(columns.stop, 0)]


def _typical(search: _Search, fields: list[_Field], white: tuple[float, float, float]) -> Reference:
    """What fields spread evenly over the slide say of its nuclei."""
    picks = np.unique(np.linspace(0, len(fields) - 1, min(search.settings.samples, len(fields))).astype(int))
    sampled = [_middle(fields[index]) for index in picks.tolist()] if fields else []
    points = [
        contrast(nuclear_density(_pixels(search, field), white), search.mpp)[::_SAMPLE_STEP, ::_SAMPLE_STEP]
        for field in sampled
    ]
    threshold = threshold_of(np.concatenate([part.ravel() for part in points]) if points else _NOTHING)
    seen = [
        nucleus
        for field in sampled
        for nucleus in find_nuclei(_pixels(search, field), white, threshold, search.mpp)
        if _belongs(nucleus, field, search)
    ]
    area = float(np.median([nucleus.area_um2 for nucleus in seen])) if seen else search.settings.least_um2
    density = float(np.median([nucleus.density for nucleus in seen])) if seen else threshold
    return Reference(threshold, max(area, 1e-3), max(density, 1e-3))


def _middle(field: _Field) -> _Field:
    """A smaller field in the middle of one."""
    x0, y0, x1, y1 = field.core
    x, y = max((x0 + x1 - _SAMPLE) // 2, x0), max((y0 + y1 - _SAMPLE) // 2, y0)
    core = (x, y, min(x + _SAMPLE, x1), min(y + _SAMPLE, y1))
    return _Field(core, core)


def _pixels(search: _Search, field: _Field) -> Pixels:
    x0, y0, x1, y1 = field.outer
    return search.slide.read(_region(field.outer, search), (x1 - x0, y1 - y0))


def _region(corners: tuple[float, float, float, float], search: _Search) -> Region:
    return on_slide(corners, search.step, search.slide.mpp)


def _belongs(nucleus: Nucleus, field: _Field, search: _Search) -> bool:
    """Whether a nucleus has the size of one and its centre in the field's own part."""
    x, y = nucleus.x + field.outer[0], nucleus.y + field.outer[1]
    x0, y0, x1, y1 = field.core
    fits = search.settings.least_um2 <= nucleus.area_um2 <= search.settings.most_um2
    return fits and x0 <= x < x1 and y0 <= y < y1


def _cell(nucleus: Nucleus, field: _Field, typical: Reference, search: _Search) -> Cell:
    left, top = field.outer[:2]
    x0, y0, x1, y1 = nucleus.box
    box = box_of(_region((x0 + left, y0 + top, x1 + left, y1 + top), search))
    return Cell(
        x=(nucleus.x + left) * search.step,
        y=(nucleus.y + top) * search.step,
        box=box,
        area_um2=nucleus.area_um2,
        density=nucleus.density,
        irregularity=nucleus.irregularity,
        score=_score(nucleus, typical, search.settings),
    )


def _score(nucleus: Nucleus, typical: Reference, weights: CellSettings) -> float:
    points = (
        (weights.size, math.log(max(nucleus.area_um2, 1e-3) / typical.area_um2, _ENLARGED)),
        (weights.darkness, math.log(max(nucleus.density, 1e-3) / typical.density, _DARK)),
        (weights.irregularity, nucleus.irregularity / _RAGGED),
    )
    return sum(weight * min(max(value, _LEAST_POINTS), _MOST_POINTS) for weight, value in points)
