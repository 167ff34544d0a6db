"""Tiles as Parquet: round trips, versions, same bytes, damage told."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from malpighi.errors import DataError, FormatVersionError
from malpighi.slides.fingerprint import fingerprint
from malpighi.slides.grid import GridSettings, make_grid, select, tiles_of
from malpighi.slides.opening import open_slide
from malpighi.slides.tile_table import (
    COLUMNS,
    Selected,
    merge_tiles,
    read_tiles,
    settings_of,
    tile_table,
    tiles_in,
    write_tiles,
)

SETTINGS = GridSettings(mpp=0.7, size=100)


@pytest.fixture
def made(phantom):
    with open_slide(phantom[0]) as slide:
        grid = make_grid(slide, SETTINGS)
        indices, tissue = select(grid, lambda boxes: (boxes[:, 0] % 9) / 9, 0.3)
        blur = np.linspace(0, 1, len(indices))
        kept = Selected(grid.boxes(indices), grid.picture, tissue, {"blur": blur})
        yield tile_table(slide, kept, SETTINGS), kept


def test_a_table_comes_back_with_its_tiles_and_settings(made, tmp_path):
    table, kept = made
    write_tiles(table, tmp_path / "t.parquet")
    found = read_tiles(tmp_path / "t.parquet")
    assert found.equals(table)
    assert found.column_names == [*COLUMNS.names, "blur"]
    assert list(tiles_in(found)) == list(tiles_of(kept.boxes, kept.picture))
    assert settings_of(found) == SETTINGS
    assert found["damage"].null_count == len(found)
    assert found["mpp"][0].as_py() == pytest.approx(0.7, rel=0.01)
    assert set(found["slide_hash"].to_pylist()) == {fingerprint_of(table)}


def fingerprint_of(table):
    return fingerprint(Path(table["slide"][0].as_py()))


def test_same_tiles_same_bytes(made, tmp_path):
    for name in "ab":
        write_tiles(made[0], tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_tables_are_joined_in_order(made, tmp_path):
    table, _ = made
    write_tiles(table.slice(0, 5), tmp_path / "a")
    write_tiles(table.slice(0, 0), tmp_path / "b")
    write_tiles(table.slice(5), tmp_path / "c")
    count = merge_tiles([tmp_path / name for name in "abc"], tmp_path / "all", SETTINGS, ["blur"])
    found = read_tiles(tmp_path / "all")
    assert count == len(found) == len(table)
    assert found.to_pylist() == table.to_pylist()
    assert merge_tiles([], tmp_path / "none", SETTINGS) == 0
    assert len(read_tiles(tmp_path / "none")) == 0


def test_what_is_not_such_a_table_is_refused(made, tmp_path):
    path = tmp_path / "t"
    with pytest.raises(DataError, match="missing or damaged"):
        read_tiles(path)
    pq.write_table(pa.table({"x": [1]}), path)
    with pytest.raises(FormatVersionError):
        read_tiles(path)
    meta = made[0].schema.metadata
    pq.write_table(made[0].replace_schema_metadata(meta | {b"malpighi.version": b"99"}), path)
    with pytest.raises(FormatVersionError, match="99"):
        read_tiles(path)
    pq.write_table(made[0].drop_columns(["tissue"]), path)
    with pytest.raises(DataError, match="tissue"):
        read_tiles(path)
    write_tiles(made[0], path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match="damaged"):
        read_tiles(path)
