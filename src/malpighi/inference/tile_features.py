"""Which tiles of a slide are looked at, and their features on the way into the store."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from malpighi.errors import DataError
from malpighi.inference.encoders import Encoder
from malpighi.slides.features import BagFacts, FeatureStore
from malpighi.slides.fingerprint import fingerprint
from malpighi.slides.grid import Fractions, Grid, GridSettings, Tile, make_grid, select, tiles_of
from malpighi.slides.slide import Pixels, Slide
from malpighi.slides.tiles import iterate_tiles


@dataclass(frozen=True)
class TileSource:
    """Which tiles of a slide are looked at.

    Attributes:
        grid: size, scale and least tissue of a tile.
        tissue: from a slide to what part of a box is tissue; None takes every tile.
        threads: that decode at once.
    """

    grid: GridSettings = field(default_factory=GridSettings)
    tissue: Callable[[Slide], Fractions] | None = None
    threads: int = 2

    def of(self, slide: Slide) -> "SlideTiles":
        """The tiles of one slide.

        Raises:
            DataError: there is none: the slide is smaller than a tile, or shows no tissue.
            MissingScaleError: a scale is wanted and the slide states none.
        """
        grid = make_grid(slide, self.grid)
        chosen = np.arange(len(grid), dtype=np.int64)
        if self.tissue is not None:
            chosen, _ = select(grid, self.tissue(slide), self.grid.tissue)
        if not len(chosen):
            raise DataError(
                f"{slide.path.name}: none of {len(grid)} tiles of {grid.picture.size} px holds "
                f"{self.grid.tissue:.0%} tissue; look at the tissue mask, or ask for smaller tiles"
            )
        return SlideTiles(slide, grid, chosen, self.threads)


@dataclass(frozen=True)
class SlideTiles:
    """The chosen tiles of an open slide.

    Attributes:
        slide: open for reading.
        grid: all tiles.
        chosen: indices of those that are looked at, row by row.
        threads: that decode at once.
    """

    slide: Slide
    grid: Grid
    chosen: NDArray[np.int64]
    threads: int

    def __len__(self) -> int:
        return len(self.chosen)

    @property
    def places_n4(self) -> NDArray[np.int64]:
        """(x, y, width, height) of each, level-0 px."""
        boxes = self.grid.boxes(self.chosen)
        return np.column_stack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]])

    def batches(self, size: int, first: int = 0) -> Iterator[list[tuple[Tile, Pixels]]]:
        """Tiles with their pixels, `size` at a time, from number `first` on."""
        batch: list[tuple[Tile, Pixels]] = []
        tiles = tiles_of(self.grid.boxes(self.chosen[first:]), self.grid.picture)
        for pair in iterate_tiles(self.slide, tiles, threads=self.threads):
            batch.append(pair)
            if len(batch) == size:
                yield batch
                batch = []
        if batch:
            yield batch


def extract_features(
    slide: Slide,
    name: str,
    store: FeatureStore,
    encoder: Encoder,
    source: TileSource,
    batch_size: int = 64,
) -> dict[str, object]:
    """The features of a slide into the store, unless they are there; goes on where it was cut short.

    Args:
        slide: open for reading.
        name: of the slide in the store: its path as records name it.
        store: of that encoder.
        encoder: makes the features.
        source: which tiles.
        batch_size: tiles encoded together.

    Returns:
        A row for a summary: slide, encoder, tiles, `made` (of them now), and damaged stored tiles met.

    Raises:
        DataError: no tile to look at, or features of these tiles made with other settings are there.
    """
    tiles = source.of(slide)
    facts = BagFacts(
        slide=name,
        encoder=encoder.name,
        width=encoder.width,
        tile=tiles.grid.picture.size,
        mpp=tiles.grid.picture.mpp,
        source=fingerprint(slide.path),
    )
    row: dict[str, object] = {"slide": name, "encoder": encoder.name, "tiles": len(tiles)}
    if name in store:
        _check_same(store, facts, len(tiles))
        return {**row, "made": 0, "damaged": 0}
    places = tiles.places_n4
    with store.writing(facts) as bag:
        done = bag.done
        for batch in tiles.batches(batch_size, first=done):
            features = encoder([pixels for _, pixels in batch])
            bag.append(features, places[done : done + len(batch)])
            done += len(batch)
        made = done - bag.done
    return {**row, "made": made, "damaged": len(slide.damage)}


def _check_same(store: FeatureStore, facts: BagFacts, tiles: int) -> None:
    found, count = store.facts(facts.slide)
    if (found, count) != (facts, tiles):
        raise DataError(
            f"the store holds other features of '{facts.slide}': {count} tiles, {found}; expected {tiles} "
            f"tiles, {facts}. Give another store, or delete them there"
        )
