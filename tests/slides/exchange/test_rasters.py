import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from malpighi.slides.exchange.rasters import outline, paint, spans

hundredths = st.integers(-500, 2500).map(lambda value: value / 100)


def array(*geometries):
    made = np.empty(len(geometries), dtype=object)
    made[:] = geometries
    return made


def painted(shape, *geometries, values=None):
    raster = np.zeros(shape, dtype=np.int32)
    paint(raster, array(*geometries), np.array(values or range(1, len(geometries) + 1)))
    return raster


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(hundredths, hundredths), min_size=3, max_size=8))
def test_pixels_are_those_whose_middle_is_inside(points):
    polygon = shapely.make_valid(shapely.Polygon(points), method="structure", keep_collapsed=False)
    rows, columns = np.mgrid[:20, :18] + 0.5
    border = shapely.distance(shapely.boundary(polygon), shapely.points(columns, rows)) < 1e-9
    expected = shapely.contains_xy(polygon, columns, rows)
    found = painted((20, 18), polygon) > 0
    assert ((found == expected) | border).all()


def test_boxes_on_the_grid_are_painted_exactly_and_holes_stay_free():
    ring = shapely.box(1, 1, 9, 7).difference(shapely.box(3, 3, 5, 5))
    expected = np.zeros((10, 12), dtype=np.int32)
    expected[1:7, 1:9] = 1
    expected[3:5, 3:5] = 0
    np.testing.assert_array_equal(painted((10, 12), ring), expected)


def test_later_ones_lie_over_earlier_ones_and_points_paint_their_pixel():
    found = painted(
        (4, 4), shapely.box(0, 0, 4, 4), shapely.Point(2.9, 1.1), shapely.Point(9, 9), values=[5, 6, 7]
    )
    assert found[1, 2] == 6
    assert (found == 5).sum() == 15
    assert not painted((4, 4), shapely.LineString([(0, 0), (4, 4)])).any()
    assert len(spans(array(shapely.LineString([(0, 0), (4, 4)])), (4, 4)).rows) == 0


def test_several_polygons_as_one():
    both = shapely.MultiPolygon([shapely.box(0, 0, 2, 2), shapely.box(5, 5, 7, 6)])
    assert (painted((8, 8), both) == 1).sum() == 6


@settings(max_examples=100, deadline=None)
@given(arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_what_is_traced_and_painted_is_the_same(mask):
    np.testing.assert_array_equal(painted(mask.shape, outline(mask)) > 0, mask)
    assert outline(mask).area == mask.sum()


def test_a_large_outline_with_many_corners_is_painted_in_bounded_work():
    angles = np.linspace(0, 2 * np.pi, 20_000, endpoint=False)
    radii = 900 + 80 * np.sin(40 * angles)
    polygon = shapely.Polygon(
        np.stack([1000 + radii * np.cos(angles), 1000 + radii * np.sin(angles)], axis=1)
    )
    assert painted((2000, 2000), polygon).sum() == pytest.approx(polygon.area, rel=1e-4)
