import os
from pathlib import Path

import highdicom
import numpy as np
import pytest
import shapely

from malpighi.errors import DataError, MissingScaleError
from malpighi.slides.annotations import Annotation
from malpighi.slides.exchange.dicom_segmentation import (
    draw_masks,
    fitting_step,
    read_dicom_segmentation,
    write_dicom_segmentation,
)
from malpighi.slides.exchange.rasters import outline
from malpighi.slides.opening import open_slide

REAL = Path(os.environ.get("MALPIGHI_TEST_DATA", "../shared/data")) / "slides/cmu-1-small-region-dicom"
TUMOUR = shapely.box(100, 100, 1000, 900).difference(shapely.box(200, 200, 300, 300))
MARKS = [
    Annotation(geometry=TUMOUR, label="Tumor"),
    Annotation(geometry=shapely.box(800, 40, 1403, 1020), label="Stroma", score=0.5),
    Annotation(geometry=shapely.Point(1, 1), label="Mitosis"),
]


@pytest.mark.parametrize("step", [1, 4])
@pytest.mark.parametrize("kind", [bool, np.float32])
def test_masks_come_back_as_they_were(tmp_path, phantom, step, kind):
    with open_slide(phantom[0]) as slide:
        masks, notes = draw_masks(MARKS, slide.size, step)
        given = {
            label: mask.astype(kind) * (0.5 if kind is np.float32 else True) for label, mask in masks.items()
        }
        written = write_dicom_segmentation(tmp_path / "a.dcm", given, step, slide)
        found = read_dicom_segmentation(tmp_path / "a.dcm", slide)
        mpp = slide.mpp
    assert (written.count, written.notes) == (2, ())
    assert notes == (
        "1 x annotation without an area left out",
        "1 x score, measurements, id or name left out",
    )
    assert found.labels == ("Stroma", "Tumor")
    assert found.mpp == pytest.approx(mpp * step)
    assert found.view.region.width == pytest.approx(1536, abs=0.01)
    for label, mask in zip(found.labels, found.masks, strict=True):
        assert mask.dtype == kind
        np.testing.assert_allclose(mask.astype(float), given[label].astype(float), atol=1 / 255)
    if step == 4 and kind is bool:
        back = shapely.transform(outline(found.masks[1]), lambda points: points * 4)
        assert shapely.hausdorff_distance(back, TUMOUR) < 0.01


def test_what_other_programs_see(tmp_path, phantom):
    with open_slide(phantom[0]) as slide:
        masks, _ = draw_masks(MARKS, slide.size, 2)
        write_dicom_segmentation(tmp_path / "a.dcm", masks, 2, slide, algorithm="Otsu")
    whole = highdicom.seg.segread(tmp_path / "a.dcm")
    assert whole.is_tiled
    assert (whole.TotalPixelMatrixColumns, whole.TotalPixelMatrixRows) == (768, 512)
    assert (whole.Rows, whole.Columns) == (512, 512)
    tumour = whole.get_segment_description(2)
    assert tumour.segmented_property_type.meaning == "Neoplasm"
    assert tumour.algorithm_type.value == "AUTOMATIC"
    assert "no such DICOM image exists" in whole.ContentDescription


def test_the_grid_of_a_coarser_mask_keeps_the_corner_of_the_slide(tmp_path, phantom):
    corners = []
    with open_slide(phantom[0]) as slide:
        for step in (1, 8):
            masks, _ = draw_masks(MARKS, slide.size, step)
            write_dicom_segmentation(tmp_path / "a.dcm", masks, step, slide)
            whole = highdicom.seg.segread(tmp_path / "a.dcm")
            to_glass = highdicom.spatial.ImageToReferenceTransformer.for_image(
                whole, for_total_pixel_matrix=True
            )
            corners.append(to_glass(np.array([[0.0, 0.0]]))[0])
    np.testing.assert_allclose(corners[0], corners[1], atol=1e-6)  # mm


def test_wrong_masks_are_refused(tmp_path, phantom):
    with open_slide(phantom[0]) as slide:
        with pytest.raises(DataError, match=r"mask 'a' is \(3, 3\)"):
            write_dicom_segmentation(tmp_path / "a.dcm", {"a": np.ones((3, 3), dtype=bool)}, 1, slide)
        with pytest.raises(DataError, match="empty"):
            write_dicom_segmentation(tmp_path / "a.dcm", {}, 1, slide)
        masks, _ = draw_masks(MARKS, slide.size, 4)
        slide.facts = type(slide.facts)(reader="x", levels=slide.facts.levels)
        with pytest.raises(MissingScaleError):
            write_dicom_segmentation(tmp_path / "a.dcm", masks, 4, slide)
    with pytest.raises(DataError, match="check the path"):
        read_dicom_segmentation(tmp_path / "none.dcm")
    (tmp_path / "a.dcm").write_bytes(b"nothing")
    with pytest.raises(DataError, match="no tiled DICOM segmentation"):
        read_dicom_segmentation(tmp_path / "a.dcm")


def test_outlines_too_small_for_the_mask_are_noted():
    dot = Annotation(geometry=shapely.box(0.5, 0.5, 2, 2), label="dot")
    masks, notes = draw_masks([dot], (64, 64), 8)
    assert not masks["dot"].any()
    assert notes == ("1 x outline smaller than a px of the mask (step 8)",)
    assert [fitting_step((side, side)) for side in (100, 4000, 4001, 200_000)] == [1, 1, 2, 64]


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
@pytest.mark.realdata
@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real slides in {REAL}")
def test_a_real_dicom_slide_is_referred_to(tmp_path):
    with open_slide(REAL / "level-0-frames-0-30.dcm", mpp=0.499) as slide:
        masks, _ = draw_masks(MARKS, slide.size, 4)
        written = write_dicom_segmentation(tmp_path / "a.dcm", masks, 4, slide)
        found = read_dicom_segmentation(tmp_path / "a.dcm", slide)
    assert written.notes == ("1 x place of the image on the glass not stated: its corner is taken",)
    np.testing.assert_array_equal(found.masks[1], masks["Tumor"])
