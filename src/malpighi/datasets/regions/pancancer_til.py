"""PanCancer-TIL: tumour-infiltrating lymphocytes. SmartPath-R1's exam PanCancer-TIL (Table 8)."""

from pathlib import Path, PurePosixPath

from malpighi.datasets.adapter import Adapter, Entry, Survey
from malpighi.datasets.class_folders import ask_class, read_index
from malpighi.datasets.listing import one_of, root_of, stem_of, tcga_patient
from malpighi.records import Scale, Split

TOP = "TCGA-TILs"
INDEX = "images-tcga-tils-metadata.csv"
COLUMNS = ("partition", "study", "barcode", "label", "path")
REPEATED = "pancancer"
"""The study whose folder links to the images of all others."""
PARTS = {"train": Split.TRAIN, "val": Split.VALIDATION, "test": Split.TEST}
CLASSES = {
    "til-negative": "TIL-negative, no significant lymphocyte infiltration",
    "til-positive": "TIL-positive, there are at least two TILs in the image",
}


def survey_til(folder: Path) -> Survey:
    """Survey by the metadata table alone, so the links of the study `pancancer` are never walked.

    Raises:
        DataError: no table, or one without the columns.
    """
    root = root_of(folder, TOP, (INDEX,))
    entries: list[Entry] = []
    failures: list[tuple[str, str]] = []
    for number, row in enumerate(read_index(root / INDEX, COLUMNS), 1):
        stem = stem_of(row["path"], number)
        fault = _fault(root, row)
        if fault:
            failures.append((stem, fault))
        else:
            group = tcga_patient(row["barcode"])
            entries.append(Entry(stem, root / row["path"], group, row["label"], PARTS[row["partition"]]))
    return Survey(entries, failures)


def _fault(root: Path, row: dict[str, str]) -> str:
    """Why a row cannot be used; "" where it can."""
    if REPEATED in (row["study"], *PurePosixPath(row["path"]).parts):
        return "the study 'pancancer' repeats the images of all others by links"
    if row["label"] not in CLASSES:
        return f"label {one_of(row['label'], CLASSES)}"
    if row["partition"] not in PARTS:
        return f"partition {one_of(row['partition'], PARTS)}"
    if not tcga_patient(row["barcode"]):
        return f"no TCGA patient in the barcode {row['barcode']!r}"
    return "" if (root / row["path"]).is_file() else f"{INDEX} names {row['path']}, which is not there"


pancancer_til = Adapter(
    name="pancancer_til",
    title="PanCancer-TIL (TCGA-TILs): tumour-infiltrating lymphocytes of many cancers",
    licence="not verified; as on the Zenodo record",
    use="research",
    source="https://zenodo.org/records/6604094",
    layout=f"{TOP}/{{{INDEX}, images-tcga-tils/<study>/{{train,val,test}}/<label>/<barcode>_<md5>.png}}",
    scale=Scale.ROI,
    organ="",
    stain="H&E",
    counts=dict(zip(CLASSES.values(), (249190, 54910), strict=True)),
    split_rule=(
        "the official column 'partition', 209,221, 38,601 and 56,275; a patient in two goes to the later one"
    ),
    traps=(
        "The folder of the study 'pancancer' is a tree of links to all other studies: whoever walks the "
        "folders counts every image twice. Here the table decides.",
        "Images are 100 px at 0.5 micrometres per px and may have an alpha channel.",
        "By class 304,100 images are stated, by partition 304,097; the sum per class here is the former.",
        "One image in five is positive: the constant answer 'negative' is right for 82%.",
        "SmartPath-R1 prints a test of 56,275 images; its intervals fit 2,000.",
    ),
    survey=survey_til,
    ask=ask_class(CLASSES, "Does this image show tumor-infiltrating lymphocytes (TILs)?"),
)
