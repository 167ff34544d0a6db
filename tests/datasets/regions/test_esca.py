from malpighi.datasets.regions.esca import CENTRES, CLASSES
from malpighi.records import Choice, Split

MISSING = ("VALSET4_CHA_FULL/ULCUS", "VALSET2_WNS/REGR_TU")


def test_the_layout_with_its_traps(contract, write):
    parts = [f"{centre}/{label}" for centre in CENTRES for label in CLASSES]
    names = [f"{part}/{part.rpartition('/')[2].lower()}.0" for part in parts if part not in MISSING]

    def build(folder):
        for name in names:
            write(folder, f"{name}.jpg")
        write(folder, "VALSET2_WNS/SH_MAG/._sh_mag.0.jpg", text="no image")
        write(folder, "VALSET1_UKK/BACK/back.0.jpg")

    samples = contract(
        "esca",
        build,
        dict.fromkeys(names, "class"),
        {**dict.fromkeys(MISSING, "no folder"), "VALSET1_UKK/BACK/back.0": "expected one of ADVENT"},
    )
    assert {name.partition("/")[0]: sample.split for name, sample in samples.items()} == {
        "VALSET1_UKK": Split.TEST,
        "VALSET2_WNS": Split.TEST,
        "VALSET3_TCGA": Split.TEST,
        "VALSET4_CHA_FULL": Split.TRAIN,
    }
    assert samples["VALSET3_TCGA/TUMOR/tumor.0"].answer == Choice(list(CLASSES).index("TUMOR"))
    assert samples["VALSET3_TCGA/SUB_GL/sub_gl.0"].options[7] == "Submucosal glands"


def test_a_centre_that_is_missing_is_named_and_the_others_are_read(contract, write):
    def build(folder):
        for label in CLASSES:
            write(folder, f"VALSET3_TCGA/{label}/{label.lower()}.1.jpg")

    contract(
        "esca",
        build,
        {f"VALSET3_TCGA/{label}/{label.lower()}.1": "class" for label in CLASSES},
        dict.fromkeys(("VALSET1_UKK", "VALSET2_WNS", "VALSET4_CHA_FULL"), "no folder"),
        needed=("VALSET3_TCGA",),
    )
