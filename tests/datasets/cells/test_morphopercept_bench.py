import pytest

from malpighi.datasets.catalogue import adapter_named
from malpighi.datasets.cells.morphopercept_bench import CRITERIA
from malpighi.errors import DataError
from malpighi.records import Choice

ROWS = """id,criterion,label,annotator_1,annotator_2
c1,NA,1,1,0
c1,NE,0,0,0
c1,Koilocyte,1,1,1
c2,NA,0,0,1
c2,NC,1,1,1
c3,NCR,2,,
c3,Colour,1,,
c4,NM,1,1,1
c4,NM,0,1,1
gone,NA,1,1,1
"""


def build_with(write):
    def build(folder):
        for name in ("c1.png", "c2.jpg", "c3.png", "c4.png", "unlabelled.png"):
            write(folder, f"images/{name}")
        write(folder, "labels.csv", ROWS)

    return build


def test_nine_criteria_and_na_is_one_of_them(contract, write):
    samples = contract(
        "morphopercept_bench",
        build_with(write),
        {
            "c1:NA": "NA",
            "c1:NE": "NE",
            "c1:Koilocyte": "Koilocyte",
            "c2:NA": "NA",
            "c2:NC": "NC",
            "c4:NM": "NM",
        },
        {
            "c3:NCR": "label '2'",
            "c3:Colour": "criterion 'Colour'",
            "c4:NM#0": "named twice",
            "gone": "no image",
            "unlabelled": "not in labels.csv",
        },
        needed=("images", "labels.csv"),
    )
    assert samples["c1:NA"].question == "Is there nuclear atypia?"
    assert samples["c1:NA"].answer == Choice(1)
    assert samples["c2:NA"].answer == Choice(0)
    assert samples["c2:NC"].options[samples["c2:NC"].answer.index] == "two or more"
    assert samples["c1:NA"].group == samples["c1:NE"].group == "c1"
    assert samples["c1:NA"].images == samples["c1:NE"].images


def test_the_criteria_are_the_nine_published_with_two_answers_each():
    assert list(CRITERIA) == ["NE", "NA", "NH", "Koilocyte", "CT", "Nucleolus", "NC", "NCR", "NM"]
    assert all(len(set(criterion.options)) == 2 for criterion in CRITERIA.values())


def test_a_column_that_is_missing_is_named(tmp_path, write):
    write(tmp_path, "images/c1.png")
    write(tmp_path, "labels.csv", "id,axis,label\nc1,NA,1\n")
    with pytest.raises(DataError, match="no column criterion"):
        list(adapter_named("morphopercept_bench").read(tmp_path))
