"""CAMELYON16 and 17: labels by folder, by a table without a header, and by a table of patients and nodes."""

import pytest

from malpighi.datasets.catalogue import adapter_named
from malpighi.errors import DataError
from malpighi.records import Choice, Item, Split

pytest.importorskip("openslide", reason="needs the extra `slides`")

LABELS = """patient,stage
patient_000.zip,pN0
patient_000_node_0.tif,negative
patient_000_node_1.tif,itc
patient_001.zip,pN2
patient_001_node_0.tif,macro
patient_001_node_1.tif,micro
patient_001_node_2.tif,negative
patient_001_node_3.tif,unsure
"""


@pytest.fixture
def build(slide):
    def write(folder):
        first, second = folder / "CAMELYON16", folder / "CAMELYON17"
        slide(first / "training/normal/normal_001.tif", 1)
        slide(first / "training/tumor/tumor_001.tif", 2)
        slide(first / "testing/images/test_001.tif", 3)
        slide(first / "testing/images/test_002.tif", 4)
        slide(first / "testing/images/test_049.tif", 4)  # a duplicate that the reference leaves out
        (first / "testing/reference.csv").write_text(
            "test_001,Tumor,IDC,Macro\ntest_002,Normal,None,None\ntest_003,Normal,None,None\n"
        )
        slide(second / "training/center_0/patient_000_node_0.tif", 5)
        slide(second / "training/center_0/patient_000_node_1.tif", 6)
        slide(second / "training/center_1/patient_001_node_0.tif", 7)
        slide(second / "training/center_1/patient_001_node_1.tif", 7)
        (second / "training/center_1/patient_001_node_2.tif").write_bytes(b"II*\x00 corrupt")
        (second / "training/stage_labels.csv").write_text(LABELS)

    return write


def test_labels_splits_patients_and_traps(contract, build):
    samples = contract(
        "camelyon",
        build,
        dict.fromkeys(
            (
                "normal_001", "tumor_001", "test_001", "test_002", "patient_000_node_0",
                "patient_000_node_1", "patient_001_node_0",
            ),
            "class",
        ),
        {
            "test_049": "gives it no label",
            "test_003": "no slide",
            "patient_001_node_1": "same bytes",
            "patient_001_node_2": "cannot be read as a slide",
            "patient_001_node_3": "unsure",
        },
        needed=(
            "CAMELYON16/training/tumor", "CAMELYON16/training/normal", "CAMELYON16/testing/reference.csv",
            "CAMELYON17/training/stage_labels.csv",
        ),
    )  # fmt: skip
    tumours = {name for name, sample in samples.items() if sample.answer == Choice(1)}
    assert tumours == {"tumor_001", "test_001", "patient_000_node_1", "patient_001_node_0"}  # itc is tumour
    assert {n for n, s in samples.items() if s.split is Split.TEST} == {"test_001", "test_002"}
    assert samples["patient_000_node_0"].group == samples["patient_000_node_1"].group == "patient_000"
    assert samples["normal_001"].group == "normal_001"
    assert samples["normal_001"].images[0].slide == "CAMELYON16/training/normal/normal_001.tif"


def test_one_part_is_enough_and_none_is_refused(tmp_path, build):
    build(tmp_path)
    read = adapter_named("camelyon").read
    (tmp_path / "CAMELYON16").rename(tmp_path / "later")
    assert {item.sample.group for item in read(tmp_path) if isinstance(item, Item)} == {
        "patient_000", "patient_001",
    }  # fmt: skip
    (tmp_path / "CAMELYON17/training/stage_labels.csv").rename(tmp_path / "CAMELYON17/stage_labels.csv")
    assert sum(isinstance(item, Item) for item in read(tmp_path)) == 3
    (tmp_path / "CAMELYON17").rename(tmp_path / "gone")
    with pytest.raises(DataError, match="neither CAMELYON16 nor CAMELYON17"):
        list(read(tmp_path))
