import shutil

import pytest

from malpighi.datasets.catalogue import adapter_named
from malpighi.datasets.check import check
from malpighi.errors import DataError

VIDEO = "04ktJuzyNfk"


def question(number, image, kind, answer, **more):
    return {
        "id": number,
        "image": image,
        "question": f"Question {number}?",
        "answer": answer,
        "answer_type": kind,
        **more,
    }


ROWS = [
    question(0, f"{VIDEO}_roi_1.jpg", "OPEN", "Squamous pearls."),
    question(1, f"{VIDEO}_roi_1.jpg", "CLOSED", "Yes, it is typical.", yes_no_answer="Yes"),
    question(2, f"{VIDEO}_roi_2.jpg", "CLOSED", "The margin is not involved.", yes_no_answer="no"),
    question(3, f"{VIDEO}_roi_2.jpg", "CLOSED", "Yes, without the field."),
    question(4, "other.png", "OPEN", "Melanin."),
    question(5, "gone.jpg", "OPEN", "Unknown."),
    question(6, "other.png", "GUESS", "?"),
]
SAMPLES = {"0": "open", "1": "closed", "2": "closed", "4": "open"}
FAILURES = {"3": "expected yes or no", "5": "no image", "6": "expected OPEN or CLOSED"}


@pytest.fixture
def unpacked(put, put_json):
    def write(folder):
        put_json(folder / "quiltvqa_test_w_ans.json", ROWS)
        for number, name in enumerate((f"{VIDEO}_roi_1.jpg", f"{VIDEO}_roi_2.jpg", "other.png")):
            put(folder / "quilt_vqa/images" / name, number, "PNG" if name.endswith("png") else "JPEG")

    return write


@pytest.fixture
def table(put_json, put_parquet, image_bytes):
    def write(folder):
        put_json(folder / "quiltvqa_test_w_ans.json", ROWS)
        first = {row["image"]: row for row in reversed(ROWS) if row["image"] != "gone.jpg"}
        rows = [
            {
                "image": image_bytes(number, "JPEG"),
                "question": f" {row['question']}",
                "answer": row["answer"],
                "answer_type": row["answer_type"],
                "context": "",
            }
            for number, row in enumerate(first.values())
        ]
        put_parquet(folder / "data/train-00000-of-00001.parquet", rows)

    return write


@pytest.mark.parametrize("release", ["unpacked", "table"])
def test_both_ways_to_the_images_give_the_same_questions(contract, request, release):
    needed = ("quiltvqa_test_w_ans.json", "quilt_vqa" if release == "unpacked" else "data")
    samples = contract("quilt_vqa", request.getfixturevalue(release), SAMPLES, FAILURES, needed=needed)
    assert [samples[i].answer.index for i in ("1", "2")] == [0, 1]
    assert samples["2"].facts["sentence"] == "The margin is not involved."
    assert samples["0"].images == samples["1"].images != samples["2"].images
    assert {samples[i].group for i in ("0", "1", "2")} == {VIDEO}
    assert samples["4"].group == "other.png"
    assert {str(s.split) for s in samples.values()} == {"test"}


def test_closed_and_open_are_counted_whole(unpacked, tmp_path):
    unpacked(tmp_path)
    found = {count.what: count for count in check(adapter_named("quilt_vqa"), tmp_path).counts}
    assert found == {"closed": ("closed", 343, 2), "open": ("open", 940, 2)}


def test_neither_images_nor_table_is_one_error(unpacked, tmp_path):
    unpacked(tmp_path)
    shutil.rmtree(tmp_path / "quilt_vqa")
    with pytest.raises(DataError, match=r"no folder quilt_vqa/images, and no Parquet file in data"):
        list(adapter_named("quilt_vqa").read(tmp_path))
