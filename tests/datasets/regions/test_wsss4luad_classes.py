from malpighi.records import Choice

PATCHES = "WSSS4LUAD/1.training"


def test_the_layout_with_its_traps(contract, write):
    def build(folder):
        for name in (
            "1031280-2300-27920-[1, 0, 0]",
            "1031280-2500-27920-[0, 1, 0]",
            "437152-1000-200-[0, 0, 1]",
            "437152-1200-200-[1, 1, 0]",
            "437152-1400-200-[0, 0, 0]",
            "437152-1600-200",
            "437152-1800-200-[1, 0]",
        ):
            write(folder, f"{PATCHES}/{name}.png")
        write(folder, "WSSS4LUAD/2.validation/img/00.png")
        write(folder, "WSSS4LUAD/3.testing/img/00.png")

    samples = contract(
        "wsss4luad_patches",
        build,
        dict.fromkeys(("1031280-2300-27920", "1031280-2500-27920", "437152-1000-200"), "class"),
        {
            "437152-1400-200-[0, 0, 0]": "marks no tissue",
            "437152-1600-200": "not named like",
            "437152-1800-200-[1, 0]": "not named like",
        },
        needed=(PATCHES,),
    )
    assert [sample.answer for sample in samples.values()] == [Choice(0), Choice(1), Choice(2)]
    assert samples["437152-1000-200"].options[2] == "Normal tissue"
    assert samples["1031280-2300-27920"].group == samples["1031280-2500-27920"].group == "1031280"
