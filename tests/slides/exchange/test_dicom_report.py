import numpy as np
import pytest
import shapely
from highdicom import sr

from malpighi.errors import DataError
from malpighi.slides.annotations import Annotation
from malpighi.slides.exchange.dicom_report import read_dicom_report, write_dicom_report
from malpighi.slides.opening import open_slide

RING = shapely.box(10, 10, 60, 50).difference(shapely.box(20, 20, 30, 30))
MARKS = [
    Annotation(geometry=RING, label="Tumor", score=0.5, measurements={"Perimeter µm": 90.0, "bad": np.nan}),
    Annotation(geometry=shapely.box(0, 0, 10, 10), label="koilocyte", score=0.25),
    Annotation(geometry=shapely.Point(3, 3), label="koilocyte"),
]


def test_regions_come_back_with_their_measurements(tmp_path, phantom):
    with open_slide(phantom[0]) as slide:
        written = write_dicom_report(tmp_path / "a.dcm", MARKS, slide)
        mpp = slide.mpp
    assert written.count == 2
    assert set(written.notes) == {
        "1 x annotation only counted, not shown by itself",
        "1 x measurement that is not finite left out",
        "1 x hole cut in through a seam",
    }
    found = read_dicom_report(tmp_path / "a.dcm")
    assert found.failures == ()
    tumour, cell = found.annotations
    assert tumour.geometry.equals(RING)
    assert (tumour.label, tumour.score) == ("Neoplasm", 0.5)
    assert tumour.measurements == {"Area": pytest.approx(1900 * mpp**2), "Perimeter µm": 90}
    assert (cell.label, cell.score) == ("koilocyte", 0.25)
    assert found.notes[1].startswith("koilocyte: Number of annotations 2, Area 25")


def test_what_other_programs_see(tmp_path, phantom):
    with open_slide(phantom[0]) as slide:
        write_dicom_report(tmp_path / "a.dcm", MARKS, slide, regions=1)
    whole = sr.srread(tmp_path / "a.dcm")
    assert whole.Modality == "SR"
    assert whole.content[0].name.value == "126000"
    (region,) = whole.content.get_planar_roi_measurement_groups()
    assert region.roi.PixelOriginInterpretation == "VOLUME"
    area = next(one for one in region.get_measurements() if one.name.value == "42798000")
    assert area.unit.value == "um2"
    assert len(whole.content.get_image_measurement_groups()) == 2


def test_without_a_scale_areas_are_in_pixels(tmp_path, phantom):
    with open_slide(phantom[0]) as slide:
        slide.facts = type(slide.facts)(reader="x", levels=slide.facts.levels)
        write_dicom_report(tmp_path / "a.dcm", MARKS, slide)
    assert read_dicom_report(tmp_path / "a.dcm").annotations[0].measurements["Area"] == 1900


def test_a_file_that_is_none_says_so(tmp_path, phantom):
    with pytest.raises(DataError, match="check the path"):
        read_dicom_report(tmp_path / "none.dcm")
    (tmp_path / "a.dcm").write_bytes(b"nothing")
    with pytest.raises(DataError, match="no DICOM measurement report"):
        read_dicom_report(tmp_path / "a.dcm")
    with open_slide(phantom[0]) as slide, pytest.raises(DataError, match="no annotation"):
        write_dicom_report(tmp_path / "a.dcm", [], slide)
