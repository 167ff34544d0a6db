"""Tiles as a Parquet table: one row per tile, positions in level-0 px, versioned.

Columns that every table has are listed in `COLUMNS`; quality scores follow, one float32 column each.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from malpighi.durable import replacing
from malpighi.errors import DataError, FormatVersionError
from malpighi.slides.fingerprint import fingerprint
from malpighi.slides.grid import Boxes, GridSettings, Picture, Tile
from malpighi.slides.slide import Slide

FORMAT = "malpighi-tiles"
VERSION = 1

COLUMNS = pa.schema(
    [
        pa.field("slide", pa.string(), nullable=False),  # path as given
        pa.field("slide_hash", pa.string(), nullable=False),  # `fingerprint` of the file
        pa.field("x", pa.int64(), nullable=False),
        pa.field("y", pa.int64(), nullable=False),
        pa.field("width", pa.int64(), nullable=False),
        pa.field("height", pa.int64(), nullable=False),
        pa.field("size", pa.int32(), nullable=False),  # side of the picture, px
        pa.field("level", pa.int32(), nullable=False),
        pa.field("downsample", pa.float64(), nullable=False),  # of that level
        pa.field("resampled", pa.bool_(), nullable=False),
        pa.field("mpp", pa.float64()),  # of the picture; null where the slide states none
        pa.field("tissue", pa.float32(), nullable=False),
        pa.field("damage", pa.int32()),  # stored tiles under it that cannot be read; null where not looked at
    ]
)


class Selected(msgspec.Struct, frozen=True):
    """The tiles of one slide that are kept, with what is known of each.

    Attributes:
        boxes: where they lie (boxes_N4), level-0 px, row by row.
        picture: what their pictures are like.
        tissue: what part of each is tissue (N).
        quality: scores by name (N each).
        damage: stored tiles under each that cannot be read (N); None where no pixels were read.
    """

    boxes: Boxes
    picture: Picture
    tissue: NDArray[np.float32]
    quality: dict[str, NDArray[np.floating]] = {}
    damage: NDArray[np.int32] | None = None


def tile_table(slide: Slide, kept: Selected, settings: GridSettings) -> pa.Table:
    """The kept tiles of a slide as a table.

    Args:
        slide: where they are from.
        kept: the tiles.
        settings: what was asked for; noted in the table.
    """
    boxes, like, count = kept.boxes, kept.picture, len(kept.boxes)
    values: dict[str, Any] = {
        "slide": np.full(count, str(slide.path)),
        "slide_hash": np.full(count, fingerprint(slide.path)),
        "x": boxes[:, 0],
        "y": boxes[:, 1],
        "width": boxes[:, 2] - boxes[:, 0],
        "height": boxes[:, 3] - boxes[:, 1],
        "size": np.full(count, like.size, np.int32),
        "level": np.full(count, like.level, np.int32),
        "downsample": np.full(count, like.downsample),
        "resampled": np.full(count, like.resampled),
        "mpp": pa.array([like.mpp] * count, pa.float64()),
        "tissue": kept.tissue,
        "damage": pa.nulls(count, pa.int32()) if kept.damage is None else kept.damage,
    }
    scores = {name: np.asarray(score, np.float32) for name, score in kept.quality.items()}
    fields = [*COLUMNS, *(pa.field(name, pa.float32()) for name in scores)]
    schema = pa.schema(fields, _meta(settings))
    return pa.Table.from_pydict(values | scores, schema=schema)


def write_tiles(table: pa.Table, path: Path) -> None:
    """Save a table of tiles; same table, same bytes."""
    with replacing(path) as file:
        pq.write_table(table, file, compression="zstd", write_page_checksum=True)


def merge_tiles(paths: Iterable[Path], out: Path, settings: GridSettings, scores: Iterable[str] = ()) -> int:
    """Many tables as one, in the order given; memory is that of the largest one.

    Args:
        paths: tables of the same settings.
        out: the file to write.
        settings: what was asked for.
        scores: names of the quality columns.

    Returns:
        Number of tiles.
    """
    fields = [*COLUMNS, *(pa.field(name, pa.float32()) for name in scores)]
    schema, count = pa.schema(fields, _meta(settings)), 0
    with (
        replacing(out) as file,
        pq.ParquetWriter(file, schema, compression="zstd", write_page_checksum=True) as writer,
    ):
        for path in paths:
            table = read_tiles(path)
            writer.write_table(table.cast(schema))
            count += table.num_rows
    return count


def read_tiles(path: Path) -> pa.Table:
    """A table of tiles back from its file.

    Raises:
        DataError: missing, damaged, or without the columns of such a table.
        FormatVersionError: not a table of tiles, or of a version that this release does not read.
    """
    try:
        table = pq.read_table(path, page_checksum_verification=True)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"table of tiles {path} is missing or damaged: {error}") from error
    meta = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    found = (meta.get("malpighi.format"), meta.get("malpighi.version"))
    if found != (FORMAT, str(VERSION)):
        raise FormatVersionError(
            f"{path} says format and version {found}; expected {(FORMAT, str(VERSION))}: "
            "use the release that wrote it"
        )
    lacking = [field.name for field in COLUMNS if field.name not in table.column_names]
    if lacking:
        raise DataError(f"table of tiles {path} lacks the columns {lacking}; write it again")
    return table


def settings_of(table: pa.Table) -> GridSettings:
    """What the tiles of a table were asked to be."""
    return msgspec.json.decode(table.schema.metadata[b"malpighi.grid"], type=GridSettings)


def tiles_in(table: pa.Table) -> Iterator[Tile]:
    """The rows of a table as tiles that can be read."""
    for batch in table.select(list(Tile._fields)).to_batches(max_chunksize=4096):
        columns = [batch.column(name).to_pylist() for name in Tile._fields]
        yield from (Tile(*row) for row in zip(*columns, strict=True))


def _meta(settings: GridSettings) -> Mapping[bytes, bytes]:
    return {
        b"malpighi.format": FORMAT.encode(),
        b"malpighi.version": str(VERSION).encode(),
        b"malpighi.grid": msgspec.json.encode(settings, order="deterministic"),
    }
