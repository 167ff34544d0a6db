import json

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask

from malpighi.errors import DataError
from malpighi.geometry import Region, View
from malpighi.slides.annotations import Annotation, Kind
from malpighi.slides.exchange.coco import read_coco, run_lengths, write_coco
from malpighi.slides.exchange.page import Page
from malpighi.slides.exchange.rasters import paint

HUGE = View((210_000, 210_000), region=Region(0, 0, 210_000, 210_000))
TILE = View((512, 256), region=Region(1000, 2000, 2048, 1024))


def write(path, marks, view=HUGE):
    return write_coco(path, [Page("slide.svs", view, marks)])


def saved(path, *entries, **others):
    whole = {
        "images": [{"id": 7, "file_name": "a.png", "width": 512, "height": 256}],
        "categories": [{"id": 3, "name": "cell"}],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 3, **entry} for entry in entries],
    }
    path.write_text(json.dumps({**whole, **others}))
    return path


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_round_trip_is_within_half_a_pixel(tmp_path_factory, marks, same, data):
    path = tmp_path_factory.mktemp("coco") / "a.json"
    expected = data.draw(st.lists(marks(("point", "box", "polygon", "several"), nuclei=False), max_size=4))
    written = write(path, expected)
    found = read_coco(path, HUGE)
    assert (written.count, found.failures, found.notes) == (len(expected), (), ())
    same(found.annotations, expected, 0.01)
    for one, other in zip(found.annotations, expected, strict=True):
        for field in ("label", "score", "id", "kind", "color", "name", "locked"):
            assert getattr(one, field) == getattr(other, field)
        np.testing.assert_equal(one.measurements, other.measurements)


def test_a_tile_has_its_own_pixels(tmp_path):
    mark = Annotation(geometry=shapely.box(1040, 2080, 1440, 2240), label="gland")
    write(tmp_path / "a.json", [mark], TILE)
    (entry,) = json.loads((tmp_path / "a.json").read_text())["annotations"]
    assert entry["bbox"] == [10, 20, 100, 40]
    assert entry["area"] == 4000
    (back,) = read_coco(tmp_path / "a.json", TILE).annotations
    assert back.geometry.equals(mark.geometry)


def test_holes_go_in_through_a_seam_that_coco_draws_rightly(tmp_path):
    ring = (
        shapely.box(10, 10, 60, 50)
        .difference(shapely.box(20, 20, 30, 30))
        .difference(shapely.box(40, 25, 45, 40))
    )
    written = write(
        tmp_path / "a.json", [Annotation(geometry=ring)], View((80, 70), region=Region(0, 0, 80, 70))
    )
    assert written.notes == ("2 x hole cut in through a seam: COCO has none",)
    (entry,) = json.loads((tmp_path / "a.json").read_text())["annotations"]
    runs = coco_mask.merge(coco_mask.frPyObjects(entry["segmentation"], 70, 80))
    expected = np.zeros((70, 80), dtype=np.uint8)
    paint(expected, np.array([ring], dtype=object), np.array([1]))
    drawn = np.repeat(np.arange(len(lengths := run_lengths(runs["counts"].decode()))) % 2, lengths)
    drawn = drawn.reshape(80, 70).T  # pycocotools' own decode warns under numpy 2
    assert (drawn != expected).sum() < 0.06 * expected.sum()  # pycocotools rounds edges
    assert drawn[25, 25] == 0


@settings(max_examples=80, deadline=None)
@given(arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40)), elements=st.integers(0, 1)))
def test_run_lengths_are_those_of_pycocotools(tmp_path_factory, mask):
    packed = coco_mask.encode(np.asfortranarray(mask))
    lengths = run_lengths(packed["counts"].decode())
    np.testing.assert_array_equal(np.repeat(np.arange(len(lengths)) % 2, lengths), mask.ravel(order="F"))
    if mask.any():
        path = tmp_path_factory.mktemp("runs") / "a.json"
        size = list(mask.shape)
        plain = {"segmentation": {"size": size, "counts": lengths}, "iscrowd": 1}
        short = {"segmentation": {"size": size, "counts": packed["counts"].decode()}, "iscrowd": 1}
        view = View((512, 256), region=Region(0, 0, 512, 256))
        found = read_coco(saved(path, plain, short), view)
        assert found.failures == ()
        for mark in found.annotations:
            drawn = np.zeros_like(mask)
            paint(drawn, np.array([mark.geometry], dtype=object), np.array([1]))
            np.testing.assert_array_equal(drawn, mask)


def test_only_a_box_or_only_a_point(tmp_path):
    found = read_coco(saved(tmp_path / "a.json", {"bbox": [8, 4, 16, 8]}, {"bbox": [8, 4, 0, 0]}), TILE)
    box, point = found.annotations
    assert box.is_box
    assert box.bounds.corners == (1032, 2016, 1096, 2048)
    assert list(point.geometry.coords) == [(1032, 2016)]
    assert (box.label, box.kind) == ("cell", Kind.ANNOTATION)


def test_one_bad_annotation_does_not_end_the_reading(tmp_path):
    bad = [
        ({"bbox": [1, 2, 3]}, "bbox"),
        ({"bbox": [1, 2, -3, 4]}, "negative"),
        ({"bbox": [1, 2, 0, 4]}, "no area"),
        ({}, "bbox"),
        ({"segmentation": [[1, 2, 3, 4]]}, "2 points"),
        ({"segmentation": [[1, 2, 3]]}, "expected x, y"),
        ({"segmentation": [["a", 2]]}, "expected x, y"),
        ({"segmentation": {"size": [2, 2], "counts": [1, 1]}}, "2 x 2"),
        ({"segmentation": {"size": [2, 2], "counts": [4]}}, "no pixel"),
        ({"segmentation": {"counts": [4]}}, "expected size and counts"),
        ({"image_id": 99, "bbox": [1, 2, 3, 4]}, "image_id 99"),
        ({"category_id": 99, "bbox": [1, 2, 3, 4]}, "category_id 99"),
        ({"bbox": [1, 2, 3, 4], "score": "high"}, "score"),
        ({"bbox": [1, 2, 3, 4], "category_id": []}, "list"),
    ]
    good = {"bbox": [1, 2, 3, 4]}
    found = read_coco(saved(tmp_path / "a.json", good, *(entry for entry, _ in bad), good), TILE)
    assert len(found.annotations) == 2
    assert [failure.id for failure in found.failures] == [f"a.json#{index + 1}" for index in range(len(bad))]
    for failure, (_, word) in zip(found.failures, bad, strict=True):
        assert word in failure.reason


def test_pictures_must_be_those_of_the_views(tmp_path):
    path = saved(tmp_path / "a.json", {"bbox": [1, 2, 3, 4]})
    with pytest.raises(DataError, match="512 x 256"):
        read_coco(path, HUGE)
    with pytest.raises(DataError, match=r"none of the images.*b\.png.*a\.png"):
        read_coco(path, {"b.png": TILE})
    two = saved(tmp_path / "b.json", images=[{"id": 1, "file_name": "a"}, {"id": 2, "file_name": "b"}])
    with pytest.raises(DataError, match="2 images"):
        read_coco(two, TILE)


def test_several_pictures_in_one_file(tmp_path):
    other = View((100, 100), region=Region(0, 0, 100, 100))
    inside = Annotation(geometry=shapely.box(10, 10, 20, 20), label="a")
    far = Annotation(geometry=shapely.box(1040, 2080, 1440, 2240), label="b")
    over = Annotation(geometry=shapely.box(90, 90, 120, 120), label="a")
    written = write_coco(
        tmp_path / "a.json", [Page("1.png", other, [inside, far, over]), Page("2.png", TILE, [far])]
    )
    assert written.notes == (
        "1 x annotation outside of the picture left out",
        "1 x annotation cut off at the edge of the picture",
    )
    found = read_coco(tmp_path / "a.json", {"1.png": other, "2.png": TILE})
    assert [mark.bounds.corners for mark in found.annotations] == [
        (10, 10, 20, 20),
        (90, 90, 100, 100),
        (1040, 2080, 1440, 2240),
    ]
    only = read_coco(tmp_path / "a.json", {"2.png": TILE})
    assert [mark.label for mark in only.annotations] == ["b"]
    assert only.notes == ("2 x annotation on another picture left out",)


def test_what_coco_has_no_place_for_is_noted(tmp_path):
    line = Annotation(geometry=shapely.LineString([(0, 0), (5, 5)]))
    cell = Annotation(geometry=shapely.box(0, 0, 9, 9), nucleus=shapely.box(2, 2, 4, 4))
    written = write(tmp_path / "a.json", [line, cell])
    assert written.count == 1
    assert len(written.notes) == 2
    assert "LineString left out" in written.notes[0]
    assert "nucleus" in written.notes[1]


def test_a_file_that_is_none_says_so(tmp_path):
    with pytest.raises(DataError, match="check the path"):
        read_coco(tmp_path / "a.json", TILE)
    for text in ("[]", "{}", '{"annotations": 3}'):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(DataError, match="no COCO file"):
            read_coco(tmp_path / "a.json", TILE)
    (tmp_path / "a.json").write_text('{"annotations": [')
    with pytest.raises(DataError, match="not JSON"):
        read_coco(tmp_path / "a.json", TILE)
