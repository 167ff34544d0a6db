from malpighi.datasets.regions.bracs_roi import CLASSES
from malpighi.records import Choice, Split

TOP = "BRACS_RoI/latest_version"
IMAGES = {
    "train/0_N/BRACS_280_N_2": 0,
    "train/5_DCIS/BRACS_1003_DCIS_7": 5,
    "val/3_FEA/BRACS_291_FEA_1": 3,
    "test/6_IC/BRACS_301_IC_10": 6,
}


def test_the_layout_with_its_traps(contract, write):
    def build(folder):
        for name in IMAGES:
            write(folder, f"{TOP}/{name}.png")
        write(folder, f"{TOP}/train/1_PB/BRACS_280_UDH_3.png")
        write(folder, f"{TOP}/train/1_PB/region.png")
        write(folder, f"{TOP}/val/7_X/BRACS_280_X_3.png")
        write(folder, "BRACS_RoI/previous_version/train/0_N/BRACS_280_N_2.png")

    there = {name.rpartition("/")[0] for name in IMAGES} | {"train/1_PB"}
    absent = {f"{split}/{label}" for split in ("train", "val", "test") for label in CLASSES} - there
    samples = contract(
        "bracs_roi",
        build,
        dict.fromkeys(IMAGES, "class"),
        {
            **dict.fromkeys(absent, "no folder"),
            "train/1_PB/BRACS_280_UDH_3": "lies in 1_PB, but is named UDH",
            "train/1_PB/region": "not named like",
            "val/7_X/BRACS_280_X_3": "expected one of 0_N",
        },
        needed=(TOP,),
    )
    assert {name: sample.answer for name, sample in samples.items()} == {
        n: Choice(i) for n, i in IMAGES.items()
    }
    assert samples["train/0_N/BRACS_280_N_2"].group == "BRACS_280"
    assert {name: sample.split for name, sample in samples.items()} == {
        "train/0_N/BRACS_280_N_2": Split.TRAIN,
        "train/5_DCIS/BRACS_1003_DCIS_7": Split.TRAIN,
        "val/3_FEA/BRACS_291_FEA_1": Split.VALIDATION,
        "test/6_IC/BRACS_301_IC_10": Split.TEST,
    }
