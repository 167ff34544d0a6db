"""The cells of a slide as files: a table of all, a ranked gallery, and the crops that a model is shown."""

import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from malpighi.config import Settings
from malpighi.durable import mending, replacing
from malpighi.errors import ConfigError
from malpighi.slides.anchors import CellCrop, CropSettings, crop_cell
from malpighi.slides.cells import Cell, CellSettings, best_cells, find_cells
from malpighi.slides.gallery import Exhibit, gallery
from malpighi.slides.slide import Slide
from malpighi.slides.view import Tissue

FORMAT = 1
"""Raise when columns change."""

_ROWS = 8192
_QUALITY = 90
_NUMBERS = ("x", "y", "x0", "y0", "x1", "y1", "area_um2", "density", "irregularity", "score")
_SCHEMA = pa.schema(
    [(name, pa.float64() if name in _NUMBERS[:6] else pa.float32()) for name in _NUMBERS],
    metadata={"malpighi": f"cells {FORMAT}", "unit of x and y": "level-0 px"},
)


class CellFileSettings(Settings, frozen=True):
    """What `cells_slide` writes.

    Attributes:
        find: how cells are looked for.
        crop: how they are cut out.
        ranked: cells in the gallery.
        columns: pictures in a row of it.
        crops: whether the crops of the gallery are kept as files of their own.
    """

    find: CellSettings = CellSettings()
    crop: CropSettings = CropSettings()
    ranked: int = 48
    columns: int = 8
    crops: bool = False

    def __post_init__(self) -> None:
        """Refuse a gallery without room."""
        if self.ranked < 1 or self.columns < 1:
            raise ConfigError(f"cells: ranked={self.ranked}, columns={self.columns}; give at least 1 of each")


class RankedCell(msgspec.Struct, frozen=True, omit_defaults=True):
    """A cell of the gallery.

    Attributes:
        rank: its number there, 1 = highest score.
        cell: what was measured.
        anchor: (x0, y0, x1, y1) of the nucleus, px of the crop.
        mpp: micrometres per px of the crop.
        file: the crop with its anchor box, beside this file; "" where crops were not kept.
    """

    rank: int
    cell: Cell
    anchor: tuple[float, float, float, float]
    mpp: float
    file: str = ""


def cells_slide(
    slide: Slide, out: Path, settings: CellFileSettings | None = None, *, tissue: Tissue | None = None
) -> dict[str, object]:
    """Write the cells of a slide: `cells.parquet`, `gallery.jpg`, `crops/0001.jpg`..., last `ranked.json`.

    Where no cell is found there is a table without rows, an empty list and no gallery.

    Args:
        slide: open.
        out: folder, made where it is missing.
        settings: the defaults where None.
        tissue: where to look; everywhere where None.

    Returns:
        A row of figures for a table of slides.

    Raises:
        MissingScaleError: the slide states no scale; open it with `mpp=`.
        UserError: the folder cannot be written.
    """
    settings = settings or CellFileSettings()
    with mending(out):
        out.mkdir(parents=True, exist_ok=True)
        tally = _Tally()
        with replacing(out / "cells.parquet") as file:
            best = best_cells(
                tally.counted(_saved(find_cells(slide, settings.find, tissue=tissue), file)), settings.ranked
            )
        crops = [crop_cell(slide, cell, settings.crop) for cell in best]
        (out / "gallery.jpg").unlink(missing_ok=True)
        if crops:
            exhibits = [Exhibit(crop.rgb, _caption(cell)) for crop, cell in zip(crops, best, strict=True)]
            _save_jpeg(gallery(exhibits, columns=settings.columns), out / "gallery.jpg")
        names = _save_crops(crops, out) if settings.crops else [""] * len(crops)
        ranked = [
            RankedCell(rank, cell, crop.box.corners, crop.mpp, name)
            for rank, (cell, crop, name) in enumerate(zip(best, crops, names, strict=True), start=1)
        ]
        with replacing(out / "ranked.json") as file:
            file.write(msgspec.json.format(msgspec.json.encode(ranked), indent=1))
    return {
        "cells": tally.count,
        "mean_area_um2": round(tally.mean_area, 1),
        "best_score": round(best[0].score, 3) if best else None,
        "gallery": len(best),
        "damaged_tiles": len(slide.damage),
    }


class _Tally:
    """Counts what passes by."""

    def __init__(self) -> None:
        self.count = 0
        self._area = 0.0

    @property
    def mean_area(self) -> float:
        return self._area / self.count if self.count else 0.0

    def counted(self, cells: Iterable[Cell]) -> Iterator[Cell]:
        for cell in cells:
            self.count += 1
            self._area += cell.area_um2
            yield cell


def _saved(cells: Iterable[Cell], file: BinaryIO) -> Iterator[Cell]:
    """Pass cells on and write them on the way, a row group at a time."""
    with pq.ParquetWriter(file, _SCHEMA, compression="zstd") as writer:
        rows: list[Cell] = []
        for cell in cells:
            rows.append(cell)
            yield cell
            if len(rows) == _ROWS:
                writer.write_table(_table(rows))
                rows.clear()
        writer.write_table(_table(rows))


def _table(rows: list[Cell]) -> pa.Table:
    numbers = [(c.x, c.y, *c.box.corners, c.area_um2, c.density, c.irregularity, c.score) for c in rows]
    columns = list(zip(*numbers, strict=True)) or [()] * len(_NUMBERS)
    return pa.table(
        [pa.array(column, type=field.type) for column, field in zip(columns, _SCHEMA, strict=True)],
        schema=_SCHEMA,
    )


def _caption(cell: Cell) -> str:
    return f"{cell.area_um2:.0f} um2, score {cell.score:.1f}"


def _save_crops(crops: list[CellCrop], out: Path) -> list[str]:
    (out / "crops").mkdir(exist_ok=True)
    names = [f"crops/{rank:04d}.jpg" for rank in range(1, len(crops) + 1)]
    for crop, name in zip(crops, names, strict=True):
        _save_jpeg(Image.fromarray(crop.rgb), out / name)
    return names


def _save_jpeg(picture: Image.Image, path: Path) -> None:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_QUALITY, subsampling=0)
    with replacing(path) as file:
        file.write(buffer.getvalue())
