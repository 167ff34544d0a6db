from malpighi.records import Choice

TOP = "BreaKHis_v1/histology_slides/breast"
IMAGES = {
    "SOB_B_TA-14-13200-40-001": "benign/SOB/tubular_adenoma/SOB_B_A_14-22549AB/SOB_B_TA_14-13200/40X",
    "SOB_B_A-14-22549AB-100-002": "benign/SOB/adenosis/SOB_B_A_14-22549AB/100X",
    "SOB_B_A-14-22549CD-100-003": "benign/SOB/adenosis/SOB_B_A_14-22549CD/100X",
    "SOB_M_DC-14-13412-200-001": "malignant/SOB/ductal_carcinoma/SOB_M_DC_14-13412/200X",
    "SOB_M_LC-14-13412-400-011": "malignant/SOB/lobular_carcinoma/SOB_M_LC_14-13412/400X",
}


def test_the_layout_with_its_traps(contract, write):
    def build(folder):
        for name, place in IMAGES.items():
            write(folder, f"{TOP}/{place}/{name}.png")
        write(folder, f"{TOP}/benign/SOB/adenosis/x/40X/SOB_M_DC-14-1-40-001.png")
        write(folder, f"{TOP}/malignant/SOB/x/40X/overview.png")
        write(folder, "Folds.csv", "fold,mag,grp,filename\n1,40,train,x.png\n")

    samples = contract(
        "breakhis",
        build,
        dict.fromkeys(IMAGES, "class"),
        {
            "benign/SOB/adenosis/x/40X/SOB_M_DC-14-1-40-001": "lies in benign, but is named malignant",
            "malignant/SOB/x/40X/overview": "not named like",
        },
        needed=("BreaKHis_v1/histology_slides/breast",),
    )
    names = list(IMAGES)
    assert [samples[name].answer for name in names] == [Choice(0)] * 3 + [Choice(1)] * 2
    assert samples[names[1]].group == samples[names[2]].group == "14-22549", (
        "blocks of one case are one group"
    )
    assert samples[names[3]].group == samples[names[4]].group, (
        "the case filed under two carcinomas is one group"
    )


def test_a_class_that_is_missing_is_named(contract, write):
    contract(
        "breakhis",
        lambda folder: write(folder, "malignant/SOB/x/40X/SOB_M_PC-15-190EF-40-001.png"),
        {"SOB_M_PC-15-190EF-40-001": "class"},
        {"benign": "no folder"},
        needed=("malignant",),
    )
