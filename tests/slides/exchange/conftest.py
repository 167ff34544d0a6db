"""Marks anywhere on a slide of 200k px, as hypothesis draws them."""

import numpy as np
import pytest
import shapely
from hypothesis import strategies as st

from malpighi.slides.annotations import Annotation, Kind

coordinate = st.floats(100, 200_000, allow_nan=False)
number = st.floats(allow_nan=True, width=32)


@st.composite
def outlines(draw):
    """A star-shaped polygon with up to three holes."""
    x, y = draw(coordinate), draw(coordinate)
    radii = np.array(draw(st.lists(st.floats(40, 90), min_size=5, max_size=24)))
    angles = np.linspace(0, 2 * np.pi, len(radii), endpoint=False)
    outline = shapely.Polygon(np.stack([x + radii * np.cos(angles), y + radii * np.sin(angles)], axis=1))
    for index in range(draw(st.integers(0, 3))):
        place = shapely.Point(x + 18 * np.cos(2.1 * index), y + 18 * np.sin(2.1 * index))
        hole = place.buffer(draw(st.floats(2, 6)), quad_segs=2)
        outline = outline.difference(hole) if outline.contains_properly(hole) else outline
    return outline


@st.composite
def geometry(draw, kinds):
    kind = draw(st.sampled_from(kinds))
    if kind == "point":
        return shapely.Point(draw(coordinate), draw(coordinate))
    if kind == "box":
        x, y = draw(coordinate), draw(coordinate)
        return shapely.box(x, y, x + draw(st.floats(1, 5000)), y + draw(st.floats(1, 5000)))
    if kind == "several":
        one = draw(outlines())
        return shapely.MultiPolygon([one, shapely.affinity.translate(one, 500, 0)])
    if kind == "line":
        return shapely.LineString([(draw(coordinate), 1), (2, draw(coordinate)), (3, 4)])
    return draw(outlines())


def annotations(kinds=("point", "box", "polygon", "several", "line"), nuclei=True):
    """Annotations with every field filled in one way or another."""
    names = st.text(max_size=8).filter(lambda name: not name.startswith(("Path", "TMA")))
    return st.builds(
        Annotation,
        geometry=geometry(kinds),
        label=st.text(max_size=30),
        score=st.none() | st.floats(0, 1, width=32),
        measurements=st.dictionaries(names.filter(lambda name: name != "score"), number, max_size=3),
        id=names,
        kind=st.sampled_from(Kind),
        nucleus=st.none() | outlines() if nuclei else st.none(),
        color=st.none() | st.tuples(*[st.integers(0, 255)] * 3),
        name=names,
        locked=st.booleans(),
    )


def agree(found, expected, tolerance=0.5):
    """Same kind of geometry, same holes, no part further off than the tolerance, px."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.geometry.geom_type == other.geometry.geom_type
        assert shapely.hausdorff_distance(one.geometry, other.geometry) <= tolerance
        for part, twin in zip(
            shapely.get_parts(one.geometry), shapely.get_parts(other.geometry), strict=True
        ):
            assert len(getattr(part, "interiors", ())) == len(getattr(twin, "interiors", ()))


@pytest.fixture(scope="session")
def marks():
    return annotations


@pytest.fixture(scope="session")
def same():
    return agree
