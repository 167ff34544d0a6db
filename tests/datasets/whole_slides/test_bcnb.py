"""BCNB: four questions of a clinical table about JPEG slides."""

import pytest

from malpighi.datasets.catalogue import adapter_named
from malpighi.errors import DataError
from malpighi.records import Choice, Split

pytest.importorskip("openslide", reason="needs the extra `slides`")

HEADER = ["Patient ID", "Age", "Tumour Type", "HER2", "HER2 Expression", "Histological grading"]
ROWS = [
    [1, 50, "Invasive ductal carcinoma", "Positive", "3+", 2],
    [2, 51, "Invasive lobular carcinoma", "Negative", 0, None],
    [3, 52, "Other type", "Negative", "1+", 1.0],
    [4, 53, "Sarcoma", "Negative", "2+", 3],
    [5, 54, "Other type", "Negative", "2+", 3],
]
FOUR = ("grading", "her2-expression", "her2-type", "tumor-type")


@pytest.fixture
def build(slide, write_workbook):
    def write(folder, header=HEADER):
        write_workbook(folder / "patient-clinical-data.xlsx", {"Sheet1": [header, *ROWS]})
        for number in range(1, 5):
            slide(folder / f"WSIs/{number}.jpg", 40 * number)
            (folder / f"WSIs/{number}.json").write_text("{}")
        (folder / "dataset-splitting").mkdir(exist_ok=True)
        for name, numbers in (("train", "1\n2\n"), ("val", "3\n"), ("test", "4\n5\n")):
            (folder / f"dataset-splitting/{name}_id.txt").write_text(numbers)

    return write


def test_four_exams_with_a_missing_grade(contract, build):
    expected = {f"{n}:{what}": what for n in (1, 2, 3, 4) for what in FOUR}
    del expected["2:grading"], expected["4:tumor-type"]
    samples = contract(
        "bcnb",
        build,
        expected,
        {"4:tumor-type": "sarcoma", "5": "no slide"},
        needed=(
            "patient-clinical-data.xlsx", "WSIs", "dataset-splitting/train_id.txt",
            "dataset-splitting/val_id.txt", "dataset-splitting/test_id.txt",
        ),
    )  # fmt: skip
    assert samples["1:grading"].answer == Choice(1)
    assert samples["3:grading"].answer == Choice(0)
    assert samples["1:her2-expression"].options == ("0", "1+", "2+", "3+")
    assert [samples[f"{n}:her2-expression"].answer.index for n in (1, 2, 3, 4)] == [3, 0, 1, 2]
    assert [samples[f"{n}:her2-type"].answer.index for n in (1, 2)] == [1, 0]
    assert samples["1:grading"].split is Split.TRAIN
    assert samples["4:grading"].split is Split.TEST
    assert {s.group for s in samples.values()} == {f"patient-{n}" for n in (1, 2, 3, 4)}
    assert samples["1:grading"].images[0].mpp is None
    assert len({s.images[0].key for s in samples.values()}) == 4


def test_a_table_without_a_column_is_refused(tmp_path, build):
    build(tmp_path, [*HEADER[:-1], "grade"])
    with pytest.raises(DataError, match="Histological grading"):
        list(adapter_named("bcnb").read(tmp_path))
