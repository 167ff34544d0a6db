"""UniToPatho: colorectal polyps and the grade of adenomas. SmartPath-R1's exam UniToPatho (Table 9)."""

from pathlib import Path

from malpighi.datasets.adapter import Adapter, Entry, Survey, image_files
from malpighi.datasets.class_folders import ask_class, read_index
from malpighi.datasets.listing import one_of, root_of, stem_of
from malpighi.records import Scale, Split

TOP = "unitopatho"
FIELD = "800"
"""Micrometres: the fields of 1812 px; the folder 7000 holds other fields and is passed over."""
LISTS = {"train.csv": Split.TRAIN, "test.csv": Split.TEST}
COLUMNS = ("image_id", "top_label", "top_label_name", "wsi")
CLASSES = {
    "HP": "Hyperplastic polyp",
    "NORM": "Normal tissue",
    "TA.HG": "Tubular adenoma, high-grade dysplasia",
    "TA.LG": "Tubular adenoma, low-grade dysplasia",
    "TVA.HG": "Tubulovillous adenoma, high-grade dysplasia",
    "TVA.LG": "Tubulovillous adenoma, low-grade dysplasia",
}
_CODES = {label: str(code) for code, label in enumerate(CLASSES)}


def survey_unitopatho(folder: Path) -> Survey:
    """Survey of `800/` by its two lists; the image of a row is `<top_label_name>/<image_id>`.

    Raises:
        DataError: no folder 800, or a list that is missing or lacks a column.
    """
    root = root_of(folder, TOP, (FIELD,)) / FIELD
    files = image_files(root)
    entries: list[Entry] = []
    failures: list[tuple[str, str]] = []
    for index, split in LISTS.items():
        for number, row in enumerate(read_index(root / index, COLUMNS), 1):
            label = row["top_label_name"]
            file = f"{label}/{row['image_id']}"
            stem = stem_of(file, number)
            path = files.pop(file, None)
            if label not in CLASSES:
                failures.append((stem, f"top_label_name {one_of(label, CLASSES)}"))
            elif row["top_label"] != _CODES[label]:
                failures.append((stem, f"top_label {row['top_label']}, but {label} is {_CODES[label]}"))
            elif path is None:
                failures.append((stem, f"{index} names {file}, which is not there or named twice"))
            else:
                entries.append(Entry(stem, path, row["wsi"] or stem, label, split))
    failures += [(stem_of(name, 0), "in neither of the lists") for name in files]
    return Survey(entries, failures)


unitopatho = Adapter(
    name="unitopatho",
    title="UniToPatho: colorectal polyps and grade of dysplasia",
    licence="CC BY 4.0",
    use="any",
    source="Barbano et al. 2021, https://ieee-dataport.org/open-access/unitopatho",
    layout=f"{TOP}/800/{{train.csv,test.csv,{','.join(CLASSES)}/<image_id>}}",
    scale=Scale.ROI,
    organ="colon",
    stain="H&E",
    counts=dict(zip(CLASSES.values(), (545, 950, 454, 3618, 916, 2186), strict=True)),
    split_rule="the official lists of the 800 micrometre fields, train 6,270 and test 2,399; by slide",
    traps=(
        "Names of images hold commas and brackets within quotes, and spaces: read the lists as CSV, do not "
        "split.",
        "9,536 images are quoted for the whole set; 8,669 of them are the 800 micrometre fields used here.",
        "SmartPath-R1 lists the classes in another order than their codes.",
        "SmartPath-R1 prints a test of 2,399 images; its intervals fit about 1,000.",
        "42% of the images are low-grade tubular adenoma: read macro-F1 or balanced accuracy.",
    ),
    survey=survey_unitopatho,
    ask=ask_class(CLASSES, "What is the diagnosis of this colorectal tissue?"),
    access="login at IEEE DataPort",
)
