import csv

import pytest

from malpighi.datasets.catalogue import adapter_named
from malpighi.errors import DataError
from malpighi.records import Choice, Split

INDEX = "TCGA-TILs/images-tcga-tils-metadata.csv"


def row(partition, study, barcode, label, number, path=None):
    folder = f"images-tcga-tils/{study}/{partition}/{label}"
    path = path or f"{folder}/{barcode}_{number:032x}.png"
    return {
        "partition": partition,
        "study": study,
        "barcode": barcode,
        "label": label,
        "path": path,
        "md5": f"{number:032x}",
    }


A, B, C = (f"TCGA-{code}-01A-01-BSA" for code in ("OR-A5J1", "BL-A0C8", "AR-A24Z"))
GOOD = [
    row("train", "acc", A, "til-negative", 1),
    row("val", "blca", B, "til-positive", 2),
    row("test", "brca", C, "til-positive", 3),
    row("train", "brca", C, "til-negative", 4),
]
BAD = {
    "links": row("train", "pancancer", A, "til-negative", 5),
    "label": row("train", "acc", A, "til-maybe", 6),
    "partition": row("hold", "acc", A, "til-negative", 7),
    "no TCGA patient": row("train", "acc", "slide 9", "til-negative", 8),
    "not there": row("train", "acc", A, "til-negative", 9),
}


def stem(entry):
    return entry["path"].removesuffix(".png")


def build_with(write):
    def build(folder):
        for number, entry in enumerate(GOOD + [entry for word, entry in BAD.items() if word != "not there"]):
            write(folder, f"TCGA-TILs/{entry['path']}", mode="RGBA" if number == 1 else "RGB")
        root = folder / "TCGA-TILs/images-tcga-tils"
        (root / "pancancer/train/til-positive").mkdir(parents=True)
        (root / "pancancer/train/til-positive/link.png").symlink_to(folder / "TCGA-TILs" / GOOD[1]["path"])
        with (folder / INDEX).open("w", newline="") as file:
            writer = csv.DictWriter(file, list(GOOD[0]))
            writer.writeheader()
            writer.writerows([*GOOD, *BAD.values(), {**GOOD[0], "path": ""}])

    return build


def test_the_layout_with_its_traps(contract, write):
    samples = contract(
        "pancancer_til",
        build_with(write),
        {stem(entry): "class" for entry in GOOD},
        {**{stem(entry): word for word, entry in BAD.items()}, "row 10": "not there"},
        needed=(INDEX,),
    )
    assert [samples[stem(entry)].answer for entry in GOOD] == [Choice(0), Choice(1), Choice(1), Choice(0)]
    assert samples[stem(GOOD[0])].split == Split.TRAIN
    assert samples[stem(GOOD[1])].split == Split.VALIDATION
    assert samples[stem(GOOD[2])].group == samples[stem(GOOD[3])].group == "TCGA-AR-A24Z"
    assert samples[stem(GOOD[3])].split == Split.TEST, "a patient in two partitions goes to the later"


def test_a_column_that_is_missing_is_named(tmp_path, write):
    build_with(write)(tmp_path)
    text = (tmp_path / INDEX).read_text().replace("partition", "split", 1)
    (tmp_path / INDEX).write_text(text)
    with pytest.raises(DataError, match="no column partition"):
        list(adapter_named("pancancer_til").read(tmp_path))
