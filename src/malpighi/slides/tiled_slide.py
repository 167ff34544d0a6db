"""Slides that are decoded tile by tile: each tile once, by threads where there are many of them.

Shape legend: H x W x 3 = rows x columns x RGB, uint8. A tile's key is (level, shrink, column, row).
"""

import os
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from malpighi.errors import DataError
from malpighi.geometry import Size
from malpighi.slides.slide import Pixels, Slide, SlideFacts
from malpighi.slides.tile_cache import TileCache

MOST_CACHED = 64 << 20
_LEAST_CACHED = 4 << 20
_MANY = 64
_THREADS = min(4, os.cpu_count() or 1)


class TileError(DataError):
    """What lies in the place of one tile is not that tile; the rest of the slide may well be whole."""


class _Grid(NamedTuple):
    """The tiles of a level, each shrunk by `shrink`: `tile` px each, `extent` px in all."""

    level: int
    shrink: int
    tile: Size
    extent: Size


class TiledSlide(Slide):
    """A slide whose tiles a subclass decodes; all levels have tiles.

    Args:
        path: the file or folder.
        facts: what is known of it; each level has a tile size.
        shrinks: see `Slide`.
    """

    def __init__(self, path: Path, facts: SlideFacts, shrinks: tuple[int, ...]) -> None:
        super().__init__(path, facts)
        self.shrinks = shrinks
        self._cache = TileCache(_two_rows(facts))
        self._grids = {
            (index, shrink): _Grid(
                index,
                shrink,
                (level.tile[0] // shrink, level.tile[1] // shrink),
                (-(-level.size[0] // shrink), -(-level.size[1] // shrink)),
            )
            for index, level in enumerate(facts.levels)
            for shrink in shrinks
            if level.tile
        }

    @abstractmethod
    def _tile_pixels(self, level: int, column: int, row: int, shrink: int) -> Pixels:
        """The pixels of a tile with its padding, a new array of tile size // `shrink`.

        Raises:
            TileError: the tile is missing or corrupt; the message says how.
        """

    def read_many(
        self, corners: Sequence[tuple[int, int]] | NDArray[Any], size: Size, level: int = 0
    ) -> Iterator[tuple[int, Pixels]]:
        """Many rectangles of one size, sorted by tile so that each tile is decoded once; see `Slide`."""
        places = np.asarray(corners, dtype=np.int64).reshape(-1, 2)
        width, height = self._grids[level, 1].tile
        for index in np.lexsort((places[:, 0] // width, places[:, 1] // height)).tolist():
            x, y = places[index].tolist()
            yield index, self._decode(level, (x, y), size, 1)

    def _decode(self, level: int, corner: tuple[int, int], size: Size, shrink: int) -> Pixels:
        grid = self._grids[level, shrink]
        columns, rows = (_span(corner[side], size[side], grid, side) for side in (0, 1))
        inside = _inside(corner, size, grid.extent)
        if inside and size == grid.tile and len(columns) == len(rows) == 1:
            tile = self._tile(grid, columns[0], rows[0])
            return np.full((size[1], size[0], 3), 255, np.uint8) if tile is None else tile
        out = np.empty((size[1], size[0], 3), dtype=np.uint8)
        if not inside:
            out.fill(255)
        if len(columns) * len(rows) < _MANY or _THREADS == 1:
            for row in rows:
                self._paint(out, grid, corner, columns, row)
            return out
        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(partial(self._paint, out, grid, corner, columns), rows))
        return out

    def _paint(
        self, out: Pixels, grid: _Grid, corner: tuple[int, int], columns: Iterable[int], row: int
    ) -> None:
        """Paint what a rectangle shows of a row of tiles."""
        (left, top), (width, height) = corner, grid.tile
        y, end = row * height, min((row + 1) * height, grid.extent[1])
        y0, y1 = max(y, top), min(end, top + out.shape[0])
        for column in columns:
            x, last = column * width, min((column + 1) * width, grid.extent[0])
            x0, x1 = max(x, left), min(last, left + out.shape[1])
            whole = (x0, x1, y0, y1) == (x, last, y, end)
            tile = self._kept(grid, column, row, whole=whole)
            target = out[y0 - top : y1 - top, x0 - left : x1 - left]
            if tile is None:
                target.fill(255)
                continue
            target[...] = tile[y0 - y : y1 - y, x0 - x : x1 - x]
            if not whole:
                share = (x1 - x0) * (y1 - y0) / ((last - x) * (end - y))
                self._cache.used((grid.level, grid.shrink, column, row), share)

    def _kept(self, grid: _Grid, column: int, row: int, *, whole: bool) -> Pixels | None:
        """A tile, kept from before or decoded. One used in part is kept: a neighbour will want it."""
        key = (grid.level, grid.shrink, column, row)
        if not whole:
            return self._cache.take(key, partial(self._tile, grid, column, row))
        tile = self._cache.find(key)
        return self._tile(grid, column, row) if tile is None else tile

    def _tile(self, grid: _Grid, column: int, row: int) -> Pixels | None:
        """The pixels of a tile, new; None, and marked, where it is missing or corrupt."""
        if (grid.level, column, row) in self.damage:
            return None
        try:
            valid = self._ragged(grid, column, row) if grid.shrink > 1 else None
            if valid is None:
                return self._tile_pixels(grid.level, column, row, grid.shrink)
            whole = self._tile_pixels(grid.level, column, row, 1)
            return _mean_of(whole[: valid[1], : valid[0]], grid.shrink)
        except TileError as error:
            self.damage.mark(grid.level, column, row, str(error))
            return None

    def _ragged(self, grid: _Grid, column: int, row: int) -> Size | None:
        """(width, height), px, of the part of a tile on the slide, where the slide's edge cuts a shrunken px.

        Shrunk while it is decoded, that px would be mixed with the padding beyond the edge.
        """
        (wide, high), (width, height) = self.levels[grid.level].size, self._grids[grid.level, 1].tile
        valid = (min(width, wide - column * width), min(height, high - row * height))
        return valid if valid[0] % grid.shrink or valid[1] % grid.shrink else None


def _two_rows(facts: SlideFacts) -> int:
    """Bytes of two rows of level-0 tiles, what a walk in bands that overlap needs, within bounds.

    More would do harm: a full cache hands its memory on to the next tile, and new memory costs as much as a
    third of decoding.
    """
    width, height = facts.levels[0].tile or (0, 0)
    row = (-(-facts.levels[0].size[0] // width) + 1) * width * height * 3 if width else 0
    return max(_LEAST_CACHED, min(2 * row, MOST_CACHED))


def _span(start: int, length: int, grid: _Grid, side: int) -> range:
    """The columns (side 0) or rows (side 1) of tiles that a stretch touches."""
    first, end = max(start, 0), min(start + length, grid.extent[side])
    return range(first // grid.tile[side], -(-end // grid.tile[side])) if end > first else range(0)


def _inside(corner: tuple[int, int], size: Size, extent: Size) -> bool:
    return min(corner) >= 0 and corner[0] + size[0] <= extent[0] and corner[1] + size[1] <= extent[1]


def _mean_of(rgb: Pixels, shrink: int) -> Pixels:
    """A picture shrunk by area; its last column and row go on where they do not fill a px."""
    beyond = [(0, -side % shrink) for side in rgb.shape[:2]]
    rgb = np.pad(rgb, (*beyond, (0, 0)), mode="edge")
    high, wide = rgb.shape[0] // shrink, rgb.shape[1] // shrink
    means: Pixels = np.rint(rgb.reshape(high, shrink, wide, shrink, 3).mean(axis=(1, 3))).astype(np.uint8)
    return means
