import json

import pytest

from malpighi.datasets.catalogue import adapter_named
from malpighi.errors import DataError
from malpighi.records import Choice, Split

TRAIN = [
    {"name": "train/a-IMG001x001-0.JPG", "label": 0, "label_A": 0, "label_B": 1, "label_C": 0},
    {"name": "train/b.JPG", "label": 3},
    {"name": "train/b.JPG", "label": 2},
    {"name": "train/gone.JPG", "label": 1},
    {"name": "train/odd.JPG", "label": 4},
    {"label": 2},
]
TEST = [{"name": "test/c.JPG", "label": 2}, {"name": "test/d.JPG", "label": 1}]


def build_with(write):
    def build(folder):
        for name in ("train/a-IMG001x001-0", "train/b", "train/odd", "test/c", "test/d", "test/unlisted"):
            write(folder, f"chaoyang/{name}.JPG")
        write(folder, "chaoyang/train.json", json.dumps(TRAIN))
        write(folder, "chaoyang/test.json", json.dumps(TEST))

    return build


def test_the_layout_with_its_traps(contract, write):
    samples = contract(
        "chaoyang",
        build_with(write),
        dict.fromkeys(("train/a-IMG001x001-0", "train/b", "test/c", "test/d"), "class"),
        {
            "train/b": "named twice",
            "train/gone": "not there",
            "train/odd": "label '4'",
            "row 6": "not there",
            "test/unlisted": "neither",
        },
        needed=("chaoyang",),
    )
    assert {name: s.answer for name, s in samples.items()} == {
        "train/a-IMG001x001-0": Choice(0),
        "train/b": Choice(3),
        "test/c": Choice(2),
        "test/d": Choice(1),
    }
    assert samples["train/b"].options == ("Normal mucosa", "Serrated lesions", "Adenocarcinoma", "Adenoma")
    assert {s.split for n, s in samples.items() if n.startswith("train")} == {Split.TRAIN}
    assert {s.split for n, s in samples.items() if n.startswith("test")} == {Split.TEST}


@pytest.mark.parametrize("index", ["train.json", "test.json"])
@pytest.mark.parametrize("text", [None, "{", '{"name": 1}', "[3]"])
def test_a_list_that_is_missing_or_none_is_named(tmp_path, write, index, text):
    build_with(write)(tmp_path)
    (tmp_path / "chaoyang" / index).unlink()
    if text is not None:
        write(tmp_path, f"chaoyang/{index}", text)
    with pytest.raises(DataError, match=index):
        list(adapter_named("chaoyang").read(tmp_path))


def test_the_lists_may_lie_in_the_folder_itself(tmp_path, write):
    build_with(write)(tmp_path)
    ids = {
        item.sample.id
        for item in adapter_named("chaoyang").read(tmp_path / "chaoyang")
        if hasattr(item, "sample")
    }
    assert "chaoyang/test/c" in ids
