import os
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.sr.codedict import codes

from malpighi.errors import DataError
from malpighi.slides.annotations import Annotation, Kind
from malpighi.slides.exchange import dicom_codes
from malpighi.slides.exchange.dicom_annotations import read_dicom_annotations, write_dicom_annotations
from malpighi.slides.opening import open_slide

REAL = Path(os.environ.get("MALPIGHI_TEST_DATA", "../shared/data")) / "slides/cmu-1-small-region-dicom"
AS_FOUND = pytest.mark.filterwarnings("ignore:Invalid value for VR UI")  # the real files' implementation UID


class Stub:
    """All of a slide that a description looks at: an SVS of 210k px."""

    path = Path("a slide.svs")
    size = (210_000, 205_000)
    mpp = 0.25


SLIDE = Stub()


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_the_round_trip_is_within_half_a_pixel(tmp_path_factory, marks, same, data):
    path = tmp_path_factory.mktemp("ann") / "a.dcm"
    drawn = data.draw(st.lists(marks(("point", "box", "polygon", "line")), min_size=1, max_size=4))
    written = write_dicom_annotations(path, drawn, SLIDE)
    found = read_dicom_annotations(path, SLIDE)
    assert (written.count, found.failures, found.notes) == (len(drawn), (), ())

    def key(mark):
        return (mark.label, mark.kind, mark.geometry.geom_type, *np.round(mark.geometry.bounds))

    expected = sorted(drawn, key=key)
    back = sorted(found.annotations, key=key)
    if len({key(mark) for mark in expected}) == len(expected) and [*map(key, expected)] == [*map(key, back)]:
        same(back, expected, 0.05)
    assert sorted((mark.label, mark.kind, mark.score or 0) for mark in back) == sorted(
        (mark.label, mark.kind, mark.score or 0) for mark in expected
    )
    assert (
        shapely.hausdorff_distance(
            shapely.GeometryCollection([mark.geometry for mark in back]),
            shapely.GeometryCollection([mark.geometry for mark in expected]),
        )
        <= 0.05
    )


@given(st.floats(0, 200_000))
@settings(max_examples=50, deadline=None)
def test_large_slides_keep_their_precision(tmp_path_factory, x):
    path = tmp_path_factory.mktemp("ann") / "a.dcm"
    write_dicom_annotations(path, [Annotation(geometry=shapely.Point(x, 200_000.123))], SLIDE)
    (mark,) = read_dicom_annotations(path).annotations
    assert abs(mark.geometry.x - x) <= 0.01
    assert abs(mark.geometry.y - 200_000.123) <= 0.01


def test_float32_is_taken_where_it_is_enough(tmp_path):
    for size, keyword in ((1000.0, "PointCoordinatesData"), (190_000.3203, "DoublePointCoordinatesData")):
        write_dicom_annotations(tmp_path / "a.dcm", [Annotation(geometry=shapely.Point(size, size))], SLIDE)
        (group,) = pydicom.dcmread(tmp_path / "a.dcm").AnnotationGroupSequence
        assert keyword in group


def test_what_other_programs_see(tmp_path):
    ring = shapely.box(10, 10, 60, 50).difference(shapely.box(20, 20, 30, 30))
    drawn = [
        Annotation(geometry=ring, label="Tumor", color=(200, 0, 0), score=0.75, kind=Kind.DETECTION,
                   measurements={"Area µm^2": 12.5, "odd": np.nan}),
        Annotation(geometry=shapely.box(0, 0, 5, 4), label="koilocyte"),
        Annotation(geometry=shapely.box(1, 1, 5, 4), label="koilocyte"),
    ]  # fmt: skip
    written = write_dicom_annotations(tmp_path / "a.dcm", drawn, SLIDE, algorithm="Segmenter 3")
    assert set(written.notes) == {
        "1 x hole cut in through a seam: DICOM annotations have none",
        "1 x measurement that is not a finite float32 left out",
    }
    whole = highdicom.ann.annread(tmp_path / "a.dcm")
    tumour, cells = whole.get_annotation_groups()
    assert (whole.Modality, whole.PixelOriginInterpretation) == ("ANN", "VOLUME")
    assert tumour.annotated_property_type == codes.SCT.Neoplasm
    assert tumour.annotated_property_category.value == "49755003"
    assert (tumour.AnnotationGroupGenerationType, cells.AnnotationGroupGenerationType) == (
        "AUTOMATIC",
        "MANUAL",
    )
    assert tumour.algorithm_identification.name == "Segmenter 3"
    names, values, units = tumour.get_measurements()
    assert [name.meaning for name in names] == ["Probability", "Area µm^2"]
    assert [unit.value for unit in units] == ["1", "um2"]
    assert values.tolist() == [[0.75, 12.5]]
    assert cells.annotated_property_type.scheme_designator == "99MALPIGHI"
    assert (cells.label, cells.number_of_annotations, cells.graphic_type.value) == (
        "koilocyte",
        2,
        "RECTANGLE",
    )
    assert "no such DICOM image exists" in whole.ContentDescription
    (first, _, _) = read_dicom_annotations(tmp_path / "a.dcm", SLIDE).annotations
    assert first.geometry.equals(ring)
    assert first.measurements == {"Area µm^2": 12.5}
    assert first.score == 0.75
    assert np.abs(np.subtract(first.color, (200, 0, 0))).max() <= 2


def test_an_ellipse_becomes_its_outline(tmp_path):
    write_dicom_annotations(tmp_path / "a.dcm", [Annotation(geometry=shapely.box(0, 0, 10, 10))], SLIDE)
    whole = pydicom.dcmread(tmp_path / "a.dcm")
    (group,) = whole.AnnotationGroupSequence
    group.GraphicType = "ELLIPSE"
    ends = np.array([(0, 50), (200, 50), (100, 0), (100, 100)], dtype=np.float32)
    group.PointCoordinatesData = ends.tobytes()
    whole.save_as(tmp_path / "b.dcm")
    found = read_dicom_annotations(tmp_path / "b.dcm")
    assert found.notes == ("1 x ellipse kept as its outline",)
    assert found.annotations[0].geometry.area == pytest.approx(np.pi * 100 * 50, rel=0.005)
    assert found.annotations[0].bounds.corners == pytest.approx((0, 0, 200, 100), abs=0.2)


def damage(path, **changes):
    """Change attributes of the first group of a file."""
    whole = pydicom.dcmread(path)
    for name, value in changes.items():
        setattr(whole.AnnotationGroupSequence[0], name, value)
    whole.save_as(path)


def test_one_bad_annotation_or_group_does_not_end_the_reading(tmp_path):
    path = tmp_path / "a.dcm"
    triangle = shapely.Polygon([(0, 0), (9, 0), (0, 9)])
    other = Annotation(geometry=shapely.Point(5, 6), label="b")
    drawn = [Annotation(geometry=triangle, label="a"), Annotation(geometry=triangle, label="a"), other]
    write_dicom_annotations(path, drawn, SLIDE)
    points = np.array([*triangle.exterior.coords[:3], (1, 1), (2, np.nan), (3, 4)], dtype=np.float32)
    damage(path, PointCoordinatesData=points.tobytes())
    found = read_dicom_annotations(path)
    assert [mark.label for mark in found.annotations] == ["a", "b"]
    assert [(failure.id, failure.reason) for failure in found.failures] == [
        ("a.dcm#group 1, annotation 2", "POLYGON: a coordinate is not finite")
    ]
    damage(path, NumberOfAnnotations=7)
    found = read_dicom_annotations(path)
    assert [mark.label for mark in found.annotations] == ["b"]
    assert "2 graphics; the group says 7" in found.failures[0].reason
    damage(path, PointCoordinatesData=b"abcd")
    assert len(read_dicom_annotations(path).failures) == 1


def test_another_slide_is_refused(tmp_path):
    write_dicom_annotations(tmp_path / "a.dcm", [Annotation(geometry=shapely.Point(1, 1))], SLIDE)
    other = Stub()
    other.path = Path("other.svs")
    with pytest.raises(DataError, match=r"no level of other\.svs"):
        read_dicom_annotations(tmp_path / "a.dcm", other)


def test_a_file_that_is_none_says_so(tmp_path, phantom):
    with pytest.raises(DataError, match="check the path"):
        read_dicom_annotations(tmp_path / "none.dcm")
    (tmp_path / "a.dcm").write_bytes(b"no DICOM")
    with pytest.raises(DataError, match=r"a\.dcm is no DICOM annotation object"):
        read_dicom_annotations(tmp_path / "a.dcm")
    with pytest.raises(DataError, match="no annotation to write"):
        write_dicom_annotations(tmp_path / "b.dcm", [], SLIDE)
    assert not (tmp_path / "b.dcm").exists()


def test_codes_are_those_of_the_dictionary():
    def values(collection):
        return {getattr(collection, name).value for name in collection.dir()}

    for name, found in dicom_codes.PROPERTIES.items():
        assert found.category.value in values(codes.cid7150), name
        assert found.type.value in values(codes.SCT), name


@AS_FOUND
@pytest.mark.realdata
@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real slides in {REAL}")
def test_a_real_dicom_slide_is_referred_to(tmp_path):
    with open_slide(REAL / "level-0-frames-0-30.dcm") as slide:
        mark = Annotation(geometry=shapely.box(100.25, 200, 300, 420), label="Nucleus")
        write_dicom_annotations(tmp_path / "a.dcm", [mark], slide)
        whole = highdicom.ann.annread(tmp_path / "a.dcm")
        header = pydicom.dcmread(REAL / "level-0-frames-0-30.dcm", stop_before_pixels=True)
        assert whole.ReferencedImageSequence[0].ReferencedSOPInstanceUID == header.SOPInstanceUID
        assert whole.StudyInstanceUID == header.StudyInstanceUID
        (back,) = read_dicom_annotations(tmp_path / "a.dcm", slide).annotations
        assert back.geometry.equals(mark.geometry)
        # The same numbers on the second level mean twice the distance on level 0.
        coarser = pydicom.dcmread(REAL / "level-1-frames-0-9.dcm", stop_before_pixels=True)
        whole.ReferencedImageSequence[0].ReferencedSOPInstanceUID = coarser.SOPInstanceUID
        whole.save_as(tmp_path / "b.dcm")
        (twice,) = read_dicom_annotations(tmp_path / "b.dcm", slide).annotations
        assert twice.bounds.corners == pytest.approx(np.multiply((100.25, 200, 300, 420), 2), abs=0.5)
