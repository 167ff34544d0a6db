import json

import pytest

from malpighi.datasets.catalogue import adapter_named
from malpighi.datasets.check import check
from malpighi.errors import DataError
from malpighi.records import Item


def question(number, img, **more):
    return {
        "No": number,
        "img": img,
        "question": f"What is seen in {img}, {number}?",
        "options": ["A) Acinar", "B) Solid"],
        "answer": "B) Solid",
        "explanation": "Sheets without lumina.",
        **more,
    }


@pytest.fixture
def build(put, put_json):
    def write(folder):
        for number, name in enumerate(("a.png", "b.jpg", "c.png")):
            put(folder / "images" / name, number, "JPEG" if name.endswith("jpg") else "PNG")
        (folder / "images/broken.png").write_bytes(b"")
        six = ["A) 1", "B) 2", "C) 3", "D) 4", "E) 5", "F) 6"]
        tree = {
            "Atlas": {
                "val": [question(1, "a.png", source_img="fig7")],
                "test_tiny": [
                    question(1, "b.jpg", source_img="fig7", options="['A) No', 'B) Yes']", answer="A) No"),
                    question(2, "gone.png", source_img="fig8"),
                ],
                "test": [question(1, "a.png", source_img="fig7", options=six, answer="F) 6")],
            },
            "PubMed": {
                "test": [
                    question(1, "c.png", options=["B. cereus", "E. coli", "A. niger"], answer="E. coli"),
                    question(2, "c.png", answer="C) Papillary"),
                    question(3, "c.png", answer="A) Solid"),
                    question(4, "c.png", options=["A) Solid", "B) solid"]),
                    question(5, "broken.png"),
                    question(6, "../data.json"),
                    question(7, "c.png", options="__import__('os').getcwd()"),
                    "no object",
                ],
                "train": [question(1, "b.jpg")],
                "challenge": [],
            },
            "EduContent": {"val": [question(1, "c.png", answer="B)  solid.")]},
            "SocialPath": {"val": [question(1, "tweet.jpg")]},
        }
        put_json(folder / "data.json", tree)

    return write


def test_the_published_layout_with_its_traps(contract, build):
    samples = contract(
        "pathmmu",
        build,
        {
            "Atlas-val/1": "Atlas-val",
            "Atlas-test_tiny/1": "Atlas-test_tiny",
            "Atlas-test/1": "Atlas-test",
            "PubMed-test/1": "PubMed-test",
            "PubMed-train/1": "PubMed-train",
            "EduContent-val/1": "EduContent-val",
        },
        {
            "Atlas-test_tiny/2": "books_set",
            "PubMed-test/2": "names none",
            "PubMed-test/3": "Acinar and Solid",
            "PubMed-test/4": "twice",
            "PubMed-test/5": "empty",
            "PubMed-test/6": "path below",
            "PubMed-test/7": "expected a list",
            "PubMed-test/8": "no object",
            "PubMed-challenge": "unknown part",
            "SocialPath-val/1": "posts",
        },
        needed=("data.json", "images"),
    )
    assert samples["Atlas-val/1"].options == ("Acinar", "Solid")
    assert samples["Atlas-val/1"].answer.index == 1
    assert samples["Atlas-test_tiny/1"].options == ("No", "Yes")
    assert samples["Atlas-test_tiny/1"].answer.index == 0
    assert samples["Atlas-test/1"].answer.index == 5
    assert samples["PubMed-test/1"].options == ("B. cereus", "E. coli", "A. niger")
    assert samples["PubMed-test/1"].answer.index == 1
    assert {samples[i].group for i in ("Atlas-val/1", "Atlas-test_tiny/1", "Atlas-test/1")} == {"fig7"}
    assert {str(s.split) for i, s in samples.items() if "train" not in i} == {"test"}
    assert str(samples["PubMed-train/1"].split) == "train"
    assert samples["Atlas-val/1"].facts["explanation"] == "Sheets without lumina."


def test_questions_are_counted_by_exam_and_not_by_option(build, tmp_path):
    build(tmp_path)
    found = {count.what: count for count in check(adapter_named("pathmmu"), tmp_path).counts}
    assert found["Atlas-test"] == ("Atlas-test", 799, 1)
    assert found["SocialPath-test"] == ("SocialPath-test", 1620, 0)
    assert {what for what in found if ":" in what} == {"PubMed-train: Solid"}


def test_the_expected_numbers_are_the_published_totals():
    counts = adapter_named("pathmmu").counts
    total = {
        part: sum(n for exam, n in counts.items() if exam.endswith(f"-{part}")) for part in ("val", "test")
    }
    tiny = sum(n for exam, n in counts.items() if exam.endswith("_tiny"))
    assert total["val"] == 710
    assert tiny + total["test"] == 9677


def test_an_image_with_several_questions_is_read_once(build, tmp_path, monkeypatch):
    build(tmp_path)
    path = tmp_path / "data.json"
    tree = json.loads(path.read_text())
    tree = {"PubMed": {"test": [question(n, name) for n, name in enumerate(["a.png", "c.png"] * 5)]}}
    path.write_text(json.dumps(tree))
    reads = []
    real = type(path).read_bytes
    monkeypatch.setattr(type(path), "read_bytes", lambda self: reads.append(self.name) or real(self))
    items = [i for i in adapter_named("pathmmu").read(tmp_path) if isinstance(i, Item)]
    assert len(items) == 10
    assert sorted(name for name in reads if name != "data.json") == ["a.png", "c.png"]


@pytest.mark.parametrize("text", ["[", "[]", '{"Atlas": 3}'])
def test_a_damaged_index_is_one_error(build, tmp_path, text):
    build(tmp_path)
    (tmp_path / "data.json").write_text(text)
    with pytest.raises(DataError, match=r"data\.json|no usable"):
        list(adapter_named("pathmmu").read(tmp_path))


@pytest.mark.parametrize("place", ["pathmmu", "pathmmu/arch", "arch"])
def test_images_of_atlas_are_found_in_arch_by_their_source(build, put, tmp_path, place):
    build(tmp_path / "pathmmu")
    origin = "books_set/images/u7.png"
    put(tmp_path / place / origin, 9)
    tree = {"Atlas": {"val": [question(1, "not-there.png", source_img=origin)]}}
    (tmp_path / "pathmmu/data.json").write_text(json.dumps(tree))
    (item,) = adapter_named("pathmmu").read(tmp_path / "pathmmu")
    assert item.sample.group == origin
    (tmp_path / place / origin).rename(tmp_path / "elsewhere.png")
    with pytest.raises(DataError, match="books_set"):
        list(adapter_named("pathmmu").read(tmp_path / "pathmmu"))
