"""Where the tiles of a slide lie: a grid at a scale, and the part of it that shows tissue.

Shape legend: N = tiles; boxes_N4 = int64 (x0, y0, x1, y1), level-0 px. Tiles are counted row by row.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from malpighi.config import Settings
from malpighi.errors import ConfigError, DataError, MissingScaleError
from malpighi.geometry import apart, coarser, level_corner, level_steps, shrinkage
from malpighi.slides.choices import Edges
from malpighi.slides.slide import Slide

Boxes = NDArray[np.int64]
Fractions = Callable[[Boxes], NDArray[np.floating]]
"""What part of each box (boxes_N4) is tissue, 0 to 1."""

MOST_TILES = 20_000_000
_AT_ONCE = 65_536


class GridSettings(Settings, frozen=True):
    """What tiles are wanted.

    Attributes:
        size: side of a tile, px.
        mpp: micrometres per pixel of a tile; None takes level 0 as it is and needs no scale.
        overlap: by how much neighbours share, px of a tile.
        edges: what becomes of tiles that reach over the edge.
        tissue: least part of a tile that is tissue, 0 to 1.
        tolerance: a stored level whose scale is off by no more than this part is taken as it is, unresampled.
    """

    size: int = 256
    mpp: float | None = 0.5
    overlap: int = 0
    edges: Edges = Edges.DROP
    tissue: float = 0.5
    tolerance: float = 0.03

    def __post_init__(self) -> None:
        """Refuse grids that cannot be."""
        if not 0 <= self.overlap < self.size:
            raise ConfigError(
                f"tiles of {self.size} px with overlap {self.overlap}: give at least 1 px and less overlap"
            )
        if self.mpp is not None and not 0 < self.mpp < float("inf"):
            raise ConfigError(f"tiles at {self.mpp} micrometres per pixel; give a number above 0")
        for name in ("tissue", "tolerance"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name}={getattr(self, name)}; give a part from 0 to 1")


class Picture(msgspec.Struct, frozen=True):
    """What the pictures of a slide's tiles are like.

    Attributes:
        size: side, px.
        level: the stored level that pixels come from.
        downsample: of that level.
        resampled: whether pixels are resampled from it; otherwise they are its own.
        mpp: micrometres per pixel, exactly what extent and size of a tile make it; None where unknown.
    """

    size: int
    level: int
    downsample: float
    resampled: bool
    mpp: float | None


class Tile(NamedTuple):
    """One tile.

    Attributes:
        x: left edge, level-0 px.
        y: top edge, level-0 px.
        width: extent along x, level-0 px.
        height: extent along y, level-0 px.
        size: side of the picture, px.
        level: the stored level that its pixels come from.
        downsample: of that level.
        resampled: whether they are resampled; otherwise they are the level's own.
    """

    x: int
    y: int
    width: int
    height: int
    size: int
    level: int
    downsample: float
    resampled: bool

    @property
    def corner(self) -> tuple[int, int]:
        """(x, y) of the upper left corner on its level, px of that level; exact where not resampled."""
        return level_corner((self.x, self.y), self.downsample)


class Grid(msgspec.Struct, frozen=True):
    """The tiles of one slide, row by row, by their places along both sides.

    Attributes:
        lefts: left edges of the columns, level-0 px.
        tops: top edges of the rows, level-0 px.
        extent: side of a tile, level-0 px.
        picture: what the pictures are like.
    """

    lefts: tuple[int, ...]
    tops: tuple[int, ...]
    extent: int
    picture: Picture

    def __len__(self) -> int:
        return len(self.lefts) * len(self.tops)

    def boxes(self, indices: NDArray[np.int64] | None = None) -> Boxes:
        """boxes_N4 of some tiles, or of all."""
        chosen = np.arange(len(self)) if indices is None else indices
        rows, columns = np.divmod(chosen, max(len(self.lefts), 1))
        lefts = np.asarray(self.lefts, dtype=np.int64)[columns]
        tops = np.asarray(self.tops, dtype=np.int64)[rows]
        return np.stack([lefts, tops, lefts + self.extent, tops + self.extent], axis=1)


def tiles_of(boxes_N4: Boxes, picture: Picture) -> Iterator[Tile]:
    """Boxes as tiles that can be read, one by one."""
    like = (picture.size, picture.level, picture.downsample, picture.resampled)
    for first in range(0, len(boxes_N4), _AT_ONCE):
        for x0, y0, x1, y1 in boxes_N4[first : first + _AT_ONCE].tolist():
            yield Tile(x0, y0, x1 - x0, y1 - y0, *like)


def make_grid(slide: Slide, settings: GridSettings) -> Grid:
    """All tiles of a slide. Positions are whole level-0 px and depend on size, scale and settings only.

    A level of the wanted scale is cut as it is stored, along its own pixels. Otherwise the side of a tile is
    rounded to whole level-0 px and the tile's true scale is noted.

    Raises:
        MissingScaleError: tiles at a scale of a slide that states none.
        DataError: tiles finer than the slide, or more of them than can be handled.
    """
    if settings.mpp is not None and slide.mpp is None:
        raise MissingScaleError(
            f"{slide.path.name} states no scale, so there are no tiles at {settings.mpp} micrometres per "
            "pixel; give its own (--mpp, --mpp-csv), or take level 0 as it is (--at 0)"
        )
    factor = 1.0 if settings.mpp is None else shrinkage(slide.mpp, settings.mpp)
    off, index = min((apart(factor, level.downsample), i) for i, level in enumerate(slide.levels))
    if off <= settings.tolerance:
        return _stored(slide, index, settings)
    if factor < 1:
        raise DataError(
            f"{slide.path.name}: tiles at {settings.mpp} micrometres per pixel would be finer than the slide "
            f"({slide.mpp}); ask for a coarser scale, or for level 0 as it is"
        )
    extent, stride = (max(1, round(px * factor)) for px in (settings.size, settings.size - settings.overlap))
    level = slide.level_for(extent / settings.size)
    lefts, tops = _all_starts(slide, slide.size, (settings.size, extent, stride), settings.edges)
    mpp = coarser(slide.mpp, extent / settings.size)
    picture = Picture(settings.size, level, slide.levels[level].downsample, resampled=True, mpp=mpp)
    return Grid(tuple(lefts), tuple(tops), extent, picture)


def select(grid: Grid, fractions: Fractions, least: float) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The tiles of which at least the part `least` is tissue.

    Args:
        grid: all tiles.
        fractions: what part of each box is tissue.
        least: 0 to 1; 0 keeps all.

    Returns:
        (indices_N, tissue_N) of the kept tiles, row by row.
    """
    kept, parts = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
    for first in range(0, len(grid), _AT_ONCE):
        indices = np.arange(first, min(first + _AT_ONCE, len(grid)), dtype=np.int64)
        found = np.asarray(fractions(grid.boxes(indices)), dtype=np.float32)
        chosen = found >= least
        kept.append(indices[chosen])
        parts.append(found[chosen])
    return np.concatenate(kept), np.concatenate(parts)


def starts(extent: int, side: int, stride: int, edges: Edges) -> list[int]:
    """Where tiles begin along one side.

    Args:
        extent: length of the slide along that side, px.
        side: length of a tile, px.
        stride: step from tile to tile, px.
        edges: what becomes of tiles that reach over the end.

    Example:
        >>> starts(10, 4, 3, Edges.DROP), starts(11, 4, 3, Edges.PAD), starts(11, 4, 3, Edges.SHIFT)
        ([0, 3, 6], [0, 3, 6, 9], [0, 3, 6, 7])
    """
    whole = list(range(0, extent - side + 1, stride))
    covered = whole[-1] + side if whole else 0
    if edges is Edges.DROP or covered >= extent:
        return whole
    following = whole[-1] + stride if whole else 0
    if edges is Edges.SHIFT:
        return [*whole, max(extent - side, 0)]
    return [*whole, *range(following, extent, stride)] if following < extent else whole


def _stored(slide: Slide, index: int, settings: GridSettings) -> Grid:
    """Tiles cut from a level along its own pixels."""
    level = slide.levels[index]
    lengths = (settings.size, settings.size, settings.size - settings.overlap)
    lefts, tops = _all_starts(slide, level.size, lengths, settings.edges)
    return Grid(
        tuple(level_steps(lefts, level.downsample)),
        tuple(level_steps(tops, level.downsample)),
        max(1, level_steps([settings.size], level.downsample)[0]),
        Picture(settings.size, index, level.downsample, resampled=False, mpp=slide.mpp_of(index)),
    )


def _all_starts(
    slide: Slide, extents: tuple[int, int], lengths: tuple[int, int, int], edges: Edges
) -> tuple[list[int], list[int]]:
    """Starts along both sides; `lengths` are a tile's picture, its side and the stride, px."""
    size, side, stride = lengths
    count = (extents[0] // stride + 1) * (extents[1] // stride + 1)
    if count > MOST_TILES:
        raise DataError(
            f"{slide.path.name}: {count} tiles of {size} px on {extents[0]} x {extents[1]} px are more than "
            f"the {MOST_TILES} that are handled; take larger tiles or a coarser scale"
        )
    lefts, tops = (starts(extent, side, stride, edges) for extent in extents)
    return lefts, tops
