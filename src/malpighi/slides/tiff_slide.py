"""Tiled TIFFs, SVS and OME-TIFF among them, decoded from their own tile bytes."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from malpighi.errors import DataError
from malpighi.geometry import Size, downsample_of
from malpighi.slides.byte_file import ByteFile
from malpighi.slides.scale import (
    Scale,
    from_ome,
    from_properties,
    from_resolution,
    objective_of,
    scale_of,
)
from malpighi.slides.slide import Level, Pixels, SlideFacts
from malpighi.slides.tiff_index import Page, Places, grid_of, read_index, read_places
from malpighi.slides.tiff_levels import Pyramid, empty_note, pyramid_of
from malpighi.slides.tile_codec import TileCodec, why_not
from malpighi.slides.tiled_slide import TiledSlide, TileError


class _Store(NamedTuple):
    """What one level needs to be read."""

    size: Size
    tile: Size
    columns: int
    places: Places
    codec: TileCodec


class TiffSlide(TiledSlide):
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
        self._made_with = (mpp, source, notes)
        shrinks = min((store.codec.shrinks for store in self._stores), key=len)
        super().__init__(path, _facts(pyramid, self._stores, Scale(mpp, source), notes), shrinks)

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
        return self._stores[level].places.counts.reshape(-1, self._stores[level].columns)

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

    def _tile_pixels(self, level: int, column: int, row: int, shrink: int) -> Pixels:
        store = self._stores[level]
        return store.codec.decode(self._stored(store, row * store.columns + column), shrink)

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
