from collections import defaultdict

import pytest

from malpighi.datasets.catalogue import adapter_named
from malpighi.errors import DataError
from malpighi.records import Failure


@pytest.fixture
def build(put, put_json):
    def write(folder):
        books, pubmed = folder / "ARCH/books_set", folder / "ARCH/pubmed_set"
        put_json(
            books / "captions.json",
            {
                "0": {"figure_id": "00", "letter": "A", "caption": "Two views  of a\nlipoma.", "uuid": "u0"},
                "1": {"figure_id": "00", "letter": "B", "caption": "Two views of a lipoma.", "uuid": "u1"},
                "2": {
                    "figure_id": "7",
                    "letter": "Single",
                    "caption": "Two views of a lipoma.",
                    "uuid": "u2",
                },
                "3": {"figure_id": "8", "letter": "Single", "caption": "A scar.", "uuid": "gone"},
                "4": {"figure_id": "9", "letter": "Single", "caption": " ", "uuid": "u4"},
                "5": {"figure_id": "7", "letter": "B", "caption": "Another panel.", "uuid": "u5"},
                "6": "no object",
            },
        )
        for number in range(6):
            put(books / f"images/u{number}.png", number)
        put_json(
            pubmed / "captions.json",
            {"0": {"caption": "A wart.", "uuid": "p0"}, "1": {"caption": "A wart.", "uuid": "p1"}},
        )
        put(pubmed / "images/p0.jpg", 10, "JPEG")
        put(pubmed / "images/p1.png", 11)
        (pubmed / "images/._p1.png").write_bytes(b"\x00")

    return write


def test_the_published_layout_with_its_traps(contract, build):
    books = dict.fromkeys((f"books_set/u{n}" for n in (0, 1, 2, 5)), "books_set")
    samples = contract(
        "arch",
        build,
        books | dict.fromkeys(("pubmed_set/p0", "pubmed_set/p1"), "pubmed_set"),
        {
            "books_set/gone": "no image images/gone",
            "books_set/u4": "empty caption",
            "books_set/6": "no uuid",
        },
        needed=("ARCH/books_set/captions.json", "ARCH/books_set/images", "ARCH/pubmed_set/images"),
    )
    # All images of a caption can be found by it: their answers are the same words.
    found = defaultdict(set)
    for name, sample in samples.items():
        found[sample.answer.value].add(name)
    assert found["Two views of a lipoma."] == {"books_set/u0", "books_set/u1", "books_set/u2"}
    assert found["A wart."] == {"pubmed_set/p0", "pubmed_set/p1"}
    # Figure 7 is tied to figure 00 by a caption, and its other panel with it.
    assert len({samples[f"books_set/u{n}"].group for n in (0, 1, 2, 5)}) == 1
    assert samples["books_set/u0"].group != samples["pubmed_set/p0"].group
    assert samples["books_set/u1"].facts == {"figure_id": "00", "letter": "B"}


def test_one_set_alone_is_read_and_the_other_is_named(build, tmp_path):
    build(tmp_path)
    (tmp_path / "ARCH/pubmed_set").rename(tmp_path / "elsewhere")
    failures = [f for f in adapter_named("arch").read(tmp_path) if isinstance(f, Failure)]
    assert "arch/pubmed_set" in {f.id for f in failures}
    (tmp_path / "ARCH/books_set").rename(tmp_path / "elsewhere too")
    with pytest.raises(DataError, match="no folder books_set and no folder pubmed_set"):
        list(adapter_named("arch").read(tmp_path))
