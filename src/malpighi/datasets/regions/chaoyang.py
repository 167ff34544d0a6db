"""Chaoyang: colon tissue, labelled by three pathologists. SmartPath-R1's exam Chaoyang (Table 5)."""

from pathlib import Path

from malpighi.datasets.adapter import Adapter, Entry, Survey, image_files
from malpighi.datasets.class_folders import ask_class
from malpighi.datasets.listing import one_of, read_records, root_of, stem_of
from malpighi.records import Scale, Split

TOP = "chaoyang"
LISTS = {"train.json": Split.TRAIN, "test.json": Split.TEST}
CLASSES = {
    "0": "Normal mucosa",
    "1": "Serrated lesions",
    "2": "Adenocarcinoma",
    "3": "Adenoma",
}


def survey_chaoyang(folder: Path) -> Survey:
    """Survey by `train.json` and `test.json`: lists of {"name": "train/x.JPG", "label": 0..3}.

    Further keys, such as the labels of single raters, are ignored.

    Raises:
        DataError: one of the lists is missing or no list of objects.
    """
    root = root_of(folder, TOP, tuple(LISTS))
    files = image_files(root)
    entries: list[Entry] = []
    failures: list[tuple[str, str]] = []
    for index, split in LISTS.items():
        for number, record in enumerate(read_records(root / index), 1):
            file, label = str(record.get("name", "")), str(record.get("label", ""))
            stem = stem_of(file, number)
            path = files.pop(file, None)
            if path is None:
                failures.append((stem, f"{index} names {file!r}, which is not there or named twice"))
            elif label not in CLASSES:
                failures.append((stem, f"label {one_of(label, CLASSES)}"))
            else:
                entries.append(Entry(stem, path, stem, label, split))
    failures += [(stem_of(name, 0), "in neither of the lists") for name in files]
    return Survey(entries, failures)


chaoyang = Adapter(
    name="chaoyang",
    title="Chaoyang: normal, serrated, adenoma and adenocarcinoma of the colon",
    licence="non-commercial, by request (not verified)",
    use="research",
    source="https://bupt-ai-cz.github.io/HSA-NRL/",
    layout=f"{TOP}/{{train.json,test.json,train/*.JPG,test/*.JPG}}",
    scale=Scale.ROI,
    organ="colon",
    stain="H&E",
    counts=dict(zip(CLASSES.values(), (1816, 1163, 2244, 937), strict=True)),
    split_rule="the official lists, train 4,021 and test 2,139; patients are not known",
    traps=(
        "Labels of the training list are noisy on purpose: three pathologists disagree. The test list holds "
        "what all three agree on, so accuracy on it says little about hard cases.",
        "Patients are not known: each image is a group of its own, so intervals by group are too narrow, and "
        "a patient on both sides of the official split would not be seen.",
        "Images are 512 px; SmartPath-R1 writes of 224 px, which is its resizing. Its intervals fit about "
        "1,000 images of 2,139.",
    ),
    survey=survey_chaoyang,
    ask=ask_class(CLASSES, "What is the diagnosis of this colon tissue?"),
    access="request form",
)
