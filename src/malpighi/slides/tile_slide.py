"""One slide cut into tiles: what `malpighi slide tiles` writes for each."""

import msgspec
import numpy as np

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from numpy.typing import NDArray

from malpighi.config import Settings
from malpighi.durable import replacing
from malpighi.slides.contact import contact
from malpighi.slides.coordinates_h5 import Layout, placed, read_coordinates, write_coordinates
from malpighi.slides.grid import Boxes, GridSettings, make_grid, select, tiles_of
from malpighi.slides.slide import Slide
from malpighi.slides.tile_table import Selected, tile_table, write_tiles
from malpighi.slides.tiles import damage_under, iterate_tiles

TABLE, CONTACT, COORDINATES = "tiles.parquet", "contact.jpg", "coordinates.h5"
_QUALITY = 88


class Look(Protocol):
    """What is known of a slide's tissue."""

    def fractions(self, boxes_N4: Boxes) -> NDArray[np.floating]:
        """What part of each box, level-0 px, is tissue."""


class TilesSettings(Settings, frozen=True):
    """What is made of each slide.

    Attributes:
        grid: the tiles wanted.
        h5: whose coordinate file is written besides; None for none.
        verify: whether every kept tile is decoded once, so that damage is counted.
    """

    grid: GridSettings = GridSettings()
    h5: Layout | None = None
    verify: bool = False


def tile_slide(
    slide: Slide,
    out: Path,
    settings: TilesSettings,
    look: Callable[[Slide], Look],
    coordinates: Path | None = None,
) -> dict[str, object]:
    """Cut a slide into tiles; writes `tiles.parquet`, `contact.jpg` and, where asked for, `coordinates.h5`.

    Args:
        slide: open for reading.
        out: folder for the files.
        settings: what is wanted.
        look: finds the slide's tissue.
        coordinates: a file of CLAM or TRIDENT whose tiles are taken instead of a grid's.

    Returns:
        Figures for the summary.

    Raises:
        DataError: tiles that cannot be cut; see `make_grid` and `placed`.
    """
    tissue = look(slide)
    if coordinates is None:
        grid = make_grid(slide, settings.grid)
        indices, parts = select(grid, tissue.fractions, settings.grid.tissue)
        boxes_N4, picture, offered = grid.boxes(indices), grid.picture, len(grid)
    else:
        boxes_N4, picture = placed(read_coordinates(coordinates), slide)
        parts, offered = np.asarray(tissue.fractions(boxes_N4), np.float32), len(boxes_N4)
    damage = None
    if settings.verify:
        for _ in iterate_tiles(slide, tiles_of(boxes_N4, picture)):
            pass
        damage = damage_under(slide, boxes_N4)
    kept = Selected(boxes_N4, picture, parts, damage=damage)
    write_tiles(tile_table(slide, kept, settings.grid), out / TABLE)
    with replacing(out / CONTACT) as file:
        contact(slide, boxes_N4).save(file, "JPEG", quality=_QUALITY)
    if settings.h5 is not None:
        write_coordinates(
            out / COORDINATES, settings.h5, slide, boxes_N4, picture, overlap=settings.grid.overlap
        )
    return {
        "tiles": len(boxes_N4),
        "of": offered,
        "level": picture.level,
        "resampled": picture.resampled,
        "mpp": None if picture.mpp is None else round(picture.mpp, 6),
        "mpp_source": slide.facts.mpp_source,
        "reader": slide.facts.reader,
        "damaged": None if damage is None else int((damage > 0).sum()),
    }
