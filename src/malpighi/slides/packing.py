"""How regions of a slide share one picture within a token budget.

All pieces of a picture have one step: level-0 px per px of the picture, never below 1, so that nothing is
ever enlarged. Lengths of places are whole px.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from malpighi.geometry import Box, Frame, Region, Size
from malpighi.resolution import fit, tokens
from malpighi.slides.view_map import Piece

_ROUNDS = 24
_SHAPES = 12
_EPSILON = 1e-9
_FINEST_GRID = 1000
"""Steps into which `relative1000` divides a side."""


class Budget(NamedTuple):
    """What a picture may cost.

    Attributes:
        tokens: the most tokens.
        pixels_per_token: side of the square that costs one, px.
        frame: the frame of the model's boxes.
    """

    tokens: int
    pixels_per_token: int
    frame: Frame

    @property
    def longest(self) -> int:
        """The longest side, tokens.

        A model that counts to 1000 along a side points within half a thousandth of it: on sides of up to 2000
        px that is within one px.
        """
        if self.frame is not Frame.RELATIVE1000:
            return self.tokens
        return max(1, min(self.tokens, 2 * _FINEST_GRID // self.pixels_per_token))


class Layout(NamedTuple):
    """A picture in the planning.

    Attributes:
        size: (width, height), px, multiples of the token's side.
        step: level-0 px per px.
        pieces: what is shown where.
    """

    size: Size
    step: float
    pieces: tuple[Piece, ...]

    def cost(self, budget: Budget) -> int:
        """Tokens."""
        return tokens(self.size, budget.pixels_per_token)


def alone(region: Region, budget: Budget) -> Layout:
    """One region as one picture, its size by T(M, P); the region grows to the picture's shape.

    Departs: T(M, P) lets the two scales of a picture differ by its rounding; here what the rounding adds is
    filled with the region's surroundings, so that a scale bar holds in every direction. A region within the
    budget is rounded up, not to the nearest: its pixels stay as they are.
    """
    side = budget.pixels_per_token
    columns, rows = (math.ceil(length / side) for length in (region.width, region.height))
    wanted = (columns * side, rows * side)
    if columns * rows > budget.tokens:
        wanted = fit((math.ceil(region.width), math.ceil(region.height)), budget.tokens, side)
    width, height = (min(length, budget.longest * side) for length in wanted)
    step = max(region.width / width, region.height / height, 1.0)
    return Layout((width, height), step, (_piece(region, (0, 0), (width, height), step),))


def packed(regions: Sequence[Region], budget: Budget, gap: int) -> Layout | None:
    """Several regions side by side on shelves, as fine as the budget allows; None where they do not fit.

    Args:
        regions: what to show.
        budget: bound on the whole picture.
        gap: empty px between neighbours.
    """
    best: Layout | None = None
    for size in _shapes(budget):
        layout = _finest(regions, size, budget, gap)
        if layout and (best is None or _rank(layout, budget) < _rank(best, budget)):
            best = layout
    return best


def _rank(layout: Layout, budget: Budget) -> tuple[float, int]:
    return (round(layout.step, 6), layout.cost(budget))


def _shapes(budget: Budget) -> list[Size]:
    """Sizes, px, of pictures from flat to tall that use up the budget."""
    middle = math.sqrt(budget.tokens)
    found: dict[Size, None] = {}
    for k in range(-_SHAPES, _SHAPES + 1):
        columns = min(max(1, round(middle * 2 ** (k / 4))), budget.longest)
        rows = min(budget.tokens // columns, budget.longest)
        found[columns * budget.pixels_per_token, rows * budget.pixels_per_token] = None
    return list(found)


def _finest(regions: Sequence[Region], size: Size, budget: Budget, gap: int) -> Layout | None:
    """The layout of smallest step in a picture of at most this size."""
    area = sum(region.width * region.height for region in regions)
    low = max(
        1.0,
        math.sqrt(area / (size[0] * size[1])),
        *(max(region.width / size[0], region.height / size[1]) for region in regions),
    )
    places, step = _shelves(regions, low, size, gap), low
    if places is None:
        places, step = _shelves(regions, low * 16, size, gap), low * 16
        if places is None:
            return None
        for _ in range(_ROUNDS):
            middle = math.sqrt(low * step)
            found = _shelves(regions, middle, size, gap)
            if found is None:
                low = middle
            else:
                places, step = found, middle
    pieces = tuple(
        _piece(region, (round(place.x0), round(place.y0)), _size_at(region, step), step)
        for region, place in zip(regions, places, strict=True)
    )
    side = budget.pixels_per_token
    ends = (max(place.x1 for place in places), max(place.y1 for place in places))
    width, height = (math.ceil(end / side) * side for end in ends)
    return Layout((width, height), step, pieces)


def _shelves(regions: Sequence[Region], step: float, size: Size, gap: int) -> list[Box] | None:
    """Places of the regions on shelves, tallest first, in the order of `regions`; None if they do not fit."""
    sizes = [_size_at(region, step) for region in regions]
    places: dict[int, Box] = {}
    x = y = shelf = 0
    for index in sorted(range(len(sizes)), key=lambda k: (-sizes[k][1], k)):
        width, height = sizes[index]
        if x and x + width > size[0]:
            x, y, shelf = 0, y + shelf + gap, 0
        shelf = max(shelf, height)
        if x + width > size[0] or y + height > size[1]:
            return None
        places[index] = Box(x, y, x + width, y + height)
        x += width + gap
    return [places[index] for index in range(len(sizes))]


def _size_at(region: Region, step: float) -> Size:
    return (
        max(1, math.ceil(region.width / step - _EPSILON)),
        max(1, math.ceil(region.height / step - _EPSILON)),
    )


def _piece(region: Region, corner: tuple[int, int], size: Size, step: float) -> Piece:
    """The region, grown about its middle to just fill its place."""
    width, height = size[0] * step, size[1] * step
    x, y = region.x - (width - region.width) / 2, region.y - (height - region.height) / 2
    if step == 1:  # whole pixels are copied, not blended with their neighbours
        x, y = float(math.floor(x)), float(math.floor(y))
    place = Box(*corner, corner[0] + size[0], corner[1] + size[1])
    return Piece(place, Region(x, y, width, height, region.mpp))
