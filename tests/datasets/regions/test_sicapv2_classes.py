import pytest

from malpighi.datasets.catalogue import adapter_named
from malpighi.errors import DataError
from malpighi.records import Choice, Split

HEADER = ["image_name", "NC", "G3", "G4", "G5", "G4C"]


def image(slide, x):
    return f"{slide}_Block_Region_1_0_{x}_xini_6803_yini_59786"


TRAIN = {
    image("16B0001851", 0): [1, 0, 0, 0, 0],
    image("16B0001851", 1): [0, 1, 0, 0, 0],
    image("17B0022786", 0): [0, 0, 1, 0, 1],
}
TEST = {image("18B0006169", 0): [0, 0, 0, 1, 0]}
BAD = {
    image("18B0006169", 1): ([0, 0, 1, 1, 0], "2 grades"),
    image("18B0006169", 2): ([0, 0, 0, 0, 0], "0 grades"),
    image("18B0006169", 3): ([1, 0, 0, 0, 0], "not there"),
}


def build_with(write, write_sheet):
    def build(folder):
        root = folder / "SICAPv2"
        for name in [*TRAIN, *TEST, *list(BAD)[:2], image("99B0000001", 0)]:
            write(root, f"images/{name}.jpg")
        write(root, f"masks/{image('16B0001851', 0)}.jpg", mode="L")
        rows = [*TEST.items(), *((name, marks) for name, (marks, _) in BAD.items())]
        for part, entries in (
            ("Test/Train", TRAIN.items()),
            ("Test/Test", rows),
            ("Validation/Val1/Test", rows),
        ):
            table = [[f"{name}.jpg", *marks] for name, marks in entries]
            write_sheet(root / f"partition/{part}.xlsx", [HEADER, *table])

    return build


def test_the_layout_with_its_traps(contract, write, write_sheet):
    samples = contract(
        "sicapv2_patches",
        build_with(write, write_sheet),
        dict.fromkeys([*TRAIN, *TEST], "class"),
        {name: word for name, (_, word) in BAD.items()},
        needed=(
            "SICAPv2/images",
            "SICAPv2/partition/Test/Train.xlsx",
            "SICAPv2/partition/Test/Test.xlsx",
        ),
    )
    assert [sample.answer for sample in samples.values()] == [Choice(0), Choice(1), Choice(2), Choice(3)]
    assert [sample.split for sample in samples.values()] == [Split.TRAIN] * 3 + [Split.TEST]
    assert samples[image("16B0001851", 0)].group == samples[image("16B0001851", 1)].group == "16B0001851"


def test_a_column_that_is_missing_is_named(tmp_path, write, write_sheet):
    build_with(write, write_sheet)(tmp_path)
    table = [["image_name", "NC", "G3", "G4"], ["x.jpg", 1, 0, 0]]
    write_sheet(tmp_path / "SICAPv2/partition/Test/Train.xlsx", table)
    with pytest.raises(DataError, match=r"Train\.xlsx: no column G5"):
        list(adapter_named("sicapv2_patches").read(tmp_path))


def test_patches_are_grouped_by_patient_where_the_table_names_it(tmp_path, write, write_sheet):
    build_with(write, write_sheet)(tmp_path)
    write_sheet(
        tmp_path / "SICAPv2/wsi_labels.xlsx",
        [["slide_id", "patient_id"], ["16B0001851", 7], ["17B0022786K", 7]],
    )
    found = {
        one.id: one
        for one in (getattr(r, "sample", None) for r in adapter_named("sicapv2_patches").read(tmp_path))
        if one
    }
    groups = {key.split("/")[1].split("_")[0]: sample.group for key, sample in found.items()}
    assert groups == {"16B0001851": "patient 7", "17B0022786": "patient 7", "18B0006169": "18B0006169"}
