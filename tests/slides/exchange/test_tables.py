import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from malpighi.errors import DataError, FormatVersionError
from malpighi.slides.annotations import Annotation, Kind
from malpighi.slides.exchange.tables import read_table, write_table


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from([".csv", ".parquet"]))
def test_the_round_trip_loses_nothing(tmp_path_factory, marks, data, suffix):
    path = tmp_path_factory.mktemp("tables") / f"a{suffix}"
    expected = data.draw(st.lists(marks(), max_size=4))
    assert write_table(path, expected).notes == ()
    found = read_table(path)
    assert (found.failures, found.notes) == ((), ())
    assert len(found.annotations) == len(expected)
    for one, other in zip(found.annotations, expected, strict=True):
        assert one.geometry == other.geometry
        assert one.nucleus == other.nucleus
        for field in ("label", "score", "id", "kind", "color", "name", "locked"):
            assert getattr(one, field) == getattr(other, field)
        np.testing.assert_equal(one.measurements, other.measurements)


def test_parquet_is_geoparquet_and_says_its_version(tmp_path):
    write_table(tmp_path / "a.parquet", [Annotation(geometry=shapely.box(1, 2, 4, 8), label="a")])
    meta = pq.read_schema(tmp_path / "a.parquet").metadata
    assert json.loads(meta[b"geo"])["columns"]["geometry"]["crs"] is None
    table = pq.read_table(tmp_path / "a.parquet")
    assert table.select(["x", "y", "width", "height"]).to_pylist() == [
        {"x": 1, "y": 2, "width": 3, "height": 6}
    ]
    later = table.replace_schema_metadata({**meta, b"malpighi.version": b"9"})
    pq.write_table(later, tmp_path / "b.parquet")
    with pytest.raises(FormatVersionError, match="version 9"):
        read_table(tmp_path / "b.parquet")


def test_a_table_of_tiles_is_read_as_boxes(tmp_path):
    tiles = pa.table({"x": [0, 256], "y": [0, 0], "width": [256, 256], "height": [256, 256],
                      "tissue": [0.5, 1.0], "source": ["a", "b"], "score": [0.25, None]})  # fmt: skip
    pq.write_table(tiles, tmp_path / "tiles.parquet")
    found = read_table(tmp_path / "tiles.parquet")
    assert [mark.bounds.corners for mark in found.annotations] == [(0, 0, 256, 256), (256, 0, 512, 256)]
    assert [mark.measurements for mark in found.annotations] == [{"tissue": 0.5}, {"tissue": 1.0}]
    assert [mark.score for mark in found.annotations] == [0.25, None]
    assert found.notes == ("1 x column left out: source",)


def test_points_and_corners_of_others_are_read(tmp_path):
    (tmp_path / "a.csv").write_text("x,y,label,kind\n1.5,2,Mitosis,?\n")
    (mark,) = read_table(tmp_path / "a.csv").annotations
    assert (list(mark.geometry.coords), mark.label, mark.kind) == ([(1.5, 2)], "Mitosis", Kind.ANNOTATION)
    (tmp_path / "a.csv").write_text("x0,y0,x1,y1\n1,2,3,4\n")
    assert read_table(tmp_path / "a.csv").annotations[0].bounds.corners == (1, 2, 3, 4)


def test_one_bad_row_does_not_end_the_reading(tmp_path):
    rows = ["0,0,5,5,a", "0,0,x,5,b", "0,0,-1,5,c", "nan,0,1,1,d", "1", "7,7,1,1,e"]
    (tmp_path / "a.csv").write_text("\n".join(["x,y,width,height,label", *rows]))
    found = read_table(tmp_path / "a.csv")
    assert [mark.label for mark in found.annotations] == ["a", "e"]
    assert [failure.id for failure in found.failures] == [f"a.csv#{index}" for index in (1, 2, 3, 4)]
    assert "row 3: x, y, width, height" in found.failures[1].reason
    (tmp_path / "b.csv").write_text(
        'geometry,score\n"POLYGON ((0 0, 1 1))",1\nPOINT (1 2),high\nPOINT (3 4),1\n'
    )
    found = read_table(tmp_path / "b.csv")
    assert len(found.annotations) == 1
    assert ["geometry" in found.failures[0].reason, "score" in found.failures[1].reason] == [True, True]


def test_a_file_that_is_none_says_so(tmp_path):
    for name in ("none.csv", "none.parquet"):
        with pytest.raises(DataError, match="check the path"):
            read_table(tmp_path / name)
    (tmp_path / "a.parquet").write_bytes(b"nothing here")
    with pytest.raises(DataError, match="no readable table"):
        read_table(tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text("")
    with pytest.raises(DataError, match="empty"):
        read_table(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"says no places.*it has a, b"):
        read_table(tmp_path / "a.csv")
