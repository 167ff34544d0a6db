"""What the check counts as a duplicate: one image in two entries, not two questions about one."""

import shutil
from dataclasses import replace

import pytest
from PIL import Image

from malpighi.datasets.adapter import Adapter, Asked, Entry, Survey
from malpighi.datasets.check import check
from malpighi.records import Choice, Scale, TaskKind


def ask_twice(entry, _):
    for suffix in (":a", ":b"):
        yield Asked("class", TaskKind.CLASSIFICATION, "Which?", Choice(0), ("x", "y"), suffix=suffix)


def survey(folder):
    return Survey([Entry(p.stem, p, p.stem.partition("-")[0], "x") for p in sorted(folder.glob("*.png"))], [])


ADAPTER = Adapter(
    name="made", title="Made up", licence="CC0", use="any", source="a test", layout="<name>.png",
    scale=Scale.ROI, organ="", stain="", counts={}, split_rule="by name", traps=(), survey=survey,
    ask=ask_twice,
)  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    for number, name in enumerate(("p1-a", "p2-a")):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"{name}.png")
    return tmp_path


def test_questions_about_one_image_are_no_duplicates(folder):
    assert check(ADAPTER, folder).twins == ()


def test_copies_of_an_image_are_one_duplicate_with_an_id_of_each_entry(folder):
    shutil.copy(folder / "p1-a.png", folder / "p3-a.png")
    (twins,) = check(ADAPTER, folder).twins
    assert [name.split(":")[0] for name in twins.ids] == ["made/p1-a", "made/p3-a"]
    assert twins.groups == ("p1", "p3")


def test_where_images_repeat_only_copies_in_several_groups_are_told(folder):
    shutil.copy(folder / "p1-a.png", folder / "p1-b.png")
    repeating = replace(ADAPTER, repeats=True)
    assert check(repeating, folder).twins == ()
    assert len(check(ADAPTER, folder).twins) == 1
    shutil.copy(folder / "p1-a.png", folder / "p3-a.png")
    (twins,) = check(repeating, folder).twins
    assert twins.groups == ("p1", "p3")
