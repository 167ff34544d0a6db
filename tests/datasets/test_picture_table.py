"""Questions of one's own about pictures, from a table."""

import pytest
from PIL import Image

from malpighi.corpus import Corpus
from malpighi.datasets.picture_table import PictureTable, find_picture_tables
from malpighi.datasets.split import SplitPlan
from malpighi.errors import DataError
from malpighi.records import Boxes, Choice, Failure, Item, Scale, Split, TaskKind, Text

HEADER = "image,label,group"
FULL = f"{HEADER},question,task,options,exam,split,organ,stain,boxes,scale"


@pytest.fixture
def folder(tmp_path):
    """Eight pictures of 40 x 30 px, two of each patient."""
    (tmp_path / "sub").mkdir()
    for index in range(8):
        Image.new("RGB", (40, 30), (20 * index, 0, 0)).save(tmp_path / f"sub/s{index}.png")
    return tmp_path


def table(folder, *rows, header=HEADER):
    (folder / "tasks.csv").write_text("\n".join((header, *rows)) + "\n", encoding="utf-8-sig")
    return PictureTable("mine", folder, "CC0-1.0")


def parts(found):
    found = list(found)
    return [f.sample for f in found if isinstance(f, Item)], [f for f in found if isinstance(f, Failure)]


def test_a_table_of_labels_is_a_classification(folder, tmp_path):
    rows = [f"sub/s{i}.png,{'tumour' if i % 4 < 2 else 'normal'},p{i // 2}" for i in range(8)]
    made = table(folder, *rows)
    samples, failures = parts(made.read(SplitPlan(0.5, 0.25, 0.25)))
    assert failures == []
    assert len(made) == 8
    assert {(s.task, s.scale, s.exam, s.options) for s in samples} == {
        (TaskKind.CLASSIFICATION, Scale.ROI, "mine/classification", ("normal", "tumour"))
    }
    assert [s.answer for s in samples] == [Choice(1), Choice(1), Choice(0), Choice(0)] * 2
    assert all(not s.images[0].unmade for s in samples)
    by_group = {}
    for sample in samples:
        by_group.setdefault(sample.group, set()).add(sample.split)
    assert all(len(splits) == 1 for splits in by_group.values())
    with Corpus.create(tmp_path / "corpus") as corpus:
        for item in made.read():
            corpus.add(item)
    assert len(Corpus.open(tmp_path / "corpus").image_keys) == 8


def test_boxes_questions_and_captions(folder):
    cells = '"[[1, 2, 10.5, 20], [0, 0, 40, 30]]"'
    made = table(
        folder,
        f"sub/s0.png,mitoses,p0,,,,mitosis,test,breast,HE,{cells},",
        "sub/s0.png,apoptoses,p0,,detection,,mitosis,test,breast,HE,[],",
        "sub/s0.png,2,p0,Which grade?,vqa,1|2|3,grade,test,breast,HE,,cell",
        "sub/s1.png,HER2,p0,Which marker?,vqa,,,test,,,,",
        'sub/s2.png,"A core,\nductal.",p1,,caption,,,,,,,',
        header=FULL,
    )
    (mitoses, apoptoses, grade, marker, caption), failures = parts(made.read())
    assert failures == []
    assert mitoses.question == "Detect mitoses in pathology breast."
    assert [box.corners for box in mitoses.answer.boxes] == [(1, 2, 10.5, 20), (0, 0, 40, 30)]
    assert (mitoses.exam, mitoses.split, mitoses.stain) == ("mine/mitosis", Split.TEST, "HE")
    assert apoptoses.answer == Boxes(())
    assert apoptoses.id != mitoses.id
    assert (grade.options, grade.answer, grade.scale) == (("1", "2", "3"), Choice(1), Scale.CELL)
    assert (marker.options, marker.answer, marker.exam) == ((), Text("HER2"), "mine/vqa")
    assert (caption.answer, caption.question) == (Text("A core,\nductal."), "Describe this image.")


def test_bad_rows_are_counted_and_the_others_go_on(folder):
    (folder / "sub/broken.png").write_bytes(b"no picture")
    (folder / "sub/copy.png").write_bytes((folder / "sub/s7.png").read_bytes())
    cases = {
        "sub/none.png,a,p,,,,,": "cannot read",
        "sub/broken.png,a,p,,,,,": "not an image",
        "sub/s0.png,,p,,,,,": "no label",
        "sub/s0.png,a,,,,,,": "no group",
        "sub/s0.png,a,p,,colour,,,": "'colour'; expected one of classification, caption, detection, vqa",
        "sub/s0.png,a,p,,vqa,,,": "without a question",
        "sub/s0.png,a,p,Which?,vqa,b|c,,": "none of the options",
        "sub/s0.png,a,p,,detection,,,": "go together",
        "sub/s1.png,a,p,,caption,,[],": "go together",
        "sub/s0.png,b,p,,,,nothing,": "expected JSON",
        "sub/s0.png,c,p,,,,3,": "expected JSON",
        "sub/s0.png,d,p,,,,[[1]],": "four numbers",
        'sub/s0.png,e,p,,,,"[[0,0,41,30]]",': "does not lie in the image of 40 x 30 px",
        'sub/s0.png,f,p,,,,"[[20,20,10,10]]",': "not x, y, width, height",
        "sub/s0.png,a,p,,,,,huge": "scale 'huge'",
        "sub/s7.png,a,p,,,,,": "",
        "sub/s7.png,b,p,,,,,": "an earlier row",
        "sub/copy.png,b,q,,,,,": "same content as sub/s7.png of group 'p'",
    }
    made = table(folder, *cases, header=f"{HEADER},question,task,options,boxes,scale")
    samples, failures = parts(made.read())
    assert [s.id for s in samples] == ["mine/sub/s7.png:classification"]
    reasons = [reason for reason in cases.values() if reason]
    assert len(failures) == len(reasons)
    for failure, reason in zip(failures, reasons, strict=True):
        assert reason in failure.reason


def test_tables_that_cannot_be_read_are_refused(folder):
    for header, rows in ((HEADER, []), ("image,label", ["a,b"]), (f"{HEADER},mpp", ["a,b,c,1"])):
        with pytest.raises(DataError, match=r"no row|group|mpp"):
            list(table(folder, *rows, header=header).read())
    (folder / "tasks.csv").unlink()
    with pytest.raises(DataError, match="cannot read"):
        list(PictureTable("mine", folder, "CC0").read())


def test_tables_are_found_in_a_folder_and_below(folder):
    table(folder, "sub/s0.png,a,p")
    (folder / "sub/tasks.csv").write_text(f"{HEADER}\ns0.png,a,p\n")
    found = find_picture_tables(folder)
    assert set(found) == {folder.name, "sub"}
    assert [len(parts(one.read())[0]) for one in found.values()] == [1, 1]
