"""BRACS: folders give class and split, the workbook gives patients."""

import pytest

from malpighi.datasets.catalogue import adapter_named
from malpighi.errors import DataError
from malpighi.records import Choice, Split

pytest.importorskip("openslide", reason="needs the extra `slides`")

PLACES = {
    "BRACS_1": ("train/Group_BT/Type_N", 1),
    "BRACS_2": ("train/Group_AT/Type_FEA", 67),
    "BRACS_3": ("val/Group_MT/Type_IC", 67),
    "BRACS_4": ("val/Group_BT/Type_UDH", 4),
    "BRACS_5": ("test/Group_MT/Type_DCIS", 5),
}
HEADER = ["WSI Filename", "Patient Id", "RoI", "WSI label", "Set"]


@pytest.fixture
def build(slide, write_workbook):
    def write(folder):
        for number, (name, (place, _)) in enumerate(PLACES.items()):
            slide(folder / f"BRACS_WSI/{place}/{name}.svs", number)
        slide(folder / "BRACS_WSI/test/Group_MT/Type_DCIS/BRACS_9.svs", 9)
        slide(folder / "BRACS_WSI/test/Group_MT/Type_XX/BRACS_8.svs", 8)
        rows = [[name, patient, 3, "label", "set"] for name, (_, patient) in PLACES.items()]
        write_workbook(
            folder / "BRACS.xlsx", {"About": [["text"]], "WSI_Information": [HEADER, *rows, ["BRACS_77", 7]]}
        )

    return write


def test_classes_splits_and_patients(contract, build):
    samples = contract(
        "bracs",
        build,
        dict.fromkeys(PLACES, "class"),
        {"BRACS_9": "patient is unknown", "BRACS_8": "Type_XX"},
        needed=("BRACS.xlsx", "BRACS_WSI/train", "BRACS_WSI/val", "BRACS_WSI/test"),
    )
    assert {name: sample.answer for name, sample in samples.items()} == {
        "BRACS_1": Choice(0), "BRACS_2": Choice(3), "BRACS_3": Choice(6), "BRACS_4": Choice(2),
        "BRACS_5": Choice(5),
    }  # fmt: skip
    assert samples["BRACS_1"].split is Split.TRAIN
    assert samples["BRACS_5"].split is Split.TEST
    # Patient 67 is in two official splits; both slides go to the later one.
    assert samples["BRACS_2"].split is samples["BRACS_3"].split is Split.VALIDATION
    assert samples["BRACS_2"].group == samples["BRACS_3"].group == "patient-67"


def test_a_workbook_of_another_form_is_refused(tmp_path, build, write_workbook):
    build(tmp_path)
    for sheets, word in (
        ({"Sheet1": [HEADER]}, "WSI_Information"),
        ({"WSI_Information": [["WSI Filename", "Set"], ["BRACS_1", "a"]]}, "Patient Id"),
        ({"WSI_Information": [HEADER]}, "no row"),
    ):
        write_workbook(tmp_path / "BRACS.xlsx", sheets)
        with pytest.raises(DataError, match=word):
            list(adapter_named("bracs").read(tmp_path))
