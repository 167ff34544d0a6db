import numpy as np

from malpighi.datasets.catalogue import adapter_named
from malpighi.datasets.objects.bcss import _CLASSES
from malpighi.datasets.windows import Window, cut
from malpighi.records import Boxes, Split

ROOT = "0_Public-data-Amgad2019_0.25MPP"
STEMS = {
    "train": "TCGA-A2-A0CM-DX1_xmin18562_ymin56852_MPP-0.2500",
    "validation": "TCGA-BH-A0BG-DX1_xmin1_ymin2_MPP-0.2500",
    "test": "TCGA-OL-A66P-DX1_xmin1_ymin2_MPP-0.2500",
}
SIZE = (60, 50)


def build(tree, painted):
    def write(folder):
        for stem in STEMS.values():
            tree.image(folder / ROOT / f"rgbs_colorNormalized/{stem}.png", SIZE)
            marks = painted(
                SIZE,
                (1, 0, 0, 30, 30),
                (7, 30, 0, 60, 20),
                (2, 0, 30, 60, 50),
                (15, 40, 22, 50, 30),
                (21, 50, 22, 60, 30),
                (9, 31, 22, 34, 25),
            )
            tree.pixels(folder / ROOT / f"masks/{stem}.png", marks)
        for stem, marks in (
            ("TCGA-A1-A0SK-DX1_a", painted(SIZE, (22, 0, 0, 5, 5))),
            ("nameless", painted(SIZE)),
        ):
            tree.image(folder / ROOT / f"rgbs_colorNormalized/{stem}.png", SIZE)
            tree.pixels(folder / ROOT / f"masks/{stem}.png", marks)
        tree.write(folder / ROOT / "meta/gtruth_codes.tsv", "label\tGT_code\n")

    return write


def expected():
    for stem in STEMS.values():
        for code, name in _CLASSES.items():
            key = name.lower().replace(" ", "_")
            if code in (1, 2):
                yield f"{stem}:detection:{key}", "detection"
                yield f"{stem}:segmentation:{key}", "segmentation"
            elif code != 9:
                yield f"{stem}:absent:{key}", "absent"


def test_bcss_follows_the_contract(contract, tree, painted):
    samples = contract(
        "bcss",
        build(tree, painted),
        dict(expected()),
        {"TCGA-A1-A0SK-DX1_a": "code 22", "nameless": "TCGA-XX-XXXX"},
        [f"{ROOT}/rgbs_colorNormalized", f"{ROOT}/masks"],
    )
    for split, stem in STEMS.items():
        assert samples[f"{stem}:detection:tumor"].split == Split(split)
        assert samples[f"{stem}:detection:tumor"].group == stem[:12]


def test_unseen_pixels_and_rare_codes_are_never_asked_for(items, tree, painted, tmp_path):
    assert len(_CLASSES) == 16
    assert not {0, 7, 15, 16, 17, 21} & set(_CLASSES)
    build(tree, painted)(tmp_path)
    found, _ = items("bcss", tmp_path)
    assert not any(name.endswith(("undetermined", "outside_roi", "exclude", "other")) for name in found)


def test_specks_are_neither_there_nor_absent(items, tree, painted, tmp_path):
    build(tree, painted)(tmp_path)
    found, _ = items("bcss", tmp_path)
    assert not any(name.endswith(":fat") for name in found)


def test_the_other_name_of_the_images_folder(items, tree, painted, tmp_path):
    build(tree, painted)(tmp_path)
    (tmp_path / ROOT / "rgbs_colorNormalized").rename(tmp_path / ROOT / "images")
    assert items("bcss", tmp_path)[0]


def test_windows_hold_tissue_that_is_larger_than_they_are(items, tree, painted, tmp_path, corners):
    """Stroma of 60 x 20 px: a window of 20 x 20 px shows a third of its box, and is full of it."""
    build(tree, painted)(tmp_path)
    found, _ = items("bcss", tmp_path)
    window = Window(20, 20, 20, keep_empty=False)
    for exam in ("detection", "segmentation"):
        pieces = list(cut(found[f"{STEMS['test']}:{exam}:stroma"], window))
        assert [corners(piece) for piece in pieces[-3:]] == [[(0, 0, 20, 20)]] * 3
        assert {piece.sample.exam for piece in pieces} == {f"bcss/{exam}"}


def test_windows_without_tissue_are_asked_in_an_exam_of_their_own(items, tree, painted, tmp_path):
    build(tree, painted)(tmp_path)
    found, _ = items("bcss", tmp_path)
    pieces = list(cut(found[f"{STEMS['test']}:detection:tumor"], Window(20, 20, 20)))
    absent = [piece.sample for piece in pieces if piece.sample.exam == "bcss/absent"]
    assert absent
    assert all(sample.answer == Boxes(()) for sample in absent)
    assert all(":absent:tumor@" in sample.id for sample in absent)
    assert len({piece.sample.id for piece in pieces}) == len(pieces)
    segmentation = cut(found[f"{STEMS['test']}:segmentation:tumor"], Window(20, 20, 20))
    assert all(piece.sample.answer.boxes for piece in segmentation)
    never = cut(found[f"{STEMS['test']}:absent:blood"], Window(20, 20, 20))
    assert len({piece.sample.id for piece in never}) == len(pieces) == 9
    assert adapter_named("bcss").window == 1024
    assert np.prod(SIZE) == 3000
