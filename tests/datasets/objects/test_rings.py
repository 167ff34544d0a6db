import numpy as np

from malpighi.records import Split

ROOT = "RINGS algorithm dataset"


def coloured(labels):
    return np.repeat((labels > 0)[..., None] * np.uint8([255, 0, 0]), 1, axis=2)


def build(tree, painted):
    def write(folder):
        for part, stem in (("TRAIN", "P3_A8_12_16_1"), ("TRAIN", "P4_A8_12_16_1"), ("TEST", "P3_B1_1_1_2")):
            place = folder / ROOT / part
            tree.image(place / f"IMAGES/{stem}.png")
            tree.pixels(place / f"MANUAL GLANDS/{stem}.png", coloured(painted((40, 30), (1, 1, 1, 11, 11))))
            if not stem.startswith("P4"):
                marks = painted((40, 30), (1, 20, 10, 40, 30)) if part == "TRAIN" else painted((40, 30))
                tree.pixels(place / f"MANUAL TUMOR/{stem}.png", coloured(marks))
        tree.write(folder / ROOT / "TRAIN/IMAGES/._P3_A8_12_16_1.png", b"mac")
        tree.write(folder / ROOT / "TRAIN/.DS_Store", b"mac")
        tree.pixels(folder / ROOT / "TEST/MANUAL TUMOR/P9_A.png", coloured(painted((40, 30))))

    return write


SAMPLES = {
    f"{name}:{exam}:{kind}": exam
    for name, kind, exams in (
        ("TRAIN/P3_A8_12_16_1", "healthy_glands", ("detection", "segmentation")),
        ("TRAIN/P3_A8_12_16_1", "tumor", ("detection", "segmentation")),
        ("TRAIN/P4_A8_12_16_1", "healthy_glands", ("detection", "segmentation")),
        ("TEST/P3_B1_1_1_2", "healthy_glands", ("detection", "segmentation")),
        ("TEST/P3_B1_1_1_2", "tumor", ("absent",)),
    )
    for exam in exams
}


def test_rings_follows_the_contract(contract, tree, painted, corners):
    samples = contract(
        "rings",
        build(tree, painted),
        SAMPLES,
        {"TRAIN/P4_A8_12_16_1:tumor": "MANUAL TUMOR", "TEST/P9_A": "without an image"},
        [f"{ROOT}/{part}/{kind}" for part in ("TRAIN", "TEST") for kind in ("IMAGES", "MANUAL GLANDS")],
    )
    gland = samples["TRAIN/P3_A8_12_16_1:detection:healthy_glands"]
    assert corners(gland) == [(1, 1, 11, 11)]
    assert gland.split == Split.TRAIN
    assert gland.group == "TRAIN: P3"
    assert corners(samples["TRAIN/P3_A8_12_16_1:detection:tumor"]) == [(20, 10, 40, 30)]
    assert samples["TEST/P3_B1_1_1_2:absent:tumor"].split == Split.TEST
