from malpighi.records import Choice

FLAT = "Brown Multicellular ThinPrep Database - images"


def test_the_flat_layout_with_its_traps(contract, write):
    def build(folder):
        for name in ("HSIL_1 (1).JPG", "LSIL_1 (1).JPG", "NIL_1 (1).JPG", "NILM_2 (1).jpg", "smear.JPG"):
            write(folder, f"{FLAT}/{name}")
        write(folder, f"{FLAT}/SYNAPSE_METADATA_MANIFEST.tsv", "path\tname\n")

    samples = contract(
        "bmt",
        build,
        {f"{FLAT}/{name} (1)": "class" for name in ("HSIL_1", "LSIL_1", "NIL_1", "NILM_2")},
        {f"{FLAT}/smear": "expected one of HSIL"},
    )
    answers = {name.removeprefix(f"{FLAT}/")[:4]: sample.answer for name, sample in samples.items()}
    assert answers == {"HSIL": Choice(2), "LSIL": Choice(1), "NIL_": Choice(0), "NILM": Choice(0)}
    assert samples[f"{FLAT}/NIL_1 (1)"].options == ("NILM", "LSIL", "HSIL")


def test_folders_per_class_without_the_annotated_copies(contract, write):
    def build(folder):
        for name in ("HSIL/1.JPG", "LSIL/1.JPG", "NILM/1.JPG", "NILM/HSIL_9.JPG"):
            write(folder, name)
        write(folder, "HSIL/Annotated images/1.JPG")

    samples = contract(
        "bmt",
        build,
        dict.fromkeys(("HSIL/1", "LSIL/1", "NILM/1"), "class"),
        {"NILM/HSIL_9": "lies in a folder of NILM, but is named HSIL"},
    )
    assert [sample.answer for sample in samples.values()] == [Choice(2), Choice(1), Choice(0)]
