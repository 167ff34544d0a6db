"""SlideBench: many questions about one slide, with empty options."""

import pytest

from malpighi.config import digest
from malpighi.datasets.catalogue import adapter_named
from malpighi.datasets.whole_slides.slidebench import NARROW_CLASSES, exam_of
from malpighi.errors import DataError
from malpighi.records import Choice, Item, Split, TaskKind

pytest.importorskip("openslide", reason="needs the extra `slides`")

HEADER = "ID,Slide,Tumor,Broad Category,Narrow Category,Question,A,B,C,D,Answer\n"
FIRST, SECOND = "TCGA-05-4244-01Z-00-DX1", "TCGA-05-4245-01Z-00-DX1"
TCGA = (
    HEADER
    + f"""1,{FIRST},LUAD,Diagnosis,Grading,Which grade?,Low,High,,,B
2,{FIRST},LUAD,Clinical,Risk Factors,"Which factor,
if any?",Smoking,Age,Sex,None,D
3,{FIRST},LUAD,Diagnosis,Grading,Which grade?,Low,High,,,A
4,{FIRST},LUAD,Diagnosis,Grading,Is it?,Yes,,,,A
5,{FIRST},LUAD,Diagnosis,Grading,Was it?,Yes,No,,,C
6,{FIRST},LUAD,Diagnosis,Cooking,Is it done?,Yes,No,,,A
7,{SECOND},LUAD,Diagnosis,Staging,Which stage?,I,II,III,IV,A
8,no-barcode,LUAD,Diagnosis,Staging,Which stage?,I,II,III,IV,A
9,{FIRST},LUAD,Microscopy,Tissue Architecture,Which pattern?,Same,Same,,,A
"""
)
BCNB = """ID,Slide,Task,Question,A,B,C,D,Answer
1,7,Histological grading,Which grade?,1,2,3,,C
2,7,ER,Is ER positive?,Yes,No,,,B
"""


def suffix(question, *options):
    return digest(question, list(options))[:8]


@pytest.fixture
def build(slide):
    def write(folder):
        (folder / "SlideBench-VQA-TCGA.csv").write_text(TCGA)
        (folder / "SlideBench-VQA-BCNB.csv").write_text(BCNB)
        slide(folder / f"slides/{FIRST}.ABCD.svs", 1)
        slide(folder / "slides/no-barcode.svs", 2)
        slide(folder / "bcnb/7.jpg", 200)

    return write


def test_questions_by_narrow_class(contract, build):
    grade = suffix("Which grade?", "Low", "High")
    risk = suffix("Which factor,\nif any?", "Smoking", "Age", "Sex", "None")
    bcnb, er = suffix("Which grade?", "1", "2", "3"), suffix("Is ER positive?", "Yes", "No")
    samples = contract(
        "slidebench",
        build,
        {
            f"{FIRST}:{grade}": "grading",
            f"{FIRST}:{risk}": "risk-factors",
            f"bcnb-7:{bcnb}": "bcnb-histological-grading",
            f"bcnb-7:{er}": "bcnb-er",
        },
        {
            f"{FIRST}:{grade}:3": "same as an earlier row",
            f"{FIRST}:{suffix('Is it?', 'Yes')}:4": "fewer than two options",
            f"{FIRST}:{suffix('Was it?', 'Yes', 'No')}:5": "'C'",
            f"{FIRST}:{suffix('Is it done?', 'Yes', 'No')}:6": "cooking",
            f"{FIRST}:{suffix('Which pattern?', 'Same', 'Same')}:9": "the same",
            SECOND: "1 questions about it",
            "no-barcode": "no TCGA barcode",
        },
    )
    assert samples[f"{FIRST}:{grade}"].options == ("Low", "High")
    assert samples[f"{FIRST}:{grade}"].answer == Choice(1)
    assert samples[f"{FIRST}:{risk}"].answer == Choice(3)
    assert samples[f"{FIRST}:{risk}"].organ == "lung"
    assert samples[f"bcnb-7:{er}"].organ == "breast"
    assert samples[f"{FIRST}:{risk}"].question == "Which factor,\nif any?"
    assert {s.group for s in samples.values()} == {"TCGA-05-4244", "patient-7"}
    assert {(s.split, s.task) for s in samples.values()} == {(Split.TEST, TaskKind.VQA)}


def test_one_table_is_enough_and_none_is_refused(tmp_path, build):
    build(tmp_path)
    read = adapter_named("slidebench").read
    (tmp_path / "SlideBench-VQA-TCGA.csv").unlink()
    assert sum(isinstance(item, Item) for item in read(tmp_path)) == 2
    (tmp_path / "SlideBench-VQA-BCNB.csv").write_text(BCNB.replace("Task", "Kind"))
    with pytest.raises(DataError, match="no column Task"):
        list(read(tmp_path))
    (tmp_path / "SlideBench-VQA-BCNB.csv").write_text(BCNB.replace("Answer", "Key"))
    with pytest.raises(DataError, match="no column Answer"):
        list(read(tmp_path))
    (tmp_path / "SlideBench-VQA-BCNB.csv").unlink()
    with pytest.raises(DataError, match=r"neither SlideBench-VQA-TCGA\.csv nor"):
        list(read(tmp_path))


def test_there_are_13_exams():
    assert len({exam_of(name) for name in NARROW_CLASSES}) == 13
