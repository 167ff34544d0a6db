"""Records about slides: from a table, and from the phantom."""

import json

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("openslide", reason="needs the extra `slides`")

from malpighi.corpus import Corpus
from malpighi.datasets.slide_tasks import SlideTable
from malpighi.datasets.split import SplitPlan
from malpighi.errors import ConfigError, DataError
from malpighi.phantom.slide_items import SlideItemSettings, drawn_slide, render_drawn, slide_items
from malpighi.phantom.slides import RenderedSlide
from malpighi.records import Choice, Failure, Item, Scale, Split, TaskKind, Text
from malpighi.slides.opening import open_slide

HEADER = "slide,label,group"


@pytest.fixture
def folder(tmp_path):
    """Eight small pictures as slides, two of each patient."""
    (tmp_path / "sub").mkdir()
    for index in range(8):
        Image.new("RGB", (40 + index, 30), "white").save(tmp_path / f"sub/s{index}.png")
    return tmp_path


def table(folder, *rows, header=HEADER):
    (folder / "slides.csv").write_text("\n".join((header, *rows)) + "\n", encoding="utf-8")
    return SlideTable("mine", folder, "CC0-1.0")


def parts(found):
    found = list(found)
    return [f.sample for f in found if isinstance(f, Item)], [f for f in found if isinstance(f, Failure)]


def test_a_table_of_labels_is_a_classification(folder):
    rows = [f"sub/s{i}.png,{'tumour' if i % 4 < 2 else 'normal'},p{i // 2}" for i in range(8)]
    samples, failures = parts(table(folder, *rows).read(SplitPlan(0.5, 0.25, 0.25)))
    assert failures == []
    assert {(s.task, s.scale, s.exam, s.options) for s in samples} == {
        (TaskKind.CLASSIFICATION, Scale.SLIDE, "mine/classification", ("normal", "tumour"))
    }
    assert [s.answer for s in samples] == [Choice(1), Choice(1), Choice(0), Choice(0)] * 2
    assert {s.question for s in samples} == {"What is the diagnosis of this slide?"}
    assert [s.images[0].size for s in samples] == [(40 + i, 30) for i in range(8)]
    assert all(s.images[0].unmade and s.images[0].slide == f"sub/s{i}.png" for i, s in enumerate(samples))
    assert len({s.images[0].key for s in samples}) == 8
    by_group = {}
    for sample in samples:
        by_group.setdefault(sample.group, set()).add(sample.split)
    assert all(len(splits) == 1 for splits in by_group.values())
    assert len(set.union(*by_group.values())) > 1


def test_questions_captions_scales_and_official_splits(folder):
    header = f"{HEADER},question,task,options,exam,split,mpp,organ,stain"
    made = table(
        folder,
        "sub/s0.png,2,p0,Which grade?,vqa,1|2|3,grade,test,0.25,breast,HE",
        "sub/s0.png,HER2,p0,Which marker is overexpressed?,vqa,,,test,0.25,breast,HE",
        'sub/s1.png,"A core, ""ductal"".",p1,,caption,,,,,,',
        header=header,
    )
    (grade, open_question, caption), failures = parts(made.read())
    assert failures == []
    assert (grade.exam, grade.options, grade.answer) == ("mine/grade", ("1", "2", "3"), Choice(1))
    assert (grade.split, grade.organ, grade.stain, grade.images[0].mpp) == (Split.TEST, "breast", "HE", 0.25)
    assert (open_question.exam, open_question.options, open_question.answer) == ("mine/vqa", (), Text("HER2"))
    assert (caption.task, caption.answer) == (TaskKind.CAPTION, Text('A core, "ductal".'))
    assert (caption.question, caption.images[0].mpp) == ("Describe this slide.", None)
    assert len({s.id for s in (grade, open_question, caption)}) == 3


def test_bad_rows_are_counted_and_the_others_go_on(folder):
    (folder / "sub/broken.png").write_bytes(b"no picture")
    header = f"{HEADER},question,task,options,split,mpp"
    made = table(
        folder,
        "sub/none.png,a,p,,,,,",
        "sub/broken.png,a,p,,,,,",
        "sub/s0.png,,p,,,,,",
        "sub/s0.png,a,,,,,,",
        "sub/s0.png,a,p,,segmentation,,,",
        "sub/s0.png,a,p,,vqa,,,",
        "sub/s0.png,a,p,,,,later,",
        "sub/s0.png,a,p,,,,,-1",
        "sub/s0.png,a,p,,,,,ten",
        "sub/s1.png,a,p,Which?,vqa,b|c,,",
        "sub/s2.png,a,p,,,,,",
        "sub/s2.png,a,p,,,,,",
        header=header,
    )
    samples, failures = parts(made.read())
    assert [s.images[0].slide for s in samples] == ["sub/s2.png"]
    reasons = [
        "there is no slide", "not an image", "no label", "no group", "segmentation", "without a question",
        "later", "mpp '-1'", "mpp 'ten'", "none of the options", "an earlier row",
    ]  # fmt: skip
    assert len(failures) == len(reasons)
    for failure, reason in zip(failures, reasons, strict=True):
        assert reason in failure.reason
        assert failure.id.startswith("mine/sub/")


def test_tables_that_cannot_be_read_are_refused(folder):
    for header, rows in ((HEADER, []), ("slide,label", ["a,b"]), (f"{HEADER},colour", ["a,b,c,d"])):
        with pytest.raises(DataError, match=r"no row|group|colour"):
            list(table(folder, *rows, header=header).read())
    (folder / "slides.csv").unlink()
    with pytest.raises(DataError, match="cannot read"):
        list(SlideTable("mine", folder, "CC0").read())


def test_samples_of_slides_are_kept_in_a_corpus(folder, tmp_path):
    made = table(folder, "sub/s0.png,a,p0", "sub/s1.png,b,p1")
    samples, _ = parts(made.read())
    with Corpus.create(tmp_path / "corpus") as corpus:
        for item in made.read():
            corpus.add(item)
    again = Corpus.open(tmp_path / "corpus")
    assert again.samples() == samples
    assert again.image_keys == []
    assert parts(made.read())[0] == samples


SMALL = SlideItemSettings(shortest=512, longest=560, mpp=1.0, pen=0.5, blur=0.5)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom-slides")
    return folder, list(slide_items(folder, 7, 4, SMALL))


def test_phantom_slides_say_what_is_true_of_them(drawn):
    folder, items = drawn
    by_slide = {}
    for item in items:
        by_slide.setdefault(item.sample.images[0].slide, {})[item.sample.exam.split("/")[1]] = item.sample
    assert len(by_slide) == 4
    for index, (name, exams) in list(enumerate(by_slide.items()))[1:3]:
        truth: RenderedSlide = render_drawn(7, drawn_slide(7, index, SMALL))
        assert exams["slide-diagnosis"].answer == Choice(int(truth.tumour.any()))
        assert exams["slide-pen"].answer == Choice(0 if truth.pen.any() else 1)
        assert exams["slide-focus"].answer == Choice(0 if truth.blurred.any() else 1)
        assert ("with carcinoma" in exams["slide-caption"].answer.value) == truth.tumour.any()
        assert exams["slide-caption"].facts["tumour"] == pytest.approx(truth.tumour.mean(), abs=1e-4)
        with open_slide(folder / name) as slide:
            assert slide.size == exams["slide-pen"].images[0].size
            assert slide.mpp == pytest.approx(1.0, rel=1e-3)
            shown = slide.read_level(0, (0, 0), slide.size)
        assert np.abs(shown.astype(int) - truth.rgb).mean() < 4


def test_phantom_slides_come_of_both_kinds_and_patients_agree(drawn):
    _, items = drawn
    diagnoses = [i.sample for i in items if i.sample.exam == "phantom/slide-diagnosis"]
    assert [s.answer.index for s in diagnoses] == [0, 0, 1, 1]
    assert len({s.group for s in diagnoses}) == 2
    plans = [drawn_slide(7, index, SMALL).settings for index in range(400)]
    for name in ("pen", "blur"):  # neither goes with carcinoma
        share = [np.mean([getattr(p, name) for p in plans if p.tumour is kind]) for kind in (True, False)]
        assert abs(share[0] - share[1]) < 0.15


def test_phantom_slides_are_drawn_once_and_again_the_same(drawn, tmp_path):
    folder, items = drawn
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert list(slide_items(folder, 7, 4, SMALL)) == items
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    second = list(slide_items(tmp_path, 7, 1, SMALL, first=2))
    assert second == items[8:12]
    assert json.loads((tmp_path / "slide-7-00002.json").read_bytes())["tumour"] > 0


def test_slides_that_cannot_be_drawn_are_refused():
    for changes in ({"shortest": 100}, {"shortest": 900, "longest": 800}, {"per_patient": 0}):
        with pytest.raises(ConfigError):
            SlideItemSettings(**changes)
