"""One slide cut into tiles, and the tiles of many slides put together: what `malpighi slide tiles` writes."""

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from malpighi.config import Settings
from malpighi.durable import replacing
from malpighi.errors import DataError
from malpighi.slides.choices import Layout
from malpighi.slides.contact import contact
from malpighi.slides.coordinates_h5 import placed, read_coordinates, write_coordinates
from malpighi.slides.grid import Boxes, GridSettings, Picture, Tile, make_grid, select, tiles_of
from malpighi.slides.job import JobResult
from malpighi.slides.quality import Quality, tile_quality
from malpighi.slides.slide import Slide
from malpighi.slides.tile_table import Selected, merge_tiles, tile_table, write_tiles
from malpighi.slides.tiles import damage_under, in_order, read_tile
from malpighi.slides.tissue import Tissue, TissueSettings, find_tissue

TABLE, CONTACT, COORDINATES, MERGED = "tiles.parquet", "contact.jpg", "coordinates.h5", "tiles.parquet"
SHARES = ("pen", "blur", "folds", "bubbles")
"""What part of each tile is of no use, as seen on the slide, one column each; see `tissue.Tissue.maps`."""

_SEEN = ("focus", "pen", "fold", "empty", "bubble", "overall")
SCORES = tuple(f"tile_{name}" for name in _SEEN)
"""What each tile's own pixels say, one column each; see `quality.Quality`."""

_JPEG_QUALITY = 88
_THREADS = 2
_ENDINGS = {Layout.CLAM: ".h5", Layout.TRIDENT: "_patches.h5"}


class TilesSettings(Settings, frozen=True):
    """What is made of each slide.

    Attributes:
        grid: the tiles wanted.
        h5: whose coordinate file is written besides; None for none.
        quality: whether every kept tile is decoded, scored by itself, and damage counted.
        coordinates: a folder of such files, whose tiles are taken in place of a grid's.
        tissue: how tissue is found.
    """

    grid: GridSettings = GridSettings()
    h5: Layout | None = None
    quality: bool = False
    coordinates: str | None = None
    tissue: TissueSettings = TissueSettings()


def tiles_slide(slide: Slide, out: Path, settings: TilesSettings) -> dict[str, object]:
    """Cut a slide into tiles; writes `tiles.parquet`, `contact.jpg` and, where asked for, `coordinates.h5`.

    Args:
        slide: open for reading.
        out: folder for the files.
        settings: what is wanted.

    Returns:
        Figures for the summary.

    Raises:
        DataError: tiles that cannot be cut; see `make_grid` and `placed`.
    """
    tissue = find_tissue(slide, settings.tissue)
    boxes_N4, picture, offered = _chosen(slide, settings, tissue)
    quality: dict[str, NDArray[np.floating]] = {n: tissue.fractions(boxes_N4, n) for n in SHARES}
    damage = None
    if settings.quality:
        quality |= _looked_at(slide, boxes_N4, picture, tissue)
        damage = damage_under(slide, boxes_N4)
    parts = np.asarray(tissue.fractions(boxes_N4), np.float32)
    kept = Selected(boxes_N4, picture, parts, quality, damage)
    write_tiles(tile_table(slide, kept, settings.grid), out / TABLE)
    with replacing(out / CONTACT) as file:
        contact(slide, boxes_N4).save(file, "JPEG", quality=_JPEG_QUALITY)
    if settings.h5 is not None:
        overlap = settings.grid.overlap
        write_coordinates(out / COORDINATES, settings.h5, slide, boxes_N4, picture, overlap=overlap)
    return {
        "tiles": len(boxes_N4),
        "of": offered,
        "level": picture.level,
        "resampled": picture.resampled,
        "mpp": None if picture.mpp is None else round(picture.mpp, 6),
        "mpp_source": slide.facts.mpp_source,
        "reader": slide.facts.reader,
        "damaged": None if damage is None else int((damage > 0).sum()),
        "notes": "; ".join(tissue.notes),
    }


def joined(settings: TilesSettings) -> Callable[[JobResult, Path], None]:
    """What joins the slides' tables into `tiles.parquet` and collects their coordinates in `patches/`."""

    def join(result: JobResult, out: Path) -> None:
        tables = [folder / TABLE for _, folder in result.finished]
        merge_tiles(tables, out / MERGED, settings.grid, SHARES + (SCORES if settings.quality else ()))
        if settings.h5 is not None:
            _collect(result, out / "patches", settings.h5)

    return join


def _chosen(slide: Slide, settings: TilesSettings, tissue: Tissue) -> tuple[Boxes, Picture, int]:
    """The tiles, what their pictures are like, and of how many they were chosen."""
    if settings.coordinates is None:
        grid = make_grid(slide, settings.grid)
        indices, _ = select(grid, tissue.fractions, settings.grid.tissue)
        return grid.boxes(indices), grid.picture, len(grid)
    stem = Path(settings.coordinates) / slide.path.stem
    names = [stem.with_name(stem.name + ending) for ending in _ENDINGS.values()]
    path = next((name for name in names if name.is_file()), None)
    if path is None:
        raise DataError(f"{slide.path.name}: neither {names[0]} nor {names[1].name} is there")
    boxes_N4, picture = placed(read_coordinates(path), slide)
    return boxes_N4, picture, len(boxes_N4)


def _looked_at(
    slide: Slide, boxes_N4: Boxes, picture: Picture, tissue: Tissue
) -> dict[str, NDArray[np.floating]]:
    """Scores of every tile from its own pixels, N each."""
    glass = tuple(tissue.figures[f"glass_{name}"] for name in ("red", "green", "blue"))

    def scored(tile: Tile) -> Quality:
        return tile_quality(read_tile(slide, tile), picture.mpp, glass=(glass[0], glass[1], glass[2]))

    scores_NS = np.zeros((len(boxes_N4), len(SCORES)), dtype=np.float32)
    for row, (_, found) in enumerate(in_order(scored, tiles_of(boxes_N4, picture), threads=_THREADS)):
        scores_NS[row] = [getattr(found, name) for name in _SEEN]
    return dict(zip(SCORES, scores_NS.T, strict=True))


def _collect(result: JobResult, folder: Path, layout: Layout) -> None:
    """The slides' coordinate files in one folder, named as the layout's reader looks for them."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    stems = Counter(Path(done.path).stem for done, _ in result.finished)
    for done, found in result.finished:
        stem = Path(done.path).stem
        name = stem if stems[stem] == 1 else done.id
        shutil.copyfile(found / COORDINATES, folder / (name + _ENDINGS[layout]))
