import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from malpighi.errors import DataError
from malpighi.geometry import Region, View
from malpighi.slides.annotations import Annotation
from malpighi.slides.exchange.page import Page
from malpighi.slides.exchange.yolo import class_names, read_yolo, write_yolo

HUGE = View((210_000, 210_000), region=Region(0, 0, 210_000, 210_000))
TILE = View((512, 256), region=Region(1000, 2000, 2048, 1024))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_outlines_come_back_within_half_a_pixel(tmp_path_factory, marks, same, data):
    path = tmp_path_factory.mktemp("yolo") / "a.txt"
    expected = data.draw(st.lists(marks(("box", "polygon"), nuclei=False), max_size=4))
    written = write_yolo(path, Page("a.png", HUGE, expected), outlines=True)
    found = read_yolo(path, Page("a.png", HUGE))
    assert (written.count, found.failures) == (len(expected), ())
    same(found.annotations, expected, 0.01)
    assert [mark.label for mark in found.annotations] == [" ".join(mark.label.split()) for mark in expected]


def test_boxes_are_shares_of_the_picture(tmp_path):
    mark = Annotation(geometry=shapely.box(1040, 2080, 1440, 2240), label="gland", score=0.25)
    page = Page("a.png", TILE, [mark])
    written = write_yolo(tmp_path / "a.txt", page, scores=True)
    number, *values = (tmp_path / "a.txt").read_text().split()
    assert number == "0"
    assert [float(value) for value in values] == pytest.approx(
        [60 / 512, 40 / 256, 100 / 512, 40 / 256, 0.25]
    )
    assert class_names(tmp_path / "a.txt") == ["gland"]
    (back,) = read_yolo(tmp_path / "a.txt", page).annotations
    assert back.bounds.corners == pytest.approx((1040, 2080, 1440, 2240), abs=1e-4)
    assert (back.score, written.notes) == (0.25, ())


def test_classes_keep_their_numbers_from_file_to_file(tmp_path):
    box = shapely.box(1000, 2000, 1100, 2100)
    for name, labels in (("a", ["x", "y"]), ("b", ["y", "z", "x"])):
        marks = [Annotation(geometry=box, label=label) for label in labels]
        write_yolo(tmp_path / f"{name}.txt", Page(name, TILE, marks))
    assert class_names(tmp_path / "b.txt") == ["x", "y", "z"]
    assert [line[0] for line in (tmp_path / "b.txt").read_text().splitlines()] == ["1", "2", "0"]


def test_nothing_is_lost_silently(tmp_path):
    triangle = Annotation(
        geometry=shapely.Polygon([(1000, 2000), (1100, 2000), (1000, 2100)]), score=0.5, id="7"
    )
    point = Annotation(geometry=shapely.Point(1010, 2010))
    over = Annotation(geometry=shapely.box(3000, 3000, 3100, 3100))
    away = Annotation(geometry=shapely.box(0, 0, 10, 10))
    written = write_yolo(tmp_path / "a.txt", Page("a.png", TILE, [triangle, point, over, away]))
    assert written.count == 2
    assert set(written.notes) == {
        "1 x annotation outside of the picture left out",
        "1 x annotation cut off at the edge of the picture",
        "1 x score left out",
        "1 x measurements, id, name or colour left out",
        "1 x outline reduced to its box",
        "1 x Point left out: YOLO holds boxes and outlines",
    }


def test_one_bad_line_does_not_end_the_reading(tmp_path):
    (tmp_path / "classes.txt").write_text("cell\nnucleus\n")
    lines = ["1 0.5 0.5 0.1 0.1", "9 0.5 0.5 0.1 0.1", "-1 .5 .5 .1 .1", "x 1 2 3 4", "0 1 2 3",
             "0 .5 .5 0 .1", "0 nan .5 .1 .1", "", "0 .1 .1 .2 .1 .2 .2", "0 .1 .1 .2 .2 .3 .3"]  # fmt: skip
    (tmp_path / "a.txt").write_text("\n".join(lines))
    found = read_yolo(tmp_path / "a.txt", Page("a.png", TILE))
    assert [mark.label for mark in found.annotations] == ["nucleus", "cell"]
    assert [failure.id for failure in found.failures] == [f"a.txt#{line}" for line in (2, 3, 4, 5, 6, 7, 10)]
    assert "class below 2" in found.failures[0].reason


def test_names_may_stand_in_data_yaml(tmp_path):
    (tmp_path / "labels").mkdir()
    (tmp_path / "data.yaml").write_text("names: {0: cell, 1: mitosis}")
    (tmp_path / "labels/a.txt").write_text("1 0.5 0.5 0.5 0.5")
    assert read_yolo(tmp_path / "labels/a.txt", Page("a.png", TILE)).annotations[0].label == "mitosis"
    (tmp_path / "data.yaml").write_text("nothing: here")
    with pytest.raises(DataError, match="names"):
        class_names(tmp_path / "labels/a.txt")
    (tmp_path / "data.yaml").unlink()
    with pytest.raises(DataError, match=r"classes\.txt"):
        class_names(tmp_path / "labels/a.txt")
    with pytest.raises(DataError, match="check the path"):
        read_yolo(tmp_path / "none.txt", Page("a.png", TILE))
