import numpy as np
import pytest
from PIL import Image

from malpighi.datasets.catalogue import adapter_named
from malpighi.datasets.objects.digestpath import MIN_LESION, case_of
from malpighi.datasets.windows import Window, cut
from malpighi.records import Boxes

CELLS = "Signet_ring_cell_dataset"
TISSUE = "Colonoscopy_tissue_segment_dataset"
POSITIVE = [f"2018_6498{i}_1-3_2019-02-25 21_57_36-lv0-33516-59515-2003-201{i}" for i in range(4)]
NEGATIVE = "D20180585301_2019-05-21 10_30_14-lv0-1-2-3-4"


def voc(*boxes, kind="ring_cell_cancer"):
    things = "".join(
        f"<object><name>{kind}</name><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax>"
        f"<ymax>{y1}</ymax></bndbox></object>"
        for x0, y0, x1, y1 in boxes
    )
    return f"<annotation>{things}</annotation>"


def build_cells(tree):
    def write(folder):
        place = folder / CELLS / "sig-train-pos"
        notes = [voc((2, 3, 12, 13)), voc((0, 0, 9, 9), (30, 20, 45, 35), (5, 5, 5, 9)), voc(), None]
        for stem, text in zip(POSITIVE, notes, strict=True):
            tree.image(place / f"{stem}.jpeg")
            if text is not None:
                tree.write(place / f"{stem}.xml", text)
        tree.image(place / "torn.jpeg")
        tree.write(place / "torn.xml", "<annotation><object>")
        tree.image(place / "alien.jpeg")
        tree.write(place / "alien.xml", voc((1, 1, 9, 9), kind="other"))
        tree.write(place / f"._{POSITIVE[0]}.jpeg", b"mac")
        tree.image(folder / CELLS / f"sig-train-neg/{NEGATIVE}.jpeg")

    return write


def test_cells_follow_the_contract(contract, tree, corners):
    exams = ("detection", "segmentation-of-boxes")
    samples = contract(
        "digestpath_cell",
        build_cells(tree),
        {f"{stem}:{exam}:signet_ring_cells": exam for stem in POSITIVE[:2] for exam in exams}
        | {f"{NEGATIVE}:absent:signet_ring_cells": "absent"},
        {
            f"{POSITIVE[1]}#3": "holds nothing",
            POSITIVE[2]: "no usable box",
            POSITIVE[3]: "XML",
            "torn": "readable XML",
            "alien#1": "ring_cell_cancer",
            "alien": "no usable box",
        },
        [f"{CELLS}/sig-train-pos", f"{CELLS}/sig-train-neg"],
    )
    assert corners(samples[f"{POSITIVE[0]}:detection:signet_ring_cells"]) == [(2, 3, 12, 13)]
    assert corners(samples[f"{POSITIVE[1]}:detection:signet_ring_cells"]) == [(0, 0, 9, 9), (30, 20, 40, 30)]
    assert samples[f"{POSITIVE[0]}:detection:signet_ring_cells"].group == "2018_64980"


def test_a_mask_of_boxes_is_filled_boxes_and_says_so(items, tree, tmp_path, mask_of):
    build_cells(tree)(tmp_path)
    item = items("digestpath_cell", tmp_path)[0][f"{POSITIVE[0]}:segmentation-of-boxes:signet_ring_cells"]
    mask = np.zeros((30, 40), bool)
    mask[3:13, 2:12] = True
    assert np.array_equal(mask_of(item) > 0, mask)
    assert item.sample.exam == "digestpath_cell/segmentation-of-boxes"


def test_windows_of_partly_marked_images_are_no_negatives(items, tree, tmp_path):
    build_cells(tree)(tmp_path)
    found, _ = items("digestpath_cell", tmp_path)
    window = Window(15, 15, 15)
    positive = list(cut(found[f"{POSITIVE[0]}:detection:signet_ring_cells"], window))
    assert [piece.sample.exam for piece in positive] == ["digestpath_cell/detection"]
    negative = list(cut(found[f"{NEGATIVE}:absent:signet_ring_cells"], window))
    assert len(negative) == 6
    assert {piece.sample.exam for piece in negative} == {"digestpath_cell/absent"}


@pytest.mark.parametrize(
    ("name", "case"),
    [(POSITIVE[1], "2018_64981"), (NEGATIVE, "D20180585301"), ("", "")],
)
def test_case_of(name, case):
    assert case_of(name) == case


def lesion(painted, *rectangles):
    grey = painted((120, 100), *rectangles)
    return np.clip(grey.astype(int) + np.random.default_rng(0).integers(-40, 40, grey.shape), 0, 255)


def build_tissue(tree, painted):
    def write(folder):
        place = folder / TISSUE / "tissue-train-pos-v1"
        for stem in POSITIVE:
            tree.image(place / f"{stem}.jpg", (120, 100))
        marks = lesion(painted, (255, 8, 8, 56, 48), (255, 80, 60, 88, 68))
        for stem in POSITIVE[:2]:
            tree.pixels(place / f"{stem}_mask.jpg", marks.astype(np.uint8), quality=95)
        tree.pixels(place / f"{POSITIVE[2]}_mask.jpg", Image.new("L", (120, 100), 0))
        tree.image(folder / TISSUE / f"tissue-train-neg/{NEGATIVE}.jpg", (120, 100))

    return write


def test_tissue_follows_the_contract(contract, tree, painted, corners):
    exams = ("detection", "segmentation")
    samples = contract(
        "digestpath_tissue",
        build_tissue(tree, painted),
        {f"{stem}:{exam}:malignant_lesions": exam for stem in POSITIVE[:2] for exam in exams}
        | {f"{NEGATIVE}:absent:malignant_lesions": "absent"},
        {POSITIVE[2]: "marks nothing", POSITIVE[3]: "_mask"},
        [f"{TISSUE}/tissue-train-pos-v1", f"{TISSUE}/tissue-train-neg"],
    )
    ((x0, y0, x1, y1),) = corners(samples[f"{POSITIVE[0]}:detection:malignant_lesions"])
    assert max(abs(x0 - 8), abs(y0 - 8), abs(x1 - 56), abs(y1 - 48)) <= 1


def test_lossy_masks_are_thresholded_and_specks_are_noise(items, tree, painted, tmp_path, mask_of):
    build_tissue(tree, painted)(tmp_path)
    found, _ = items("digestpath_tissue", tmp_path)
    mask = mask_of(found[f"{POSITIVE[0]}:segmentation:malignant_lesions"])
    assert set(np.unique(mask)) == {0, 1}
    assert abs(int(mask.sum()) - 48 * 40) < 60
    assert MIN_LESION > 64
    assert not mask[56:72, 76:92].any()


def test_a_window_that_a_lesion_fills_is_a_target(items, tree, painted, tmp_path, corners):
    build_tissue(tree, painted)(tmp_path)
    found, _ = items("digestpath_tissue", tmp_path)
    pieces = list(cut(found[f"{POSITIVE[0]}:detection:malignant_lesions"], Window(20, 20, 20)))
    inside = next(piece for piece in pieces if piece.sample.id.endswith("@20,20"))
    assert corners(inside) == [(0, 0, 20, 20)]
    assert adapter_named("digestpath_tissue").window == 1024
    assert all(p.sample.answer == Boxes(()) for p in pieces if p.sample.exam.endswith("absent"))
