import numpy as np
import pytest

from malpighi.errors import DataError
from malpighi.pixels import decode_image

IMAGES, KINDS = "TNBC_and_Brain_dataset", "TNBC_and_Brain_dataset_celltype_integer"
V1 = "TNBC_NucleiSegmentation"
NAMES = ("01/01_1", "02/02_1", "12/12_1")
CODES = "code,name\n0,background\n1,lymphocytes\n2,cancerous cells\n3,mitoses\n"


def transparent(tree):
    """RGBA whose alpha channel is empty, as in the release."""
    return np.dstack([tree.noise(), np.zeros((30, 40), np.uint8)])


def holed(painted, value):
    labels = painted((40, 30), (value, 2, 2, 14, 14), (value, 20, 2, 30, 12))
    labels[6, 6] = 0
    labels[28, 38] = value
    return labels


def build(tree, painted, *, typed=True):
    def write(folder):
        root = folder / (IMAGES if typed else V1)
        for name in NAMES:
            slide, stem = name.split("/")
            tree.pixels(root / f"Slide_{slide}/{stem}.png", transparent(tree))
            tree.pixels(root / f"GT_{slide}/{stem}.png", holed(painted, 255))
            if typed:
                marks = holed(painted, 2)
                marks[16:28, 2:10] = 1
                tree.pixels(folder / KINDS / f"GT_{slide}/{stem}.png", marks)
        tree.pixels(root / "Slide_03/03_1.png", transparent(tree))
        tree.write(folder / f"__MACOSX/{IMAGES}/Slide_01/._01_1.png", b"mac")
        tree.write(root / "Slide_01/._01_1.png", b"mac")
        if typed:
            tree.pixels(root / "Slide_04/04_1.png", transparent(tree))
            tree.pixels(folder / KINDS / "GT_04/04_1.png", holed(painted, 6))
            tree.pixels(folder / KINDS / "GT_05/05_1.png", holed(painted, 1))
            tree.write(folder / "classes.csv", CODES)

    return write


def test_tnbc_follows_the_contract(contract, tree, painted, corners):
    exams = ("detection", "segmentation")
    samples = contract(
        "tnbc",
        build(tree, painted),
        {
            f"{name}:{exam}:{kind}": exam
            for name in NAMES
            for exam in exams
            for kind in ("lymphocytes", "cancerous_cells")
        }
        | {f"{name}:absent:mitoses": "absent" for name in NAMES},
        {"03/03_1": "GT_03", "04/04_1": "codes [6]", "05/05_1": "without an image"},
        [IMAGES, "classes.csv"],
    )
    assert samples["01/01_1:detection:lymphocytes"].group == "slide 01"
    assert corners(samples["01/01_1:detection:lymphocytes"]) == [(2, 16, 10, 28)]
    assert samples["01/01_1:detection:lymphocytes"].question == "Detect lymphocytes in pathology breast."
    assert samples["12/12_1:detection:lymphocytes"].question == "Detect lymphocytes in pathology brain."


def test_holes_are_filled_and_specks_left_out(items, tree, painted, tmp_path, corners, mask_of):
    build(tree, painted)(tmp_path)
    found, _ = items("tnbc", tmp_path)
    assert corners(found["01/01_1:detection:cancerous_cells"]) == [(2, 2, 14, 14), (20, 2, 30, 12)]
    assert mask_of(found["01/01_1:segmentation:cancerous_cells"])[6, 6] == 1


def test_an_empty_alpha_channel_does_not_bleach_the_image(items, tree, painted, tmp_path):
    build(tree, painted)(tmp_path)
    found, _ = items("tnbc", tmp_path)
    blob = found["01/01_1:detection:lymphocytes"].blobs[0]
    first = np.random.default_rng(1).integers(0, 256, (30, 40, 3), np.uint8)
    assert np.array_equal(np.asarray(decode_image(blob.data)), first)


def test_the_first_release_has_one_class(items, tree, painted, tmp_path):
    build(tree, painted, typed=False)(tmp_path)
    found, failures = items("tnbc", tmp_path)
    assert {name.split(":")[2] for name in found} == {"nuclei"}
    assert list(failures) == ["03/03_1"]


def test_codes_must_be_numbers(items, tree, painted, tmp_path):
    build(tree, painted)(tmp_path)
    tree.write(tmp_path / "classes.csv", "code,name\nx,lymphocytes\n")
    with pytest.raises(DataError, match=r"classes\.csv"):
        items("tnbc", tmp_path)


def test_a_slide_number_without_its_zero_is_breast_all_the_same(items, tree, painted, tmp_path):
    for slide in ("9", "12"):
        tree.pixels(tmp_path / V1 / f"Slide_{slide}/{slide}_1.png", transparent(tree))
        tree.pixels(tmp_path / V1 / f"GT_{slide}/{slide}_1.png", holed(painted, 255))
    found, _ = items("tnbc", tmp_path)
    asked = {name.split("/")[0]: item.sample.question for name, item in found.items() if "detection" in name}
    assert asked == {
        "9": "Detect nuclei in pathology breast.",
        "12": "Detect nuclei in pathology brain.",
    }
