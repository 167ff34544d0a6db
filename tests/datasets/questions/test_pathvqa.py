import os
import pickle

import pyarrow.parquet as pq
import pytest

from malpighi.corpus import decode_image
from malpighi.datasets.catalogue import adapter_named
from malpighi.datasets.check import check
from malpighi.errors import DataError
from malpighi.records import Failure, Item


def row(image, question, answer):
    return {"image": image, "question": question, "answer": answer}


@pytest.fixture
def parquet(put_parquet, image_bytes):
    def write(folder):
        one, two, cmyk = image_bytes(1), image_bytes(2), image_bytes(3, "JPEG", "CMYK")
        train = [
            row(one, "Is this liver?", "yes"),
            row(one, "What is this?", "Yes, liver"),
            row(two, "Is it normal?", "No"),
            row(two, "Why?", ""),
            row(b"no image", "What?", "fat"),
        ]
        put_parquet(folder / "data/train-00000-of-00002-ab12.parquet", train)
        put_parquet(folder / "data/train-00001-of-00002-ab12.parquet", [row(one, "And this?", "bile")])
        put_parquet(
            folder / "data/validation-00000-of-00001.parquet", [row(cmyk, "Is it a gross image?", "yes")]
        )
        put_parquet(
            folder / "data/test-00000-of-00001.parquet", [row(image_bytes(4), "Where?", "in the liver")]
        )
        put_parquet(folder / "data/extra.parquet", [row(one, "?", "no")])

    return write


@pytest.fixture
def pickles(put):
    def write(folder):
        tables = {
            "train": [
                row("train_0001", "Is this liver?", "yes"),
                row("train_0002", "What is this?", "fat"),
                row("train_0009", "Is it gone?", "yes"),
                {"image": "train_0001", "question": "And?", "answer": None},
            ],
            "val": [row("val_0001", "Is it normal?", "no")],
            "test": [row("test_0001", "Is this the same?", "Yes"), row("../train/train_0001", "Out?", "no")],
        }
        for part, rows in tables.items():
            path = folder / f"pvqa/qas/{part}/{part}_qa.pkl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(pickle.dumps(rows))
        for number, name in enumerate(("train/train_0001", "train/train_0002", "val/val_0001")):
            put(folder / f"pvqa/images/{name}.jpg", number, "JPEG")
        put(folder / "pvqa/images/test/test_0001.jpg", 1, "JPEG")

    return write


def test_the_parquet_release(contract, parquet):
    first = "train-00000-of-00002-ab12"
    samples = contract(
        "pathvqa",
        parquet,
        {
            f"{first}/0-0": "closed",
            f"{first}/0-1": "open",
            f"{first}/1-0": "closed",
            "train-00001-of-00002-ab12/0-0": "open",
            "validation-00000-of-00001/0-0": "closed",
            "test-00000-of-00001/0-0": "open",
        },
        {f"{first}/1-1": "no answer", f"{first}/2-0": "not an image", "extra.parquet": "no known part"},
    )
    assert samples[f"{first}/0-0"].options == ("yes", "no")
    assert samples[f"{first}/1-0"].answer.index == 1
    assert samples[f"{first}/0-1"].answer.value == "Yes, liver"
    assert samples[f"{first}/0-0"].group == samples["train-00001-of-00002-ab12/0-0"].group
    assert {str(s.split) for i, s in samples.items() if i.startswith("train")} == {"train"}
    assert str(samples["test-00000-of-00001/0-0"].split) == "test"
    assert str(samples["validation-00000-of-00001/0-0"].split) == "validation"


def test_a_cmyk_figure_is_shown_as_rgb(parquet, tmp_path):
    parquet(tmp_path)
    items = [i for i in adapter_named("pathvqa").read(tmp_path) if isinstance(i, Item)]
    item = next(i for i in items if "gross" in i.sample.question)
    assert decode_image(item.blobs[0].data).mode == "RGB"
    assert item.blobs[0].suffix == ".jpg"


def test_the_first_release(contract, pickles):
    samples = contract(
        "pathvqa",
        pickles,
        {"train/0": "closed", "train/1": "open", "val/0": "closed", "test/0": "closed"},
        {"train/2": "no image", "train/3": "no answer", "test/1": "path below"},
        needed=("pvqa/images", "pvqa/qas", "pvqa/qas/test/test_qa.pkl", "pvqa/images/val"),
    )
    # The same bytes lie under train and test, so both are for testing.
    assert samples["train/1"].group == samples["test/0"].group
    assert str(samples["train/1"].split) == "test"
    assert str(samples["train/0"].split) == "train"


class Evil:
    def __reduce__(self):
        return (os.mkdir, ("owned",))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_would_run_something_is_refused_unread(pickles, tmp_path, monkeypatch, protocol):
    monkeypatch.chdir(tmp_path)
    pickles(tmp_path)
    path = tmp_path / "pvqa/qas/train/train_qa.pkl"
    path.write_bytes(pickle.dumps([Evil()], protocol))
    with pytest.raises(DataError, match="could run a program"):
        list(adapter_named("pathvqa").read(tmp_path))
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("data", [b"", b"\x80\x04", b"garbage", pickle.dumps({"a": 1}), pickle.dumps([1])])
def test_a_damaged_pickle_is_one_error(pickles, tmp_path, data):
    pickles(tmp_path)
    (tmp_path / "pvqa/qas/val/val_qa.pkl").write_bytes(data)
    with pytest.raises(DataError, match="val_qa"):
        list(adapter_named("pathvqa").read(tmp_path))


def test_a_parquet_file_cut_short_or_without_a_column_is_named(parquet, put_parquet, image_bytes, tmp_path):
    parquet(tmp_path)
    path = tmp_path / "data/test-00000-of-00001.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="test-00000"):
        list(adapter_named("pathvqa").read(tmp_path))
    put_parquet(path, [{"image": image_bytes(1), "question": "?"}])
    with pytest.raises(DataError, match="no column answer"):
        list(adapter_named("pathvqa").read(tmp_path))


def test_a_damaged_row_group_costs_only_its_own_rows(put_parquet, image_bytes, tmp_path):
    rows = [row(image_bytes(n), f"What is {n}?", "fat") for n in range(6)]
    path = tmp_path / "data/train-0.parquet"
    put_parquet(path, rows)
    start = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    data = bytearray(path.read_bytes())
    data[start : start + 20] = b"\xff" * 20
    path.write_bytes(data)
    found = list(adapter_named("pathvqa").read(tmp_path))
    assert {f.id for f in found if isinstance(f, Failure)} == {"pathvqa/train-0/1-0"}
    assert sorted(i.sample.question for i in found if isinstance(i, Item)) == [
        f"What is {n}?" for n in (0, 1, 4, 5)
    ]


def test_the_parts_are_counted(parquet, tmp_path):
    parquet(tmp_path)
    counts = {count.what: count for count in check(adapter_named("pathvqa"), tmp_path).counts}
    assert counts["train"] == ("train", 19654, 4)
    assert counts["test"] == ("test", 6719, 1)
    assert counts["closed: yes"].found == 2
