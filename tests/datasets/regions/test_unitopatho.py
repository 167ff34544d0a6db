import csv

import pytest

from malpighi.datasets.catalogue import adapter_named
from malpighi.datasets.regions.unitopatho import CLASSES
from malpighi.errors import DataError
from malpighi.records import Choice, Split

ROOT = "unitopatho/800"


def image(case, label, number):
    place = f"reg000_crop_sk{number:05}_(12824,33871,1812,1812)"
    return f"{case}-{label.replace('.', '')}.ndpi_ROI__mpp0.44_{place}.png"


def row(case, label, number, **change):
    code = list(CLASSES).index(label) if label in CLASSES else 9
    name = image(case, label, number)
    return {
        "image_id": name,
        "top_label": code,
        "top_label_name": label,
        "type": label,
        "wsi": f"{case}.ndpi",
        **change,
    }


TRAIN = [row("149-B3", "HP", 3), row("149-B3", "NORM", 4), row("20-B1", "TVA.LG", 5)]
TEST = [row("77-B2", "TA.HG", 6), row("20-B1", "TA.LG", 7)]
BAD = {
    "but TA.HG is 2": row("78-B2", "TA.HG", 8, top_label=3),
    "expected one of HP": row("79-B2", "CANCER", 9),
    "not there": row("80-B2", "HP", 10),
}


def stem(entry):
    return f"{entry['top_label_name']}/{entry['image_id'].removesuffix('.png')}"


def build_with(write):
    def build(folder):
        for entry in (*TRAIN, *TEST, *list(BAD.values())[:2]):
            write(folder, f"{ROOT}/{entry['top_label_name']}/{entry['image_id']}")
        write(folder, f"{ROOT}/HP/{image('81-B1', 'HP', 11)}")
        write(folder, f"unitopatho/7000/HP/{image('81-B1', 'HP', 12)}")
        for name, rows in {"train.csv": TRAIN, "test.csv": [*TEST, *BAD.values()]}.items():
            with (folder / ROOT / name).open("w", newline="") as file:
                writer = csv.DictWriter(file, list(TRAIN[0]))
                writer.writeheader()
                writer.writerows(rows)

    return build


def test_the_layout_with_its_traps(contract, write):
    samples = contract(
        "unitopatho",
        build_with(write),
        {stem(entry): "class" for entry in (*TRAIN, *TEST)},
        {
            **{stem(entry): word for word, entry in BAD.items()},
            f"HP/{image('81-B1', 'HP', 11).removesuffix('.png')}": "neither",
        },
        needed=(ROOT, f"{ROOT}/train.csv", f"{ROOT}/test.csv"),
    )
    assert [samples[stem(entry)].answer for entry in (*TRAIN, *TEST)] == [Choice(i) for i in (0, 1, 5, 2, 3)]
    assert samples[stem(TRAIN[0])].options[3] == "Tubular adenoma, low-grade dysplasia"
    assert samples[stem(TRAIN[0])].group == samples[stem(TRAIN[1])].group == "149-B3.ndpi"
    assert samples[stem(TRAIN[0])].split == Split.TRAIN
    assert samples[stem(TRAIN[2])].split == samples[stem(TEST[1])].split == Split.TEST


def test_a_column_that_is_missing_is_named(tmp_path, write):
    build_with(write)(tmp_path)
    path = tmp_path / ROOT / "train.csv"
    path.write_text(path.read_text().replace("wsi", "slide", 1))
    with pytest.raises(DataError, match=r"train\.csv: no column wsi"):
        list(adapter_named("unitopatho").read(tmp_path))
