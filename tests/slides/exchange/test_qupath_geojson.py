import gzip
import json

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from malpighi.errors import DataError
from malpighi.records import Failure
from malpighi.slides.annotations import Annotation, Kind, geometries
from malpighi.slides.exchange.qupath_geojson import (
    color_of,
    iterate_geojson,
    qupath_origin,
    read_geojson,
    write_geojson,
)
from malpighi.slides.slide import Level, SlideFacts

SQUARE = [[[10, 10], [20, 10], [20, 20], [10, 20], [10, 10]]]


def feature(geometry=None, **properties):
    geometry = geometry or {"type": "Polygon", "coordinates": SQUARE}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def saved(path, value):
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


class Stub:
    """All of a slide that the origin looks at."""

    def __init__(self, **properties):
        named = {f"openslide.{key.replace('_', '-')}": value for key, value in properties.items()}
        self.facts = SlideFacts(reader="openslide", levels=(Level((100, 100), 1.0),), properties=named)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.tuples(*[st.integers(0, 5000)] * 2), st.sampled_from(["", ".gz"]))
def test_the_round_trip_loses_nothing(tmp_path_factory, marks, same, data, origin, suffix):
    path = tmp_path_factory.mktemp("geojson") / f"marks.geojson{suffix}"
    expected = data.draw(st.lists(marks(), max_size=4))
    written = write_geojson(path, iter(expected), origin)
    found = read_geojson(path, origin)
    assert (written.count, written.notes, found.failures) == (len(expected), (), ())
    same(found.annotations, expected, 0.01)
    for one, other in zip(found.annotations, expected, strict=True):
        for field in ("label", "score", "id", "kind", "color", "name", "locked"):
            assert getattr(one, field) == getattr(other, field)
        np.testing.assert_equal(one.measurements, other.measurements)
        assert (one.nucleus is None) == (other.nucleus is None)


def test_what_is_written_is_json_even_of_numbers_that_json_has_not(tmp_path):
    mark = Annotation(geometry=shapely.Point(1, 2), measurements={"a": np.nan, "b": -np.inf, "c": 1.5})
    write_geojson(tmp_path / "a.geojson", [mark])
    (only,) = json.loads((tmp_path / "a.geojson").read_text(), parse_constant=pytest.fail)["features"]
    assert only["properties"]["measurements"] == {"a": "NaN", "b": "-Infinity", "c": 1.5}


def test_what_qupath_wrote_through_the_years_is_read(tmp_path):
    text = """[
      {"type": "Feature", "id": "PathDetectionObject",
       "geometry": {"type": "Polygon", "coordinates": [[[0, 0], [9, 0], [9, 9], [0, 9]]]},
       "properties": {"classification": {"name": "Tumor", "colorRGB": -3670016}, "isLocked": false,
                      "measurements": [{"name": "Area", "value": 81.0}, {"name": "Bad", "value": NaN}]}},
      {"type": "Feature", "id": "d0852662-6941-4506-bc90-cbda1c2fa7b0",
       "geometry": {"type": "Polygon", "coordinates": [[[0, 0], [30, 0], [30, 30], [0, 30], [0, 0]]]},
       "nucleusGeometry": {"type": "Polygon", "coordinates": [[[5, 5], [8, 5], [8, 8], [5, 5]]]},
       "properties": {"objectType": "cell", "isLocked": true, "name": "no. 7",
                      "classification": {"names": ["Tumor", "Positive"], "color": [200, 0, 0]},
                      "measurements": {"DAB": NaN, "Area": 900, "Ratio": "Infinity", "None": null}}},
      {"type": "Feature", "id": 9223372036854775807,
       "geometry": {"type": "Point", "coordinates": [3.5, 4.5, 0.0]},
       "properties": {"object_type": "annotation", "classification": "Mitosis", "color": [1, 2, 3]}}
    ]"""
    found = read_geojson(saved(tmp_path / "old.json", text))
    assert found.failures == ()
    old, cell, point = found.annotations
    assert (old.kind, old.label, old.color, old.id) == (Kind.DETECTION, "Tumor", (200, 0, 0), "")
    assert old.measurements["Area"] == 81
    assert np.isnan(old.measurements["Bad"])
    assert (cell.kind, cell.label, cell.locked, cell.name) == (Kind.CELL, "Tumor: Positive", True, "no. 7")
    assert cell.nucleus.area == pytest.approx(4.5)
    np.testing.assert_equal(cell.measurements, {"DAB": np.nan, "Area": 900, "Ratio": np.inf, "None": np.nan})
    assert (point.id, point.label, point.color) == ("9223372036854775807", "Mitosis", (1, 2, 3))
    assert list(point.geometry.coords) == [(3.5, 4.5)]


@pytest.mark.parametrize("wrap", [lambda f: f, lambda f: [f], lambda f: {"crs": {}, "features": [f], "x": 1}])
def test_collections_lists_and_single_features_are_read(tmp_path, wrap):
    found = read_geojson(saved(tmp_path / "a.geojson", wrap(feature(name="it"))))
    assert [mark.name for mark in found.annotations] == ["it"]


def test_children_are_taken_out_of_their_parents(tmp_path):
    child = feature(name="child", objectType="detection")
    root = {**feature(objectType="root", childObjects=[feature(name="parent", childObjects=[child])])}
    found = read_geojson(saved(tmp_path / "a.geojson", [root]))
    assert [mark.name for mark in found.annotations] == ["parent", "child"]


def test_one_bad_feature_does_not_end_the_reading(tmp_path):
    bad = [
        (feature({"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}), "Polygon"),
        (feature({"type": "Polygon", "coordinates": [[[0, 0], ["x", 1], [2, 2], [0, 0]]]}), "Polygon"),
        (feature({"type": "Polygon", "coordinates": [[[0, 0], [5, 5], [9, 9], [0, 0]]]}), "no area"),
        (feature({"type": "Blob", "coordinates": []}), "Blob"),
        ({**feature(), "geometry": None}, "None"),
        (feature({"type": "Polygon", "coordinates": []}), "empty"),
        ({"type": "Geometry"}, "Feature"),
        ("nonsense", "Feature"),
        (feature(measurements={"Area": "large"}), "Area"),
        (feature(classification=7), "classification"),
        ({**feature(), "properties": 3}, "properties"),
        ({**feature(), "nucleusGeometry": {"type": "Polygon"}}, "nucleusGeometry"),
    ]
    mixed = [feature(name="first"), *(value for value, _ in bad), feature(name="last")]
    found = read_geojson(saved(tmp_path / "a.geojson", mixed))
    assert [mark.name for mark in found.annotations] == ["first", "last"]
    reasons = {failure.id: failure.reason for failure in found.failures}
    assert set(reasons) == {f"a.geojson#{index + 1}" for index in range(len(bad))}
    for index, (_, word) in enumerate(bad):
        assert word in reasons[f"a.geojson#{index + 1}"]


def test_a_feature_that_is_no_json_is_stepped_over(tmp_path):
    good = json.dumps(feature(name="good"))
    broken = good.replace('"coordinates":', '"coordinates" oops')
    found = read_geojson(saved(tmp_path / "a.geojson", f"[{good},{broken},{good}]"))
    assert len(found.annotations) == 2
    assert [(failure.id, "not JSON" in failure.reason) for failure in found.failures] == [
        ("a.geojson#1", True)
    ]


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.99])
def test_of_a_file_cut_short_the_whole_features_are_read(tmp_path, same, suffix, share):
    path = tmp_path / f"a.geojson{suffix}"
    rng = np.random.default_rng(1)
    marks = [Annotation(geometry=shapely.Point(*rng.uniform(0, 9e4, 2))) for _ in range(3000)]
    write_geojson(path, marks)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    found = read_geojson(path)
    assert 0.2 * 3000 < len(found.annotations) < 3000
    same(found.annotations, marks[: len(found.annotations)], 0.01)
    assert len(found.failures) == 1
    assert "the file ends" in found.failures[0].reason


@pytest.mark.parametrize("chunk", [1, 7, 100])
def test_where_the_chunks_end_does_not_matter(tmp_path, monkeypatch, chunk):
    text = json.dumps({"features": [feature(measurements={"a": 1e-7}, name='"},{\\') for _ in range(4)]})
    path = saved(tmp_path / "a.geojson", text.replace("1e-07", "-Infinity"))
    straight = read_geojson(path)
    monkeypatch.setattr("malpighi.slides.exchange.json_stream.CHUNK", chunk)
    assert read_geojson(path) == straight
    assert [mark.measurements for mark in straight.annotations] == [{"a": -np.inf}] * 4


def test_a_crossing_outline_is_mended_and_noted(tmp_path):
    bow = {"type": "Polygon", "coordinates": [[[0, 0], [10, 10], [10, 0], [0, 10], [0, 0]]]}
    found = read_geojson(saved(tmp_path / "a.geojson", [feature(bow)]))
    (mark,) = found.annotations
    assert mark.geometry.is_valid
    assert mark.geometry.area == pytest.approx(50)
    assert "Self-intersection" in mark.notes[0]
    assert found.notes == ("1 x outline mended",)


def test_what_cannot_be_kept_is_noted(tmp_path):
    ellipse = {
        "type": "Polygon",
        "coordinates": SQUARE,
        "isEllipse": True,
        "plane": {"c": -1, "z": 2, "t": 0},
    }
    found = read_geojson(saved(tmp_path / "a.geojson", [feature(ellipse, metadata={"a": "b"})]))
    assert found.notes == (
        "1 x ellipse kept as its outline",
        "1 x plane (z, t, channel) left out",
        "1 x metadata of QuPath left out",
    )
    crowded = Annotation(geometry=shapely.Point(0, 0), score=0.5, measurements={"score": 3})
    assert "score" in write_geojson(tmp_path / "b.geojson", [crowded]).notes[0]


def test_the_plane_of_qupath_begins_at_the_bounds(tmp_path):
    whole = {"bounds_x": "1000", "bounds_y": "250", "bounds_width": "50", "bounds_height": "60"}
    assert qupath_origin(Stub(**whole)) == (1000, 250)
    assert qupath_origin(Stub(**{**whole, "bounds_width": "?"})) == (0, 0)
    assert qupath_origin(Stub(bounds_x="1000", bounds_y="250")) == (0, 0)  # QuPath wants all four
    assert qupath_origin(None) == (0, 0)
    mark = Annotation(geometry=shapely.Point(1010, 270), nucleus=shapely.box(1010, 270, 1012, 272))
    path = tmp_path / "a.geojson"
    write_geojson(path, [mark], qupath_origin(Stub(**whole)))
    (as_qupath_sees_it,) = read_geojson(path).annotations
    assert list(as_qupath_sees_it.geometry.coords) == [(10, 20)]
    (back,) = read_geojson(path, (1000, 250)).annotations
    assert back.geometry == mark.geometry
    assert back.nucleus.equals(mark.nucleus)


def test_a_file_that_is_none_says_so(tmp_path):
    with pytest.raises(DataError, match="check the path"):
        read_geojson(tmp_path / "none.geojson")
    for text in ("", "hello", '"text"', "3"):
        with pytest.raises(DataError, match=r"a\.geojson.*expected a JSON object or list"):
            read_geojson(saved(tmp_path / "a.geojson", text))
    (tmp_path / "a.geojson").write_bytes(b'[{"type": "\xff"}]')
    with pytest.raises(DataError, match="UTF-8"):
        read_geojson(tmp_path / "a.geojson")
    found = read_geojson(saved(tmp_path / "a.geojson", "[" * 100_000))
    assert "not usable JSON" in found.failures[0].reason


def test_gzip_is_known_by_its_bytes_and_a_mark_of_order_is_skipped(tmp_path):
    path = tmp_path / "a.geojson"
    path.write_bytes(gzip.compress(b"\xef\xbb\xbf" + json.dumps([feature(name="é")]).encode()))
    assert read_geojson(path).annotations[0].name == "é"


def test_reading_holds_a_batch_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr("malpighi.slides.exchange.qupath_geojson._BATCH", 2)
    monkeypatch.setattr("malpighi.slides.exchange.json_stream.CHUNK", 64)
    path = saved(tmp_path / "a.geojson", [feature(name=str(index)) for index in range(5)])
    stream = iterate_geojson(path)
    assert next(stream).name == "0"
    rest = list(stream)
    assert [mark.name for mark in rest] == ["1", "2", "3", "4"]
    assert not any(isinstance(mark, Failure) for mark in rest)


def test_geometries_stay_whole_arrays():
    assert geometries([]).shape == (0,)
    assert geometries([Annotation(geometry=shapely.MultiPoint([(0, 0), (1, 1)]))]).shape == (1,)


def test_colours_in_both_forms():
    assert color_of([1, 2, 300]) == (1, 2, 255)
    assert color_of(0x112233) == (0x11, 0x22, 0x33)
    assert color_of("red") is None
    assert color_of(True) is None
