import csv

import pytest

from malpighi.datasets.catalogue import adapter_named
from malpighi.datasets.questions.quilt1m import survey_quilt1m
from malpighi.errors import DataError


def test_pathcap_as_described(contract, put, put_json):
    def build(folder):
        put(folder / "images/a.jpg", 1, "JPEG")
        put(folder / "images/b.jpg", 2, "JPEG")
        rows = [
            {"image": "a.jpg", "caption": "A  lipoma."},
            {"id": "x7", "image": "images/b.jpg", "caption": "A wart."},
            {"image": "gone.jpg", "caption": "Gone."},
            {"image": "a.jpg"},
        ]
        put_json(folder / "PathCap.json", rows)

    samples = contract(
        "pathcap",
        build,
        {"PathCap#0": "caption", "x7": "caption"},
        {"PathCap#2": "no image", "PathCap#3": "no caption"},
        needed=("images",),
    )
    assert samples["PathCap#0"].answer.value == "A lipoma."
    assert {str(s.split) for s in samples.values()} == {"train"}


def said(*texts):
    return [{"from": "human" if place % 2 == 0 else "gpt", "value": text} for place, text in enumerate(texts)]


def test_pathinstruct_every_answer_in_its_turn(contract, put, put_json):
    def build(folder):
        put(folder / "images/a.jpg", 1, "JPEG")
        rows = [
            {
                "id": "1",
                "image": "a.jpg",
                "conversations": said("<image>\nWhat?", "Fat.", "Why?", "It is clear."),
            },
            {"id": "2", "image": "a.jpg", "conversations": said("What?", "Fat.", "And?")},
            {"id": "3", "image": "a.jpg", "conversations": said("<image>", "Fat.")},
            {"id": "4", "image": "a.jpg"},
            {"id": "5", "conversations": said("What?", "Fat.")},
        ]
        put_json(folder / "PathInstruct.json", rows)

    samples = contract(
        "pathinstruct",
        build,
        {"1:0": "conversation", "1:1": "conversation"},
        {"2": "by turns", "3": "empty turn", "4": "no conversations", "5": "no image"},
        needed=("images",),
    )
    assert [turn.text for turn in samples["1:1"].turns] == ["What?", "Fat.", "Why?"]
    assert [turn.role for turn in samples["1:1"].turns] == ["user", "assistant", "user"]
    assert samples["1:0"].answer.value == "Fat."
    assert samples["1:1"].answer.value == "It is clear."


def test_a_folder_without_lists_says_what_is_missing(put, tmp_path):
    put(tmp_path / "images/a.jpg", 1, "JPEG")
    with pytest.raises(DataError, match="no JSON list"):
        list(adapter_named("pathcap").read(tmp_path))


HEADER = ["Unnamed: 0", "caption", "image_path", "subset", "split", "pathology", "roi_text", "noisy_text"]
HEADER += [
    "corrected_text",
    "med_umls_ids",
    "magnification",
    "height",
    "width",
    "single_wsi",
    "not_histology",
]
FRAME = "04ktJuzyNfk_image_{}.jpg"


def quilt_row(number, caption, image, split="train", not_histology="0"):
    lists = ["['x, y']"] * 5
    return [number, caption, image, "quilt", split, *lists, "1", "512", "512", "0", not_histology]


@pytest.fixture
def quilt(put):
    def write(folder):
        rows = [
            quilt_row(0, "Fat,\nin a line of its own", FRAME.format(1)),
            quilt_row(1, "More of it", FRAME.format(1)),
            quilt_row(2, "More of it", FRAME.format(1)),
            quilt_row(3, "The same video", FRAME.format(2)),
            quilt_row(4, "A fly", FRAME.format(3), not_histology="1.0"),
            quilt_row(5, "Gone", "gone.jpg"),
            quilt_row(6, "Another", "other.png", split="val"),
            quilt_row(7, "Odd", FRAME.format(3), split="holdout"),
            [8, "short"],
        ]
        folder.mkdir(exist_ok=True)
        with (folder / "quilt_1M_lookup.csv").open("w", newline="") as file:
            csv.writer(file).writerows([HEADER, *rows])
        put(folder / "images_part_1/quilt_1m" / FRAME.format(1), 1, "JPEG")
        put(folder / "images_part_2/quilt_1m" / FRAME.format(2), 2, "JPEG")
        put(folder / "images_part_2/quilt_1m" / FRAME.format(3), 3, "JPEG")
        put(folder / "images_part_2/quilt_1m/other.png", 4)

    return write


def test_quilt1m_with_its_traps(contract, quilt):
    one, two = FRAME.format(1), FRAME.format(2)
    samples = contract(
        "quilt1m",
        quilt,
        dict.fromkeys((f"{one}:0", f"{one}:1", f"{two}:0", "other.png:0"), "caption"),
        {
            "quilt_1M_lookup.csv#5": "not histology",
            "quilt_1M_lookup.csv#9": "2 fields",
            "gone.jpg": "no image",
            FRAME.format(3): "holdout",
        },
        needed=("quilt_1M_lookup.csv",),
    )
    assert samples[f"{one}:0"].answer.value == "Fat,\nin a line of its own"
    assert samples[f"{one}:0"].images == samples[f"{one}:1"].images
    assert samples[f"{one}:0"].group == samples[f"{two}:0"].group == "04ktJuzyNfk"
    assert str(samples["other.png:0"].split) == "validation"


def test_quilt1m_without_images_or_columns_is_one_error(quilt, tmp_path):
    quilt(tmp_path)
    table = tmp_path / "quilt_1M_lookup.csv"
    table.write_text(table.read_text().replace("subset", "set", 1))
    with pytest.raises(DataError, match="no column subset"):
        survey_quilt1m(tmp_path)
    for part in tmp_path.glob("images_part_*"):
        part.rename(tmp_path / f"renamed-{part.name}")
    with pytest.raises(DataError, match="images_part_<k>"):
        survey_quilt1m(tmp_path)
