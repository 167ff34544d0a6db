from malpighi.datasets.catalogue import adapter_named
from malpighi.records import Split


def build(tree, painted):
    def write(folder):
        for part, stem in (
            ("train", "train_1"),
            ("train", "train_2"),
            ("valid", "test_1"),
            ("valid", "test_2"),
        ):
            tree.image(folder / f"CRAG/{part}/Images/{stem}.png")
            marks = painted((40, 30), (1, 0, 0, 10, 10), (7, 10, 0, 20, 10))
            if stem == "test_2":
                marks = painted((40, 30))
            tree.pixels(folder / f"CRAG/{part}/Annotation/{stem}.png", marks)
            tree.image(folder / f"CRAG/{part}/Overlay/{stem}.png")
        tree.write(folder / "CRAG/train/Images/._train_1.png", b"mac")
        tree.image(folder / "CRAG/train/Images/train_9.png")
        tree.image(folder / "CRAG/valid/Images/test_3.png")
        tree.pixels(folder / "CRAG/valid/Annotation/test_3.png", painted((41, 30), (1, 0, 0, 5, 5)))
        tree.pixels(folder / "CRAG/valid/Annotation/test_4.png", painted((40, 30)))

    return write


def test_crag_follows_the_contract(contract, tree, painted, corners):
    stems = ("train_1", "train_2", "test_1")
    samples = contract(
        "crag",
        build(tree, painted),
        {f"{stem}:{exam}:glands": exam for stem in stems for exam in ("detection", "segmentation")}
        | {"test_2:absent:glands": "absent"},
        {"train_9": "no train_9", "test_3": "41 x 30", "test_4": "no image"},
        [f"CRAG/{part}/{kind}" for part in ("train", "valid") for kind in ("Images", "Annotation")],
    )
    assert samples["train_1:detection:glands"].split == Split.TRAIN
    assert samples["test_1:detection:glands"].split == Split.TEST
    assert samples["test_2:absent:glands"].answer.boxes == ()


def test_glands_that_touch_stay_apart(items, tree, painted, tmp_path, corners, mask_of):
    build(tree, painted)(tmp_path)
    found, _ = items("crag", tmp_path)
    boxes = [(0, 0, 10, 10), (10, 0, 20, 10)]
    assert corners(found["train_1:detection:glands"]) == boxes
    assert corners(found["train_1:segmentation:glands"]) == boxes
    mask = mask_of(found["train_1:segmentation:glands"])
    assert (mask > 0).sum() == 200
    assert adapter_named("crag").window == 1024
