"""Parquet tables with images in them, read row group by row group: one is in memory at a time."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from malpighi.corpus import blob_of, decode_image
from malpighi.datasets.adapter import Picture
from malpighi.errors import DataError
from malpighi.records import ImageRef

IMAGE = "image"
_SUFFIXES = {b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png", b"II": ".tif", b"MM": ".tif", b"RIFF": ".webp"}


class Place(NamedTuple):
    """Where a row lies: file, row group, row within it."""

    path: Path
    group: int
    row: int


def rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[Place, dict[str, Any] | str]]:
    """Every row with its place; in the stead of a row group that cannot be read, what is wrong with it.

    Args:
        path: the file.
        columns: what is read of it.

    Raises:
        DataError: the file is no Parquet, or lacks a column.
    """
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            missing = [name for name in columns if name not in names]
            if missing:
                raise DataError(f"{path}: no column {', '.join(missing)}; found {', '.join(names)}")
            for group in range(file.num_row_groups):
                yield from _group_rows(file, Place(path, group, 0), columns)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"cannot read {path}: {error}") from error


def _group_rows(
    file: pq.ParquetFile, first: Place, columns: Sequence[str]
) -> Iterator[tuple[Place, dict[str, Any] | str]]:
    row = 0
    try:
        for batch in file.iter_batches(batch_size=64, row_groups=[first.group], columns=list(columns)):
            for found in batch.to_pylist():
                yield first._replace(row=row), found
                row += 1
    except (pa.ArrowException, OSError) as error:
        yield first._replace(row=row), f"row group {first.group} is damaged: {error}"


def bytes_of(value: Any) -> bytes:
    """The bytes of an image column's cell: as such, or under `bytes`.

    Raises:
        DataError: there are none.
    """
    data = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(data, bytes) or not data:
        raise DataError("the image column holds no bytes")
    return data


class RowImages:
    """Images out of Parquet files; the row group read last is kept, so reading in order reads each once."""

    def __init__(self) -> None:
        self._held: tuple[Path, int] | None = None
        self._cells: list[Any] = []

    def loader(self, place: Place) -> partial[Picture]:
        """For `Entry.load`."""
        return partial(self._load, place)

    def _load(self, place: Place) -> Picture:
        if self._held != (place.path, place.group):
            try:
                with pq.ParquetFile(place.path) as file:
                    self._cells = file.read_row_group(place.group, columns=[IMAGE])[IMAGE].to_pylist()
            except (pa.ArrowException, OSError) as error:
                raise DataError(f"cannot read {place.path}: {error}") from error
            self._held = (place.path, place.group)
        data = bytes_of(self._cells[place.row])
        suffix = next((ending for magic, ending in _SUFFIXES.items() if data.startswith(magic)), "")
        blob = blob_of(data, suffix)
        return Picture(ImageRef(blob.key, decode_image(data).size), blob)
