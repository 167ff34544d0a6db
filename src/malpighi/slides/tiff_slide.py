"""Tiled TIFFs, SVS and OME-TIFF among them, decoded from their own tile bytes.

Shape legend: H x W x 3 = rows x columns x RGB, uint8. A tile's key is (level, column, row).
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from malpighi.errors import DataError
from malpighi.geometry import Size, downsample_of
from malpighi.slides.byte_file import ByteFile
from malpighi.slides.scale import Scale, from_ome, from_properties, from_resolution, objective_of, scale_of
from malpighi.slides.slide import Level, Pixels, Slide, SlideFacts
from malpighi.slides.tiff_index import Page, Places, grid_of, read_index, read_places
from malpighi.slides.tiff_levels import Pyramid, empty_note, pyramid_of
from malpighi.slides.tile_cache import TileCache
from malpighi.slides.tile_codec import TileCodec, TileError, why_not

CACHE_BYTES = 64 << 20
_MANY = 64
_THREADS = min(4, os.cpu_count() or 1)


class _Store(NamedTuple):
    """What one level needs to be read."""

    size: Size
    tile: Size
    columns: int
    places: Places
    codec: TileCodec


class _Grid(NamedTuple):
    """The tiles of a level as they lie when each is shrunk by `shrink`: `tile` px each, `extent` px in all."""

    level: int
    shrink: int
    tile: Size
    extent: Size


class TiffSlide(Slide):
    """A tiled TIFF, read without another reader.

    A tile that was never written is background; so is one that does not decode. Both are marked in `damage`.

    Args:
        path: the file.
        mpp: overrides the scale that the file states.
        source: where `mpp` comes from.
        notes: what a user should know besides what the file shows.

    Raises:
        DataError: not a TIFF, damaged, or of a kind that is not read directly; the message says which.
    """

    def __init__(
        self, path: Path, mpp: float | None = None, source: str = "given", notes: tuple[str, ...] = ()
    ) -> None:
        self._file = ByteFile(path)
        try:
            pyramid = pyramid_of(read_index(self._file))
            self._stores = [_store(self._file, page) for page in pyramid.pages]
        except DataError:
            self._file.close()
            raise
        self.shrinks = min((store.codec.shrinks for store in self._stores), key=len)
        self._grids = {
            (level, shrink): _grid(level, store, shrink)
            for level, store in enumerate(self._stores)
            for shrink in self.shrinks
        }
        self._cache = TileCache(CACHE_BYTES)
        self._made_with = (mpp, source, notes)
        super().__init__(path, _facts(pyramid, self._stores, Scale(mpp, source), notes))

    def read_many(
        self, corners: Sequence[tuple[int, int]] | NDArray[Any], size: Size, level: int = 0
    ) -> Iterator[tuple[int, Pixels]]:
        """Many rectangles of one size, sorted by tile so that each tile is decoded once; see `Slide`."""
        places = np.asarray(corners).reshape(-1, 2)
        width, height = self._stores[level].tile
        columns, rows = places[:, 0] // width, places[:, 1] // height
        for index in np.lexsort((places[:, 0], columns, rows)).tolist():
            x, y = places[index].tolist()
            yield index, self.read_level(level, (int(x), int(y)), size)

    def tile_jpeg(self, level: int, column: int, row: int) -> bytes | None:
        """The stored JPEG of a tile; see `Slide`."""
        store = self._stores[level]
        if not store.codec.jpeg:
            return None
        try:
            return store.codec.complete(self._stored(store, row * store.columns + column))
        except TileError as error:
            self.damage.mark(level, column, row, str(error))
            return None

    def stored_bytes(self, level: int) -> NDArray[np.uint64]:
        """Bytes of each tile of a level: rows x columns; 0 for one that was never written."""
        counts = self._stores[level].places.counts
        return counts.reshape(-1, self._stores[level].columns)

    def note(self, text: str) -> None:
        """Add to the facts what a user should know."""
        mpp, source, notes = self._made_with
        self._made_with = (mpp, source, (*notes, text))
        self.facts = replace(self.facts, notes=(*self.facts.notes, text))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return (TiffSlide, (self.path, *self._made_with))

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
        y0 = max(row * height, top)
        y1 = min((row + 1) * height, top + out.shape[0], grid.extent[1])
        end = min((row + 1) * height, grid.extent[1])
        for column in columns:
            x = column * width
            x0, last = max(x, left), min(x + width, grid.extent[0])
            x1 = min(last, left + out.shape[1])
            whole = x0 == x and x1 == last and y0 == row * height and y1 == end
            tile = self._kept(grid, column, row, whole=whole)
            target = out[y0 - top : y1 - top, x0 - left : x1 - left]
            if tile is None:
                target.fill(255)
            else:
                target[...] = tile[y0 - row * height : y1 - row * height, x0 - x : x1 - x]

    def _kept(self, grid: _Grid, column: int, row: int, *, whole: bool) -> Pixels | None:
        """A tile, from those kept where possible. Only one used in part is kept: a neighbour will ask for it."""
        key = (grid.level, grid.shrink, column, row)
        if not whole:
            return self._cache.take(key, partial(self._tile, grid, column, row))
        tile = self._cache.find(key)
        return self._tile(grid, column, row) if tile is None else tile

    def _tile(self, grid: _Grid, column: int, row: int) -> Pixels | None:
        """The pixels of a tile, new; None, and marked, where it is missing or corrupt."""
        store, shrink = self._stores[grid.level], grid.shrink
        if (grid.level, column, row) in self.damage:
            return None
        try:
            data = self._stored(store, row * store.columns + column)
            if shrink > 1 and (valid := _ragged(store, column, row, shrink)):
                return _mean_of(store.codec.decode(data)[: valid[1], : valid[0]], shrink)
            return store.codec.decode(data, shrink)
        except TileError as error:
            self.damage.mark(grid.level, column, row, str(error))
            return None

    def _stored(self, store: _Store, index: int) -> bytes:
        """The bytes of a tile as they lie in the file."""
        offset, count = store.places.offsets.item(index), store.places.counts.item(index)
        if count == 0:
            raise TileError("it was never written")
        if count > store.codec.most_bytes or offset + count > self._file.size:
            raise TileError(f"it should take {count} bytes from {offset} of {self._file.size}")
        data = self._file.read(offset, count)
        if len(data) < count:
            raise TileError(f"the file ends within it, after {len(data)} of {count} bytes")
        return data


def _store(file: ByteFile, page: Page) -> _Store:
    reason = why_not(page)
    if reason or page.tile is None or min(page.size) < 1:
        raise DataError(f"a page of {page.size[0]} x {page.size[1]} px: {reason or 'it has no extent'}")
    return _Store(page.size, page.tile, grid_of(page)[0], read_places(file, page), TileCodec(page))


def _facts(pyramid: Pyramid, stores: list[_Store], given: Scale, notes: tuple[str, ...]) -> SlideFacts:
    stated = [
        *from_properties(pyramid.properties),
        *from_ome(pyramid.description),
        *from_resolution(pyramid.pages[0].resolution),
    ]
    scale = scale_of(given, stated)
    full = stores[0].size
    empty = (
        empty_note(level, page, int((store.places.counts == 0).sum()))
        for level, (page, store) in enumerate(zip(pyramid.pages, stores, strict=True))
    )
    return SlideFacts(
        reader="tiff",
        levels=tuple(Level(store.size, downsample_of(full, store.size), store.tile) for store in stores),
        mpp=scale.mpp,
        mpp_source=scale.source if scale.mpp is not None else "",
        objective=objective_of(pyramid.properties),
        vendor=pyramid.vendor,
        properties=pyramid.properties,
        notes=(*pyramid.notes, *(note for each in empty for note in each), *scale.notes, *notes),
    )


def _grid(level: int, store: _Store, shrink: int) -> _Grid:
    (width, height), (wide, high) = store.tile, store.size
    return _Grid(level, shrink, (width // shrink, height // shrink), (-(-wide // shrink), -(-high // shrink)))


def _span(start: int, length: int, grid: _Grid, side: int) -> range:
    """The columns (side 0) or rows (side 1) of tiles that a stretch touches."""
    first, end = max(start, 0), min(start + length, grid.extent[side])
    return range(first // grid.tile[side], -(-end // grid.tile[side])) if end > first else range(0)


def _inside(corner: tuple[int, int], size: Size, extent: Size) -> bool:
    return min(corner) >= 0 and corner[0] + size[0] <= extent[0] and corner[1] + size[1] <= extent[1]


def _ragged(store: _Store, column: int, row: int, shrink: int) -> Size | None:
    """(width, height), px, of a tile's part on the slide, where the edge of the slide cuts a shrunken px."""
    valid = (
        min(store.tile[0], store.size[0] - column * store.tile[0]),
        min(store.tile[1], store.size[1] - row * store.tile[1]),
    )
    return valid if valid[0] % shrink or valid[1] % shrink else None


def _mean_of(rgb: Pixels, shrink: int) -> Pixels:
    """A picture shrunk by area; its last column and row go on where they do not fill a px."""
    beyond = [(0, -side % shrink) for side in rgb.shape[:2]]
    rgb = np.pad(rgb, (*beyond, (0, 0)), mode="edge")
    high, wide = rgb.shape[0] // shrink, rgb.shape[1] // shrink
    means = rgb.reshape(high, shrink, wide, shrink, 3).mean(axis=(1, 3))
    return np.rint(means).astype(np.uint8)
