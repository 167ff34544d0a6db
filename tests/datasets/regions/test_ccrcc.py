from malpighi.records import Split

TOP = "tissue_classification"
KIRC = "TCGA-B0-5075-01Z-00-DX1_10_20"
OTHER = "TCGA-CJ-4634-01Z-00-DX1_10_20"


def test_the_layout_with_its_traps(contract, write):
    def build(folder):
        for label, name in (
            ("cancer", KIRC),
            ("normal", KIRC),
            ("stroma", OTHER),
            ("cancer", "hel_001_3_4"),
            ("normal", "hel_002_3_4"),
        ):
            write(folder, f"{TOP}/{label}/{name}.png")
        for name in ("empty/hel_9.png", "other/hel_9.png", "lymphocytes/hel_8.png"):
            write(folder, f"{TOP}/{name}")
        write(folder, f"{TOP}/cancer/._hel_001_3_4.png", text="no image")
        write(folder, f"{TOP}/normal/cut.png", text="no image")

    samples = contract(
        "ccrcc",
        build,
        {
            f"cancer/{KIRC}": "class",
            f"normal/{KIRC}": "class",
            f"stroma/{OTHER}": "class",
            "cancer/hel_001_3_4": "class",
            "normal/hel_002_3_4": "class",
        },
        {
            "blood": "no folder",
            "lymphocytes/hel_8": "expected one of cancer",
            "normal/cut": "image",
        },
        needed=(TOP,),
    )
    assert samples["cancer/hel_001_3_4"].split == samples["normal/hel_002_3_4"].split == Split.TEST
    assert samples[f"cancer/{KIRC}"].group == samples[f"normal/{KIRC}"].group == "TCGA-B0-5075"
    assert samples["cancer/hel_001_3_4"].group == "cancer/hel_001_3_4"
    stroma = samples[f"stroma/{OTHER}"]
    assert stroma.options[stroma.answer.index].startswith("Stromal")
    assert stroma.options[0] == "Renal cancer"
    assert len(stroma.options) == 4
