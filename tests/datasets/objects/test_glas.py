import pytest

from malpighi.errors import DataError
from malpighi.records import Split

ROOT = "Warwick QU Dataset (Released 2016_07_08)"
GRADES = "name, patient ID, grade (GlaS), grade (Sirinukunwattana et al. 2015)\n"


def build(tree, painted, root=ROOT):
    def write(folder):
        place = folder / root if root else folder
        rows = GRADES
        for stem, patient in (("train_1", 4), ("testA_1", 4), ("testA_2", 5), ("testB_1", 6)):
            tree.image(place / f"{stem}.bmp", (52, 40))
            tree.pixels(place / f"{stem}_anno.bmp", painted((52, 40), (1, 0, 0, 9, 9), (2, 9, 0, 20, 9)))
            rows += f"{stem}, {patient}, benign, healthy\n"
        tree.image(place / "testA_3.bmp")
        tree.image(place / "odd.bmp")
        tree.pixels(place / "odd_anno.bmp", painted((40, 30)))
        tree.write(place / "._train_1.bmp", b"mac")
        tree.write(place / "Grade.csv", rows + "testB_9, 6, benign, healthy\n")

    return write


def test_glas_follows_the_contract(contract, tree, painted):
    stems = ("train_1", "testA_1", "testA_2", "testB_1")
    samples = contract(
        "glas",
        build(tree, painted),
        {f"{stem}:{exam}:glands": exam for stem in stems for exam in ("detection", "segmentation")},
        {"testA_3": "testA_3_anno", "odd": "testA_1", "testB_9": "no such image"},
        [f"{ROOT}/Grade.csv"],
    )
    splits = {name.split(":")[0]: sample.split for name, sample in samples.items()}
    assert splits == {
        "train_1": Split.TRAIN,
        "testA_1": Split.TEST,
        "testA_2": Split.TEST,
        "testB_1": Split.TEST,
    }


def test_annotations_are_no_images_and_patients_cluster_within_a_list(
    items, tree, painted, tmp_path, corners
):
    build(tree, painted, root="Warwick_QU_Dataset")(tmp_path)
    found, _ = items("glas", tmp_path)
    assert not any("anno" in name for name in found)
    assert corners(found["train_1:detection:glands"]) == [(0, 0, 9, 9), (9, 0, 20, 9)]
    assert found["train_1:detection:glands"].sample.group == "train: patient 4"
    assert found["testA_1:detection:glands"].sample.group == "test: patient 4"


def test_headers_begin_with_spaces_and_a_missing_one_is_named(items, tree, painted, tmp_path):
    build(tree, painted)(tmp_path)
    tree.write(tmp_path / ROOT / "Grade.csv", "name, case, grade\ntrain_1, 4, benign\n")
    with pytest.raises(DataError, match="patient ID"):
        items("glas", tmp_path)
